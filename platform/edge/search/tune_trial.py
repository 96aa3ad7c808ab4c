"""One trial of a search: submits the inner-fold cells of a configuration to the fleet, and reports to Tune how they do.

It runs in a process of its own that needs neither torch nor a core; the training is done by the fleet's workers.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from crossfold.platform.core.cell import Cell
from crossfold.platform.workspace.cell_record import CellRecord
from crossfold.platform.workspace.workspace import Workspace

METRIC = "ccc"
POLL_SECONDS = 0.25


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
                course.best[state["epoch"]] = state["best_ccc"]

    def finish(self, record: CellRecord) -> None:
        """Takes in the whole curve of a finished cell."""
        curve = record.curve
        mean = curve[[name for name in curve.columns if str(name).startswith("ccc_")]].mean(axis=1)
        best = [float(value) for value in mean.cummax()]
        self._courses[record.cell_id] = _Course(dict(enumerate(best, start=1)), len(best), True)


def judge(config: dict[str, Any], *, queue: str, namespace: str, workspace: str) -> None:
    """The trainable. `config["cells"]` holds the cells as JSON; finished ones are read instead of run.

    Reports `ccc` for each `epoch`, with `finished` at the end. Whatever ends it cancels the cells that are left.
    """
    import ray
    from ray import tune

    texts = {Cell.model_validate_json(text).cell_id: text for text in config["cells"]}
    actor: Any = ray.get_actor(queue, namespace=namespace)
    space = Workspace.at(workspace)
    board = Scoreboard(list(texts))
    _collect(board, space)
    ray.get(actor.submit.remote([texts[cell_id] for cell_id in board.waiting()]))
    reported = 0
    try:
        while True:
            waiting = board.waiting()
            # The last epoch is reported with the end.
            for epoch in range(reported + 1, board.epoch + bool(waiting)):
                tune.report({METRIC: board.value(epoch), "epoch": epoch, "finished": False})
                reported = epoch
            if not waiting:
                break
            time.sleep(POLL_SECONDS)
            board.see(ray.get(actor.watch.remote(waiting)))
            _collect(board, space)
        tune.report({METRIC: board.value(board.epoch), "epoch": board.epoch, "finished": True})
    finally:
        # Tune ends a stopped trial by an exception out of `report`.
        if waiting := board.waiting():
            ray.get(actor.cancel.remote(waiting))


def _collect(board: Scoreboard, workspace: Workspace) -> None:
    for cell_id in workspace.finished_among(board.waiting()):
        board.finish(workspace.read_exactly(cell_id))
