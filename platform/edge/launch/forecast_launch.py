"""How long the cells of a launch will take, and which sweep comes first."""

from collections.abc import Sequence
from pathlib import Path

from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.platform.core.cell import Cell
from crossfold.platform.execution.cost_history import cost_keys
from crossfold.platform.execution.duration_forecast import forecast
from crossfold.platform.scheduling.run_order import Forecast
from crossfold.platform.workspace.workspace import Workspace
from crossfold.sweeps.prepared import Prepared


def forecast_launch(sweeps: Sequence[Prepared], todo: Sequence[Sequence[Cell]], space: Workspace) -> Forecast:
    """Forecasts the cells that will run, for each sweep. Nothing is timed where the order could not matter."""
    seconds: dict[str, float] = {}
    by_store: dict[Path, tuple[FeatureStore, list[Cell]]] = {}
    for prepared, cells in zip(sweeps, todo, strict=True):
        for store in prepared.stores:
            of_store = [cell for cell in cells if cell.store == store.content_hash]
            by_store.setdefault(store.path, (store, []))[1].extend(of_store)
    alike = len({key for cells in todo for key in cost_keys(cells).values()}) == 1
    for store, cells in by_store.values():
        # An epoch of a backbone may take longer than the limit for one that hangs, so it is timed in any case.
        probe = not alike or any(cell.recipe.backbones for cell in cells[:1])
        seconds |= forecast(cells, space, store, probe=probe)
    return Forecast(seconds, {cell.cell_id: place for place, cells in enumerate(todo) for cell in cells})
