"""The papers' claims, judged on the measured cells. The claims are data: `claims.yaml`.

A claim is a set of comparisons of two cells of a table. Each is a paired gain on the same folds, seeds and videos, with
the same interval, p and verdict as in every other table; `unpaired_claims` has the few that no pair can decide. A claim
holds as a whole or not.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

import yaml
from pydantic import Field

from crossfold.platform.core.base_model import FrozenModel
from crossfold.reports.results.model import Results, Setting
from crossfold.reports.results.systems import corpus_name
from crossfold.reports.stats.formatting import DASH, listing, percent, power_text, signed
from crossfold.reports.stats.hypothesis_tests import ALPHA, MARGIN
from crossfold.reports.stats.intervals import MIN_SEEDS, MIN_VIDEOS, Gain
from crossfold.reports.stats.power import Design
from crossfold.reports.tables.comparison import entry_gain, further_gain, printed_gain, printed_power, with_verdicts
from crossfold.reports.tables.entries import NOT_MEASURABLE, SEEN_MARK, Entry, GainLine, Table
from crossfold.reports.tables.grid import Grid, GridCell, gain_cell, label_cell, p_cell, printed_cell, words_cell
from crossfold.reports.tables.published import MEAN, OTHERS, Column, TableSpec, abstract_scores, declared, table_spec
from crossfold.reports.tables.unpaired_claims import over_abstract, over_other_folds, window_flops

DECLARED = Path(__file__).parent / "claims.yaml"

SUPPORTED, NOT_SUPPORTED, CONTRADICTED = "supported", "not supported", "contradicted"
NOT_YET, UNTESTABLE = "not testable yet", "not testable"

POWER_OF_PAPER = "Power of the paper"
"""Head of the chance that a gain as large as the printed one has a verdict with what the paper ran."""
METHOD = (
    "A claim is supported where every comparison gains: its paired jackknife over videos and seeds gives p below "
    f"{ALPHA}, corrected for every pair of systems of the setting on each target; contradicted where at least one "
    "comparison loses by the same measure; else not supported, which with few runs says little. "
    f"Folds with fewer than {MIN_SEEDS} seeds or {MIN_VIDEOS} videos say nothing yet. "
    f"Indistinguishable: two one-sided t tests (TOST) put the gain within ±{MARGIN}, the noise that the papers' own "
    "tables show (B13). d: Cohen's, of the paired differences. Other folds and the baseline of an abstract share no "
    "pairs: their difference has the error of both sides (Welch), and is corrected for the targets of the claim. "
    "Operations are counted without error. Power of the paper: the chance that a true gain as large as the printed "
    f"one has p below {ALPHA}, by the same measure, on the folds and videos of the paper with its seeds ({MIN_SEEDS} "
    "where it prints no number of them), if gains vary between videos and seeds as here; 90% interval in brackets."
)


class Comparison(FrozenModel):
    """Two cells, each `row`, or `row | column` where columns name systems or streams. The first is claimed better.

    Rows that are folds are compared by their mean, without pairs: `better` then names several.
    """

    better: str | tuple[str, ...]
    base: str
    """Or what an abstract prints of others, such as `ext:abaw_baseline`."""
    more_than: "Comparison | None" = None
    """The comparison over whose gain the gain of this one is claimed to be larger."""


class Claim(FrozenModel):
    """One statement of one paper."""

    id: str
    paper: str
    where: str
    says: str
    table: str
    target: str = ""
    """The one target that it is about; empty: all."""
    quantity: Literal["ccc", "flops"] = "ccc"
    """`flops`: the first side is claimed to be cheaper."""
    comparisons: tuple[Comparison, ...] = ()
    untestable: str = ""
    """Why no measurement here can decide it."""


class _Claims(FrozenModel):
    claims: tuple[Claim, ...] = Field(min_length=1)


@dataclass(frozen=True)
class Verdict:
    """A claim, judged."""

    claim: Claim
    paper: str
    setting: Setting
    comparable: bool
    """Whether it was measured on the paper's own corpus with its recipe."""
    comparisons: tuple[GainLine, ...]
    says: str
    """supported, not supported, contradicted, not testable, or not testable yet."""
    provenance: tuple[tuple[str, str], ...] = ()
    """Of the table that it was judged on."""
    facts: str = ""
    """Measured numbers that decide a claim which is not about CCC."""

    @property
    def done(self) -> int:
        """The number of measured comparisons."""
        return sum(each.gain is not None for each in self.comparisons)

    @property
    def seen(self) -> bool:
        """Whether a measured comparison has the label `seen`."""
        return any(each.seen for each in self.comparisons if each.gain)

    @property
    def text(self) -> str:
        """The verdict with what qualifies it."""
        if self.says == NOT_YET:
            complete = self.done == len(self.comparisons)
            return f"{NOT_YET} ({_TOO_FEW if complete else f'{self.done}/{len(self.comparisons)}'})"
        if self.says == UNTESTABLE:
            return f"{UNTESTABLE}: {self.claim.untestable}"
        # A claim that is not supported may still be answered: the systems are equally good.
        same = sum(each.verdict == _SAME for each in self.comparisons)
        if self.facts:
            return f"{self.says}: {self.facts}"
        return self.says + (f", {same} of {len(self.comparisons)} indistinguishable" if same else "")


_TOO_FEW = "too few seeds or videos to say"
_GAINS, _LOSES, _UNCLEAR = "gains", "loses", "not distinguishable from zero"
_SAME = f"indistinguishable within ±{MARGIN}"


@lru_cache(maxsize=1)
def all_claims() -> tuple[Claim, ...]:
    """`claims.yaml`, checked. Raises `KeyError` where a comparison names what its table does not print."""
    claims = _Claims.parse({"claims": yaml.safe_load(DECLARED.read_text(encoding="utf-8"))}, DECLARED.name).claims
    for claim in claims:
        if bool(claim.comparisons) == bool(claim.untestable):
            raise KeyError(f"claim {claim.id}: give comparisons, or say why it is untestable")
        for comparison in claim.comparisons:
            for each in filter(None, (comparison, comparison.more_than)):
                compared_cells(claim, each)
    return claims


class Sides(NamedTuple):
    """The cells of a comparison for one target, each a row and the index of its column."""

    better: tuple[tuple[str, int], ...]
    base: tuple[tuple[str, int], ...]
    """Empty where the base is a printed number."""


def compared_cells(claim: Claim, comparison: Comparison) -> dict[str, Sides]:
    """Target -> the cells of the two sides.

    Raises `KeyError` for what is not printed.
    """
    spec = table_spec(claim.table)
    names = (comparison.better,) if isinstance(comparison.better, str) else comparison.better
    better = [_cells(spec, words, claim.target) for words in names]
    if comparison.base.startswith(OTHERS):
        columns = {target: spec.columns[cell[1]].key for target, cell in better[0].items()}
        lacking = set(columns.values()) - set(abstract_scores(claim.paper, comparison.base))
        if lacking:
            raise KeyError(f"claim {claim.id}: the abstract prints no {sorted(lacking)} of {comparison.base}")
        return {target: Sides(tuple(cells[target] for cells in better), ()) for target in columns}
    base = _cells(spec, comparison.base, claim.target)
    # A comparison holds for a target only if both of its cells are printed and measurable.
    if not better[0] or any(cells.keys() != base.keys() for cells in better):
        raise KeyError(f"claim {claim.id}: {comparison.better!r} and {comparison.base!r} have no target in common")
    return {target: Sides(tuple(cells[target] for cells in better), (base[target],)) for target in base}


def judge(results: Results, tables: Sequence[Table]) -> tuple[Verdict, ...]:
    """Every claim about one of these tables, on the setting that the table was measured in. Pure."""
    built = {table.id: table for table in tables}
    return tuple(_judge(claim, results, built[claim.table]) for claim in all_claims() if claim.table in built)


def claims_grid(verdicts: Sequence[Verdict]) -> Grid:
    """One row per claim."""
    heads = ("Claim", "Verdict", "Measured gains", "Printed gains", POWER_OF_PAPER, "Measured on", "Paper, place")
    rows = []
    for verdict in verdicts:
        gains = [each.gain.mean for each in verdict.comparisons if each.gain]
        printed = [each.printed for each in verdict.comparisons if each.printed is not None]
        row = (
            label_cell(verdict.claim.says),
            GridCell(verdict.text, sort=verdict.text, kind="words" if gains else "missing"),
            GridCell(_range(gains), sort=min(gains, default=None), marks=(SEEN_MARK,) if verdict.seen else ()),
            GridCell(_range(printed), sort=min(printed, default=None)),
            _chances([each.power.chance for each in verdict.comparisons if each.power]),
            words_cell(verdict.setting.corpus + ("" if verdict.comparable else ", not comparable") if gains else ""),
            words_cell(f"{declared().short[verdict.claim.paper]}, {verdict.claim.where}"),
        )
        rows.append(row)
    return Grid((), heads, tuple(rows))


def comparisons_grid(verdicts: Sequence[Verdict]) -> Grid | None:
    """One row per measured comparison; None where there is none."""
    scores = ("Printed gain", POWER_OF_PAPER, "Measured gain, 95% interval", "Pairs", "p (family)", "p (TOST)", "d")
    heads = ("Claim", "Comparison", "Target", *scores, "Result")
    rows = tuple(
        (
            label_cell(verdict.claim.says),
            words_cell(each.label),
            words_cell(each.target),
            printed_cell(each.printed),
            GridCell(power_text(each.power), sort=each.power.chance if each.power else None),
            gain_cell(each.gain, unclear=each.gain.sign == 0, seen=each.seen),
            GridCell(str(each.gain.n or DASH), sort=float(each.gain.n)),
            p_cell(each.gain.p),
            p_cell(each.p_same),
            GridCell(DASH if each.effect is None else signed(each.effect), sort=each.effect),
            words_cell(each.verdict),
        )
        for verdict in verdicts
        for each in verdict.comparisons
        if each.gain
    )
    return Grid((), heads, rows) if rows else None


def count_words(verdicts: Sequence[Verdict]) -> str:
    """How many claims have which verdict, in one sentence; empty without claims."""
    if not verdicts:
        return ""
    order = (SUPPORTED, NOT_SUPPORTED, CONTRADICTED, NOT_YET, UNTESTABLE)
    counts = Counter(verdict.says for verdict in verdicts)
    counted = ", ".join(f"{counts[name]} {name}" for name in order if counts[name])
    elsewhere = [verdict for verdict in verdicts if verdict.done and not verdict.comparable]
    corpora = ", ".join(sorted({verdict.setting.corpus for verdict in elsewhere}))
    where = f" ({len(elsewhere)} measured on other data, folds or recipes than the paper's: {corpora})"
    claims = f"{len(verdicts)} claim{'s' if len(verdicts) > 1 else ''} of the papers"
    return f"{claims}: {counted}{where if elsewhere else ''}."


def _judge(claim: Claim, results: Results, table: Table) -> Verdict:
    verdict = Verdict(
        claim=claim,
        paper=declared().papers[claim.paper],
        setting=table.setting,
        comparable=table.comparable,
        comparisons=(),
        says=UNTESTABLE,
        provenance=table.provenance,
    )
    if claim.quantity == "flops":
        return _cheaper(verdict, results, table)
    found = [line for comparison in claim.comparisons for line in _compared(claim, comparison, results, table)]
    comparisons = with_verdicts(found, _comparison_verdict)
    return replace(verdict, comparisons=comparisons, says=_verdict(claim, comparisons))


def _compared(claim: Claim, comparison: Comparison, results: Results, table: Table) -> Iterator[GainLine]:
    """The gain of each target."""
    lines = {line.label: line.entries for line in table.lines}
    label = _pair_words(comparison)
    more = comparison.more_than
    label += f", more than {_pair_words(more)}" if more else ""
    cells = compared_cells(claim, comparison)
    further = compared_cells(claim, more) if more else {}
    for target, sides in cells.items():
        better, base = ([lines[row][column] for row, column in side] for side in sides)
        why = [entry.text for entry in (*better, *base) if entry.mean is None]
        others: list[Entry] = []
        if not base:
            gain, printed = over_abstract(results, table, claim.paper, comparison.base, better[0], len(cells))
            why = why or [f"only on {corpus_name(table_spec(claim.table).corpus)}, fold 0"]
        elif isinstance(comparison.better, tuple):
            gain, printed = over_other_folds(results, table.setting, better, base[0], len(cells))
        elif more:
            both, others = (better[0], base[0]), [lines[row][column] for row, column in sum(further[target], ())]
            why += [entry.text for entry in others if entry.mean is None]
            gain, less = further_gain(results, table.setting, both, (others[0], others[1])), printed_gain(*others)
            printed = printed_gain(*both)
            printed = None if printed is None or less is None else round(printed - less, 6)
        else:
            gain, printed = entry_gain(results, table.setting, better[0], base[0]), printed_gain(better[0], base[0])
        seen = any(entry.seen for entry in (*better, *base, *others))
        power = None
        if gain and gain.n and base:
            pair = (better[0], base[0], *others)
            power = printed_power(results, table.setting, printed, pair, _ran(claim, sides))
        yield GainLine(label, better[0].target, printed, gain, (why or ["no fold and seed in common"])[0], seen, power)


def _ran(claim: Claim, sides: Sides) -> Design | None:
    """What the paper ran for a comparison; None where the videos are not known."""
    spec, ran = table_spec(claim.table), declared().ran[claim.paper]
    row = next(row for row in spec.rows if row.label == sides.better[0][0])
    videos, folds = ran.videos.get(spec.corpus, ()), spec.folds if row.fold is None else (row.fold,)
    if max(folds) >= len(videos):
        return None
    return Design(tuple(videos[fold] for fold in folds), max(ran.seeds or 0, MIN_SEEDS))


def _cheaper(verdict: Verdict, results: Results, table: Table) -> Verdict:
    """Whether one system takes fewer operations for a window than another; the count has no error."""
    (comparison,) = verdict.claim.comparisons
    sides = next(iter(compared_cells(verdict.claim, comparison).values()))
    lines = {line.label: line.entries for line in table.lines}
    better, base = (lines[side[0][0]][side[0][1]] for side in sides)
    costs = [window_flops(results, table.setting, entry) for entry in (better, base)]
    label = f"{_pair_words(comparison)}, operations"
    if costs[0] is None or costs[1] is None:
        why = next((entry.text for entry in (better, base) if entry.mean is None), "operations were not counted")
        return replace(verdict, says=NOT_YET, comparisons=(GainLine(label, better.target, None, None, why),))
    says = SUPPORTED if costs[0] < costs[1] else CONTRADICTED if costs[0] > costs[1] else NOT_SUPPORTED
    return replace(verdict, says=says, facts=f"{costs[0] / 1e6:.3g} against {costs[1] / 1e6:.3g} MFLOPs a window")


def _pair_words(pair: Comparison) -> str:
    better = pair.better if isinstance(pair.better, str) else f"mean of {listing(pair.better)}"
    return f"{better} over {pair.base.replace(OTHERS, '').replace('_', ' ')}".replace(" | ", " ")


def _comparison_verdict(line: GainLine, gain: Gain) -> str:
    # A gain can be clear and yet too small to matter; the claim is about its sign.
    if gain.sign != 0:
        return _GAINS if gain.sign > 0 else _LOSES
    if line.p_same is not None and line.p_same < ALPHA:
        return _SAME
    return _UNCLEAR if gain.judged else _TOO_FEW


def _verdict(claim: Claim, comparisons: Sequence[GainLine]) -> str:
    if claim.untestable:
        return UNTESTABLE
    # One clear loss contradicts the claim, whatever the comparisons that are still to run will give.
    if any(each.verdict == _LOSES for each in comparisons):
        return CONTRADICTED
    if any(each.gain is None or each.verdict == _TOO_FEW for each in comparisons):
        return NOT_YET
    return SUPPORTED if all(each.verdict == _GAINS for each in comparisons) else NOT_SUPPORTED


def _cells(spec: TableSpec, words: str, target: str) -> Mapping[str, tuple[str, int]]:
    """Target -> (row, column) of the measurable cells that some words mean."""
    label, _, named = (part.strip() for part in words.partition(" | "))
    row = next((row for row in spec.rows if row.label == label), None)
    if row is None:
        raise KeyError(f"table {spec.id}: no printed row {label!r}")
    found = {}
    for index, column in enumerate(spec.columns):
        if column.target == MEAN or not column.measurable or (target and column.target != target):
            continue
        if _named(column, named) and spec.asked(row, column).why_not != NOT_MEASURABLE:
            found[column.target] = (label, index)
    return found


def _named(column: Column, name: str) -> bool:
    own = column.system or column.stream
    # A claim that names no stream is about the column of the fusion.
    return own == name if name else own in ("", "fusion")


def _chances(chances: Sequence[float]) -> GridCell:
    """The smallest and the largest chance."""
    ends = list(dict.fromkeys(percent(chance) for chance in (min(chances), max(chances)))) if chances else [DASH]
    return GridCell(" to ".join(ends), sort=min(chances, default=None))


def _range(values: Sequence[float]) -> str:
    if not values:
        return DASH
    low, high = signed(min(values)), signed(max(values))
    return low if low == high else f"{low} to {high}"
