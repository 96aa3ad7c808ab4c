"""What a setting ran: its systems and targets, and the complete ones that may be ranked because they ran the same."""

from collections import Counter
from dataclasses import dataclass

import pandas as pd

from crossfold.reports.results.model import Results, Setting
from crossfold.reports.results.systems import system_rank
from crossfold.reports.stats.hypothesis_tests import Ranks, rank_systems


def setting_targets(results: Results, setting: Setting) -> tuple[str, ...]:
    """The targets that ran, valence first."""
    found = {str(target) for target in results.cells.loc[results.cells["setting"] == setting.key, "target"]}
    return tuple(sorted(found, key=lambda target: (target != "valence", target)))


def setting_variants(results: Results, setting: Setting) -> dict[str, str]:
    """Variant -> system of everything that ran or was asked for, in the order of tables and figures."""
    systems = {v: system for (key, system), of in results.variants_of.items() if key == setting.key for v in of}
    return dict(sorted(systems.items(), key=lambda item: (system_rank(item[1]), item[0])))


@dataclass(frozen=True)
class Budget:
    """The complete variants of a setting that ran the same folds, seeds and targets."""

    scores: pd.DataFrame
    """CCC, one row a block (target, fold, seed), one column a variant, in order of figures."""

    @property
    def variants(self) -> tuple[str, ...]:
        """The columns."""
        return tuple(str(name) for name in self.scores.columns)


def comparable_variants(results: Results, setting: Setting) -> Budget:
    """The largest set of complete variants with equal blocks; of equally large ones, that with the most blocks."""
    cells = results.cells[results.cells["setting"] == setting.key]
    complete: dict[str, frozenset[tuple[str, int, int]]] = {}
    for variant, rows in cells.groupby("variant"):
        if (rows["status"] == "done").all():
            complete[str(variant)] = frozenset(zip(rows["target"], rows["fold"], rows["seed"], strict=True))
    if not complete:
        return Budget(pd.DataFrame())
    sizes = Counter(complete.values())
    chosen = max(sizes, key=lambda blocks: (sizes[blocks], len(blocks), sorted(blocks)))
    order = [variant for variant in setting_variants(results, setting) if complete.get(variant) == chosen]
    rows = cells[cells["variant"].isin(order)]
    return Budget(rows.pivot_table(index=["target", "fold", "seed"], columns="variant", values="ccc")[order])


def group_letters(ranks: Ranks | None) -> dict[str, str]:
    """Variant -> the letters of the groups it is in: two that share a letter are not distinguishable."""
    letters: dict[str, str] = {}
    for index, group in enumerate(ranks.groups if ranks else ()):
        # After z comes aa: a name, never a symbol.
        letter = chr(ord("a") + index % 26) * (1 + index // 26)
        for variant in group:
            letters[variant] = f"{letters[variant]} {letter}" if variant in letters else letter
    return letters


def ranks_of(budget: Budget) -> Ranks | None:
    """Friedman's and Nemenyi's tests over the blocks of a budget."""
    return rank_systems(budget.scores) if not budget.scores.empty else None
