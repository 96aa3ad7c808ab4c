"""How much each parameter matters, by Optuna's fANOVA and PED-ANOVA, and for which the data cannot say."""

from collections.abc import Sequence
from typing import Any

import numpy as np

FEWEST_TRIALS = 10
"""Below it nothing is said of importance."""
SHUFFLES = 50
QUANTILE = 0.95


def importance_of(trials: Sequence[Any], *, seed: int = 0) -> list[dict[str, Any]]:
    """One row for each parameter that every complete trial has; none for fewer than 10 trials.

    trials: complete ones, of Optuna. `fanova`: share of the variance of CCC over the space (Hutter et al. 2014).
    `ped_anova`: what separates the best tenth (Watanabe et al. 2023). `chance`: the PED-ANOVA below which 95 of 100
    searches stay whose values have nothing to do with their parameters, by shuffling the values. `matters`: whether it
    is exceeded; else the data cannot tell the parameter from one without effect.
    """
    import optuna
    from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator, get_param_importances

    if len(trials) < FEWEST_TRIALS:
        return []
    values = np.array([trial.values[0] for trial in trials])
    if np.ptp(values) == 0:
        return []

    def by(evaluator: Any, given: Any) -> dict[str, float]:
        study = optuna.create_study(direction="maximize")
        study.add_trials(
            [
                optuna.trial.create_trial(params=trial.params, distributions=trial.distributions, value=float(value))
                for trial, value in zip(trials, given, strict=True)
            ]
        )
        return get_param_importances(study, evaluator=evaluator)

    generator = np.random.default_rng(seed)
    separating = PedAnovaImportanceEvaluator()
    fanova, ped_anova = by(FanovaImportanceEvaluator(seed=seed), values), by(separating, values)
    shuffled = [by(separating, generator.permutation(values)) for _ in range(SHUFFLES)]
    rows = []
    for name, share in fanova.items():
        chance = float(np.quantile([each[name] for each in shuffled], QUANTILE))
        found = ped_anova[name]
        row = {"parameter": name, "fanova": share, "ped_anova": found, "chance": chance, "matters": found > chance}
        rows.append(row)
    return rows
