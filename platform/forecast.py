"""How long cells will take: from finished cells of the same kind, else from a few timed steps."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic

import numpy as np
import torch
from filelock import FileLock

from crossfold.datasets.store import FeatureStore
from crossfold.platform.contracts import Cell, canonical_json
from crossfold.platform.end_to_end import input_widths, wanted_inputs
from crossfold.platform.losses import loss_of
from crossfold.platform.model import build_model, modalities_of
from crossfold.platform.results import Workspace, write_json
from crossfold.platform.sources import window_source

logger = logging.getLogger(__name__)

PROBE_SECONDS = 6.0
"""All probes of one forecast together; kinds that were not reached get the mean of those that were."""


def forecast(
    cells: Sequence[Cell], workspace: Workspace, store: FeatureStore, *, probe: bool = True
) -> dict[str, float]:
    """Predicted seconds per cell id on one CPU core.

    The mean of finished cells of the same kind (system, parameters, recipe, store); where there is none, a probe of the
    longest run the recipe allows. Without `probe`, only what is known already is used, and 0 stands for nothing.
    """
    known = _known(workspace)
    kinds: dict[str, Cell] = {}
    kind = {cell.cell_id: kind_of(cell) for cell in cells}
    for cell in cells:
        kinds.setdefault(kind[cell.cell_id], cell)
    deadline = monotonic() + PROBE_SECONDS
    fresh = {}
    for name, cell in kinds.items():
        if probe and name not in known and monotonic() < deadline:
            try:
                fresh[name] = _probe(cell, store)
            except Exception as error:  # a system that cannot run fails as a cell, with its reason; not here
                logger.warning("no prediction for %s: %s", cell.system, error)
    if fresh:
        known |= fresh
        # What finished cells told meanwhile is worth more than a probe.
        _keep(workspace, fresh, over_known=False)
    typical = float(np.mean(list(known.values()))) if known else 0.0
    return {cell_id: known.get(name, typical) for cell_id, name in kind.items()}


def kind_of(cell: Cell) -> str:
    """What decides the length of a cell: all of its identity but fold, target and seed."""
    recipe, inner = cell.recipe.identity_json, bool(cell.inner)
    return canonical_json(
        {"system": cell.system, "params": cell.params, "store": cell.store, "recipe": recipe, "inner": inner}
    )


def remember(workspace: Workspace, cells: Sequence[Cell]) -> None:
    """Replaces probes by the mean seconds of the finished ones among `cells`."""
    seconds: dict[str, list[float]] = {}
    for cell in cells:
        env = workspace.cell_path(cell.cell_id) / "env.json"
        if env.is_file():
            seconds.setdefault(kind_of(cell), []).append(json.loads(env.read_text())["train_seconds"])
    if seconds:
        _keep(workspace, {kind: float(np.mean(values)) for kind, values in seconds.items()}, over_known=True)


def _keep(workspace: Workspace, fresh: Mapping[str, float], *, over_known: bool) -> None:
    """Adds predictions to the file; several processes may, such as `plan` beside a driver."""
    path = _path(workspace)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        known = _known(workspace)
        write_json(path, known | dict(fresh) if over_known else dict(fresh) | known)


def _path(workspace: Workspace) -> Path:
    return workspace.root / "forecast.json"


def _known(workspace: Workspace) -> dict[str, float]:
    try:
        known: dict[str, float] = {str(k): float(v) for k, v in json.loads(_path(workspace).read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        # Predictions are made anew; nothing else depends on the file.
        return {}
    return known


def _probe(cell: Cell, store: FeatureStore) -> float:
    """Times two training steps of the real model on real windows, after one to warm up."""
    recipe = cell.recipe
    modalities = modalities_of(cell)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng():
            model = build_model(cell, input_widths(recipe, store, modalities))
        inputs = wanted_inputs(recipe, modalities)
        source = window_source(cell, store, store.fold(cell.fold).train, modalities, inputs=inputs)
        if len(source) == 0:
            return 0.0
        chosen = np.arange(min(recipe.batch, len(source)))
        started = monotonic()
        for step in range(3):
            if step == 1:
                started = monotonic()
            batch = source.batch(chosen)
            loss_of(model(batch.x, batch.real), batch, recipe.loss).backward()  # type: ignore[no-untyped-call]
    finally:
        torch.set_num_threads(threads)
    steps = -(-len(source) // recipe.batch)
    # A validation pass costs about a third of the share of its frames: forward only.
    return (monotonic() - started) / 2 * steps * recipe.epochs * 1.2
