"""A sweep with its store, its cells and what is finished of them."""

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from crossfold.datasets.corpora.embedded.dose import PuppetDose, SyntheticDose, dose_of
from crossfold.datasets.corpora.embedded.dosed_store import dosed_store
from crossfold.datasets.corpora.registry import EMBEDDED
from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.platform.core.cell import Cell
from crossfold.platform.core.errors import UserError
from crossfold.platform.workspace.documents import read_launched
from crossfold.platform.workspace.workspace import Workspace
from crossfold.sweeps.plan import Plan, expand, seen_by_choice
from crossfold.sweeps.sweep_files import AnySearch, Search, Sweep, load, parse_sweep, shipped_sweeps


@dataclass(frozen=True)
class Prepared:
    """A sweep that was read, checked and expanded against its store."""

    sweep: Sweep
    stores: tuple[FeatureStore, ...]
    """One, or one for each dose of the corpus."""
    plan: Plan
    finished: frozenset[str]
    narrowed: bool = False
    """Whether `--set` changed the sweep for this launch only."""

    @property
    def store(self) -> FeatureStore:
        """The store; of several doses the first, which has the same modalities, targets and folds as the others."""
        return self.stores[0]

    @property
    def missing_by_store(self) -> tuple[tuple[FeatureStore, tuple[Cell, ...]], ...]:
        """Each store with its cells that have no result."""
        return tuple(
            (store, tuple(cell for cell in self.missing if cell.store == store.content_hash)) for store in self.stores
        )

    @property
    def seen(self) -> tuple[int, ...]:
        """Folds whose reported clips were seen when the parameters or the recipe were chosen."""
        if self.sweep.seen is not None:
            return self.sweep.seen
        return seen_by_choice(self.sweep.recipe, self.store, self.sweep.folds)

    @property
    def missing(self) -> tuple[Cell, ...]:
        """Cells without a result."""
        return tuple(cell for cell in self.plan.cells if cell.cell_id not in self.finished)


def read_sweep(source: str, overrides: Sequence[str] | None, workspace: Workspace | None = None) -> Sweep:
    """A grid sweep, whose plug-ins are loaded by now: a file, one that ships, or one launched in the workspace.

    Raises `UserError` with the right command for a search.
    """
    launched = None if workspace is None else workspace.paths.sweeps / f"{source}.json"
    if launched is not None and launched.is_file() and not Path(source).exists() and source not in shipped_sweeps():
        sweep = parse_sweep(read_launched(launched)["sweep"], source, overrides or ())
    else:
        sweep = load(source, overrides or ())
    if isinstance(sweep, AnySearch):
        raise UserError(f"{source} is a search, not a grid", f"run `crossfold search {source}`")
    return sweep


def read_searches(source: str, overrides: Sequence[str] | None) -> tuple[Search, ...]:
    """The searches of a file, one for each system. Raises `UserError` with the right command for a grid sweep."""
    # It imports torch, which the plan of a grid does without.
    from crossfold.sweeps.search_sweeps import searches_of

    search = load(source, overrides or ())
    if isinstance(search, Sweep):
        raise UserError(
            f"{source} is a grid, not a search (it has no `search` and no `space`)", f"run `crossfold run {source}`"
        )
    return searches_of(search)


def _has_store(corpus: str, workspace: Workspace) -> bool:
    return any(workspace.paths.stores.glob(f"{glob.escape(corpus)}-*/manifest.json"))


def _find_store(corpus: str, store: str | None, workspace: Workspace) -> Path:
    """The store of a corpus; that of a dose is made where it is not there.

    Where the corpus is not prepared, the error names the corpus that needs no licence, too.
    """
    dose = dose_of(corpus)
    if isinstance(dose, SyntheticDose) and store is None:
        return dosed_store(workspace.paths.stores, dose)
    try:
        return workspace.find_store(corpus, store)
    except UserError as error:
        if isinstance(dose, PuppetDose) and not _has_store(corpus, workspace):
            given = "".join(f" --dose {key}={value}" for key, value in dose.model_dump(exclude_defaults=True).items())
            made = f"`crossfold corpus puppets OUT{given or ' --dose conflict=0'}`"
            raise UserError(error.problem, f"{made}, then `crossfold prepare puppets --root OUT`") from None
        if corpus.startswith(EMBEDDED) or _has_store(corpus, workspace):
            raise
        made = "" if _has_store(EMBEDDED, workspace) else " (`crossfold demo` prepares it)"
        without = f"without those data: --set corpus={EMBEDDED} --set recipe=demo{made}"
        raise UserError(error.problem, f"{error.remedy}; {without}") from None


def prepare_cells(sweep: Sweep, workspace: Workspace, *, narrowed: bool = False) -> Prepared:
    """Expands a sweep against its store, and lists the finished cells of the workspace once."""
    stores = tuple(FeatureStore(_find_store(corpus, sweep.store, workspace)) for corpus in sweep.corpora)
    plans = [expand(sweep, store) for store in stores]
    cells = tuple(cell for plan in plans for cell in plan.cells)
    return Prepared(sweep, stores, Plan(cells, plans[0].skipped), frozenset(workspace.finished()), narrowed)
