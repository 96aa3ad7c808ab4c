"""Data sets of the Hugging Face library on disk: Arrow streams and their state, written here as the library does."""

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from crossfold.datasets.corpora.huggingface import inspect_saved, source_files
from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.platform.features.prepare import prepare
from crossfold.platform.workspace.workspace import Workspace

FRAMES = 30


def clip(name: str, **changes):
    rng = np.random.default_rng(len(name))
    cells = {
        "clip": name,
        "fps": 25.0,
        "audio": rng.normal(size=(FRAMES, 3)).astype(np.float32).tolist(),
        "visual": [[0.0, 0.0], *rng.normal(size=(FRAMES - 1, 2)).astype(np.float32).tolist()],
        "valence": [None, *np.linspace(-1, 1, FRAMES - 1).tolist()],
        "arousal": rng.uniform(-1, 1, FRAMES).tolist(),
    }
    return cells | changes


def save(folder: Path, rows, shards: int = 1, **state) -> None:
    folder.mkdir(parents=True)
    files = []
    for shard in range(shards):
        files.append({"filename": f"data-{shard:05d}-of-{shards:05d}.arrow"})
        table = pa.Table.from_pylist(rows[shard::shards])
        with pa.OSFile(str(folder / files[-1]["filename"]), "wb") as file, pa.ipc.new_stream(file, table.schema) as out:
            out.write_table(table)
    (folder / "state.json").write_text(json.dumps({"_data_files": files, **state}))


def save_splits(root: Path, **changes) -> None:
    save(root / "train", [clip(name) for name in ("a", "bb", "ccc")], shards=2)
    save(root / "validation", [clip("dddd", **changes)])
    (root / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "validation"]}))


def test_a_saved_data_set_becomes_a_store(tmp_path):
    save_splits(tmp_path / "data", subject="dora")
    found = inspect_saved(tmp_path / "data", deep=True)
    assert found.findings == ()
    assert [(c.info.name, c.info.partition, c.info.subject) for c in found.clips] == [
        ("a", "train", "a"),
        ("ccc", "train", "ccc"),
        ("bb", "train", "bb"),
        ("dddd", "validation", "dora"),
    ]
    assert len(source_files(tmp_path / "data")) == 6
    store = FeatureStore(prepare(Workspace(tmp_path / "ws"), "huggingface", tmp_path / "data", processes=1))
    rows = store.rows("dddd")
    wanted = clip("dddd")
    np.testing.assert_array_equal(store.features("audio", 0)[rows], np.array(wanted["audio"], np.float32))
    assert store.present("visual")[rows].tolist() == [False] + [True] * (FRAMES - 1)
    assert store.valid[rows][:, 0].tolist() == [False] + [True] * (FRAMES - 1)
    np.testing.assert_array_equal(store.labels[rows][:, 1], np.array(wanted["arousal"], np.float32))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"fps": None}, "has no fps"),
        ({"fps": -1.0}, "-1 frames per second"),
        ({"clip": "a"}, "'a' is there twice"),
        ({"partition": "holdout"}, "of the part 'holdout'"),
        ({"arousal": [0.0] * 3}, "3 values of arousal, not 30"),
        ({"valence": [2.0] * FRAMES}, r"outside \[-1, 1\]"),
        ({"audio": [[1.0], *[[1.0, 2.0]] * (FRAMES - 1)]}, "several widths"),
        ({"audio": [[1.0]] * 3}, r"audio \[3, 1\] for 30 frames"),
        ({"audio": [[float("nan")]] * FRAMES}, "not finite"),
        ({"audio": {"bytes": b"RIFF", "path": "a.wav"}}, "audio holds struct"),
    ],
)
def test_what_is_wrong_with_a_row_is_a_finding(tmp_path, changes, problem):
    save_splits(tmp_path, **changes)
    (finding,) = inspect_saved(tmp_path, deep=True).findings
    assert re.search(problem, finding.problem)
    assert finding.remedy


def test_what_is_no_saved_data_set_is_one_finding(tmp_path):
    save(tmp_path / "chosen", [clip("a")], _indices_files=[{"filename": "indices.arrow"}])
    save(tmp_path / "damaged", [clip("a", partition="train")])
    (tmp_path / "damaged" / "data-00000-of-00001.arrow").write_bytes(b"no arrow")
    for folder, remedy in (("chosen", "flatten_indices"), ("damaged", "save_to_disk"), ("absent", "save_to_disk")):
        (finding,) = inspect_saved(tmp_path / folder, deep=False).findings
        assert remedy in finding.remedy
