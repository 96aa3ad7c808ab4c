"""What moved between two reports, before and after a change, and whether it is more than noise."""

from collections import Counter
from collections.abc import Sequence, Set

from crossfold.reports.page.joined import SEEN_RULE
from crossfold.reports.page.sheets import Section, Sheet
from crossfold.reports.results.comparable import setting_targets, setting_variants
from crossfold.reports.results.model import Results, Setting
from crossfold.reports.results.runs import runs_of
from crossfold.reports.results.systems import corpus_name
from crossfold.reports.stats.formatting import DASH, number
from crossfold.reports.stats.hypothesis_tests import ALPHA, Family
from crossfold.reports.stats.intervals import ROUNDING, Gain, paired_gain
from crossfold.reports.stats.runs import Run, mean_scores
from crossfold.reports.tables.entries import SEEN_MARK
from crossfold.reports.tables.grid import Grid, GridCell, gain_cell, label_cell, p_cell, words_cell

BETTER, WORSE, NOISE, SAME = "better", "worse", "within noise", "the same numbers"
TOO_FEW, OTHER_VIDEOS = "too few seeds or videos to say", "scored on other videos"
ONLY_BEFORE, ONLY_AFTER, NO_PAIR = "only before", "only after", "no fold and seed in common"
RULE = (
    "Before and after: means over the folds and seeds that both ran. Change: after minus before on the same folds, "
    "seeds and videos, with its own 95% interval. A change is better or worse where p, corrected for all rows of the "
    f"table, is below {ALPHA}; otherwise it is within noise."
)
HEADS = ("System", "Target", "Before", "After", "Change, 95% interval", "p", "Verdict", "Pairs")


def difference(before: Results, after: Results, names: tuple[str, str], date: str) -> Sheet:
    """The sheet of all settings that both have, or that one of them has alone.

    names: what to call the two workspaces. Settings meet by corpus, recipe name, selection and heads: the change may be
    one of the recipe, the features or the code, and the sheet names which of them differ.
    """
    sections, count = [], Counter[str]()
    first = {_place(setting): setting for setting in reversed(list(before.settings.values()))}
    second = {_place(setting): setting for setting in reversed(list(after.settings.values()))}
    for place in dict.fromkeys([*second, *first]):
        old, new = first.get(place), second.get(place)
        if old is None or new is None:
            continue
        grid, verdicts = _grid(before, old, after, new)
        count.update(verdicts)
        sections.append(
            Section(
                heading=f"{corpus_name(new.corpus)}, recipe {new.recipe}",
                label=new.label,
                above=(_what_differs(old, new), _counted(Counter(verdicts))),
                grid=grid,
                below=(RULE, *((SEEN_RULE,) if any(cell.marks for row in grid.rows for cell in row) else ())),
            )
        )
    alone = [setting for place, setting in {**first, **second}.items() if place not in first or place not in second]
    words = "; ".join(f"{corpus_name(setting.corpus)}, recipe {setting.recipe}" for setting in alone)
    summary = f"Before: {names[0]}. After: {names[1]}. {_counted(count)}"
    return Sheet(
        title="What moved between two reports",
        date=date,
        summary=summary + (f" Settings that one of them has alone are left out: {words}." if words else ""),
        sections=sections,
    )


def _place(setting: Setting) -> tuple[str, str, str, bool]:
    return setting.corpus, setting.recipe, setting.selection, setting.joint


def _what_differs(old: Setting, new: Setting) -> str:
    facts = (
        ("store", "features"),
        ("fold_rule", "rule of the folds"),
        ("recipe_hash", "fields of the recipe"),
        ("protocol", "protocol"),
    )
    found = [
        f"{words} ({getattr(old, name)} before, {getattr(new, name)} after)"
        for name, words in facts
        if getattr(old, name) != getattr(new, name)
    ]
    return f"They differ in: {'; '.join(found)}." if found else "Features, recipe and protocol are the same."


def _counted(count: Counter[str]) -> str:
    parts = [f"{count[verdict]} {verdict}" for verdict in dict.fromkeys((BETTER, WORSE, NOISE, SAME, *sorted(count)))]
    return f"Of {sum(count.values())} rows: {', '.join(part for part in parts if not part.startswith('0 '))}."


def _grid(before: Results, old: Setting, after: Results, new: Setting) -> tuple[Grid, list[str]]:
    targets = [t for t in setting_targets(after, new) if t in setting_targets(before, old)]
    whole = tuple(targets)
    asked = [whole] if len(targets) < 2 else [whole, *((target,) for target in targets)]
    known = setting_variants(after, new) | setting_variants(before, old)
    family = Family(2, max(1, len(known) * len(asked)))
    rows, verdicts = [], []
    for variant in known:
        for group in asked if targets else ():
            sides = [
                [runs_of(results, setting, variant, target) for target in group]
                for results, setting in ((before, old), (after, new))
            ]
            gain, verdict = _judged(sides[0], sides[1], family)
            verdicts.append(verdict)
            common = {(run.fold, run.seed) for run in sides[0][0]} & {(run.fold, run.seed) for run in sides[1][0]}
            means = [_mean(side, common) for side in sides]
            marked = [_is_seen(before, old, variant, common), _is_seen(after, new, variant, common)]
            rows.append(
                (
                    label_cell(after.variants.get(variant) or before.variants[variant]),
                    words_cell("mean" if len(group) > 1 else group[0]),
                    *(
                        GridCell(
                            DASH if m is None else number(m),
                            sort=m,
                            kind="measured",
                            marks=(SEEN_MARK,) if seen and m is not None else (),
                        )
                        for m, seen in zip(means, marked, strict=True)
                    ),
                    gain_cell(gain, unclear=verdict == NOISE, seen=any(marked)),
                    p_cell(gain.p if gain else None),
                    GridCell(verdict, sort=verdict, kind="words", strong=verdict in (BETTER, WORSE)),
                    GridCell(str(gain.n if gain else 0), sort=float(gain.n if gain else 0)),
                )
            )
    return Grid((), HEADS, tuple(rows)), verdicts


def _is_seen(results: Results, setting: Setting, variant: str, common: Set[tuple[int, int]]) -> bool:
    """Whether a cell of a variant in these folds and seeds has the label `seen`."""
    rows = results.rows(setting, variant=variant)
    labelled = rows[rows["cell_id"].isin(results.seen)]
    return any(place in common for place in zip(labelled["fold"], labelled["seed"], strict=True))


def _mean(groups: Sequence[Sequence[Run]], common: set[tuple[int, int]]) -> float | None:
    scores = mean_scores([[run for run in group if (run.fold, run.seed) in common] for group in groups])
    return float(scores.groupby("fold")["ccc"].mean().mean()) if len(scores) else None


def _judged(old: Sequence[Sequence[Run]], new: Sequence[Sequence[Run]], family: Family) -> tuple[Gain | None, str]:
    if not all(old) or not all(new):
        return None, NO_PAIR if all(old) == all(new) else ONLY_BEFORE if all(old) else ONLY_AFTER
    try:
        gain = paired_gain(new, old, family)
    except ValueError:
        return None, OTHER_VIDEOS
    if gain is None:
        return None, NO_PAIR
    if all(abs(each) < ROUNDING for each in gain.differences):
        return gain, SAME
    if not gain.judged:
        return gain, TOO_FEW
    return gain, {1: BETTER, -1: WORSE, 0: NOISE}[gain.sign]
