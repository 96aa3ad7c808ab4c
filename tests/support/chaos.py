"""A sweep that is run by its own command while a script kills its workers, its nodes and its driver.

The script kills when the sweep has got so many cells further since the last time, so that it neither spares a fast
machine nor starves a slow one.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.factories import TARGETS, TINY_SETTINGS, synthetic_workspace, write_sweep
from tests.support.paths import ROOT, environment

SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1"}
QUICK_TO_NOTICE = {
    "health_check_initial_delay_ms": 1000, "health_check_period_ms": 500, "health_check_timeout_ms": 500,
    "health_check_failure_threshold": 4,
}  # fmt: skip


def prepare_chaos(folder: Path, cells: int, targets: Sequence[str] = TARGETS) -> Path:
    """A sweep of `cells` cells of two systems, and next to it a workspace `work` with their store."""
    synthetic_workspace(folder)
    longer = TINY_SETTINGS | {"epochs": 8, "patience": 8, "stress": "none"}
    seeds = list(range(cells // (2 * len(targets))))
    return write_sweep(folder / "chaos.yaml", set=longer, targets=list(targets), seeds=seeds)


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "crossfold.platform.edge.cli", *map(str, arguments)]


COSTS = (b',"Training, s",', b',"Memory, MiB",')
"""Columns of the leaderboard that say what a run cost, and so differ between any two runs."""


def tables(sweep: Path, work: Path) -> dict[str, bytes]:
    """Every table of the report as CSV, by file name, without what the runs cost."""
    subprocess.run(command("report", "--format", "csv", "-w", work), check=True, capture_output=True, timeout=900)
    return {
        str(path.relative_to(work)): b"".join(
            line for line in path.read_bytes().splitlines(keepends=True) if not any(cost in line for cost in COSTS)
        )
        for path in sorted((work / "reports").rglob("*.csv"))
    }


def undisturbed(sweep: Path, work: Path) -> dict[str, bytes]:
    """The tables of the same sweep, run in one process, in a workspace of its own that shares the store."""
    work.mkdir()
    (work / "stores").symlink_to(sweep.parent / "work" / "stores")
    subprocess.run(
        command("run", sweep, "-w", work, "--workers", "0"), check=True, capture_output=True, timeout=3600, cwd=ROOT
    )
    return tables(sweep, work)


PROCESSES = {"worker": "RayTrainWorker", "controller": "TrainController", "queue": "CellQueue"}
"""What Ray calls the processes that can be killed."""


@dataclass
class Chaos:
    """One disturbed run. `kinds` are killed in turn (`driver`, `node`, or one of `PROCESSES`), `kills` in all."""

    sweep: Path
    work: Path
    kinds: tuple[str, ...]
    kills: int
    stride: int = 1
    """Cells that end between two kills."""
    seed: int = 0
    killed: Counter = field(default_factory=Counter)
    launches: int = 0
    codes: list[int] = field(default_factory=list)
    _cluster: object = None
    _node: object = None

    def run(self, seconds: float) -> None:
        """Launches the same command until it ends with all cells done."""
        deadline = time.monotonic() + seconds
        rng = random.Random(self.seed)
        with self._nodes():
            driver = self._launch()
            try:
                before = self._finished()
                while (code := driver.poll()) != 0:
                    assert time.monotonic() < deadline, (self.killed, self._finished(), self.log.read_text()[-3000:])
                    if code is not None:
                        self.codes.append(code)
                        assert code != 2, self.log.read_text()[-3000:]
                        assert self.launches < 20, self.log.read_text()[-3000:]
                        driver = self._launch()
                    elif sum(self.killed.values()) < self.kills and self._finished() >= before + self.stride:
                        time.sleep(rng.uniform(0.1, 2.0))
                        if self._kill(self.kinds[sum(self.killed.values()) % len(self.kinds)], driver):
                            before = self._finished()
                    time.sleep(0.05)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    driver.kill()
                driver.wait()

    @property
    def log(self) -> Path:
        """What all drivers said."""
        return self.sweep.parent / "drivers.log"

    def _finished(self) -> int:
        cells = self.work / "cells"
        return sum(not path.name.startswith(".") for path in cells.iterdir()) if cells.is_dir() else 0

    def _launch(self) -> subprocess.Popen:
        self.launches += 1
        where = ["--address", self._cluster.address] if self._cluster else []
        with self.log.open("a") as log:
            return subprocess.Popen(
                command("run", self.sweep, "-w", self.work, "--workers", "2", *where),
                stdout=log, stderr=subprocess.STDOUT, cwd=ROOT, env=environment(**SETTINGS),
            )  # fmt: skip

    def _kill(self, kind: str, driver: subprocess.Popen) -> bool:
        if kind == "driver":
            driver.send_signal(signal.SIGKILL)
            driver.wait()
        elif kind == "node":
            self._cluster.remove_node(self._node, allow_graceful=False)
            self._node = self._cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20, wait=False)
        else:
            found = processes_named(PROCESSES[kind], {driver.pid} if self._cluster is None else self._raylets())
            if not found:
                return False
            with contextlib.suppress(ProcessLookupError):
                os.kill(found[0], signal.SIGKILL)
        self.killed[kind] += 1
        return True

    def _raylets(self) -> set[int]:
        return {
            process.process.pid
            for node in self._cluster.list_all_nodes()
            for process in node.all_processes.get("raylet", ())
        }

    @contextlib.contextmanager
    def _nodes(self):
        """Two local nodes of a CPU each, the driver's without one, if nodes are to be killed."""
        if "node" not in self.kinds:
            yield
            return
        os.environ.update(SETTINGS)
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 1, "object_store_memory": 100 * 2**20, "include_dashboard": False}
        self._cluster = Cluster(head_node_args=head | {"_system_config": QUICK_TO_NOTICE}, initialize_head=True)
        try:
            self._node = self._cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)
            yield
        finally:
            self._cluster.shutdown()


def processes_named(name: str, ancestors: Collection[int]) -> list[int]:
    """Processes of Ray of this name below the given ones, in a drawn order."""
    import psutil

    found = []
    for ancestor in ancestors:
        with contextlib.suppress(psutil.Error):
            for process in psutil.Process(ancestor).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if name in " ".join(process.cmdline()):
                        found.append(process.pid)
    random.shuffle(found)
    return found


def runs_in_mlflow(work: Path, sweep: str = "chaos") -> Counter:
    """Runs of each cell of a sweep that are finished, by cell id; fails on any other status."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{work / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(sweep)
    runs = client.search_runs([experiment.experiment_id], max_results=10_000)
    cells = [run for run in runs if "cell_id" in run.data.tags]
    assert {run.info.status for run in cells} == {"FINISHED"}
    return Counter(run.data.tags["cell_id"] for run in cells)


def planned(sweep: Path, work: Path) -> dict:
    """What `plan --json` says."""
    said = subprocess.run(command("plan", sweep, "-w", work, "--json"), check=True, capture_output=True, timeout=300)
    return json.loads(said.stdout)
