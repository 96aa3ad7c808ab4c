"""The systems and targets of a setting, and the complete systems that ran the same runs and may be ranked."""

from collections import Counter

import pandas as pd

from crossfold.reports.results.model import Results, Setting
from crossfold.reports.results.systems import system_rank
from crossfold.reports.stats.hypothesis_tests import Ranks, rank_systems


def setting_targets(results: Results, setting: Setting) -> tuple[str, ...]:
    """The targets that ran, valence first."""
    found = {str(target) for target in results.rows(setting)["target"]}
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


def group_letters(ranks: Ranks | None) -> dict[str, str]:
    """Variant -> the letters of its groups: two variants with a letter in common are not distinguishable."""
    letters: dict[str, str] = {}
    for index, group in enumerate(ranks.groups if ranks else ()):
        # After z comes aa.
        letter = chr(ord("a") + index % 26) * (1 + index // 26)
        for variant in group:
            letters[variant] = f"{letters[variant]} {letter}" if variant in letters else letter
    return letters


def ranks_of(scores: pd.DataFrame) -> Ranks | None:
    """Friedman's and Nemenyi's tests over the blocks of `comparable_variants`."""
    return rank_systems(scores) if not scores.empty else None
