"""The parts of a table: values without mark-up."""

from dataclasses import dataclass

from crossfold.reports.results.areas import AreaLine
from crossfold.reports.results.model import Setting
from crossfold.reports.stats.hypothesis_tests import equivalence, paired_effect
from crossfold.reports.stats.intervals import Gain, Interval
from crossfold.reports.stats.power import Power

AGREES, BELOW, ABOVE = "agrees", "below", "above"
NOT_COMPARABLE, NOT_MEASURABLE, NOT_RUN = "not comparable", "not measurable", "not run"


SEEN_MARK = "seen"
"""Stands at each number of cells whose reported clips were seen when their parameters or recipe were chosen."""


@dataclass(frozen=True)
class Against:
    """The gain of an entry over another row."""

    rival: str
    """Label of the other row."""
    gain: Gain | None
    seen: bool = False
    """Whether either side has the label `seen`."""


@dataclass(frozen=True)
class Entry:
    """One cell of a table: a number, or the reason why there is none."""

    text: str
    verdict: str
    """agrees, below, above, not comparable, not measurable, not run, or `failed: why`."""
    printed: str | None = None
    """The published string; None where nothing is printed."""
    value: float | None = None
    """The published number."""
    bold: bool = False
    """Whether print sets the number in bold."""
    recomputed: float | None = None
    """The printed number as the rest of its row implies it, where the two differ (C6)."""
    variant: str = ""
    target: str = ""
    column: str = ""
    """Key of the printed column, such as `validation.valence`; empty where nothing is printed."""
    mean: float | None = None
    """None unless every planned cell has finished: never an average over fewer."""
    post: str = "raw"
    """The post-processing of `mean`; `raw` is none."""
    raw: float | None = None
    """The mean without post-processing, where `mean` is with."""
    sd: float | None = None
    interval: Interval | None = None
    video_mean: float | None = None
    """Mean of the CCC of single videos; `mean` is of pooled frames."""
    done: int = 0
    planned: int = 0
    folds: tuple[int, ...] = ()
    seeds: tuple[int, ...] = ()
    videos: tuple[int, ...] = ()
    """Reported videos of each fold."""
    gains: tuple[Against, ...] = ()
    cell_ids: tuple[str, ...] = ()
    seen: int = 0
    """Cells whose reported clips were seen when their parameters or recipe were chosen; the number is labelled then."""
    elsewhere: Setting | None = None
    """Where it was measured, for a row that has another store than its table."""

    @property
    def difference(self) -> float | None:
        """Measured minus published, where the two may be compared."""
        # The verdict says whether corpus and recipe are the paper's.
        if self.verdict not in (AGREES, BELOW, ABOVE) or self.mean is None or self.value is None:
            return None
        return self.mean - self.value


@dataclass(frozen=True)
class Line:
    """One row of a table."""

    label: str
    system: str
    entries: tuple[Entry, ...]
    """One a column."""
    marks: tuple[str, ...] = ()
    """Footnote marks."""
    words: tuple[str, ...] = ()
    """Printed words under `Table.word_heads`."""
    extra: tuple[float | str | None, ...] = ()
    """Values under `Table.extra`, or why there is none."""


@dataclass(frozen=True)
class GainLine:
    """A printed gain of one row over another, and the measured one."""

    label: str
    target: str
    printed: float | None
    gain: Gain | None
    verdict: str
    """What the measured gain shows, or why there is none."""
    seen: bool = False
    """Whether one of the sides has the label `seen`."""
    power: Power | None = None
    """The chance that a true gain as large as the printed one would be seen with what the paper ran."""

    @property
    def p_same(self) -> float | None:
        """TOST: small where the two rows are indistinguishable within `MARGIN`."""
        spread = self.gain.spread if self.gain else None
        if self.gain is None or spread is None or not self.gain.judged:
            return None
        return equivalence(self.gain.mean, spread.error, spread.df)

    @property
    def effect(self) -> float | None:
        """Cohen's d of the paired differences."""
        return paired_effect(self.gain.differences) if self.gain else None


@dataclass(frozen=True)
class Table:
    """The whole content of one table."""

    id: str
    heading: str
    """Paper and number."""
    title: str
    caption: str
    """As printed; empty where nothing is."""
    setting: Setting
    comparable: bool
    """Whether the measured corpus is the paper's."""
    columns: tuple[str, ...]
    """Targets, or `MEAN` over the others, in the order of the entries of a line."""
    lines: tuple[Line, ...]
    sentences: tuple[str, ...]
    """What may be compared; part of the caption."""
    notes: tuple[str, ...]
    """How the numbers were made; below the table."""
    footnotes: tuple[tuple[str, str], ...] = ()
    """Mark and text."""
    gains: tuple[GainLine, ...] = ()
    areas: tuple[AreaLine, ...] = ()
    """Below the stress curves, in the order of the lines."""
    extra: tuple[str, ...] = ()
    """Heads of further columns."""
    rivals: tuple[str, ...] = ()
    """Labels of the rows over which the entries of the first column have a gain, each in `Entry.gains`."""
    best: str = ""
    """Label of the row over which the entries of the other columns have a gain."""
    headline: str = ""
    """The result of the table in one sentence."""
    findings: tuple[str, ...] = ()
    """Further results; below the table."""
    legend: str = ""
    """What a measured number, ± and the interval mean; part of the caption."""
    heads: tuple[str, ...] = ()
    """The head of each column; empty: the target."""
    row_head: str = ""
    """The head of the labels; empty: Row, or System where nothing is printed."""
    word_heads: tuple[str, ...] = ()
    """Heads of columns of words, after the label."""
    architecture: bool = False
    """Whether the entries are sizes of a network and not scores."""
    provenance: tuple[tuple[str, str], ...] = ()
    """Corpus, store, recipe, protocol, selection, post-processing, folds, seeds, versions and date."""

    @property
    def idle(self) -> bool:
        """Whether nothing of it has run or was asked for."""
        return not self.architecture and not any(entry.planned for entry in self.entries)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All cells, row by row."""
        return tuple(entry for line in self.lines for entry in line.entries)
