"""The best configurations of a search once more, with fresh seeds: the best of many trials is optimistic."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

import scipy.stats

from crossfold.platform.core.cell import Cell
from crossfold.platform.edge.search.objective import best_ccc
from crossfold.platform.edge.search.study import Study
from crossfold.platform.workspace.workspace import Workspace
from crossfold.sweeps.trials import trial_cells

if TYPE_CHECKING:
    from crossfold.datasets.store.feature_store import FeatureStore
    from crossfold.sweeps.sweep_files import Search

FEWEST_SEEDS = 3
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Retrained:
    """One of the best configurations, judged on the same inner folds with seeds that the search did not have."""

    number: int
    """Of its trial."""
    params: Mapping[str, Any]
    search_value: float
    """The CCC for which the search chose it."""
    values: tuple[float, ...]
    """Mean CCC of all inner folds and targets, one a fresh seed."""

    @property
    def mean(self) -> float:
        """Over the fresh seeds."""
        return fmean(self.values)

    @property
    def interval(self) -> tuple[float, float]:
        """Of the mean over fresh seeds, 95 %, by Student's t."""
        sem = float(scipy.stats.sem(self.values))
        if sem == 0:
            return self.mean, self.mean
        low, high = scipy.stats.t.interval(CONFIDENCE, len(self.values) - 1, self.mean, sem)
        return float(low), float(high)

    def as_dict(self) -> dict[str, Any]:
        """For a record of the search."""
        low, high = self.interval
        return asdict(self) | {"mean": self.mean, "low": low, "high": high}


def fresh_seeds(search: "Search") -> tuple[int, ...]:
    """As many seeds as the winner will have, at least three, that neither it nor the search uses."""
    first = max(*search.seeds, *search.winner.seeds) + 1
    return tuple(range(first, first + max(len(search.winner.seeds), FEWEST_SEEDS)))


def fresh_cells(study: Study, store: "FeatureStore") -> dict[int, tuple[Cell, ...]]:
    """The inner-fold cells of each of the best trials with fresh seeds, by number of the trial."""
    again = study.search.model_copy(update={"seeds": fresh_seeds(study.search)})
    best = study.best_trials(study.search.retrain)
    return {trial.number: trial_cells(again, store, trial.params) for trial in best}


def read_retrained(study: Study, store: "FeatureStore", workspace: Workspace) -> list[Retrained]:
    """Those whose cells have all finished, in the order of their trials' values."""
    trials = {trial.number: trial for trial in study.best_trials(study.search.retrain)}
    found = []
    for number, cells in fresh_cells(study, store).items():
        if len(workspace.finished_among(cell.cell_id for cell in cells)) < len(cells):
            continue
        by_seed: dict[int, list[float]] = {}
        for cell in cells:
            by_seed.setdefault(cell.seed, []).append(best_ccc(workspace.read_exactly(cell.cell_id)))
        means = tuple(fmean(values) for values in by_seed.values())
        found.append(Retrained(number, dict(trials[number].params), float(trials[number].values[0]), means))
    return found
