"""Every fault is really injected: it is classed, repeated where that helps, and reported, and no other cell suffers."""

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from crossfold.platform.core.errors import UserError
from crossfold.platform.core.files import owner_tag
from crossfold.platform.core.layout import CELL_FILES
from crossfold.platform.core.outcome import Failure, FailureClass
from crossfold.platform.edge.launch.run_cells import run_cells
from crossfold.platform.execution.run_cell import attempt_cell
from crossfold.platform.scheduling.fleet_options import FleetOptions
from crossfold.platform.workspace.integrity import damage_of
from crossfold.platform.workspace.repair import damaged_cells, move_damaged_aside, remove_leftovers
from tests.support.factories import fake_cell
from tests.support.trials import SLEEPY
from tests.support.waiting import wait_for

pytestmark = pytest.mark.usefixtures("importable")

RUN = """
import pickle, resource, sys
from pathlib import Path
from crossfold.platform.edge.launch.run_cells import run_cells
from crossfold.platform.scheduling.fleet_options import FleetOptions
from crossfold.platform.workspace.workspace import Workspace
from crossfold.platform.execution.run_cell import attempt_cell

cells, workspace, kind, limit = pickle.load(sys.stdin.buffer)
if kind == resource.RLIMIT_AS:
    limit += int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()

def runner(cell, workspace, **keywords):
    resource.setrlimit(kind, (limit, limit))
    return attempt_cell(cell, workspace, **keywords)

summary = run_cells(cells, Workspace(workspace), FleetOptions(workers=0, runner=runner))
print(summary.done, summary.failed)
"""


def run_limited(cells, workspace, kind, limit) -> tuple[int, int]:
    """Runs cells in a process of its own that the system refuses something: (done, failed)."""
    import pickle

    ended = subprocess.run(
        # -B: bytecode that does not fit would be left behind, and break every later import of its module.
        [sys.executable, "-B", "-c", RUN],
        input=pickle.dumps((cells, workspace.root, kind, limit)),
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr.decode()
    done, failed = ended.stdout.split()[-2:]
    return int(done), int(failed)


@pytest.mark.parametrize("limit", [2_500, 100], ids=["results do not fit", "not even failures fit"])
def test_a_full_disk_is_infra_stops_no_driver_and_is_over_when_there_is_room(workspace, tiny_cell, limit):
    """The system refuses to write files beyond a size, as a full disk does after so many bytes."""
    cells = [tiny_cell("concat", seed=seed) for seed in range(2)]
    assert run_limited(cells, workspace, resource.RLIMIT_FSIZE, limit) == (0, 2)
    assert workspace.finished() == set()
    assert list(workspace.paths.cells.glob(".*")) == [], "what could not be written whole is gone"
    recorded = workspace.failures_of()
    if limit > 1000:
        assert {failure.kind for failure in recorded} == {FailureClass.INFRA}
        assert {failure.attempt for failure in recorded} == {1, 2, 3}
        assert all("File too large" in failure.log_tail for failure in recorded)
    assert run_cells(cells, workspace, FleetOptions(workers=0)).done == 2


def test_memory_that_is_refused_is_oom_and_the_others_go_on(workspace, tiny_cell):
    large = tiny_cell("concat", seed=0, temporal__width=16_000)
    small = tiny_cell("concat", seed=1)
    assert run_limited([large, small], workspace, resource.RLIMIT_AS, 2 * 2**30) == (1, 1)
    assert workspace.finished() == {small.cell_id}
    failures = workspace.failures_of(large.cell_id)
    assert [(failure.kind, failure.attempt) for failure in failures] == [(FailureClass.OOM, n) for n in (1, 2, 3)]


def test_a_gpu_that_is_full_is_oom_and_the_next_try_ends_in_the_same_bytes(workspace, new_workspace, tiny_cell):
    """As CUDA tells it, from the middle of training: torch's own error out of the third step."""
    import torch

    from crossfold.platform.modeling.emotion_model import EmotionModel

    cell = tiny_cell("concat")
    steps, forward = [], EmotionModel.forward

    def full(model, *args, **keywords):
        steps.append(1)
        if len(steps) == 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total of 79 GiB")
        return forward(model, *args, **keywords)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(EmotionModel, "forward", full)
        assert run_cells([cell], workspace, FleetOptions(workers=0)).done == 1
    (failure,) = workspace.failures_of()
    assert (failure.kind, failure.attempt) == (FailureClass.OOM, 1)
    assert "CUDA out of memory" in failure.message
    assert "in full" in failure.log_tail
    alone = new_workspace()
    assert attempt_cell(cell, alone).status == "done"
    for name in set(CELL_FILES) - {"env.json"}:
        assert (workspace.paths.cell(cell.cell_id) / name).read_bytes() == (
            alone.paths.cell(cell.cell_id) / name
        ).read_bytes()


def test_a_bug_is_code_told_with_its_traceback_and_not_repeated(workspace, tiny_cell, monkeypatch):
    from crossfold.platform.modeling.emotion_model import EmotionModel

    ill, well = (tiny_cell("concat", seed=seed) for seed in range(2))
    forward, broken = EmotionModel.forward, []

    def buggy(model, *args, **keywords):
        if not broken:
            broken.append(1)
            raise IndexError("a bug in a system")
        return forward(model, *args, **keywords)

    monkeypatch.setattr(EmotionModel, "forward", buggy)
    summary = run_cells([ill, well], workspace, FleetOptions(workers=0))
    assert (summary.done, summary.failed) == (1, 1)
    (failure,) = workspace.failures_of()
    assert (failure.cell_id, failure.kind, failure.attempt) == (ill.cell_id, FailureClass.CODE, 1)
    assert "IndexError: a bug in a system" in failure.log_tail


def test_a_store_that_disappears_fails_the_rest_as_data_once_and_they_run_when_it_is_back(workspace, tiny_cell):
    cells = [tiny_cell("concat", seed=seed) for seed in range(3)]
    (place,) = workspace.paths.stores.iterdir()
    aside = workspace.root / "unplugged"

    def trial(cell, workspace, **keywords):
        outcome = attempt_cell(cell, workspace, **keywords)
        if place.exists():
            place.rename(aside)
        return outcome

    from crossfold.platform.training import cell_data

    cell_data._open_store.cache_clear()

    class Forgetful:
        """A worker that opens its store anew, as on another node."""

        def __call__(self, cell, workspace, **keywords):
            cell_data._open_store.cache_clear()
            return trial(cell, workspace, **keywords)

    summary = run_cells(cells, workspace, FleetOptions(workers=0, runner=Forgetful()))
    assert (summary.done, summary.failed) == (1, 2)
    failures = workspace.failures_of()
    assert [failure.kind for failure in failures] == [FailureClass.DATA] * 2, "each once: trying again does not help"
    assert all(str(place.name) in failure.message for failure in failures)
    aside.rename(place)
    left = [cell for cell in cells if cell.cell_id not in workspace.finished()]
    assert run_cells(left, workspace, FleetOptions(workers=0)).done == 2


def test_training_that_leaves_the_numbers_is_diverged_and_not_repeated(workspace, tiny_cell):
    wild = tiny_cell("concat", seed=0, optimizer__lr=1e30, head__output="linear")
    summary = run_cells([wild, tiny_cell("concat", seed=1)], workspace, FleetOptions(workers=0))
    assert (summary.done, summary.failed) == (1, 1)
    (failure,) = workspace.failures_of()
    assert (failure.cell_id, failure.kind) == (wild.cell_id, FailureClass.DIVERGED)


@pytest.fixture
def finished(workspace, tiny_cell):
    cells = [tiny_cell("concat", seed=seed) for seed in range(2)]
    for cell in cells:
        assert attempt_cell(cell, workspace).status == "done"
    return cells


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("name", CELL_FILES)
@pytest.mark.parametrize("how", ["cut", "emptied", "removed"])
def test_a_damaged_cell_is_told_from_a_whole_one(workspace, finished, name, how):
    assert damaged_cells(workspace, workspace.finished()) == []
    path = workspace.paths.cell(finished[0].cell_id) / name
    {"cut": cut, "emptied": lambda path: path.write_bytes(b""), "removed": Path.unlink}[how](path)
    assert damaged_cells(workspace, workspace.finished()) == [finished[0].cell_id]
    assert name in damage_of(path.parent)


def test_a_changed_number_is_damage_and_cells_from_before_sizes_were_kept_are_read(workspace, finished):
    folder = workspace.paths.cell(finished[0].cell_id)
    numbers = (folder / "result.json").read_text()
    (folder / "result.json").write_text(numbers.replace('"status": "done"', '"status": "dome"'))
    assert damage_of(folder) == "result.json is not what was committed"
    with pytest.raises(UserError, match="crossfold run"):
        cut(folder / "result.json")
        workspace.read_exactly(finished[0].cell_id)


@pytest.mark.parametrize("name", sorted(set(CELL_FILES) - {"env.json"}))
def test_cells_of_before_sizes_were_written_down_are_looked_into(workspace, finished, name):
    folder = workspace.paths.cell(finished[0].cell_id)
    env = json.loads((folder / "env.json").read_text())
    del env["files"]
    (folder / "env.json").write_text(json.dumps(env))
    assert damage_of(folder) is None
    cut(folder / name)
    assert damage_of(folder).startswith(f"{name} ")


def test_what_is_set_aside_is_kept_each_time(workspace, finished):
    first = finished[0].cell_id
    for number in (1, 2):
        cut(workspace.paths.cell(first) / "best.safetensors")
        ((cell_id, (damage, place)),) = move_damaged_aside(workspace, workspace.finished()).items()
        assert (cell_id, place.name) == (first, f"damaged-{first}-{number}")
        assert damage.startswith("best.safetensors has ")
        assert workspace.finished() == {finished[1].cell_id}
        assert attempt_cell(finished[0], workspace).status == "done"
    assert move_damaged_aside(workspace, workspace.finished()) == {}


def test_run_sets_damaged_cells_aside_says_so_and_computes_the_same_bytes(workspace, finished, tiny_cell, capsys):
    from crossfold.datasets.store.feature_store import FeatureStore
    from crossfold.platform.edge.launch.run_sweeps import run_sweeps
    from crossfold.sweeps.prepared import prepare_cells
    from crossfold.sweeps.sweep_files import Sweep

    sweep = Sweep.parse(
        {
            "name": "hurt", "corpus": "synthetic", "recipe": "demo", "systems": ["concat"], "targets": ["valence"],
            "folds": [0], "seeds": [0, 1, 2], "set": {"epochs": 1, "window": 20, "hop": 20, "stress": "none"},
        },
        "hurt",
    )  # fmt: skip
    prepared = prepare_cells(sweep, workspace)
    assert isinstance(prepared.store, FeatureStore)
    assert run_sweeps([prepared], workspace, FleetOptions(workers=0)).done == 3
    folder = workspace.paths.cell(prepared.plan.cells[1].cell_id)
    whole = {name: (folder / name).read_bytes() for name in set(CELL_FILES) - {"env.json"}}
    cut(folder / "predictions.npz")
    capsys.readouterr()
    assert run_sweeps([prepare_cells(sweep, workspace)], workspace, FleetOptions(workers=0)).done == 1
    said = " ".join(capsys.readouterr().out.split())
    assert f"damaged {prepared.plan.cells[1].label}: predictions.npz has" in said
    assert {name: (folder / name).read_bytes() for name in whole} == whole
    assert run_sweeps([prepare_cells(sweep, workspace)], workspace, FleetOptions(workers=0)).done == 0


@pytest.mark.slow
def test_a_poisoned_cell_is_given_up_with_its_last_words_and_its_neighbours_bear_no_blame(workspace):
    """On Ray Train workers: one cell always ends its process in native code, one leaves it once without a word."""
    poisoned = fake_cell(0, trouble="segfaults", epochs=4)
    quits = fake_cell(1, trouble="quits once", epochs=4)
    good = [fake_cell(seed, epochs=20, seconds=0.05) for seed in range(2, 6)]
    summary = run_cells([poisoned, quits, *good], workspace, FleetOptions(workers=2, runner=SLEEPY))
    assert (summary.done, summary.failed) == (5, 1)
    failures = workspace.failures_of(poisoned.cell_id)
    assert [(failure.kind, failure.attempt) for failure in failures] == [(FailureClass.INFRA, n) for n in (1, 2, 3)]
    assert all("Segmentation fault" in failure.log_tail and "trials.py" in failure.log_tail for failure in failures)
    assert all("died while it ran this cell" in failure.message for failure in failures)
    assert {failure.cell_id for failure in workspace.failures_of()} <= {poisoned.cell_id, quits.cell_id}
    shutil.rmtree(workspace.root / "running", ignore_errors=True)


def test_a_retry_that_its_driver_did_not_live_to_tell_of_is_told_by_the_same_command(workspace, tiny_cell):
    """A try failed, and MLflow heard it; the next one was good, and the driver died before MLflow heard that."""
    from crossfold.platform.edge.tracking.tracker import MlflowTracker, pending_marker
    from crossfold.platform.edge.tracking.writer import RunWriter

    cell = tiny_cell("concat")
    writer = RunWriter(workspace)
    writer.prepare()
    tracker = MlflowTracker(workspace, flush_seconds=0.05)
    tracker.launch("chaos", [cell])
    tracker.started(cell, 1)
    infra = Failure(cell.cell_id, cell.label, FailureClass.INFRA, 1, "worker 0 died", "", "2026")
    tracker.failed(cell, infra)
    wait_for(lambda: cell.cell_id in writer.find_runs("attributes.status = 'FAILED'"))
    assert attempt_cell(cell, workspace).status == "done"
    tracker._closing.set()  # as far as a driver that was killed got
    assert pending_marker(workspace, "chaos").exists()

    again = MlflowTracker(workspace)
    again.launch("chaos", ())
    again.catch_up([cell])
    again.close()
    assert not pending_marker(workspace, "chaos").exists()
    assert writer.find_runs()[cell.cell_id].info.status == "FINISHED"


def test_half_written_cells_of_killed_processes_go_and_those_of_others_only_when_they_are_old(workspace, finished):
    mine, of_earlier_versions = owner_tag(), ("ab12_x9z", "zzzzzzzz")
    here, there = f"{mine.partition('-')[0]}-999999999-0123abcd", "0a0a0a0a-1-0123abcd"
    tags = (*of_earlier_versions, here, f"{mine}-0123abcd", there, there.replace("-1-", "-2-"))
    old, fresh, killed, living, elsewhere, long_ago = (
        workspace.paths.cells / f".{finished[0].cell_id}-{tag}" for tag in tags
    )
    for folder in (old, fresh, killed, living, elsewhere, long_ago):
        folder.mkdir()
    for folder in (old, living, long_ago):
        os.utime(folder, (0, 0))
    assert remove_leftovers(workspace) == 3
    assert {*workspace.paths.cells.glob(".*")} == {fresh, living, elsewhere}
    assert workspace.finished() == {cell.cell_id for cell in finished}


def test_a_cell_that_was_to_run_again_when_all_was_killed_returns(workspace, finished):
    kept, done = finished[0].cell_id, finished[1].cell_id
    aside = workspace.move_aside(kept)
    shutil.copytree(workspace.paths.cell(done), workspace.paths.cells / f".{done}-aside")
    assert aside is not None
    remove_leftovers(workspace)
    assert workspace.finished() == {cell.cell_id for cell in finished}
    assert not list(workspace.paths.cells.glob(".*"))


def test_a_poisoned_cell_is_given_up_and_the_report_says_failed_and_why(workspace, capsys):
    """Through `crossfold report` as its reader sees it: on the terminal, in the table and on the page."""
    from crossfold.platform.edge.cli import app as cli
    from crossfold.sweeps.launched import remember_sweep
    from crossfold.sweeps.prepared import prepare_cells
    from crossfold.sweeps.sweep_files import Sweep

    sweep = Sweep.parse(
        {
            "name": "ill", "corpus": "synthetic", "recipe": "demo", "systems": ["concat"], "targets": ["valence"],
            "folds": [0], "seeds": [0, 1], "set": {"epochs": 1, "window": 20, "hop": 20, "stress": "none"},
        },
        "ill",
    )  # fmt: skip
    prepared = prepare_cells(sweep, workspace)
    _, poisoned = prepared.plan.cells

    def trial(cell, workspace, **keywords):
        if cell.cell_id == poisoned.cell_id:
            raise OSError(5, "Input/output error")
        return attempt_cell(cell, workspace, **keywords)

    remember_sweep(prepared, workspace)
    summary = run_cells(prepared.plan.cells, workspace, FleetOptions(workers=0, runner=trial))
    assert (summary.done, summary.failed) == (1, 1)
    assert [failure.attempt for failure in workspace.failures_of(poisoned.cell_id)] == [1, 2, 3]
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        cli.main(["report", "leaderboard", "-w", str(workspace.root), "--format", "md,html"])
    assert not end.value.code
    said = " ".join(capsys.readouterr().out.split())
    reason = "the runner of the cell failed: OSError: [Errno 5] Input/output error"
    assert f"1 cell failed and count as unfinished: {poisoned.label} (infra, attempt 3): {reason}" in said
    assert f"crossfold why {poisoned.cell_id}" in said
    assert "failed: infra (1/2 cells)" in (workspace.paths.reports / "leaderboard.md").read_text()
    page = (workspace.paths.reports / "report.html").read_text()
    assert f'<td>infra</td><td class="num">3</td><td class="message">{reason}</td>' in page
