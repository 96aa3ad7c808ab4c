"""`crossfold status`: read from files alone, by a process that is not the driver."""

import io
import json
import os
import re
import time

import pytest
from rich.console import Console

from crossfold.platform.core.errors import UserError
from crossfold.platform.core.files import write_json
from crossfold.platform.core.outcome import EpochReport, Failure, FailureClass
from crossfold.platform.edge.terminal.status import cell_rows, driver_line, picture, read_status
from crossfold.platform.scheduling.events import Event
from crossfold.platform.scheduling.monitor import Monitor, SilentView
from crossfold.platform.workspace.driver_lease import driver_lock
from crossfold.platform.workspace.workspace import Workspace


@pytest.fixture
def space(tmp_path, tiny_cell):
    """Two sweeps on one fleet: of four cells one is done, one runs on a GPU, one failed, one waits."""
    space = Workspace(tmp_path)
    cells = [tiny_cell("concat", seed=seed) for seed in range(4)]
    for name, mine in (("one", cells[:3]), ("two", cells[3:])):
        write_json(space.paths.sweeps / f"{name}.json", {
            "name": name, "corpus": "c", "cells": [c.cell_id for c in mine],
            "labels": {c.cell_id: {"label": c.label} for c in mine},
        })  # fmt: skip
    space.paths.cell(cells[0].cell_id).mkdir(parents=True)
    failure = Failure(cells[2].cell_id, cells[2].label, FailureClass.OOM, 3, "too big\nmore", "", "2026-01-01")
    monitor = Monitor("one+two", space, SilentView(), lambda _: None, cells=cells)
    monitor.progress.workers = 2
    report = EpochReport(
        epoch=3,
        epochs=9,
        learning_rate=0.1,
        train_loss=1.0,
        ccc={"valence": 0.25, "arousal": float("nan")},
        best_ccc=0.375,
        seconds=1.0,
        gpu_bytes=3 * 2**30,
    )
    ids = [cell.cell_id for cell in cells]
    monitor.feed([Event("queued", cell_id) for cell_id in ids])
    monitor.feed([Event("started", ids[0], 1, 0), Event("finished", ids[0], 1, 0, seconds=60.0)])
    monitor.feed([Event("started", ids[1], 1, 1), Event("epoch", ids[1], 1, 1, report=report)])
    monitor.feed([Event("started", ids[2], 3, 0), Event("failed", ids[2], 3, 0, failure=failure, recorded=False)])
    monitor.write_status()
    return space


def drawn(status, width=160):
    out = io.StringIO()
    Console(file=out, width=width).print(picture(status))
    return out.getvalue()


def test_the_state_of_every_sweep(space):
    status = read_status(space)
    assert [
        tuple(row[key] for key in ("sweep", "cells", "done", "running", "failed", "to_run")) for row in status.sweeps
    ] == [
        ("one", 3, 1, 1, 1, 0),
        ("two", 1, 0, 0, 0, 1),
    ]
    assert not status.over
    assert [len(read_status(space, name).launches) for name in ("one", "two.yaml")] == [1, 1]
    json.dumps(status.sweeps)


def test_a_row_a_cell(space):
    rows = cell_rows(space)
    # The finished one has an empty folder here, as if somebody had emptied it.
    assert [row["state"] for row in rows] == ["damaged", "running", "failed: oom", "to run"]
    assert rows[1] | {"epoch": 3, "ccc": 0.375} == rows[1]
    assert [row["sweep"] for row in rows] == ["one", "one", "one", "two"]
    assert len(cell_rows(space, "two")) == 1


def test_running_cells_show_epoch_ccc_memory_and_what_is_left(space):
    text = drawn(read_status(space))
    assert "epoch 3/9" in text
    assert "CCC valence 0.250" in text
    assert "arousal" not in text
    assert "best CCC 0.375" in text
    assert "GPU 3.0 GiB" in text
    assert "1 running on 2 workers" in text
    assert "left" in text
    assert "1 failed, the last ones" in text
    assert "(oom, attempt 3): too big" in text
    assert "No run is active" in text


def test_a_narrow_terminal_has_the_same_words(space):
    status = read_status(space)
    wide, narrow = drawn(status), drawn(status, width=80)
    assert max(map(len, narrow.splitlines())) <= 80
    (line,) = [line for line in wide.splitlines() if "epoch 3/9" in line]
    assert " ".join(line.split()) in " ".join(narrow.split())
    assert line.split()[:2] == ["worker", "1"]
    assert line.endswith("epoch 3/9  CCC valence 0.250  best CCC 0.375  GPU 3.0 GiB")


def test_a_cell_that_failed_before_and_runs_again_counts_as_running(space):
    running = json.loads(next((space.root / "status").glob("*.json")).read_text())["running"][0]
    space.record_failure(Failure(running["cell_id"], "x", FailureClass.INFRA, 1, "died", "", "2026-01-01"))
    assert [row["failed"] for row in read_status(space).sweeps] == [1, 0]


def test_what_a_driver_wrote_that_is_gone_is_not_shown_as_running(space):
    (path,) = (space.root / "status").glob("*.json")
    os.utime(path, (time.time() - 60, time.time() - 60))
    status = read_status(space)
    assert status.launches == []
    assert "epoch" not in drawn(status)
    path.write_text("{")
    assert read_status(space).launches == []


def test_a_status_names_the_driver(space):
    with driver_lock(space):
        assert f"A run is active: process {os.getpid()} on" in drawn(read_status(space))
    silent = {"pid": 1, "host": "h", "heartbeat": "2026-01-01T00:00:00+00:00", "expires": "2026-01-01T00:02:00+00:00"}
    assert re.fullmatch("No run is active: process 1 on h sent its last heartbeat .* ago; .*", driver_line(silent))
    assert driver_line({}, left=False) == "No run is active."
    assert driver_line({"pid": 1, "host": "h"}) == "A run is active: process 1 on h."


def test_a_wrong_sweep_is_answered_with_the_nearest(space):
    with pytest.raises(UserError, match="no sweep 'oen'"):
        read_status(space, "oen")
