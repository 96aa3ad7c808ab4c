"""The objective of a search: trains the inner-fold cells of one configuration, and says epoch by epoch how they do."""

import threading
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from crossfold.platform.core.cell import Cell
from crossfold.platform.scheduling.cell_queue import CellQueue
from crossfold.platform.workspace.cell_record import CellRecord
from crossfold.platform.workspace.workspace import Workspace

POLL_SECONDS = 0.25
"""Between two questions to a queue in another process."""


class TrialFailed(RuntimeError):
    """A cell failed or was stopped, so the mean over all cells of the configuration does not exist."""


@dataclass
class _Course:
    """The best CCC of one cell by epoch, as far as it is known."""

    best: dict[int, float] = field(default_factory=dict)
    epoch: int = 0
    done: bool = False

    def by(self, epoch: int) -> float:
        """The best CCC up to an epoch; of an epoch that was not seen, that of the last one seen before."""
        return self.best[max((seen for seen in self.best if seen <= epoch), default=min(self.best))]


class Scoreboard:
    """The objective: the mean over the cells of a configuration of the best CCC so far, epoch by epoch.

    Best so far rather than current, because that is the state a cell keeps: a cell that stopped early goes on counting
    with what it kept, and the last value is the mean of `best_ccc`, whatever the order in which the cells ran.
    """

    def __init__(self, cell_ids: Sequence[str]) -> None:
        """No cell has begun."""
        self._courses = {cell_id: _Course() for cell_id in cell_ids}

    def waiting(self) -> list[str]:
        """Cells that have not finished."""
        return [cell_id for cell_id, course in self._courses.items() if not course.done]

    @property
    def epoch(self) -> int:
        """The last epoch that every cell has reached or ended before."""
        behind = [course.epoch for course in self._courses.values() if not course.done]
        return min(behind, default=max(course.epoch for course in self._courses.values()))

    @property
    def cell_epochs(self) -> int:
        """Epochs of all cells together."""
        return sum(course.epoch for course in self._courses.values())

    def value(self, epoch: int) -> float:
        """The objective at an epoch that all cells have reached."""
        return sum(course.by(epoch) for course in self._courses.values()) / len(self._courses)

    def see(self, states: Mapping[str, Mapping[str, Any]]) -> None:
        """Takes in what the queue says of running cells. Raises `TrialFailed` if one of them failed or was stopped."""
        for cell_id, state in states.items():
            course = self._courses[cell_id]
            if state["state"] in ("failed", "cancelled"):
                raise TrialFailed(f"cell {cell_id} {state['state']}: {state['message']}")
            if state["epoch"] and not course.done:
                course.epoch = max(course.epoch, state["epoch"])
                course.best |= state["best_by_epoch"]

    def finish(self, record: CellRecord) -> None:
        """Takes in the whole curve of a finished cell."""
        best = _best_by_epoch(record)
        self._courses[record.cell_id] = _Course(dict(enumerate(best, start=1)), len(best), True)


def best_ccc(record: CellRecord) -> float:
    """The objective of one finished cell."""
    return _best_by_epoch(record)[-1]


def _best_by_epoch(record: CellRecord) -> list[float]:
    curve = record.curve
    mean = curve[[name for name in curve.columns if str(name).startswith("ccc_")]].mean(axis=1)
    return [float(value) for value in mean.cummax()]


@dataclass(frozen=True)
class Progress:
    """The objective after an epoch that every cell of the configuration has ended."""

    epoch: int
    ccc: float
    finished: bool
    """Whether all cells have ended. Where they stopped early, the same epoch was reported before."""
    cell_epochs: int
    """Epochs that the cells have trained, of all together."""
    costs: Mapping[str, float]
    """Mean over the cells of each cost that is known, once they have ended."""


def follow(
    cells_json: Sequence[str],
    queue: CellQueue,
    workspace: Workspace,
    *,
    stopping: threading.Event | None = None,
    poll_seconds: float = POLL_SECONDS,
) -> Generator[Progress, None, None]:
    """Submits the cells of a configuration, and yields its objective for each epoch; finished cells are read instead.

    Closing the iterator early cancels the cells that are left. Raises `TrialFailed` when a cell failed or was
    cancelled, and when `stopping` is set.
    """
    cells = [Cell.model_validate_json(text) for text in cells_json]
    texts = {cell.cell_id: text for cell, text in zip(cells, cells_json, strict=True)}
    most_epochs = max(cell.recipe.epochs for cell in cells)
    stopping = stopping or threading.Event()
    board = Scoreboard(list(texts))
    costs: list[dict[str, float]] = []
    _collect(board, workspace, costs)
    queue.submit([texts[cell_id] for cell_id in board.waiting()])
    reported = 0
    try:
        while True:
            waiting = board.waiting()
            # What is reported must not depend on when the queue is asked, so that a search can be repeated exactly: all
            # epochs but the last that a cell can have, which comes with the end.
            for epoch in range(reported + 1, min(board.epoch + 1, most_epochs)):
                yield Progress(epoch, board.value(epoch), False, board.cell_epochs, {})
                reported = epoch
            if not waiting:
                break
            if stopping.wait(poll_seconds):
                raise TrialFailed("the search is stopping")
            known = queue.watch(waiting)
            board.see(known)
            _collect(board, workspace, costs)
            # A queue that was killed starts again empty, and its driver need not have heard of these cells before.
            if lost := [cell_id for cell_id in board.waiting() if cell_id not in known]:
                queue.submit([texts[cell_id] for cell_id in lost])
        yield Progress(board.epoch, board.value(board.epoch), True, board.cell_epochs, _mean(costs))
    finally:
        if waiting := board.waiting():
            queue.cancel(waiting)


def _collect(board: Scoreboard, workspace: Workspace, costs: list[dict[str, float]]) -> None:
    for cell_id in workspace.finished_among(board.waiting()):
        record = workspace.read_exactly(cell_id)
        board.finish(record)
        model = record.result["model"]
        known = {
            "parameters": model.get("parameters"),
            "flops": model.get("flops_per_window"),
            "seconds": record.env.get("train_seconds"),
        }
        costs.append({name: float(value) for name, value in known.items() if value is not None})


def _mean(costs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each cost that every cell has."""
    shared = set.intersection(*(set(each) for each in costs))
    return {name: fmean(each[name] for each in costs) for name in sorted(shared)}
