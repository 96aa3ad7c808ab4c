"""How long cells will take: from finished cells of the same kind, else from a few timed steps."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from time import monotonic

import numpy as np
import torch

from crossfold.datasets.store import FeatureStore
from crossfold.datasets.windows import WindowSource, cut
from crossfold.platform.contracts import Cell, canonical_json
from crossfold.platform.model import build_model, modalities_of
from crossfold.platform.results import Workspace, write_json
from crossfold.platform.training import loss_of

logger = logging.getLogger(__name__)

PROBE_SECONDS = 6.0
"""All probes of one forecast together; kinds that were not reached get the mean of those that were."""


def forecast(cells: Sequence[Cell], workspace: Workspace, store: FeatureStore) -> dict[str, float]:
    """Predicted seconds per cell id on one CPU core.

    The mean of finished cells of the same kind (system, parameters, recipe, store); where there is none, a probe of the
    longest run the recipe allows.
    """
    known = _known(workspace)
    kinds: dict[str, Cell] = {}
    for cell in cells:
        kinds.setdefault(kind_of(cell), cell)
    deadline = monotonic() + PROBE_SECONDS
    fresh = {}
    for kind, cell in kinds.items():
        if kind not in known and monotonic() < deadline:
            try:
                fresh[kind] = _probe(cell, store)
            except Exception as error:  # a system that cannot run fails as a cell, with its reason; not here
                logger.warning("no prediction for %s: %s", cell.system, error)
    if fresh:
        known |= fresh
        write_json(_path(workspace), known)
    typical = float(np.mean(list(known.values()))) if known else 0.0
    return {cell.cell_id: known.get(kind_of(cell), typical) for cell in cells}


def kind_of(cell: Cell) -> str:
    """What decides the length of a cell: all of its identity but fold, target and seed."""
    recipe = cell.recipe.model_dump(mode="json", exclude={"name"})
    return canonical_json(
        {"system": cell.system, "params": cell.params, "store": cell.store, "recipe": recipe, "inner": bool(cell.inner)}
    )


def remember(workspace: Workspace, cells: Sequence[Cell]) -> None:
    """Replaces probes by the mean seconds of the finished ones among `cells`."""
    seconds: dict[str, list[float]] = {}
    for cell in cells:
        env = workspace.cell_path(cell.cell_id) / "env.json"
        if env.is_file():
            seconds.setdefault(kind_of(cell), []).append(json.loads(env.read_text())["train_seconds"])
    if seconds:
        write_json(_path(workspace), _known(workspace) | {k: float(np.mean(v)) for k, v in seconds.items()})


def _path(workspace: Workspace) -> Path:
    return workspace.root / "forecast.json"


def _known(workspace: Workspace) -> dict[str, float]:
    path = _path(workspace)
    known: dict[str, float] = json.loads(path.read_text()) if path.is_file() else {}
    return known


def _probe(cell: Cell, store: FeatureStore) -> float:
    """Times two training steps of the real model on real windows, after one to warm up."""
    recipe = cell.recipe
    windows = cut(store, store.fold(cell.fold).train, length=recipe.window, hop=recipe.hop, invalid=recipe.invalid)
    modalities = modalities_of(cell)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng():
            model = build_model(cell, {m: store.width(m) for m in modalities})
        if len(windows) == 0:
            return 0.0
        source = WindowSource(store, windows, fold=cell.fold, modalities=modalities, targets=cell.targets)
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
