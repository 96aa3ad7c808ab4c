"""What the papers claim, judged on what was measured. The claims are data: `claims.yaml`.

A claim is a set of comparisons of two cells of a table. Each is a paired gain on the same folds, seeds and videos, with
an interval over videos and a t test over fold x seed, Holm-corrected within the claim. A claim holds as a whole or not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import yaml
from pydantic import Field

from crossfold.platform.core.base_model import FrozenModel
from crossfold.reports.results.model import Results, Setting
from crossfold.reports.stats.bootstrap import Gain, holm
from crossfold.reports.stats.formatting import DASH, gain_text, p_text, signed
from crossfold.reports.stats.hypothesis_tests import ALPHA, MARGIN, equivalence, paired_effect
from crossfold.reports.tables.comparison import entry_gain, further_gain
from crossfold.reports.tables.entries import NOT_MEASURABLE, Entry, Table
from crossfold.reports.tables.grid import Grid, GridCell
from crossfold.reports.tables.published import MEAN, Column, TableSpec, declared, table_spec

DECLARED = Path(__file__).parent / "claims.yaml"

SUPPORTED, NOT_SUPPORTED, CONTRADICTED = "supported", "not supported", "contradicted"
NOT_YET, UNTESTABLE = "not testable yet", "not testable"

METHOD = (
    "A claim is supported where every comparison gains: its 95% paired interval over videos lies above zero and the "
    f"paired t test over fold x seed, Holm-corrected within the claim, gives p below {ALPHA}; contradicted where at "
    "least one comparison loses by the same measure; else not supported, which with few runs says little. "
    "Fewer than two runs a side, or four videos, say nothing yet. "
    f"Indistinguishable: two one-sided t tests (TOST) put the gain within ±{MARGIN}, the noise that the papers' own "
    "tables show (B13). d: Cohen's, of the paired differences."
)


class Pair(FrozenModel):
    """Two cells: `row`, or `row | column` where columns name systems or streams."""

    better: str
    base: str


class Comparison(FrozenModel):
    """A pair whose first cell is said to be the better one; or to gain more than another pair does."""

    better: str
    base: str
    more_than: Pair | None = None


class Claim(FrozenModel):
    """One statement of one paper."""

    id: str
    paper: str
    where: str
    says: str
    table: str
    target: str = ""
    """The one target that it speaks of; empty: all."""
    comparisons: tuple[Comparison, ...] = ()
    untestable: str = ""
    """Why no measurement here can say."""


class _Claims(FrozenModel):
    claims: tuple[Claim, ...] = Field(min_length=1)


@dataclass(frozen=True)
class Judged:
    """One comparison as measured."""

    label: str
    target: str
    printed: float | None
    """The gain in print."""
    gain: Gain | None
    p: float | None
    """Holm-corrected within the claim."""
    p_same: float | None
    """TOST: small where the two are indistinguishable within `MARGIN`."""
    effect: float | None
    """Cohen's d of the paired differences."""
    state: str = ""
    """What it says, or why there is no gain."""


@dataclass(frozen=True)
class Verdict:
    """A claim, and what came of it."""

    claim: Claim
    paper: str
    setting: Setting
    comparable: bool
    """Whether it was measured on the paper's own corpus with its recipe."""
    comparisons: tuple[Judged, ...]
    says: str
    """supported, not supported, contradicted, not testable, or not testable yet."""
    provenance: tuple[tuple[str, str], ...] = ()
    """Of the table that it was judged on."""

    @property
    def done(self) -> int:
        """Comparisons that are measured."""
        return sum(each.gain is not None for each in self.comparisons)

    @property
    def text(self) -> str:
        """The verdict with what qualifies it."""
        if self.says == NOT_YET:
            complete = self.done == len(self.comparisons)
            return f"{NOT_YET} ({_TOO_FEW if complete else f'{self.done}/{len(self.comparisons)}'})"
        if self.says == UNTESTABLE:
            return f"{UNTESTABLE}: {self.claim.untestable}"
        same = sum(each.state == _SAME for each in self.comparisons)
        return self.says + (f", {same} of {len(self.comparisons)} indistinguishable" if same else "")


_TOO_FEW = "too few runs or videos to say"
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
            places(claim, comparison)
            if comparison.more_than:
                places(claim, comparison.more_than)
    return claims


def places(claim: Claim, comparison: "Pair | Comparison") -> tuple[tuple[str, int, str, int], ...]:
    """Row and column of the better and of the base cell, one tuple a target.

    Raises `KeyError` for what is not printed.
    """
    spec = table_spec(claim.table)
    ours, theirs = (_cells(spec, words, claim.target) for words in (comparison.better, comparison.base))
    if not ours or ours.keys() != theirs.keys():
        raise KeyError(f"claim {claim.id}: {comparison.better!r} and {comparison.base!r} have no target in common")
    return tuple((*ours[target], *theirs[target]) for target in ours)


def judge(results: Results, tables: Sequence[Table]) -> tuple[Verdict, ...]:
    """Every claim about one of these tables, on the setting that the table was measured in. Pure."""
    built = {table.id: table for table in tables}
    return tuple(_judge(claim, results, built[claim.table]) for claim in all_claims() if claim.table in built)


def claims_grid(verdicts: Sequence[Verdict]) -> Grid:
    """One row a claim."""
    heads = ("Claim", "Verdict", "Measured gains", "Printed gains", "Measured on", "Paper, place")
    rows = []
    for verdict in verdicts:
        gains = [each.gain.mean for each in verdict.comparisons if each.gain]
        printed = [each.printed for each in verdict.comparisons if each.printed is not None]
        where = f"{declared().short[verdict.claim.paper]}, {verdict.claim.where}"
        on = verdict.setting.corpus + ("" if verdict.comparable else ", not comparable") if gains else DASH
        rows.append(
            (
                GridCell(verdict.claim.says, sort=verdict.claim.says.lower(), kind="label"),
                GridCell(verdict.text, sort=verdict.text, kind="words" if gains else "missing"),
                GridCell(_range(gains), sort=min(gains, default=None)),
                GridCell(_range(printed), sort=min(printed, default=None)),
                GridCell(on, sort=on, kind="words"),
                GridCell(where, sort=where, kind="words"),
            )
        )
    return Grid((), heads, tuple(rows))


def comparisons_grid(verdicts: Sequence[Verdict]) -> Grid | None:
    """One row a measured comparison; None where there is none."""
    scores = ("Printed gain", "Measured gain, 95% interval", "Pairs", "p (Holm)", "p (TOST)", "d")
    heads = ("Claim", "Comparison", "Target", *scores, "Says")
    rows = []
    for verdict in verdicts:
        for each in verdict.comparisons:
            if each.gain is None:
                continue
            rows.append(
                (
                    GridCell(verdict.claim.says, sort=verdict.claim.says.lower(), kind="label"),
                    GridCell(each.label, sort=each.label.lower(), kind="words"),
                    GridCell(each.target, sort=each.target, kind="words"),
                    GridCell(DASH if each.printed is None else signed(each.printed), sort=each.printed),
                    GridCell(gain_text(each.gain), sort=each.gain.mean, unclear=each.gain.sign == 0),
                    GridCell(str(each.gain.n), sort=float(each.gain.n)),
                    GridCell(p_text(each.p), sort=each.p),
                    GridCell(p_text(each.p_same), sort=each.p_same),
                    GridCell(DASH if each.effect is None else signed(each.effect), sort=each.effect),
                    GridCell(each.state, sort=each.state, kind="words"),
                )
            )
    return Grid((), heads, tuple(rows)) if rows else None


def count_words(verdicts: Sequence[Verdict]) -> str:
    """How many claims came out how, in one sentence; empty without claims."""
    if not verdicts:
        return ""
    order = (SUPPORTED, NOT_SUPPORTED, CONTRADICTED, NOT_YET, UNTESTABLE)
    counts = {name: sum(verdict.says == name for verdict in verdicts) for name in order}
    told = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    elsewhere = [verdict for verdict in verdicts if verdict.done and not verdict.comparable]
    corpora = ", ".join(sorted({verdict.setting.corpus for verdict in elsewhere}))
    where = (
        f" ({len(elsewhere)} looked at on other data or another recipe than the paper's: {corpora})"
        if elsewhere
        else ""
    )
    return f"{len(verdicts)} claim{'s' if len(verdicts) > 1 else ''} of the papers: {told}{where}."


def _judge(claim: Claim, results: Results, table: Table) -> Verdict:
    lines = {line.label: line.entries for line in table.lines}
    found: list[tuple[str, str, float | None, Gain | None, str]] = []
    for comparison in claim.comparisons:
        than = places(claim, comparison.more_than) if comparison.more_than else ()
        for index, (row, column, base_row, base_column) in enumerate(places(claim, comparison)):
            pair = lines[row][column], lines[base_row][base_column]
            label, printed = _pair_words(comparison), _printed(*pair)
            if comparison.more_than:
                other_row, other_column, other_base, other_base_column = than[index]
                other = lines[other_row][other_column], lines[other_base][other_base_column]
                gain = further_gain(results, table.setting, pair, other)
                less = _printed(*other)
                printed = None if printed is None or less is None else round(printed - less, 6)
                label, absent = f"{label}, more than {_pair_words(comparison.more_than)}", _absent(*pair, *other)
            else:
                gain, absent = entry_gain(results, table.setting, *pair), _absent(*pair)
            found.append((label, table.columns[column], printed, gain, absent))
    corrected = holm([gain.p if gain else None for *_, gain, _ in found])
    comparisons = tuple(
        _judged(label, target, printed, gain, p, absent)
        for (label, target, printed, gain, absent), p in zip(found, corrected, strict=True)
    )
    return Verdict(
        claim=claim,
        paper=declared().papers[claim.paper],
        setting=table.setting,
        comparable=table.comparable,
        comparisons=comparisons,
        says=_verdict(claim, comparisons),
        provenance=table.provenance,
    )


def _pair_words(pair: "Pair | Comparison") -> str:
    return f"{pair.better} over {pair.base}".replace(" | ", " ")


def _printed(ours: Entry, theirs: Entry) -> float | None:
    """The gain in print."""
    return None if ours.value is None or theirs.value is None else round(ours.value - theirs.value, 6)


def _judged(label: str, target: str, printed: float | None, gain: Gain | None, p: float | None, absent: str) -> Judged:
    if gain is None:
        return Judged(label, target, printed, None, None, None, None, absent)
    p_same = equivalence(gain.differences)
    clear = gain.sign != 0 and p is not None and p < ALPHA
    same = p_same is not None and p_same < ALPHA
    tested = gain.low is not None and p is not None
    # A gain can be clear and yet too small to matter; its sign is what the claim is about.
    state = (_GAINS if gain.sign > 0 else _LOSES) if clear else _SAME if same else _UNCLEAR if tested else _TOO_FEW
    return Judged(label, target, printed, gain, p, p_same, paired_effect(gain.differences), state)


def _verdict(claim: Claim, comparisons: Sequence[Judged]) -> str:
    if claim.untestable:
        return UNTESTABLE
    # One clear loss decides, whatever else is still to run.
    if any(each.state == _LOSES for each in comparisons):
        return CONTRADICTED
    if any(each.gain is None or each.state == _TOO_FEW for each in comparisons):
        return NOT_YET
    return SUPPORTED if all(each.state == _GAINS for each in comparisons) else NOT_SUPPORTED


def _absent(*entries: Entry) -> str:
    """Why two entries have no gain."""
    texts = [entry.text for entry in entries if entry.mean is None]
    return texts[0] if texts else "no fold and seed in common"


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
    # Where columns name streams and the words do not, fusion is meant.
    return own == name if name else own in ("", "fusion")


def _range(values: Sequence[float]) -> str:
    if not values:
        return DASH
    low, high = signed(min(values)), signed(max(values))
    return low if low == high else f"{low} to {high}"
