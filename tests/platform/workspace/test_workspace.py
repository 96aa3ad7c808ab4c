"""The workspace: cells appear whole or not at all, failures are a ledger, names answer with the nearest."""

import json
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from crossfold.platform.core.errors import UserError
from crossfold.platform.core.files import write_json
from crossfold.platform.core.layout import CELL_FILES
from crossfold.platform.core.outcome import Failure, FailureClass
from crossfold.platform.workspace.predictions import Predictions
from crossfold.platform.workspace.workspace import Workspace

CONTENT = {
    "result": {"status": "done", "metrics": {"valence": {"ccc": 0.5}}},
    "curve": pd.DataFrame([{"epoch": 0, "ccc_valence": 0.5}]),
    "env": {"attempt": 1},
    "weights": b"weights",
    "predictions": Predictions(
        clips=("é", "b"),
        offsets=np.array([0, 2, 3]),
        frame=np.array([0, 1, 0], np.int32),
        prediction=np.array([[0.1], [0.2], [0.3]], np.float32),
        label=np.array([[0.0], [-5.0], [1.0]], np.float32),
        valid=np.array([[True], [False], [True]]),
        targets=("valence",),
    ),
}


@pytest.fixture
def cells(tiny_cell):
    return [tiny_cell("ca", seed=seed) for seed in range(5)]


@pytest.fixture
def empty(tmp_path):
    return Workspace(tmp_path / "home")


def commit(workspace, cell, **changes):
    return workspace.commit(cell, **(CONTENT | changes))


def test_a_cell_comes_back(empty, cells):
    assert commit(empty, cells[0]) is True
    assert empty.finished() == {cells[0].cell_id}
    record = empty.read(cells[0].cell_id)
    assert record.cell == cells[0]
    assert record.cell_id == record.cell.cell_id
    assert record.result == CONTENT["result"]
    assert record.env == {"attempt": 1}
    assert sorted(path.name for path in record.path.iterdir()) == sorted(CELL_FILES)
    pd.testing.assert_frame_equal(record.curve, CONTENT["curve"])
    for name in ("offsets", "frame", "prediction", "label", "valid"):
        given, found = getattr(CONTENT["predictions"], name), getattr(record.predictions, name)
        np.testing.assert_array_equal(found, given)
        assert found.dtype == given.dtype
    assert record.predictions.clips == ("é", "b")
    assert record.predictions.targets == ("valence",)
    assert record.predictions.clip("b") == slice(2, 3)


def test_the_first_commit_stays(empty, cells):
    assert commit(empty, cells[0], env={"attempt": 1}) is True
    assert commit(empty, cells[0], env={"attempt": 2}, result={"status": "other"}) is False
    record = empty.read(cells[0].cell_id)
    assert record.env == {"attempt": 1}
    assert record.result["status"] == "done"
    assert [path.name for path in empty.paths.cells.iterdir()] == [cells[0].cell_id]


def test_of_many_at_once_one_wins(empty, cells):
    won = []
    gate = threading.Barrier(6)

    def race(attempt):
        gate.wait()
        won.append((commit(empty, cells[0], env={"attempt": attempt}), attempt))

    threads = [threading.Thread(target=race, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [attempt for first, attempt in won if first]
    assert len(won) == 6
    assert len(winners) == 1
    assert empty.read(cells[0].cell_id).env == {"attempt": winners[0]}
    assert [path.name for path in empty.paths.cells.iterdir()] == [cells[0].cell_id]


@pytest.mark.parametrize("error", [OSError("disk full"), RuntimeError("bug"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("where", ["savez", "to_parquet", "last_write", "rename"])
def test_a_crash_inside_a_commit_leaves_nothing(empty, cells, monkeypatch, where, error):
    def fall_over(*args, **kwargs):
        raise error

    target = {
        "savez": (np, "savez_compressed"),
        "to_parquet": (pd.DataFrame, "to_parquet"),
        "last_write": (Path, "write_bytes"),
        "rename": (Path, "rename"),
    }[where]
    with monkeypatch.context() as broken:
        broken.setattr(*target, fall_over)
        with pytest.raises(type(error)):
            commit(empty, cells[0])
    assert empty.finished() == set()
    assert list(empty.paths.cells.iterdir()) == []
    assert commit(empty, cells[0]) is True


def test_numbers_that_are_not_numbers_are_not_committed(empty, cells):
    with pytest.raises(ValueError, match="JSON"):
        commit(empty, cells[0], result={"ccc": float("nan")})
    assert list(empty.paths.cells.iterdir()) == []


def test_what_a_killed_process_left_is_no_cell(empty, cells):
    commit(empty, cells[0])
    half = empty.paths.cells / f".{cells[1].cell_id}-abc"
    half.mkdir()
    (half / "cell.json").write_text("{}")
    assert empty.finished() == {cells[0].cell_id}
    assert [record.cell for record in empty.records()] == [cells[0]]
    assert commit(empty, cells[1]) is True


def test_equal_content_is_equal_bytes(tmp_path, cells):
    made = []
    for name in ("one", "two"):
        workspace = Workspace(tmp_path / name)
        commit(workspace, cells[0])
        made.append({path.name: path.read_bytes() for path in workspace.paths.cell(cells[0].cell_id).iterdir()})
    assert made[0] == made[1]


def test_records_are_in_order(empty, cells):
    for cell in cells:
        commit(empty, cell)
    assert [record.cell_id for record in empty.records()] == sorted(cell.cell_id for cell in cells)
    assert empty.read_exactly(cells[2].cell_id).cell == cells[2]


def test_read_by_prefix_and_wrong_names(empty, cells):
    for cell in cells:
        commit(empty, cell)
    cell_id = cells[0].cell_id
    assert empty.read(cell_id[:8]).cell == cells[0]
    wrong = cell_id[:-1] + ("0" if cell_id[-1] != "0" else "1")
    with pytest.raises(UserError, match=f"no finished cell '{wrong}', did you mean '{cell_id}'"):
        empty.read(wrong)
    with pytest.raises(UserError, match="'' begins 5 cells"):
        empty.read("")


def test_an_empty_workspace_has_nothing(empty):
    assert empty.finished() == set()
    assert list(empty.records()) == []
    assert empty.failures_of() == []
    assert not empty.root.exists(), "reading writes nothing"
    with pytest.raises(UserError, match="no finished cell"):
        empty.read("abc")


def failure(cell, attempt, at, kind=FailureClass.INFRA):
    return Failure(cell.cell_id, cell.label, kind, attempt, "what happened", "tail", at)


def test_the_ledger_keeps_every_try(empty, cells):
    tries = [
        failure(cells[0], 1, "2026-01-01T00:00:00.000001+00:00"),
        failure(cells[0], 2, "2026-01-01T00:00:00.000002+00:00", FailureClass.DIVERGED),
        failure(cells[1], 1, "2026-01-01T00:00:00.000003+00:00", FailureClass.OOM),
    ]
    for record in reversed(tries):
        empty.record_failure(record)
    assert empty.failures_of() == tries
    assert empty.failures_of(cells[0].cell_id) == tries[:2]
    assert empty.finished() == set()
    assert all(isinstance(found.kind, FailureClass) for found in empty.failures_of())
    empty.record_failure(failure(cells[0], 1, "2026-01-02T00:00:00+00:00"))
    assert len(empty.failures_of(cells[0].cell_id)) == 3, "the same attempt at another time is another record"


def test_where_the_workspace_is(tmp_path, monkeypatch):
    monkeypatch.delenv("CROSSFOLD_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    assert Workspace.locate(None).root == tmp_path / ".crossfold"
    monkeypatch.setenv("CROSSFOLD_HOME", str(tmp_path / "there"))
    assert Workspace.locate(None).root == tmp_path / "there"
    assert Workspace.locate(tmp_path / "here").root == tmp_path / "here"


@pytest.fixture
def store_folders(empty):
    def make(*names):
        for name in names:
            (empty.paths.stores / name).mkdir(parents=True)
            (empty.paths.stores / name / "manifest.json").write_text("{}")

    return make


def test_stores_are_found_by_corpus_and_hash(empty, store_folders):
    store_folders("puppets-aaaa000011112222", "puppets-bbbb000011112222", "synthetic-cccc000011112222")
    (empty.paths.stores / "synthetic-dddd000011112222").mkdir()  # not a store yet
    assert empty.find_store("synthetic").name == "synthetic-cccc000011112222"
    assert empty.find_store("puppets", "bbbb").name == "puppets-bbbb000011112222"
    with pytest.raises(UserError, match="has 2 feature stores"):
        empty.find_store("puppets")
    with pytest.raises(UserError, match="no feature store of corpus 'puppets' with hash 'ffff'"):
        empty.find_store("puppets", "ffff")
    with pytest.raises(UserError, match="did you mean 'puppets'"):
        empty.find_store("pupets")


def test_a_store_of_a_longer_name_is_another_corpus(empty, store_folders):
    """Data made for a rehearsal must never pass for the real thing."""
    store_folders("affwild2-rehearsal-aaaa000011112222")
    with pytest.raises(UserError, match="no feature store of corpus 'affwild2'"):
        empty.find_store("affwild2")
    store_folders("affwild2-bbbb000011112222")
    assert empty.find_store("affwild2").name == "affwild2-bbbb000011112222"
    assert empty.find_store("affwild2-rehearsal").name == "affwild2-rehearsal-aaaa000011112222"


def test_json_is_written_whole(tmp_path):
    path = tmp_path / "deep" / "value.json"
    write_json(path, {"b": [1, 2.5], "a": "é"})
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": "é", "b": [1, 2.5]}
    assert path.read_text().index('"a"') < path.read_text().index('"b"')
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"a": float("inf")})
    assert json.loads(path.read_text())["a"] == "é", "the old file stays"
    assert [p.name for p in path.parent.iterdir()] == ["value.json"], "nothing half-written is left"


def test_a_tilde_means_the_home_folder_where_no_shell_replaced_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert Workspace.at("~/lab").root == tmp_path / "lab"
    assert Workspace.at("~no-such-user/lab").root == tmp_path / "~no-such-user" / "lab"
    (tmp_path / "~" / "lab").mkdir(parents=True)
    assert Workspace.at("~/lab").root == tmp_path / "~" / "lab"
