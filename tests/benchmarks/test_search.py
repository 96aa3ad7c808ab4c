"""How much of a grid's compute each sampler needs, on learning curves whose best configuration is known.

The curves are formulas, so that ten searches of each sampler take minutes: recursions, temperature and learning rate of
a gated system, with an optimum at 3, 0.1 and 0.003, an exponential approach to the final value, and noise of seeds.
"""

import math

import numpy as np
import optuna
import pytest
import scipy.stats

from crossfold.platform.edge.search.samplers import pruner_of, sampler_of
from crossfold.sweeps.sweep_files import Search
from crossfold.sweeps.trials import grid

pytestmark = pytest.mark.benchmark

EPOCHS, NOISE, SEEDS = 30, 0.005, 10
SPACE = {
    "iterations": {"int": [1, 4]},
    "temperature": {"log": [0.01, 10], "points": 7},
    "recipe.optimizer.lr": {"log": [0.0001, 0.1], "points": 7},
}


def search_by(sampler: str, seed: int, scheduler: str = "asha") -> Search:
    data = {
        "name": "s", "corpus": "synthetic", "recipe": "demo", "system": "grjca", "space": SPACE, "sampler": sampler,
        "scheduler": scheduler, "sampler_seed": 1000 * seed, "budget": {"cell_epochs": 1},
    }  # fmt: skip
    return Search.parse(data, "benchmark")


def final_ccc(params) -> float:
    rate = math.exp(-((math.log10(params["recipe.optimizer.lr"] / 0.003) / 0.6) ** 2))
    temperature = math.exp(-((math.log10(params["temperature"] / 0.1) / 1.5) ** 2))
    return 0.7 * rate * (0.7 + 0.3 * temperature) * (1 - 0.1 * abs(params["iterations"] - 3))


def epochs_to_reach(goal: float, most: int, sampler: str, seed: int) -> int:
    """Epochs of training until a trial that ran to its end reaches `goal`; at most `most`."""
    search, generator = search_by(sampler, seed), np.random.default_rng(seed)
    study, spent = optuna.create_study(direction="maximize", pruner=pruner_of(search)), 0
    while spent < most:
        study.sampler = sampler_of(search, len(study.trials))
        trial = study.ask()
        trial.suggest_int("iterations", 1, 4)
        for name in ("temperature", "recipe.optimizer.lr"):
            trial.suggest_float(name, *SPACE[name]["log"], log=True)
        end, best, state = final_ccc(trial.params), 0.0, optuna.trial.TrialState.COMPLETE
        for epoch in range(1, EPOCHS + 1):
            spent += 1
            best = max(best, end * (1 - math.exp(-epoch / 6)) + generator.normal(0, NOISE))
            trial.report(best, epoch)
            if trial.should_prune():
                state = optuna.trial.TrialState.PRUNED
                break
        study.tell(trial, best if state.name == "COMPLETE" else None, state=state)
        if state.name == "COMPLETE" and end >= goal:
            return spent
    return most


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "cmaes", "gp"])
def test_compute_until_95_percent_of_the_best_of_the_grid(sampler, compared):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    configurations = grid(search_by("grid", 0, "none"))
    whole = len(configurations) * EPOCHS
    goal = 0.95 * max(map(final_ccc, configurations))
    shares = [epochs_to_reach(goal, whole, sampler, seed) / whole for seed in range(SEEDS)]
    mean, sem = float(np.mean(shares)), float(scipy.stats.sem(shares))
    low, high = scipy.stats.t.interval(0.95, SEEDS - 1, mean, sem)
    print(f"{sampler}: {mean:.3f} [{low:.3f}, {high:.3f}] of the compute of the grid, worst {max(shares):.3f}")
    compared(
        f"search by {sampler}",
        "the whole grid",
        ours=[share * whole for share in shares],
        theirs=[whole] * SEEDS,
        unit="epochs",
    )
    assert mean < 1
    if sampler == "tpe":
        assert high <= 0.25
