"""What the engine costs where it should cost nothing: finished sweeps, large plans, tracking, workers, idle slots.

Times of this process and its children are CPU times, so that a busy machine changes them little.
"""

import contextlib
import heapq
import json
import os
import random
import resource
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from crossfold.platform.core.outcome import EpochReport, Outcome
from crossfold.platform.execution.run_cell import attempt_cell
from crossfold.platform.scheduling.cell_queue import Assignment, CellQueue, QueueLimits
from crossfold.platform.scheduling.fleet_options import FleetOptions
from crossfold.platform.scheduling.run_order import Forecast
from crossfold.platform.workspace.workspace import Workspace
from tests.support.factories import TINY_SETTINGS, make_cell, make_store, write_sweep


def cpu_of(code: str, *arguments: object) -> tuple[float, str]:
    """CPU seconds of a Python process that runs `code`, and what it printed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], check=True, stdout=subprocess.PIPE, text=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, said.stdout


COMMAND = """
import sys
from crossfold.platform.edge.cli.app import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    assert not end.code, end.code
print("loaded:", *sorted({"ray", "mlflow", "torch"} & set(sys.modules)))
"""
IMPORTS = "import torch, pandas, numpy, typer, rich, pydantic, yaml, pyarrow.parquet"


def sweep_of(path: Path, cells: int) -> Path:
    return write_sweep(path, seeds=list(range(cells // 4)), set=TINY_SETTINGS | {"stress": "none"})


def fill(workspace: Workspace, sweep: Path) -> int:
    """Commits every cell of a sweep; one is trained, and lends the others its files."""
    from crossfold.sweeps.prepared import prepare_cells, read_sweep

    cells = prepare_cells(read_sweep(str(sweep), None), workspace).plan.cells
    assert attempt_cell(cells[0], workspace).status == "done"
    one = workspace.read_exactly(cells[0].cell_id)
    weights = (one.path / "best.safetensors").read_bytes()
    for cell in cells[1:]:
        result = one.result | {"cell_id": cell.cell_id}
        assert workspace.commit(
            cell, result=result, curve=one.curve, predictions=one.predictions, env=one.env, weights=weights
        )
    return len(cells)


@pytest.mark.benchmark
def test_a_finished_sweep_of_1000_cells_costs_little_more_than_imports(tmp_path, new_workspace, capsys, compared):
    workspace = new_workspace()
    sweep = sweep_of(tmp_path / "finished.yaml", 1000)
    assert fill(workspace, sweep) == 1000
    # The first command of an installation imports torch, to list what the systems have.
    cpu_of(COMMAND, "plan", sweep, "-w", workspace.root)
    began = time.monotonic()
    ours, said = cpu_of(COMMAND, "run", sweep, "-w", workspace.root)
    wall = time.monotonic() - began
    rival, _ = cpu_of(IMPORTS)
    with capsys.disabled():
        sys.stdout.write(
            f"\nre-run of 1,000 finished cells: {ours:.1f} s CPU ({wall:.1f} s wall), the imports alone {rival:.1f} s\n"
        )
    compared("re-run of 1,000 finished cells", "the imports alone", ours=[ours], theirs=[rival])
    assert "all 1000 cells are done; nothing to run" in said
    assert said.splitlines()[-1].strip() == "loaded:", "no worker starts, nothing is written to MLflow"
    assert not (workspace.root / "mlflow.db").exists()
    assert not (workspace.root / "fleet").exists()
    assert ours < rival + 5


@pytest.mark.benchmark
def test_a_plan_of_100000_cells(tmp_path, new_workspace, compared):
    """Against spelling the whole identity of each cell anew, which is what a plan must come to."""
    workspace = new_workspace()
    sweep = sweep_of(tmp_path / "large.yaml", 100_000)
    ours, said = cpu_of(COMMAND, "plan", sweep, "-w", workspace.root, "--json")
    assert json.loads(said.rpartition("loaded:")[0])["cells"] == 100_000
    from crossfold.platform.core.hashing import canonical_json
    from crossfold.sweeps.prepared import prepare_cells, read_sweep

    small = sweep_of(tmp_path / "small.yaml", 2000)
    cells = prepare_cells(read_sweep(str(small), None), workspace).plan.cells
    began = time.process_time()
    spelled = {canonical_json(cell.identity()) for cell in cells}
    rival = (time.process_time() - began) * 50
    assert len(spelled) == 2000
    compared("plan of 100,000 cells", "spelling each identity anew", ours=[ours], theirs=[rival])
    assert ours < 10
    assert ours < rival + 5


EPOCHS, CELL_SECONDS = 50, 30.0


@pytest.mark.benchmark
def test_tracking_costs_under_one_percent_of_a_cell_and_less_when_the_server_is_down(
    tiny_cell, new_workspace, capsys, figure
):
    from crossfold.platform.edge.tracking.tracker import MlflowTracker

    workspace = new_workspace()
    cells = [tiny_cell("concat", seed=seed, epochs=EPOCHS, optimizer__plateau_patience=EPOCHS) for seed in range(8)]
    for cell in cells:
        assert attempt_cell(cell, workspace).status == "done"
    told: dict[str, float] = {}
    written: dict[str, float] = {}
    for name, uri in (("sqlite", None), ("server down", "http://127.0.0.1:9")):
        tracker = MlflowTracker(workspace, uri)
        tracker.launch("bench", cells)
        while name == "sqlite" and not tracker._opened:
            tracker.epoch(cells[0], _report(1))
            time.sleep(0.1)
        before, told[name] = time.process_time(), 0.0
        for cell in cells:
            began = time.thread_time()
            tracker.started(cell, 1)
            for epoch in range(1, EPOCHS + 1):
                tracker.epoch(cell, _report(epoch))
            tracker.finished(cell)
            told[name] += time.thread_time() - began
        if name == "sqlite":
            tracker.close()
        written[name] = time.process_time() - before
    share = written["sqlite"] / len(cells) / CELL_SECONDS
    with capsys.disabled():
        sys.stdout.write(
            f"\ntracking {EPOCHS} epochs: {written['sqlite'] / len(cells):.3f} s CPU a cell, {share:.2%} of "
            f"{CELL_SECONDS:.0f} s; telling it takes {told['sqlite'] / len(cells) * 1000:.2f} ms a cell, "
            f"{told['server down'] / len(cells) * 1000:.2f} ms with the server down\n"
        )
    figure(
        f"processor time of tracking {EPOCHS} epochs",
        written["sqlite"] / len(cells),
        "s a cell",
        why=f"It is compared with a cell of {CELL_SECONDS:.0f} s, of which it may be a hundredth.",
    )
    assert share < 0.01
    assert told["server down"] / len(cells) < 0.001 * CELL_SECONDS


ROUNDS, TRAINED = 6, 2
"""Of interleaved training, and cells of each state of the server in each."""
UNCHANGED = 1.05
"""Processor time of training with the server down, against none: the noise of this machine, and no more."""


@pytest.fixture
def server(workspace):
    """The address of a real MLflow server of a workspace on this machine."""
    from crossfold.platform.edge.cli.tracking import SERVER_SETTINGS, server_command

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [*server_command(workspace, port), "--artifacts-destination", str(workspace.root / "served")]
    process = subprocess.Popen(
        command,
        env=os.environ | SERVER_SETTINGS,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        ends = time.monotonic() + 300
        while not answers(port):
            assert time.monotonic() < ends, "the server did not come up"
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1) as answer:
        return bool(answer.status == 200)
    return False


@pytest.mark.benchmark
def test_training_is_as_fast_with_the_mlflow_server_down_as_without_any(
    tiny_cell, new_workspace, server, capsys, compared
):
    """Real cells in this very process, beside the thread that tells MLflow of them: harder on them than a fleet is,
    whose workers have nothing to do with MLflow. The states take turns, so that a busy machine slows all alike."""
    from crossfold.platform.edge.launch.run_cells import run_cells
    from crossfold.platform.edge.tracking.tracker import MlflowTracker
    from tests.support.trials import RecordingTracker

    states: dict[str, str | None] = {"none": None, "up": server, "down": "http://127.0.0.1:9"}
    cells = [
        tiny_cell("jca", seed=seed, epochs=60, patience=60, optimizer__plateau_patience=60, temporal__width=16)
        for seed in range(TRAINED)
    ]
    spent: dict[str, list[tuple[float, float]]] = {state: [] for state in states}
    for turn in range(ROUNDS + 1):
        for state, uri in states.items():
            workspace, clock = new_workspace(), Clock()
            tracker = RecordingTracker() if uri is None else MlflowTracker(workspace, uri)
            tracker.launch("bench", cells)
            options = FleetOptions(workers=0, runner=clock.trial)
            summary = run_cells(cells, workspace, options, tracker_of=lambda _, tracker=tracker: tracker)
            assert summary.done == len(cells)
            # The first turn finds memory, kernels and modules.
            if turn:
                spent[state].append((clock.processor, clock.wall))
            if state != "down":
                tracker.close()
    processor = {state: statistics.median(one for one, _ in given) for state, given in spent.items()}
    wall = {state: statistics.median(one for _, one in given) for state, given in spent.items()}
    with capsys.disabled():
        for state in ("up", "down"):
            sys.stdout.write(
                f"\n{TRAINED} cells, MLflow server {state}, against none: {processor[state] / processor['none']:.3f} "
                f"of the processor time of training, {wall[state] / wall['none']:.3f} of its wall time"
            )
        sys.stdout.write(f" ({processor['none']:.2f} s processor, {wall['none']:.2f} s wall)\n")
    spent_by = {state: [one for one, _ in given] for state, given in spent.items()}
    for state in ("up", "down"):
        compared(f"training with the MLflow server {state}", "no server", ours=spent_by[state], theirs=spent_by["none"])
    assert processor["down"] < UNCHANGED * processor["none"]


class Clock:
    """The real trial, and what its own thread spent in it."""

    processor = wall = 0.0

    def trial(self, cell, workspace, **how):
        processor, wall = time.thread_time(), time.monotonic()
        try:
            return attempt_cell(cell, workspace, **how)
        finally:
            self.processor += time.thread_time() - processor
            self.wall += time.monotonic() - wall


def _report(epoch: int) -> EpochReport:
    return EpochReport(
        epoch=epoch, epochs=EPOCHS, learning_rate=0.1, train_loss=1 / epoch, ccc={"valence": 0.1}, best_ccc=0.1,
        seconds=0.6,
    )  # fmt: skip


WORKER = """
import pickle, sys
import psutil, torch, ray, ray.train, ray.train.torch
import pandas, pyarrow.parquet, safetensors.torch
from crossfold.platform.scheduling import worker as fleet_worker
from crossfold.platform.execution import run_cell as trial
from crossfold.platform.workspace.workspace import Workspace
torch.set_num_threads(1)
torch.nn.Linear(2, 2)(torch.zeros(1, 2)).sum().backward()
def own():
    # What is mapped from a store lies in the page cache of the node, once for all workers.
    maps = psutil.Process().memory_maps(grouped=True)
    return sum(part.private_clean + part.private_dirty for part in maps if not part.path.endswith(".npy"))
before = own()
cell, root = pickle.load(open(sys.argv[1], "rb"))
most = before
class Watch:
    def epoch(self, cell_id, report):
        global most
        most = max(most, own())
outcome = trial.attempt_cell(cell, Workspace(root), reporter=Watch())
assert outcome.status == "done", outcome
print(before, max(most, own()))
"""


@pytest.mark.benchmark
def test_a_worker_adds_little_memory_however_large_the_corpus(tmp_path, new_workspace, tiny_cell, capsys, figure):
    import pickle

    import numpy as np

    added, sizes = {}, {}
    for frames in (2_000, 20_000):
        rng = np.random.default_rng(0)
        clips = [
            {
                "name": f"c{index}", "partition": "validation" if index == 9 else "train",
                "labels": rng.uniform(-1, 1, (frames, 2)),
                "features": {m: rng.standard_normal((frames, 256), dtype=np.float32) for m in ("audio", "visual")},
            }
            for index in range(10)
        ]  # fmt: skip
        store = make_store(tmp_path / str(frames), clips)
        del clips
        workspace = new_workspace(store.path)
        cell = tiny_cell("concat", store=store, epochs=1, window=300, hop=300)
        (tmp_path / "cell.pickle").write_bytes(pickle.dumps((cell, workspace.root)))
        _, said = cpu_of(WORKER, tmp_path / "cell.pickle")
        before, after = map(int, said.split()[-2:])
        added[frames] = (after - before) / 2**20
        sizes[frames] = sum(path.stat().st_size for path in store.path.iterdir()) / 2**20
    with capsys.disabled():
        for frames, more in added.items():
            sys.stdout.write(f"\na worker on a store of {sizes[frames]:.0f} MiB adds {more:.0f} MiB to its libraries")
        sys.stdout.write("\n")
    figure(
        "memory that a cell adds to a worker's libraries",
        max(added.values()),
        "MiB",
        why="The bound is absolute: as many workers as cores have to fit.",
    )
    assert max(added.values()) < 150
    assert max(added.values()) - min(added.values()) < 0.1 * (max(sizes.values()) - min(sizes.values()))


@pytest.mark.benchmark
@pytest.mark.parametrize("slots", [64, 512])
def test_10000_cells_on_a_cluster_in_virtual_time_take_hardly_longer_than_they_must(slots, capsys, compared):
    """The real queue and the real order, with a clock that jumps from one end of a cell to the next."""
    from crossfold.platform.core.recipe import Recipe

    rng = random.Random(1)
    recipe = Recipe()
    cells = [make_cell(seed=seed, recipe=recipe) for seed in range(10_000)]
    seconds = {cell.cell_id: min(rng.lognormvariate(4.0, 0.8), 1500.0) for cell in cells}
    # A forecast is never exact.
    known = Forecast({cell_id: value * rng.uniform(0.8, 1.25) for cell_id, value in seconds.items()})
    now = 0.0
    queue = CellQueue(QueueLimits(lease_seconds=1e9, hang_seconds=1e9), clock=lambda: now)
    queue.submit([cell.model_dump_json() for cell in known.in_turn(cells, slots)])
    queue.close()
    ids = {cell.model_dump_json(): cell.cell_id for cell in cells}
    began = time.process_time()
    running: list[tuple[float, int, str, int]] = []
    for rank in range(slots):
        queue.register(rank, "g", slots)
    free = list(range(slots))
    while free or running:
        for rank in free:
            assignment = queue.take(rank, "g")
            if isinstance(assignment, Assignment):
                cell_id = ids[assignment.cell]
                heapq.heappush(running, (now + seconds[cell_id], rank, cell_id, assignment.attempt))
        if not running:
            break
        now, rank, cell_id, attempt = heapq.heappop(running)
        queue.finish(cell_id, attempt, Outcome("done", seconds[cell_id]))
        free = [rank]
    bound = max(sum(seconds.values()) / slots, max(seconds.values()))
    cost = (time.process_time() - began) / len(cells)
    with capsys.disabled():
        sys.stdout.write(
            f"\n10,000 cells on {slots} slots: {now / bound - 1:.2%} above the lower bound; "
            f"the queue takes {cost * 1e6:.0f} us a cell\n"
        )
    name = f"10,000 cells on {slots} slots, in virtual time"
    compared(name, "the lower bound of any order", ours=[now], theirs=[bound], share=bound / now)
    assert sum(event.kind == "finished" for event in queue.news().events) == len(cells)
    assert now <= 1.05 * bound
