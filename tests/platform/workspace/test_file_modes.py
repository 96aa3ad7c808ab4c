"""Whoever shares a workspace can read what others wrote: the umask decides, for every kind of file."""

import os
import stat
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from crossfold.platform.execution.run_cell import attempt_cell
from crossfold.platform.export.backbone_weights import write_backbones
from crossfold.platform.export.predictions_table import tidy, write_table
from crossfold.platform.features import fold_fitting
from crossfold.platform.training import checkpoint
from crossfold.platform.workspace.merge import merge
from crossfold.platform.workspace.workspace import Workspace


@pytest.fixture(params=[0o002, 0o027], ids=oct)
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def assert_modes(folder, umask):
    """Of all files and folders below a folder, none of which may be temporary."""
    found = sorted(folder.rglob("*"))
    assert found
    for path in found:
        widest = 0o777 if path.is_dir() else 0o666
        assert stat.S_IMODE(path.stat().st_mode) == widest & ~umask, path
        assert not path.name.startswith("."), path


def test_cells_and_what_is_made_of_them(umask, workspace, tiny_cell, tmp_path):
    cell = tiny_cell("concat")
    assert attempt_cell(cell, workspace).status == "done"
    assert_modes(workspace.paths.cells, umask)
    other = Workspace(tmp_path / "other")
    merge(other, [workspace])
    assert_modes(other.paths.cells, umask)
    record = workspace.read(cell.cell_id)
    for name in ("table.csv", "table.parquet"):
        write_table(tmp_path / "tables" / name, tidy([(record.cell, record.predictions)]))
    assert_modes(tmp_path / "tables", umask)


def test_checkpoints(umask, tmp_path):
    checkpoint.write(tmp_path / "last.pt", {"epoch": 3})
    assert checkpoint.read(tmp_path / "last.pt") == {"epoch": 3}
    assert_modes(tmp_path, umask)


def test_exported_backbones(umask, tmp_path):
    save_file({"frames.visual.net.0.weight": torch.ones(2)}, tmp_path / "best.safetensors")
    recipe = SimpleNamespace(backbones={"visual": "resnet50"}, name="r")
    cell = SimpleNamespace(recipe=recipe, label="c", cell_id="0" * 16, corpus="x", fold=0)
    record = SimpleNamespace(cell=cell, file=lambda name: tmp_path / name)
    (written,) = write_backbones(record, tmp_path / "out")
    assert written.parent == tmp_path / "out"
    assert_modes(tmp_path / "out", umask)


def test_features_of_folds(umask, tmp_path, monkeypatch):
    network = SimpleNamespace(backbone=SimpleNamespace(width=2), batch=4, encode=lambda rows: rows[:, :2])
    monkeypatch.setattr(fold_fitting, "network_of", lambda task, extractor: network)
    monkeypatch.setattr(fold_fitting, "stored", lambda *names: (np.ones((6, 3), np.float32), np.ones(6, bool)))
    clip = SimpleNamespace(info=SimpleNamespace(name="clip"))
    task = SimpleNamespace(scratch=tmp_path / "scratch", clip=clip)
    standards = {0: SimpleNamespace(mean=np.float32(0), std=np.float32(1))}
    fold_fitting.encode_folds(fold_fitting.FoldTask(task, SimpleNamespace(modality="audio"), standards))
    (path,) = (tmp_path / "scratch" / "clip").iterdir()
    assert np.load(path).shape == (6, 2)
    assert_modes(tmp_path / "scratch", umask)
