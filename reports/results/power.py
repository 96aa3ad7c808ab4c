"""Power of a finished sweep: how likely a gain is to be seen, and what must run to see it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any

from crossfold.platform.core.errors import UserError, did_you_mean
from crossfold.reports.results.comparable import family_of, setting_targets, setting_variants
from crossfold.reports.results.model import Results, Setting
from crossfold.reports.results.runs import runs_of
from crossfold.reports.stats.formatting import listing
from crossfold.reports.stats.hypothesis_tests import Family
from crossfold.reports.stats.intervals import MIN_SEEDS, MIN_VIDEOS, paired_folds
from crossfold.reports.stats.power import (
    Design,
    MeanSquares,
    Power,
    fewest,
    mean_squares,
    pooled,
    power_of,
    smallest_gain,
)
from crossfold.reports.stats.runs import Run

SEEDS = (3, 5, 10)
"""For which a plan gives the videos that it needs."""


@dataclass(frozen=True)
class TargetPower:
    """The power for one target of one setting."""

    setting: str
    """Its key."""
    corpus: str
    recipe: str
    target: str
    pairs: int
    """Pairs of systems whose variances are averaged."""
    comparisons: int
    """Among which a gain is judged: all pairs of systems of the setting, on each target."""
    sd: dict[str, float]
    """Standard deviation of the gain between videos, seeds, their interaction, and folds; of CCC."""
    design: Design
    """What ran."""
    gain: float
    power: Power
    """The chance that a gain of this size is seen with what ran."""
    smallest_gain: float | None
    """Seen with a power of 80 % with what ran; None where not even one of 1 is, or where no gain is ever judged."""
    needed: dict[str, int | None]
    """For a power of 80 %: the seeds, the videos of each fold, or the folds, with everything else as it ran; None where
    not even 10,000 are enough."""
    plans: tuple[dict[str, int | None], ...]
    """For a power of 80 % with more of both: seeds, and the videos of each fold that they need."""

    def as_dict(self) -> dict[str, Any]:
        """In the form of `--json` and of data frames."""
        return asdict(self)


def sweep_power(results: Results, gain: float, pair: Sequence[str] = ()) -> tuple[TargetPower, ...]:
    """The power for each setting and target of these results, which are those of one sweep.

    pair: two systems, better and base, whose gain alone gives the variances; without, those of all pairs are averaged.
    Raises `UserError` for a gain that is not positive, a sweep that is not finished, and too few systems, seeds or
    videos to estimate a variance.
    """
    if not 0 < gain < 2:
        raise UserError(f"a gain of {gain:g} is none that a CCC can have", "give a gain between 0 and 2, such as 0.01")
    left = int((results.cells["status"] != "done").sum())
    if left or results.cells.empty:
        done = len(results.cells) - left
        raise UserError(
            f"the sweep is not finished: {done} of {len(results.cells)} runs are done; a forecast needs all of them",
            "run it to its end with `crossfold run`, or see `crossfold status` for what failed",
        )
    found = []
    for setting in results.settings.values():
        targets = setting_targets(results, setting)
        found += [_of_target(results, setting, each, gain, *_squares(results, setting, each, pair)) for each in targets]
    return tuple(found)


def _squares(results: Results, setting: Setting, target: str, pair: Sequence[str]) -> tuple[MeanSquares, int]:
    """Those of a typical pair, and how many pairs they are of."""
    systems = setting_variants(results, setting)
    variants = [variant for variant in systems if not pair or systems[variant] in pair]
    for name in pair:
        if name not in systems.values():
            raise UserError(
                f"{name!r} is no system of this sweep{did_you_mean(name, set(systems.values()))}",
                f"its systems are {listing(sorted(set(systems.values())))}",
            )
    if len(variants) < 2:
        raise UserError("one system has no gain over another", "give a sweep of at least two systems")
    runs = {variant: runs_of(results, setting, variant, target) for variant in variants}
    _check(next(iter(runs.values())))
    pairs = [(a, b) for a, b in combinations(variants, 2) if not pair or systems[a] != systems[b]]
    found = [mean_squares(paired_folds([runs[a]], [runs[b]])) for a, b in pairs]
    known = [each for each in found if each is not None]
    # Variances of pairs that share fewer runs are not those of this design.
    most = max(((sum(each.design.videos), each.design.seeds) for each in known), default=None)
    known = [each for each in known if (sum(each.design.videos), each.design.seeds) == most]
    if not known:
        raise UserError(
            "no two systems of this sweep share two seeds of a fold", "give all systems the same `seeds` and `folds`"
        )
    return pooled(known, len(variants) if len(known) > 1 else 2), len(known)


def _check(runs: Sequence[Run]) -> None:
    videos = {run.fold: len(run.videos) for run in runs}
    seeds = {fold: len({run.seed for run in runs if run.fold == fold}) for fold in videos}
    for what, counts in (("seed", seeds), ("video", videos)):
        fold = min(counts, key=lambda each: counts[each])
        if counts[fold] < 2:
            raise UserError(
                f"fold {fold} has one {what}, and how gains vary between {what}s cannot be estimated from it",
                f"run at least two {what}s of each fold; {MIN_SEEDS} seeds and {MIN_VIDEOS} videos have verdicts",
            )


def _of_target(
    results: Results, setting: Setting, target: str, gain: float, typical: MeanSquares, pairs: int
) -> TargetPower:
    ran, family = typical.design, family_of(results, setting, 1)
    variances = {
        "videos": typical.video,
        "seeds": typical.seed,
        "interaction": typical.interaction,
        "folds": typical.fold,
    }
    return TargetPower(
        setting=setting.key,
        corpus=setting.corpus,
        recipe=setting.recipe,
        target=target,
        pairs=pairs,
        comparisons=family.comparisons,
        sd={name: variance**0.5 for name, variance in variances.items()},
        design=ran,
        gain=gain,
        power=power_of(typical, gain, ran, family),
        smallest_gain=smallest_gain(typical, ran, family),
        needed=_needed(typical, gain, family),
        plans=tuple(
            {"seeds": seeds, "videos": _videos(typical, gain, replace(ran, seeds=seeds), family)} for seeds in SEEDS
        ),
    )


def _needed(squares: MeanSquares, gain: float, family: Family) -> dict[str, int | None]:
    ran = squares.design
    each = round(squares.mean_videos)
    return {
        "seeds": fewest(lambda n: power_of(squares, gain, replace(ran, seeds=n), family).chance, MIN_SEEDS),
        "videos": _videos(squares, gain, ran, family),
        "folds": fewest(lambda n: power_of(squares, gain, Design((each,) * n, ran.seeds), family).chance, 1),
    }


def _videos(squares: MeanSquares, gain: float, design: Design, family: Family) -> int | None:
    """The videos of each fold that a design needs, whatever it has."""
    return fewest(
        lambda n: power_of(squares, gain, Design((n,) * design.folds, design.seeds), family).chance, MIN_VIDEOS
    )
