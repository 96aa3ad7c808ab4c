"""How long cells will take: as long as finished cells of the same kind, else what a few timed steps say.

A probe runs on one core of this machine, and it cannot know when training stops early, what else the machine does or
which GPU the workers have. Kinds of which both is known, the probe and what cells took, tell how far probes are off;
probes of other systems under the same recipe are corrected by that.
"""

import contextlib
import json
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from time import monotonic

from filelock import FileLock

from crossfold.datasets.store import FeatureStore
from crossfold.platform.contracts import Cell, canonical_json
from crossfold.platform.results import Workspace, write_json

logger = logging.getLogger(__name__)

PROBE_SECONDS = 6.0
"""No probe begins later than this in one forecast; kinds that were not reached get the mean of those that were."""
KEEP_SECONDS = 20.0
"""Between two writings of what finished cells told; a launch that is killed loses no more of it."""


@dataclass(frozen=True)
class Known:
    """What is known of the length of one kind of cell, in seconds."""

    probed: float = 0.0
    """0: never."""
    measured: float = 0.0
    """Mean of finished cells."""
    cells: int = 0
    """How many those are."""

    def and_of(self, seconds: Sequence[float]) -> "Known":
        """With more finished cells."""
        cells = self.cells + len(seconds)
        return Known(self.probed, (self.measured * self.cells + sum(seconds)) / cells, cells) if seconds else self


def forecast(
    cells: Sequence[Cell], workspace: Workspace, store: FeatureStore, *, probe: bool = True
) -> dict[str, float]:
    """Predicted seconds per cell id.

    The mean of finished cells of the same kind (system, parameters, recipe, store); where there is none, a probe of the
    longest run the recipe allows, times what the probes of other systems under that recipe were off by. Without
    `probe`, only what is known already is used, and 0 stands for nothing.
    """
    kinds = kinds_of(cells)
    known = _read(workspace)
    if probe:
        one_of_each = {kinds[cell.cell_id]: cell for cell in reversed(cells)}
        strange = {kind: cell for kind, cell in reversed(one_of_each.items()) if kind not in known}
        known |= _probed(strange, workspace, store)
    off = _corrections(known)
    seconds = {
        kind: known[kind].measured or known[kind].probed * off.get(_training_of(kind), 1.0)
        for kind in dict.fromkeys(kinds.values())
        if kind in known
    }
    typical = sum(seconds.values()) / len(seconds) if seconds else 0.0
    return {cell_id: seconds.get(kind, typical) for cell_id, kind in kinds.items()}


def kind_of(cell: Cell) -> str:
    """What decides the length of a cell: all of its identity but fold, target and seed."""
    recipe, inner = cell.recipe.identity_json, bool(cell.inner)
    return canonical_json(
        {"system": cell.system, "params": cell.params, "store": cell.store, "recipe": recipe, "inner": inner}
    )


def kinds_of(cells: Iterable[Cell]) -> dict[str, str]:
    """The kind of each cell, by identity; spelled once for cells that share their parameters and recipe as objects."""
    spelled: dict[tuple[object, ...], tuple[Cell, str]] = {}
    found = {}
    for cell in cells:
        shared = (cell.system, id(cell.params), cell.store, id(cell.recipe), cell.inner is None)
        if shared not in spelled:
            # With the cell, or another object might take the place of one that is gone.
            spelled[shared] = (cell, kind_of(cell))
        found[cell.cell_id] = spelled[shared][1]
    return found


class Learner:
    """Takes in how long finished cells took while a launch runs."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._heard: dict[str, list[float]] = {}
        self._written = monotonic()

    def finished(self, cell: Cell, seconds: float) -> None:
        """A cell was committed; `seconds`: of its last try. Training over all tries may have taken longer."""
        # At a URL, what another machine committed need not lie here.
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            env = json.loads((self._workspace.cell_path(cell.cell_id) / "env.json").read_text())
            seconds = max(seconds, float(env["train_seconds"]))
        self._heard.setdefault(kind_of(cell), []).append(seconds)
        if monotonic() - self._written > KEEP_SECONDS:
            self.keep()

    def keep(self) -> None:
        """Writes down what was heard."""
        heard, self._heard = self._heard, {}
        self._written = monotonic()
        if heard:
            _change(self._workspace, lambda known: {k: known.get(k, Known()).and_of(s) for k, s in heard.items()})


def _probed(strange: Mapping[str, Cell], workspace: Workspace, store: FeatureStore) -> dict[str, Known]:
    """Probes of kinds of which nothing is known, as far as the time reaches; each is written down at once."""
    from crossfold.platform.probe import Prober

    prober, deadline = Prober(), monotonic() + PROBE_SECONDS
    found = {}
    for kind, cell in strange.items():
        if monotonic() > deadline:
            break
        try:
            found[kind] = Known(probed=prober.seconds(cell, store.path))
        except Exception as error:  # a system that cannot run fails as a cell, with its reason; not here
            logger.warning("no prediction for %s: %s", cell.system, error)
        else:
            _change(workspace, partial(_with_probe, kind=kind, seconds=found[kind].probed))
    return found


def _with_probe(known: Mapping[str, Known], kind: str, seconds: float) -> dict[str, Known]:
    # What finished cells told meanwhile stays.
    return {kind: replace(known.get(kind, Known()), probed=seconds)}


def _corrections(known: Mapping[str, Known]) -> dict[tuple[str, str], float]:
    """By what finished cells differ from their probes, of each recipe on each store: a geometric mean."""
    logs: dict[tuple[str, str], list[float]] = {}
    for kind, facts in known.items():
        if facts.probed > 0 and facts.measured > 0:
            logs.setdefault(_training_of(kind), []).append(math.log(facts.measured / facts.probed))
    return {training: math.exp(sum(values) / len(values)) for training, values in logs.items()}


def _training_of(kind: str) -> tuple[str, str]:
    """Store and recipe of a kind: all but the system."""
    facts = json.loads(kind)
    return str(facts["store"]), str(facts["recipe"])


def _change(workspace: Workspace, change: Callable[[Mapping[str, Known]], dict[str, Known]]) -> None:
    """Writes what `change` makes of what is known; several processes may, such as `plan` beside a driver."""
    path = _path(workspace)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A disk that is full or away stops no launch.
    with contextlib.suppress(OSError), FileLock(path.with_suffix(".lock")):
        known = _read(workspace)
        write_json(path, {kind: asdict(facts) for kind, facts in {**known, **change(known)}.items()})


def _path(workspace: Workspace) -> Path:
    return workspace.root / "forecast.json"


def _read(workspace: Workspace) -> dict[str, Known]:
    try:
        found = json.loads(_path(workspace).read_text()).items()
        known = {
            str(kind): Known(float(facts["probed"]), float(facts["measured"]), int(facts["cells"]))
            for kind, facts in found
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        # Predictions are made anew; nothing else depends on the file.
        return {}
    return known
