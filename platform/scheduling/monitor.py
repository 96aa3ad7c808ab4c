"""The progress of a launch: counts and times, what a person sees of them, and the state on disk for `status`."""

import contextlib
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from crossfold.platform.core.cell import Cell
from crossfold.platform.core.files import utc_now, write_json
from crossfold.platform.core.outcome import EpochReport, Failure
from crossfold.platform.scheduling.events import Event, State
from crossfold.platform.scheduling.tracker import TrackerOf
from crossfold.platform.scheduling.worker_log import log_tail
from crossfold.platform.workspace.disk_space import DiskGate
from crossfold.platform.workspace.workspace import Workspace

STATUS_SECONDS = 1.0
"""Between two writings of the state on disk."""
NOTE_SECONDS = 60.0
"""Between two lines about what a launch waits for."""
MOST_UNRECORDED = 1000
"""Failures that wait for a place on a full disk; of more, the latest."""


@dataclass(frozen=True)
class FleetSummary:
    """How a launch went."""

    done: int = 0
    failed: int = 0
    cancelled: int = 0
    interrupted: bool = False
    """Stopped by a signal; the same command continues."""
    time_up: bool = False
    """Stopped because the time it was given was over; the same command continues."""
    workers: int = 0
    wall_seconds: float = 0.0
    startup_seconds: float = 0.0
    """Until the first worker took a cell."""
    steady_seconds: float = 0.0
    """From then until the last cell ended."""
    cell_seconds: dict[str, float] = field(default_factory=dict)
    """Seconds of each finished cell, by identity."""

    @property
    def overhead_seconds(self) -> float:
        """Wall time beyond that of workers which train all the time; start-up and shutdown included."""
        return self.wall_seconds - sum(self.cell_seconds.values()) / max(self.workers, 1)


@dataclass
class Running:
    """A cell that a worker holds."""

    label: str
    rank: int
    since: float
    report: EpochReport | None = None

    def row(self, cell_id: str, now: float) -> dict[str, Any]:
        """As plain data, for the status file."""
        report = self.report
        # A CCC that is not a number is left out, as JSON has no NaN.
        return {
            "cell_id": cell_id,
            "label": self.label,
            "epoch": report.epoch if report else 0,
            "epochs": report.epochs if report else 0,
            "ccc": {target: value for target, value in report.ccc.items() if math.isfinite(value)} if report else {},
            "best_ccc": report.best_ccc if report and math.isfinite(report.best_ccc) else None,
            "worker": self.rank,
            "seconds": max(now - self.since, 0.0),
            "gpu_bytes": report.gpu_bytes if report else 0,
        }


_STATE_AFTER: dict[str, State] = {
    "queued": "queued",
    "requeued": "queued",
    "finished": "done",
    "failed": "failed",
    "cancelled": "cancelled",
}


class Progress:
    """Counts, running cells and times, as far as events say."""

    def __init__(self, sweep: str, workers: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`workers`: how many cells run at once."""
        self.sweep = sweep
        self.workers = workers
        self.running: dict[str, Running] = {}
        self.seconds: dict[str, float] = {}
        """Training seconds of each finished cell."""
        self.first_start: float | None = None
        self.last_end: float | None = None
        self._clock = clock
        self._began = clock()
        self._states: dict[str, State] = {}
        self._counts: Counter[State] = Counter()

    def apply(self, event: Event, label: str) -> None:
        """Takes one event in."""
        match event.kind:
            case "started":
                now = self._clock()
                self.first_start = now if self.first_start is None else self.first_start
                self.running[event.cell_id] = Running(label, event.rank, now)
                self._move(event.cell_id, "running")
            case "epoch":
                if event.cell_id in self.running:
                    self.running[event.cell_id].report = event.report
            case "fatal":
                pass
            case _:
                self.running.pop(event.cell_id, None)
                self._move(event.cell_id, _STATE_AFTER[event.kind])
                if event.kind == "finished":
                    self.seconds[event.cell_id] = event.seconds
                    self.last_end = self._clock()

    @property
    def total(self) -> int:
        """Cells submitted so far."""
        return len(self._states)

    @property
    def done(self) -> int:
        """Cells that lie in the workspace."""
        return self._counts["done"]

    @property
    def failed(self) -> int:
        """Cells given up."""
        return self._counts["failed"]

    @property
    def cancelled(self) -> int:
        """Cells that were stopped."""
        return self._counts["cancelled"]

    @property
    def left(self) -> int:
        """Cells that have not ended."""
        return self._counts["queued"] + self._counts["running"]

    @property
    def per_minute(self) -> float | None:
        """Finished cells a minute between the first start and the last end; None before one finished."""
        if self.first_start is None or self.last_end is None:
            return None
        return 60 * len(self.seconds) / max(self.last_end - self.first_start, 1e-6)

    @property
    def eta_seconds(self) -> float | None:
        """Until all cells ended, if the rest are like the finished ones; None before one finished."""
        if not self.seconds:
            return None
        mean = sum(self.seconds.values()) / len(self.seconds)
        now = self._clock()
        # A copy, here and in `snapshot`: the live view reads in its own thread.
        rest = sum(max(mean - (now - running.since), 0.0) for running in list(self.running.values()))
        return (rest + mean * self._counts["queued"]) / max(self.workers, 1)

    def snapshot(self) -> dict[str, Any]:
        """The state as plain data, for the status file."""
        now = self._clock()
        return {
            "sweep": self.sweep,
            "at": utc_now(),
            "workers": self.workers,
            "done": self.done,
            "total": self.total,
            "failed": self.failed,
            "cancelled": self.cancelled,
            "running": [running.row(cell_id, now) for cell_id, running in list(self.running.items())],
            "eta_seconds": self.eta_seconds,
            "throughput_per_minute": self.per_minute,
        }

    def summary(self, workers: int, *, interrupted: bool, time_up: bool) -> FleetSummary:
        """How the launch went, from the first moment until now."""
        now = self._clock()
        return FleetSummary(
            done=self.done,
            failed=self.failed,
            cancelled=self.cancelled,
            interrupted=interrupted,
            # A time that is up after the last cell has ended cost nothing.
            time_up=time_up and not interrupted and self.cancelled > 0,
            workers=workers,
            wall_seconds=now - self._began,
            startup_seconds=(self.first_start or now) - self._began,
            steady_seconds=(self.last_end or now) - (self.first_start or now),
            cell_seconds=dict(self.seconds),
        )

    def _move(self, cell_id: str, state: State) -> None:
        if before := self._states.get(cell_id):
            self._counts[before] -= 1
        self._states[cell_id] = state
        self._counts[state] += 1


class View(Protocol):
    """Where progress is shown. `showing` wraps a launch; the other calls come within it."""

    def showing(self, progress: Progress) -> contextlib.AbstractContextManager[None]: ...

    def event(self, event: Event, label: str, progress: Progress) -> None: ...

    def note(self, text: str) -> None: ...

    def name_of(self, cell: Cell) -> str:
        """What a reader of this launch calls a cell."""
        ...


class SilentView:
    """Shows no progress."""

    def __init__(self, note: Callable[[str], None] = lambda text: None) -> None:
        """`note`: where lines of text go all the same."""
        self.note = note

    @contextlib.contextmanager
    def showing(self, progress: Progress) -> Iterator[None]:
        """Does nothing."""
        yield

    def event(self, event: Event, label: str, progress: Progress) -> None:
        """Does nothing."""

    def name_of(self, cell: Cell) -> str:
        """The label of the cell."""
        return cell.label


class Monitor:
    """Passes the events of a fleet on: to trackers, the failure log of the workspace, the view and the status file."""

    def __init__(
        self,
        sweep: str,
        workspace: Workspace,
        view: View,
        tracker_of: TrackerOf,
        *,
        cells: Iterable[Cell] = (),
        finished: Callable[[Cell, float], None] = lambda cell, seconds: None,
        disk: DiskGate | None = None,
    ) -> None:
        """`cells` may hold those that will be submitted; others are learnt from events.

        finished: called with each finished cell and the seconds of its last attempt. disk: of the workspace.
        """
        self.progress = Progress(sweep, workers=1)
        self.note = view.note
        self._workspace = workspace
        self._view = view
        self._tracker_of = tracker_of
        self._cells = {cell.cell_id: cell for cell in cells}
        self._finished = finished
        self._written = -math.inf
        self._disk, self._full_noted = disk or DiskGate(workspace.root), -math.inf
        self._unrecorded: deque[Failure] = deque(maxlen=MOST_UNRECORDED)

    def feed(self, events: Iterable[Event]) -> None:
        """Passes events on, in order; call it again and again, also without events."""
        for event in events:
            if event.kind == "queued" and event.cell_id not in self._cells:
                self._cells[event.cell_id] = Cell.model_validate_json(event.cell)
            cell = self._cells.get(event.cell_id)
            if event.failure is not None:
                # The queue, which may be in another process, waits for the same.
                self._disk.note_failure(event.failure)
            if event.failure is not None and not event.recorded:
                # The attempt could not record it, so the end of its worker's log stands in for a traceback.
                tail = event.failure.log_tail or log_tail(self._workspace, event.cell_id)
                self._unrecorded.append(replace(event.failure, log_tail=tail))
                self._record_failures()
            if cell is None and event.kind != "fatal":
                # Of a cell that a monitor before this one submitted, where the workers are kept.
                continue
            label = self._view.name_of(cell) if cell else "fleet"
            self.progress.apply(event, label)
            if cell is not None:
                self._track(event, cell)
            self._view.event(event, label, self.progress)
            if event.ends:
                # One that is submitted again comes with its event; a search of thousands of trials must not keep them.
                self._cells.pop(event.cell_id, None)
        if time.monotonic() - self._written >= STATUS_SECONDS:
            self.write_status()

    def write_status(self) -> None:
        """Writes the state where any process can read it; a disk that is full or out of reach stops no launch."""
        with contextlib.suppress(OSError):
            write_json(self._workspace.paths.status_of(self.progress.sweep), self.progress.snapshot())
        self._written = time.monotonic()
        self._record_failures()
        if self._disk():
            self._full_noted = -math.inf
        elif time.monotonic() - self._full_noted >= NOTE_SECONDS:
            self._full_noted = time.monotonic()
            waits = f"the disk of {self._workspace.root} is full: no cell starts until there is space"
            self.note(f"{waits}; {self._disk.need()}")

    def _record_failures(self) -> None:
        """Writes the failures that wait; what a full disk does not take waits on."""
        with contextlib.suppress(OSError):
            while self._unrecorded:
                self._workspace.record_failure(self._unrecorded[0])
                self._unrecorded.popleft()

    def _track(self, event: Event, cell: Cell) -> None:
        if event.kind == "finished":
            self._finished(cell, event.seconds)
        tracker = self._tracker_of(cell.cell_id)
        if tracker is None:
            return
        if event.kind == "started":
            tracker.started(cell, event.attempt)
        elif event.kind == "epoch" and event.report is not None:
            tracker.epoch(cell, event.report)
        elif event.kind == "finished":
            tracker.finished(cell)
        elif event.failure is not None:
            tracker.failed(cell, event.failure)
