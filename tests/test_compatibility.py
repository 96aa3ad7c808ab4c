"""What users of commit ed74c6d own goes on working: workspace, sweeps, MLflow store, plug-ins, entry points.

Its cells are of protocol 2. They stay what they are: reports show them under that label, and a resumed sweep says how
many of its cells it computes again under today's protocol, and why.

`fixtures/workspace-ed74c6d.tar.xz` was made by that commit: seven finished cells of three sweeps, one cell that was
stopped after epoch 11, and the leaderboard as it was reported then.
"""

import csv
import json
import shutil
import sqlite3
import subprocess
import sys
import tarfile
from pathlib import Path

import pandas as pd
import pytest

from crossfold.fusion_models.catalogue import find_system
from crossfold.platform.core.cell import PROTOCOL, changes_since
from crossfold.platform.core.hashing import canonical_json
from tests.support.paths import ROOT

FIXTURES = Path(__file__).parent / "fixtures"
PLUGINS = sorted((FIXTURES / "plugins_ed74c6d").glob("*.py"))
INTERRUPTED, STOPPED_AFTER = "4bfe40a12209c71e", 11


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """The folder that holds workspace `ws`, its sweep files, and `expected/`; the workspace was made elsewhere."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with tarfile.open(FIXTURES / "workspace-ed74c6d.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def files_of(workspace, part="cells"):
    return {path.relative_to(workspace): path.read_bytes() for path in (workspace / part).rglob("*") if path.is_file()}


def runs_of(workspace, store="mlflow.db"):
    """(cell, status) of every run of a cell in an MLflow store, sorted."""
    with sqlite3.connect(f"file:{workspace / store}?mode=ro", uri=True) as database:
        query = "select tags.value, runs.status from runs join tags using (run_uuid) where tags.key = 'cell_id'"
        found = sorted(database.execute(query))
    database.close()
    return found


def then(cell, labels):
    """A planned cell as that commit planned it: with the parameters, protocol and revision of then."""
    (params,) = {
        canonical_json(label["params"]): label["params"] for label in labels if label["system"] == cell.system
    }.values()
    return cell.model_copy(update={"params": params, "protocol": 2, "revision": 1})


@pytest.mark.parametrize("name", ["old", "interrupted", "stopped"])
def test_a_sweep_plans_the_cells_that_it_planned_then(lab, name):
    """But for protocol, revision and parameters that were added: what a sweep and a recipe say has not changed."""
    from crossfold.datasets.store.feature_store import FeatureStore
    from crossfold.platform.workspace.workspace import Workspace
    from crossfold.sweeps.plan import expand
    from crossfold.sweeps.sweep_files import load

    launched = json.loads((lab / "ws" / "sweeps" / f"{name}.json").read_text())
    store = FeatureStore(Workspace(lab / "ws").find_store("synthetic"))
    cells = expand(load(str(lab / f"{name}.yaml")), store).cells
    assert [then(cell, launched["labels"].values()).cell_id for cell in cells] == launched["cells"]
    assert {cell.protocol for cell in cells} == {PROTOCOL}


def test_the_cells_of_then_have_the_ids_that_they_had(lab):
    """Fields of recipes and parameters of systems that were added since change no identity."""
    from crossfold.platform.workspace.workspace import Workspace

    records = list(Workspace(lab / "ws").records())
    assert len(records) == 7
    for record in records:
        assert record.cell.cell_id == record.cell_id
        assert record.cell.protocol == 2
        resolved = find_system(record.cell.system).resolved(record.cell.params).model_dump(mode="json")
        assert record.cell.params.items() <= resolved.items()


def test_the_store_of_then_has_the_hash_that_its_files_have_today(lab):
    from crossfold.datasets.store.feature_store import verify_store

    (path,) = (lab / "ws" / "stores").glob("synthetic-*")
    assert path.name == "synthetic-863c9b3776b39f13"
    verify_store(path)


def test_the_same_corpus_becomes_the_same_store_with_folds_numbered_as_in_the_papers(lab, crossfold):
    """But for statistics of normalisation, of which processors differ in the last bit."""
    from crossfold.datasets.store.feature_store import FeatureStore

    assert crossfold("corpus", "synthetic", lab / "data", "--clips", 6, "--frames", 60)[0] == 0
    code, _, error = crossfold("prepare", "synthetic", "--root", lab / "data", "-w", lab / "new")
    assert code == 0, error
    (old,), (new,) = ((lab / space / "stores").glob("synthetic-*") for space in ("ws", "new"))
    manifests = [json.loads((store / "manifest.json").read_text()) for store in (old, new)]
    for manifest in manifests:
        manifest.pop("content_hash")
    # Fold k reported chunk k then; both say which way they count, and their hashes differ.
    assert (FeatureStore(old).fold_rule, FeatureStore(new).fold_rule) == ("grouped_upwards", "grouped")
    assert manifests[1].pop("fold_rule") == "grouped"
    official, *upwards = manifests[0].pop("folds")
    assert manifests[1].pop("folds") == [
        official,
        *({**f, "index": len(upwards) + 1 - f["index"]} for f in upwards[::-1]),
    ]
    statistics = [pd.json_normalize(manifest.pop("normalisation")).T for manifest in manifests]
    assert manifests[0] == manifests[1]
    assert statistics[0].index.equals(statistics[1].index)
    for array in old.glob("*.npy"):
        assert array.read_bytes() == (new / array.name).read_bytes(), array.name


def test_the_report_has_the_numbers_that_it_had_then(lab, crossfold):
    code, _, error = crossfold("report", "-w", lab / "ws", "--format", "csv", "--out", lab / "out")
    assert code == 0, error
    key = ("kind", "row", "column", "system", "variant", "target", "corpus", "store", "recipe_hash", "protocol")
    numbers = ("measured", "sd", "video_mean", "done", "planned", "folds", "seeds", "cells")

    def read(path):
        with path.open(newline="") as file:
            return {tuple(row[k] for k in key): [row[n] for n in numbers] for row in csv.DictReader(file)}

    expected = read(lab / "expected" / "leaderboard.csv")
    assert len(expected) == 21
    found = {}
    for path in (lab / "out").glob("leaderboard*.csv"):
        found |= read(path)
    # Ranks were taken per seed then; today seeds are averaged first, so the ranks are those of the mean scores.
    scores = sorted((float(numbers[0]), row[1]) for row, numbers in expected.items() if row[0] == "score")
    for rank, (_, system) in enumerate(reversed(scores), 1):
        (row,) = [row for row in expected if row[1:3] == (system, "Mean rank")]
        expected[row][0] = f"{rank:.6f}"
    differing = {k: (expected[k], found.get(k)) for k in expected if found.get(k) != expected[k]}
    assert not differing, differing


def test_a_resumed_sweep_says_what_it_computes_again_and_why(lab, crossfold):
    before = files_of(lab / "ws")
    code, said, error = crossfold("run", lab / "old.yaml", "-w", lab / "ws", "--workers", 0)
    assert code == 0, error
    said = " ".join(said.split())
    assert f"6 cells were planned under protocol 2, 6 of them finished. Today's protocol is {PROTOCOL}" in said
    assert changes_since(2) in said
    assert "So 6 cells are computed under protocol 3" in said
    assert "6 cells, 0 done, 6 to run" in said
    after = files_of(lab / "ws")
    assert before.items() <= after.items()
    assert len({path.parts[1] for path in after}) == len({path.parts[1] for path in before}) + 6
    code, said, error = crossfold("run", lab / "old.yaml", "-w", lab / "ws", "--workers", 0)
    assert code == 0, error
    assert "all 6 cells are done; nothing to run" in said
    assert "protocol" not in said
    assert files_of(lab / "ws") == after
    # Both protocols are reported, each with its own label and cells.
    code, _, error = crossfold("report", "-w", lab / "ws", "--format", "csv", "--out", lab / "out")
    assert code == 0, error
    rows = pd.concat(pd.read_csv(path) for path in (lab / "out").glob("leaderboard*.csv"))
    assert set(rows["protocol"]) == {2, PROTOCOL}
    measured = rows[(rows["system"] == "hgrjca") & rows["cells"].notna()]
    assert set(measured["cells"].str.split().str.len()) == {2}
    assert set(measured["protocol"]) == {2, PROTOCOL}


def test_a_checkpoint_of_an_earlier_protocol_is_not_continued(lab, crossfold):
    """The cell begins anew: its first weights are others."""
    from crossfold.platform.training import checkpoint

    place = lab / "ws" / "running" / INTERRUPTED / "last.pt"
    assert checkpoint.read(place)["progress"]["epoch"] == STOPPED_AFTER
    before, held = files_of(lab / "ws"), place.read_bytes()
    command = ("run", lab / "interrupted.yaml", "-w", lab / "ws", "--workers", 0, "--set", "epochs=2")
    code, said, error = crossfold(*command)
    assert code == 0, error
    assert "1 cell was planned under protocol 2, 0 of them finished" in " ".join(said.split())
    (made,) = {path.parts[1] for path in files_of(lab / "ws").keys() - before.keys()}
    assert list(pd.read_parquet(lab / "ws" / "cells" / made / "curve.parquet")["epoch"]) == [0, 1]
    assert before.items() <= files_of(lab / "ws").items()
    assert place.read_bytes() == held
    # The runs of then are in the MLflow store as they were, and the new cell has one.
    assert len(runs_of(lab / "ws")) == 9


def test_what_was_rescored_is_known_and_comes_out_the_same(lab, crossfold):
    command = ("rescore", lab / "old.yaml", "-w", lab / "ws", "--post", "ca2021", "--json")
    before = files_of(lab / "ws", "rescored")
    code, said, error = crossfold(*command)
    assert code == 0, error
    assert (json.loads(said)["finished"], json.loads(said)["rescored"]) == (6, 0)
    shutil.rmtree(lab / "ws" / "rescored")
    code, said, error = crossfold(*command)
    assert (code, json.loads(said)["rescored"]) == (0, 6), error
    after = files_of(lab / "ws", "rescored")
    assert after.keys() == before.keys()
    for path, content in before.items():
        then, now = (pd.json_normalize(json.loads(text)).T[0] for text in (content, after[path]))
        assert list(then.index) == list(now.index)
        for name in (name for name in then.index if name.endswith(".ccc")):
            assert now[name] == pytest.approx(then[name], abs=1e-6), f"{path} {name}"


def test_the_mlflow_store_is_recognised_and_can_be_rebuilt(lab, crossfold, monkeypatch):
    before = runs_of(lab / "ws")
    assert len(before) == 8
    code, said, error = crossfold("mlflow", "sync", "-w", lab / "ws")
    assert code == 0, error
    assert "8 present, 0 completed, 0 created" in said
    assert runs_of(lab / "ws") == before
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{lab / 'ws' / 'rebuilt.db'}")
    code, said, error = crossfold("mlflow", "sync", "-w", lab / "ws")
    assert code == 0, error
    assert "0 present, 0 completed, 8 created" in said
    assert runs_of(lab / "ws", "rebuilt.db") == before


@pytest.mark.usefixtures("own_registries")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda path: path.stem)
def test_a_plugin_of_the_documented_form_keeps_the_contract(lab, crossfold, plugin):
    from crossfold.datasets.corpora.embedded.synthetic import write_synthetic

    write_synthetic(lab / "data", clips=6, frames=60, seed=0)
    code, said, error = crossfold("check", "--plugin", plugin, "--root", lab / "data", "--json")
    assert code == 0, said + error
    checks = json.loads(said)
    assert len(checks) >= 4
    assert not [check for check in checks if check["problem"]]


@pytest.mark.usefixtures("own_registries")
def test_an_import_of_an_old_name_warns_with_the_new_one():
    from crossfold.platform.core.registry import load_plugin

    with pytest.warns(FutureWarning, match="platform.weights_table is now crossfold.platform.modeling.pretrained"):
        load_plugin(FIXTURES / "plugins_ed74c6d" / "backbone.py")


def test_every_old_name_leads_somewhere(recwarn):
    """Each module that moved, and what a plug-in takes from it."""
    import importlib

    from crossfold.platform.core.moved_modules import MOVED, alias_moved_modules

    alias_moved_modules()
    taken = {
        "crossfold.datasets.clips": "UNLABELLED VALENCE_AROUSAL ClipArrays ClipInfo MediaClip Span Target labelled",
        "crossfold.datasets.corpus_files": "sound_of_video take_crops take_transcript walk",
        "crossfold.datasets.inputs": "INPUT_KINDS InputKind input_shape",
        "crossfold.datasets.labels": "label_in_range read_labels",
        "crossfold.datasets.partitions": "Fold check_leakage make_folds",
        "crossfold.datasets.validation": "Finding Severity check_crops check_targets check_wav",
        "crossfold.platform.config": "Head Recipe Strict Temporal",
        "crossfold.platform.errors": "DataError UserError nearest",
        "crossfold.platform.registry": "Registry load_plugin",
        "crossfold.platform.strict": "Strict",
        "crossfold.platform.weights_table": "WEIGHTS Expected Weights register_weights",
        # These became folders; their front doors have the names.
        "crossfold.datasets.corpora": "CORPORA EMBEDDED Corpus FeatureClip Inspect Inspection find_reader is_asked",
    }
    assert MOVED.keys() < taken.keys()
    for module, names in taken.items():
        for name in names.split():
            assert getattr(importlib.import_module(module), name) is not None
    with pytest.raises(
        AttributeError, match=r"has no 'nothing'; its contents are in crossfold\.platform\.core\.errors"
    ):
        importlib.import_module("crossfold.platform.errors").nothing  # noqa: B018


@pytest.mark.parametrize(
    "command",
    [[str(Path(sys.executable).parent / "crossfold")], [sys.executable, "-m", "crossfold.platform.edge.cli"]],
    ids=["console script", "python -m"],
)
def test_both_entry_points_work(command):
    done = subprocess.run([*command, "--version"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("crossfold ")
