"""Training from Python: one cell in this process, or a sweep on Ray workers."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.progress import Progress as Bars
from rich.progress import TaskID

from crossfold.platform.core.cell import Cell
from crossfold.platform.core.errors import FleetError, UserError
from crossfold.platform.core.registry import load_plugin
from crossfold.platform.edge.api.trained_cell import TrainedCell
from crossfold.platform.edge.api.workspace import Workspace as Results
from crossfold.platform.edge.launch.preflight import check_before_work, driving
from crossfold.platform.edge.launch.run_cells import run_cells
from crossfold.platform.edge.launch.run_sweeps import run_sweeps
from crossfold.platform.edge.tracking.tracker import MlflowTracker
from crossfold.platform.scheduling.events import Event
from crossfold.platform.scheduling.fleet_options import FleetOptions
from crossfold.platform.scheduling.monitor import Progress
from crossfold.platform.workspace.workspace import Workspace
from crossfold.sweeps.prepared import prepare_cells, read_sweep
from crossfold.sweeps.sweep_files import Sweep


class _EpochBar:
    """One bar that moves with the epochs of the one cell that runs; rich draws it in terminals and notebooks."""

    def __init__(self, label: str) -> None:
        self._bars, self._label, self._task = Bars(transient=True), label, TaskID(0)

    @contextlib.contextmanager
    def showing(self, progress: Progress) -> Iterator[None]:
        with self._bars:
            self._task = self._bars.add_task(self._label, total=None)
            yield

    def event(self, event: Event, label: str, progress: Progress) -> None:
        if event.report is not None:
            scores = ", ".join(f"{target} CCC {value:.3f}" for target, value in event.report.ccc.items())
            done, total = event.report.epoch, event.report.epochs
            self._bars.update(self._task, completed=done, total=total, description=f"{self._label}: {scores}")

    def name_of(self, cell: Cell) -> str:
        return cell.label

    def note(self, text: str) -> None:
        self._bars.console.print(text)


def train(
    *,
    system: str | Mapping[str, Mapping[str, Any]],
    corpus: str,
    target: str | Sequence[str] = "valence",
    fold: int = 0,
    seed: int = 0,
    recipe: str = "demo",
    workspace: str | Path | None = None,
    **settings: Any,
) -> TrainedCell:
    """Trains one cell in this process and returns it; one that finished before is returned at once.

    system: a name, or one with parameters, as `{"rjca": {"iterations": 2}}`; one of a file of yours is known after
    `load_plugin(file)`. target: one name, or several for one model with a head per target.
    settings: fields of the recipe that differ, dots written as two underscores: `epochs=5, optimizer__lr=0.001`.
    The cell is the one that a sweep with these settings would run, it lies in the workspace, and MLflow logs it.
    Raises `UserError` before work for what is unknown or missing, `FleetError` where the cell failed, with the reason.
    """
    targets = [target] if isinstance(target, str) else list(target)
    data = {
        "name": "train",
        "corpus": corpus,
        "recipe": recipe,
        "set": {name.replace("__", "."): value for name, value in settings.items()},
        "systems": [system],
        "targets": targets,
        "joint_targets": True if len(targets) > 1 else None,
        "folds": [fold],
        "seeds": [seed],
    }
    space = Workspace.locate(workspace)
    prepared = prepare_cells(Sweep.parse(data, "train"), space)
    if prepared.plan.skipped:
        skipped = prepared.plan.skipped[0]
        raise UserError(f"{skipped.label} does not run: {skipped.reason}", "choose another system, corpus or target")
    (cell,) = prepared.plan.cells
    if prepared.missing:
        check_before_work(prepared, space)
        tracker = MlflowTracker(space)
        with driving(space):
            tracker.launch("train", [cell])
            try:
                run_cells(
                    [cell],
                    space,
                    FleetOptions(workers=0),
                    sweep="train",
                    tracker_of=lambda cell_id: tracker,
                    view=_EpochBar(cell.label),
                )
            finally:
                tracker.close()
        _raise_if_unfinished(space, cell.cell_id, cell.label)
    return TrainedCell(space.read_exactly(cell.cell_id), space)


def sweep(
    source: str | Path | Mapping[str, Any],
    *,
    workspace: str | Path | None = None,
    workers: int | None = None,
    address: str | None = None,
    only: Sequence[str] = (),
    plugins: Sequence[str | Path] = (),
) -> pd.DataFrame:
    """Runs what is missing of a sweep on Ray workers and returns the results of its cells, as `Workspace.results`.

    source: a YAML file, the name of a sweep that ships, or the content of such a file as a mapping.
    workers: as many as the machine has cores, or shares of a GPU, if not given; 0 runs in this process, without Ray.
    address: of a Ray cluster, see `crossfold run --help`. only: conditions such as `system=rjca`. plugins: Python
    files that register systems, which the workers load too.
    Raises `UserError` before work for what is unknown or missing.
    """
    space, files = Workspace.locate(workspace), [Path(plugin) for plugin in plugins]
    for plugin in files:
        load_plugin(plugin)
    if isinstance(source, Mapping):
        read = Sweep.parse(dict(source), str(source.get("name", "sweep")))
    else:
        read = read_sweep(str(source), None, space)
    prepared = prepare_cells(read, space)
    check_before_work(prepared, space)
    run_sweeps([prepared], space, FleetOptions(workers=workers, address=address, plugins=files), conditions=only)
    results = Results(workspace).results()
    asked = {cell.cell_id for cell in prepared.plan.cells}
    return results[results["cell_id"].isin(asked)].reset_index(drop=True)


def _raise_if_unfinished(space: Workspace, cell_id: str, label: str) -> None:
    if cell_id in space.finished():
        return
    failures = space.failures_of(cell_id)
    if not failures:
        raise FleetError(f"{label} was stopped; the same call continues")
    raise FleetError(f"{label} failed ({failures[-1].kind}): {failures[-1].message}")
