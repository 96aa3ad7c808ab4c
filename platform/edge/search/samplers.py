"""What chooses configurations, and what stops weak trials: Optuna's samplers and pruners, Ray Tune's schedulers.

Optuna and Ray are imported when they are used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crossfold.sweeps.sweep_files import Search

METRIC = "ccc"
"""What a trial reports to Tune with each epoch."""
GRACE_EPOCHS, REDUCTION = 3, 3
"""No trial is stopped before the third epoch; at each rung of successive halving the best third goes on."""
BRACKETS = 3
"""Of Hyperband: their first rungs are at 3, 9 and 27 epochs."""
NEVER = 10**6
"""An epoch at which a scheduler would end a trial; cells end by themselves."""
MEDIAN_TRIALS = 5
"""So many trials have to be seen before one is stopped for being worse than their median."""


def sampler_of(search: "Search", trials: int) -> Any:
    """The sampler of the next trial, seeded by the number of trials before it.

    So a configuration depends on the seed, on its number and on the results that are known, and not on when the search
    was interrupted. The sequence of `qmc` has one seed, and its place in it from the study.
    """
    from optuna import samplers

    seed = search.sampler_seed + trials
    pruning = search.stops_by != "none"
    match search.sampler:
        case "gp":
            return samplers.GPSampler(seed=seed, warn_independent_sampling=False)
        case "cmaes":
            return samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False, consider_pruned_trials=pruning)
        case "random":
            return samplers.RandomSampler(seed=seed)
        case "qmc":
            quiet: dict[str, Any] = {"warn_independent_sampling": False, "warn_asynchronous_seeding": False}
            return samplers.QMCSampler(scramble=True, seed=search.sampler_seed, **quiet)
        case "grid":
            return _grid_sampler(seed)
        case _:
            return samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)


def _grid_sampler(seed: int) -> Any:
    from optuna.samplers import BruteForceSampler

    class GridSampler(BruteForceSampler):
        """Optuna's own, for asking and telling: there is no loop that it could stop after the last configuration."""

        def after_trial(self, *ended: Any) -> None:
            """Does nothing; the size of the grid limits the search."""

    return GridSampler(seed=seed)


def describe_sampler(search: "Search") -> dict[str, Any]:
    """What a record of the search says of its sampler."""
    options = {"multivariate": True, "constant_liar": True} if search.sampler == "tpe" else {}
    return {"kind": search.sampler, "seed": search.sampler_seed, **options}


def describe_scheduler(search: "Search") -> dict[str, Any]:
    """What a record of the search says of its scheduler."""
    options = {
        "asha": {"grace_epochs": GRACE_EPOCHS, "reduction": REDUCTION},
        "hyperband": {"grace_epochs": GRACE_EPOCHS, "reduction": REDUCTION, "brackets": BRACKETS},
        "median": {"grace_epochs": GRACE_EPOCHS, "trials": MEDIAN_TRIALS},
    }
    return {"kind": search.stops_by, **options.get(search.stops_by, {})}


def tune_scheduler(search: "Search") -> Any:
    """Ray Tune's scheduler, which stops trials by their reports of `epoch`.

    Hyperband is its asynchronous form (Li et al. 2020, section 4.2): a synchronous one pauses trials, which would
    give up what their cells have trained.
    """
    from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, MedianStoppingRule

    judged_by: dict[str, Any] = {"time_attr": "epoch", "metric": METRIC, "mode": "max", "grace_period": GRACE_EPOCHS}
    match search.stops_by:
        case "none":
            return FIFOScheduler()  # type: ignore[no-untyped-call]
        case "median":
            return MedianStoppingRule(min_samples_required=MEDIAN_TRIALS, hard_stop=True, **judged_by)
        case kind:
            return AsyncHyperBandScheduler(
                max_t=NEVER,
                reduction_factor=REDUCTION,
                brackets=BRACKETS if kind == "hyperband" else 1,
                **judged_by,
            )


def pruner_of(search: "Search") -> Any:
    """Optuna's pruner with the rungs of `tune_scheduler`, for a search without Ray."""
    from optuna import pruners

    match search.stops_by:
        case "none":
            return pruners.NopPruner()
        case "median":
            return pruners.MedianPruner(n_startup_trials=MEDIAN_TRIALS, n_warmup_steps=GRACE_EPOCHS)
        case "hyperband":
            longest = GRACE_EPOCHS * REDUCTION ** (BRACKETS - 1)
            return pruners.HyperbandPruner(min_resource=GRACE_EPOCHS, max_resource=longest, reduction_factor=REDUCTION)
        case _:
            return pruners.SuccessiveHalvingPruner(min_resource=GRACE_EPOCHS, reduction_factor=REDUCTION)
