"""How much of a grid's compute each sampler needs on real training, whose best configuration is known by the grid.

140 configurations of GRJCA (recursions, temperature, learning rate) were trained on the corpus `synthetic`, each on two
inner folds with two seeds for 27 epochs; `search_grid.json` keeps the objective of each by epoch. A search replays the
curve of the grid's configuration that is nearest to the one it draws, so it sees what it would see if it trained, on
a space of steps. Ten searches of each sampler then take minutes and not days. `CROSSFOLD_REGENERATE=1` trains the grid.

Between two configurations of one learning rate the luck of seeds is larger than the effect of recursions and
temperature, so the best of 140 single values is mostly luck. The score of a configuration that a search is to reach is
therefore the mean with its neighbours in both at the same rate; what a search sees are the single values, with luck.
"""

import json
import math
import os
import shutil
from collections.abc import Collection
from pathlib import Path

import numpy as np
import optuna
import pytest
import scipy.stats

from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.platform.edge.search.objective import Scoreboard
from crossfold.platform.edge.search.samplers import pruner_of, sampler_of
from crossfold.platform.execution.run_cell import attempt_cell
from crossfold.platform.workspace.workspace import Workspace
from crossfold.sweeps.sweep_files import Search
from crossfold.sweeps.trials import grid, grid_values, trial_cells
from tests.support.factories import TINY_SETTINGS, synthetic_workspace

pytestmark = pytest.mark.benchmark

CURVES = Path(__file__).with_name("search_grid.json")
EPOCHS, SEARCHES = 27, 10
SPACE = {
    "iterations": {"int": [1, 4]},
    "temperature": {"log": [0.01, 10], "points": 5},
    "recipe.optimizer.lr": {"log": [0.0001, 0.1], "points": 7},
}
SETTINGS = TINY_SETTINGS | {"epochs": EPOCHS, "patience": EPOCHS, "optimizer.plateau_patience": EPOCHS}


def search_by(sampler: str, seed: int = 0, scheduler: str = "asha") -> Search:
    data = {
        "name": "s", "corpus": "synthetic", "recipe": "demo", "set": SETTINGS, "system": "grjca", "space": SPACE,
        "targets": ["valence", "arousal"], "joint_targets": True, "inner_folds": 2, "seeds": [0, 1],
        "sampler": sampler, "scheduler": scheduler, "sampler_seed": 1000 * seed, "budget": {"cell_epochs": 1},
    }  # fmt: skip
    return Search.parse(data, "benchmark")


def key_of(params) -> str:
    return json.dumps([params[name] for name in SPACE])


def nearest(params) -> str:
    """The key of the grid's configuration that is nearest, on the scale of each range."""
    found = {}
    for name, dimension in search_by("grid").space.items():
        scale = math.log if dimension.log else float
        found[name] = min(grid_values(dimension), key=lambda value: abs(scale(value) - scale(params[name])))
    return key_of(found)


def curve_of(params, workspace: Workspace) -> list[float]:
    """The objective of one configuration by epoch, trained here."""
    store = FeatureStore(workspace.find_store("synthetic", None))
    cells = trial_cells(search_by("grid"), store, params)
    board = Scoreboard([cell.cell_id for cell in cells])
    for cell in cells:
        outcome = attempt_cell(cell, workspace)
        assert outcome.status == "done", outcome
        board.finish(workspace.read_exactly(cell.cell_id))
        shutil.rmtree(workspace.paths.cell(cell.cell_id))
    assert board.epoch == EPOCHS
    return [round(board.value(epoch), 4) for epoch in range(1, EPOCHS + 1)]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    return synthetic_workspace(tmp_path_factory.mktemp("grid"))


@pytest.fixture(scope="module")
def curves(workspace) -> dict[str, list[float]]:
    if os.environ.get("CROSSFOLD_REGENERATE"):
        trained = {key_of(one): curve_of(one, workspace) for one in grid(search_by("grid"))}
        lines = (f"{json.dumps(key)}: {json.dumps(curve)}" for key, curve in trained.items())
        CURVES.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    return json.loads(CURVES.read_text())


def test_the_kept_curves_are_those_of_real_training(curves, workspace):
    configurations = grid(search_by("grid"))
    assert {key_of(one) for one in configurations} == set(curves)
    one = configurations[len(configurations) // 2]
    assert curve_of(one, workspace) == pytest.approx(curves[key_of(one)], abs=2e-4)


def scores_of(curves) -> dict[str, float]:
    """The score of each configuration: the mean end of the 4 to 9 ones that are at most one step away at its rate."""
    axes = [list(grid_values(dimension)) for dimension in search_by("grid").space.values()]
    ends = np.array([[[curves[json.dumps([i, t, rate])][-1] for rate in axes[2]] for t in axes[1]] for i in axes[0]])
    scores = {}
    for i, t in np.ndindex(ends.shape[:2]):
        near = ends[max(i - 1, 0) : i + 2, max(t - 1, 0) : t + 2].mean(axis=(0, 1))
        scores |= {json.dumps([axes[0][i], axes[1][t], rate]): float(near[k]) for k, rate in enumerate(axes[2])}
    return scores


def epochs_to_reach(good: Collection[str], curves, sampler: str, seed: int, scheduler: str) -> int:
    """Epochs of training until a trial with a `good` configuration ran to its end; at most those of the grid."""
    search = search_by(sampler, seed, scheduler)
    study, spent = optuna.create_study(direction="maximize", pruner=pruner_of(search)), 0
    while spent < len(curves) * EPOCHS:
        study.sampler = sampler_of(search, len(study.trials))
        trial = study.ask()
        trial.suggest_int("iterations", *SPACE["iterations"]["int"])
        for name in ("temperature", "recipe.optimizer.lr"):
            trial.suggest_float(name, *SPACE[name]["log"], log=True)
        key, state = nearest(trial.params), optuna.trial.TrialState.COMPLETE
        curve = curves[key]
        for epoch, value in enumerate(curve, start=1):
            spent += 1
            trial.report(value, epoch)
            # The last epoch of a cell comes with its end, when nothing is left to stop.
            if epoch < EPOCHS and trial.should_prune():
                state = optuna.trial.TrialState.PRUNED
                break
        study.tell(trial, curve[-1] if state.name == "COMPLETE" else None, state=state)
        if state.name == "COMPLETE" and key in good:
            return spent
    return len(curves) * EPOCHS


@pytest.mark.parametrize(
    ("sampler", "scheduler", "share_of_best"),
    [
        ("tpe", "asha", 0.95), ("cmaes", "asha", 0.95), ("gp", "asha", 0.95), ("gp", "none", 0.95),
        ("random", "asha", 0.95), ("qmc", "asha", 0.95), ("tpe", "asha", 0.99),
    ],
)  # fmt: skip
def test_compute_until_a_share_of_the_best_of_the_grid(sampler, scheduler, share_of_best, curves, compared):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    whole, scores = len(curves) * EPOCHS, scores_of(curves)
    goal = share_of_best * max(scores.values())
    good = {key for key, score in scores.items() if score >= goal}
    reached = [epochs_to_reach(good, curves, sampler, seed, scheduler) for seed in range(SEARCHES)]
    shares = [spent / whole for spent in reached]
    mean, sem = float(np.mean(shares)), float(scipy.stats.sem(shares))
    low, high = scipy.stats.t.interval(0.95, SEARCHES - 1, mean, sem)
    print(
        f"{sampler} with {scheduler}: {mean:.3f} [{low:.3f}, {high:.3f}] of the compute of the grid, "
        f"worst {max(shares):.3f}; {len(good)} of {len(curves)} configurations reach {goal:.3f}"
    )
    compared(
        f"search by {sampler} with {scheduler} to {share_of_best:.0%} of the best",
        "the whole grid",
        ours=reached,
        theirs=[whole] * SEARCHES,
        unit="epochs",
    )
    assert mean < 1
    if sampler == "tpe" and share_of_best == 0.95:
        assert high <= 0.25
