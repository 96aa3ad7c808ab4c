"""The systems and targets of a setting, which of them may be ranked, and the one rule of which beats which."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import pandas as pd

from crossfold.reports.results.model import Results, Setting
from crossfold.reports.results.runs import runs_of
from crossfold.reports.results.systems import DCA, GATED, system_rank
from crossfold.reports.stats.hypothesis_tests import Family, groups_of
from crossfold.reports.stats.intervals import Gain, paired_gain
from crossfold.reports.stats.runs import Run, mean_scores, mean_sd


def setting_targets(results: Results, setting: Setting) -> tuple[str, ...]:
    """The targets that ran, valence first."""
    found = {target for key, _, target in results.groups if key == setting.key}
    return tuple(sorted(found, key=lambda target: (target != "valence", target)))


def setting_variants(results: Results, setting: Setting) -> dict[str, str]:
    """Variant -> system of everything that ran or was asked for, in the order of tables and figures."""
    systems = {v: system for (key, system), of in results.variants_of.items() if key == setting.key for v in of}
    return dict(sorted(systems.items(), key=lambda item: (system_rank(item[1]), item[0])))


def comparable_variants(results: Results, setting: Setting) -> pd.DataFrame:
    """CCC of the largest set of complete variants that ran the same targets, folds and seeds.

    One row per block (target, fold, seed), one column per variant, in the order of figures; empty without a complete
    variant. Of equally large sets, the one with the most blocks.
    """
    cells = results.rows(setting)
    complete: dict[str, frozenset[tuple[str, int, int]]] = {}
    for variant, rows in cells.groupby("variant"):
        if (rows["status"] == "done").all():
            complete[str(variant)] = frozenset(zip(rows["target"], rows["fold"], rows["seed"], strict=True))
    if not complete:
        return pd.DataFrame()
    # The blocks themselves break the last ties, so that a report does not depend on the order of files.
    sizes = Counter(complete.values())
    chosen = max(sizes, key=lambda blocks: (sizes[blocks], len(blocks), sorted(blocks)))
    order = [variant for variant in setting_variants(results, setting) if complete.get(variant) == chosen]
    rows = cells[cells["variant"].isin(order)]
    return rows.pivot_table(index=["target", "fold", "seed"], columns="variant", values="ccc")[order]


def mean_ranks(scores: pd.DataFrame) -> dict[str, float]:
    """Variant -> mean rank over target x fold of `comparable_variants`, seeds averaged first; 1 is the best.

    Empty with fewer than two variants.
    """
    if scores.shape[1] < 2:
        return {}
    ranks = scores.groupby(["target", "fold"]).mean()[scores.columns].rank(axis=1, ascending=False).mean()
    return {str(variant): float(rank) for variant, rank in ranks.items()}


def gate_pairs(results: Results, setting: Setting) -> list[tuple[str, str]]:
    """(base, gated) variants that differ by the gate alone: equal in every parameter that the base has."""
    systems = setting_variants(results, setting)
    params = {v: p for (key, _), of in results.variants_of.items() if key == setting.key for v, p in of.items()}
    pairs = []
    for gated, system in systems.items():
        bases = (system.removesuffix(DCA),) if system.endswith(DCA) else GATED.get(system, ())
        found = [
            [v for v, name in systems.items() if name == base and params[v].items() <= params[gated].items()]
            for base in bases
        ]
        pairs += [(base, gated) for base in next(filter(None, found), [])]
    return pairs


def gain_over(
    results: Results,
    setting: Setting,
    better: Sequence[Sequence[Run]],
    base: Sequence[Sequence[Run]],
    asked: int | None = None,
) -> Gain | None:
    """The paired gain of `better` over `base`, a group per target, judged with all comparisons of the setting.

    Every table, claim and figure asks here, so that none can disagree with another about which system beats which.
    Comparisons in the mean over all targets are one family; those by target are another, over all of its targets.
    asked: how many of the targets the question is about, where groups are more than targets.
    """
    return paired_gain(better, base, family_of(results, setting, len(better) if asked is None else asked))


def family_of(results: Results, setting: Setting, asked: int) -> Family:
    """All comparisons of the setting with which one about `asked` of its targets is judged."""
    systems = max(2, len(setting_variants(results, setting)))
    targets = len({target for key, _, target in results.groups if key == setting.key})
    return Family(systems, 1 if asked == targets else targets)


@dataclass(frozen=True)
class Standing:
    """The complete systems of a setting by their mean over targets, and which of them are not distinguishable."""

    means: Mapping[str, float]
    """Variant -> mean CCC, the best first."""
    groups: tuple[tuple[str, ...], ...]
    """Sets of two or more variants of which none beats another, as large as possible."""

    @property
    def letters(self) -> dict[str, str]:
        """Variant -> the letters of its groups: neither of two variants with a letter in common beats the other."""
        letters: dict[str, str] = {}
        for index, group in enumerate(self.groups):
            # After z comes aa.
            letter = chr(ord("a") + index % 26) * (1 + index // 26)
            for variant in group:
                letters[variant] = f"{letters[variant]} {letter}" if variant in letters else letter
        return letters


def standing_of(results: Results, setting: Setting) -> Standing | None:
    """The standing of the complete systems; None with fewer than three, or where no pair is judged."""
    targets = setting_targets(results, setting)
    runs: dict[str, list[list[Run]]] = {}
    means: dict[str, float] = {}
    for variant in setting_variants(results, setting):
        rows = [results.groups.get((setting.key, variant, target)) for target in targets]
        if all(cells is not None and (cells["status"] == "done").all() for cells in rows):
            runs[variant] = [runs_of(results, setting, variant, target) for target in targets]
            scores = mean_scores(runs[variant])
            if len(scores):
                means[variant] = mean_sd(scores).mean
    names = sorted(means, key=lambda variant: (-means[variant], variant))
    gains = {(a, b): gain_over(results, setting, runs[a], runs[b]) for a, b in combinations(names, 2)}
    if len(names) < 3 or not any(gain and gain.judged for gain in gains.values()):
        return None

    def apart(a: str, b: str) -> bool:
        gain = gains[a, b]
        return gain is not None and gain.sign != 0

    return Standing({name: means[name] for name in names}, groups_of(names, apart))
