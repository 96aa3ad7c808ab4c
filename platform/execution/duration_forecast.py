"""How long cells will take: as long as finished cells of the same kind, else as a few timed steps predict.

A probe runs on one core of this machine, and it cannot know when training stops early, what else the machine does or
which GPU the workers have. Kinds of which both are known, the probe and what cells took, show how far probes are off;
probes of other systems under the same recipe are corrected by that.
"""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from time import monotonic

from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.platform.core.cell import Cell
from crossfold.platform.execution.cost_history import DURATIONS, DurationStats, cost_keys
from crossfold.platform.workspace.workspace import Workspace

logger = logging.getLogger(__name__)

PROBE_SECONDS = 6.0
"""No probe begins later than this in one forecast; kinds that were not reached get the mean of those that were."""


def forecast(
    cells: Sequence[Cell], workspace: Workspace, store: FeatureStore, *, probe: bool = True
) -> dict[str, float]:
    """Predicted seconds per cell id.

    The mean of finished cells of the same kind (system, parameters, recipe, store); where there is none, a probe of the
    longest run the recipe allows, times what the probes of other systems under that recipe were off by. Without
    `probe`, only what is known already is used, and 0 stands for nothing.
    """
    kinds = cost_keys(cells)
    known = DURATIONS.read(workspace)
    if probe:
        one_of_each = {kinds[cell.cell_id]: cell for cell in reversed(cells)}
        unseen = {kind: cell for kind, cell in reversed(one_of_each.items()) if kind not in known}
        known |= _probed(unseen, workspace, store)
    off = _corrections(known)
    seconds = {
        kind: known[kind].measured or known[kind].probed * off.get(_training_of(kind), 1.0)
        for kind in dict.fromkeys(kinds.values())
        if kind in known
    }
    typical = sum(seconds.values()) / len(seconds) if seconds else 0.0
    return {cell_id: seconds.get(kind, typical) for cell_id, kind in kinds.items()}


def _probed(unseen: Mapping[str, Cell], workspace: Workspace, store: FeatureStore) -> dict[str, DurationStats]:
    """Probes of kinds of which nothing is known, as far as the time reaches; each is saved at once."""
    if not unseen:
        return {}
    from crossfold.platform.execution.step_profiler import StepProfiler  # imports torch

    prober, deadline = StepProfiler(), monotonic() + PROBE_SECONDS
    found = {}
    for kind, cell in unseen.items():
        if monotonic() > deadline:
            break
        try:
            found[kind] = DurationStats(probed=prober.seconds(cell, store.path))
        except Exception as error:  # a system that cannot run fails as a cell, with its reason; not here
            logger.warning("no prediction for %s: %s", cell.system, error)
        else:
            DURATIONS.update(workspace, partial(_with_probe, kind=kind, seconds=found[kind].probed))
    return found


def _with_probe(known: Mapping[str, DurationStats], kind: str, seconds: float) -> dict[str, DurationStats]:
    # What cells that finished meanwhile took stays.
    return {kind: replace(known.get(kind, DurationStats()), probed=seconds)}


def _corrections(known: Mapping[str, DurationStats]) -> dict[tuple[str, str], float]:
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
