"""Printed against measured, in what may be compared: the sign of gains, and the order of rows."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import lru_cache

from crossfold.platform.core.cell import AS_RELEASED
from crossfold.platform.core.errors import UserError
from crossfold.reports.results.comparable import family_of, gain_over
from crossfold.reports.results.load import setting_of
from crossfold.reports.results.model import Results, Setting
from crossfold.reports.results.runs import RAW, runs_of
from crossfold.reports.results.systems import UNIMODAL, corpus_name
from crossfold.reports.stats.formatting import MINUS, listing
from crossfold.reports.stats.hypothesis_tests import ALPHA, rank_agreement
from crossfold.reports.stats.intervals import Gain, paired_folds
from crossfold.reports.stats.power import Design, Power, mean_squares, power_of
from crossfold.reports.stats.runs import Run
from crossfold.reports.tables.entries import NOT_COMPARABLE, Entry, GainLine, Line
from crossfold.reports.tables.notes import RELEASED
from crossfold.reports.tables.published import MEAN, TableSpec
from crossfold.sweeps.recipe_files import load_recipe

SAME, OPPOSITE, UNCLEAR, TOO_FEW = "same sign", "opposite sign", "not distinguishable", "too few seeds or videos to say"
PAIRS_NOTE = (
    "Measured gain: difference in CCC on the same folds, seeds and videos, with its own 95% interval. p: corrected for "
    "every pair of systems that the setting runs, on each target; the verdict follows it alone, as in all tables."
)


def departures(spec: TableSpec, setting: Setting) -> tuple[str, ...]:
    """How the measurement differs from the paper's: in the corpus, in the recipe, or in changed fields of it."""
    found = []
    if setting.corpus != spec.corpus:
        found.append(f"on {corpus_name(setting.corpus)}, which is not the paper's corpus ({corpus_name(spec.corpus)})")
    if setting.recipe.removesuffix(RELEASED) != spec.recipe:
        found.append(f"with recipe {setting.recipe}, which is not the paper's ({spec.recipe})")
    elif setting.recipe_hash != _shipped_hash(setting.recipe):
        found.append(f"with recipe {setting.recipe}, but changed from the one that ships")
    return tuple(found)


def what_compares(spec: TableSpec, setting: Setting) -> str:
    """The sentence above a table."""
    departed = departures(spec, setting)
    if departed:
        how = ": compare order and sign of the gains, not values" if spec.printed else ""
        return f"Measured {listing(departed)}{how}."
    if not spec.printed:
        return f"Measured on {corpus_name(setting.corpus)}, the paper's corpus, with recipe {setting.recipe}."
    where = f"Measured on {corpus_name(setting.corpus)}, the paper's corpus, with recipe {setting.recipe}"
    verdict = "A published number agrees where it lies within the interval of the measured one."
    if same_folds(setting, spec.folds):
        return f"{where}: the difference to the published number is shown. {verdict}"
    rule = f"the rule {setting.fold_rule}" if setting.fold_rule else "a rule that is not known here"
    others = f"{where}, on folds by {rule}: folds 1 to 5 need not report the trials that the printed ones report, so "
    others += "compare order and sign of the gains, not values"
    if any(row.fold == 0 for row in spec.rows):
        return f"{others}; of fold 0, the official split, the difference is shown. {verdict}"
    return f"{others}."


def same_folds(setting: Setting, folds: Collection[int]) -> bool:
    """Whether these folds of a setting report the trials that the papers' folds of these numbers report (E13)."""
    return set(folds) <= {0} or setting.fold_rule == AS_RELEASED


@lru_cache(maxsize=64)
def _shipped_hash(recipe: str) -> str:
    """The hash of a recipe as it ships; empty where none of that name does."""
    try:
        return setting_of(load_recipe(recipe), "", "", 0, joint=False).recipe_hash
    except UserError:
        return ""


def measured_gains(spec: TableSpec, lines: Sequence[Line], results: Results, setting: Setting) -> tuple[GainLine, ...]:
    """Each printed gain of one component with the measured one."""
    by_label = {line.label: line for line in lines}
    found = []
    for pair in spec.pairs:
        for index, column in enumerate(spec.columns):
            base, better = (by_label[label].entries[index] for label in (pair.base, pair.better))
            if base.value is None or better.value is None or not column.measurable or column.target == MEAN:
                continue
            # Both rows show the same runs in the columns of one modality.
            if column.stream in UNIMODAL:
                continue
            gain = entry_gain(results, setting, better, base)
            seen = bool(better.seen or base.seen)
            label, why = f"{pair.base} → {pair.better}", why_none(base, better)
            found.append(GainLine(label, column.head.lower(), printed_gain(better, base), gain, why, seen))
    return with_verdicts(found, _sign_verdict)


def with_verdicts(lines: Sequence[GainLine], verdict: Callable[[GainLine, Gain], str]) -> tuple[GainLine, ...]:
    """The lines with the verdict of each measured gain."""
    return tuple(replace(line, verdict=verdict(line, line.gain)) if line.gain else line for line in lines)


def printed_gain(better: Entry, base: Entry) -> float | None:
    """The gain in print; None where either number is not printed."""
    return None if better.value is None or base.value is None else round(better.value - base.value, 6)


def entry_gain(results: Results, setting: Setting, better: Entry, base: Entry) -> Gain | None:
    """The paired gain of one entry over another, after the same post-processing; None where either is not complete.

    Entries of `MEAN` gain in the mean over all targets of the setting.
    """
    groups = _groups(results, setting, (better, base))
    return gain_over(results, setting, groups[0], groups[1]) if groups else None


def further_gain(
    results: Results, setting: Setting, pair: tuple[Entry, Entry], other: tuple[Entry, Entry]
) -> Gain | None:
    """How much more the first of `pair` gains over its second than the first of `other` does; None as above.

    (a - b) - (c - d) is twice the gain of the mean of a and d over that of b and c: the same runs, the same videos.
    """
    groups = _groups(results, setting, (*pair, *other))
    if groups is None:
        return None
    a, b, c, d = groups
    half = gain_over(results, setting, [*a, *d], [*b, *c], asked=len(a))
    return half and replace(
        half,
        mean=2 * half.mean,
        spread=half.spread and half.spread._replace(error=2 * half.spread.error),
        differences=tuple(2 * difference for difference in half.differences),
    )


def printed_power(
    results: Results, setting: Setting, printed: float | None, entries: Sequence[Entry], ran: Design | None
) -> Power | None:
    """The chance that a true gain as large as the printed one would be seen with what the paper ran.

    entries: better and base, or two such pairs whose gains are compared. The variances are those measured here. None
    where no gain is printed or it is none, and where fewer than two seeds or videos of a fold say nothing about them.
    """
    groups = _groups(results, setting, entries) if ran else None
    if printed is None or printed <= 0 or ran is None or groups is None:
        return None
    plus, minus = (groups[0], groups[1]) if len(groups) == 2 else ([*groups[0], *groups[3]], [*groups[1], *groups[2]])
    squares = mean_squares(paired_folds(plus, minus))
    # The gain of a gain is twice that of the means, as in `further_gain`.
    size = printed / (len(groups) / 2)
    return None if squares is None else power_of(squares, size, ran, family_of(results, setting, len(groups[0])))


def _groups(results: Results, setting: Setting, entries: Sequence[Entry]) -> list[list[list[Run]]] | None:
    """The runs of each entry, a group per target, on folds and after post-processing that all have."""
    if any(entry.mean is None for entry in entries):
        return None
    post = entries[0].post if len({entry.post for entry in entries}) == 1 else RAW
    targets = [entries[0].target]
    if targets == [MEAN]:
        targets = sorted({target for key, _, target in results.groups if key == setting.key})
    folds = sorted(set.intersection(*({*entry.folds} for entry in entries)))
    return [
        [runs_of(results, entry.elsewhere or setting, entry.variant, target, folds, post) for target in targets]
        for entry in entries
    ]


def gain_sentences(gains: Sequence[GainLine]) -> tuple[str, ...]:
    """How many of the printed gains have the same sign here."""
    measured = [line for line in gains if line.gain]
    if not measured:
        return ("No printed gain can be checked yet: no pair of rows is complete.",) if gains else ()
    count = Counter(line.verdict for line in measured)
    return (
        f"Of {len(gains)} printed gains, {len(measured)} are measured: {count[SAME]} with the same sign, "
        f"{count[OPPOSITE]} with the opposite sign, {len(measured) - count[SAME] - count[OPPOSITE]} not "
        f"distinguishable from zero. A sign counts where p, corrected for all comparisons, is below {ALPHA}.",
    )


def order_sentences(spec: TableSpec, lines: Sequence[Line]) -> tuple[str, ...]:
    """How well the measured order of rows agrees with the printed one, per column."""
    words = []
    for index, column in enumerate(spec.columns):
        complete = [line.entries[index] for line in lines if line.entries[index].mean is not None]
        # Means over different folds have no common order.
        if len({entry.folds for entry in complete}) > 1:
            continue
        pairs = [(entry.value, entry.mean) for entry in complete if entry.value is not None and entry.mean is not None]
        if agreement := rank_agreement([printed for printed, _ in pairs], [mean for _, mean in pairs]):
            tau = f"{agreement.tau:.2f}".replace("-", MINUS)
            p = "< 0.01" if agreement.p < 0.01 else f"= {agreement.p:.2f}"  # no verdict hangs on it
            words.append(f"{tau} for {column.head.lower()} (n = {agreement.n}, p {p})")
    if not words:
        return ()
    return (f"Order of the measured rows against the printed order: Kendall's tau {', '.join(words)}.",)


def _sign_verdict(line: GainLine, gain: Gain) -> str:
    if not gain.judged:
        return TOO_FEW
    if gain.sign == 0:
        return UNCLEAR
    return SAME if gain.sign * (line.printed or 0) > 0 else OPPOSITE


def why_none(*entries: Entry) -> str:
    """The worst of the reasons for which two entries have no gain."""
    reasons = [entry.verdict if entry.done == 0 else entry.text for entry in entries if entry.mean is None]
    return next(iter(sorted(reasons, key=lambda reason: not reason.startswith("failed"))), NOT_COMPARABLE)
