"""Markdown, LaTeX and CSV of one small table, names with every special character included."""

import csv
import io
from dataclasses import replace

import pytest

from crossfold.reports.results.model import Setting
from crossfold.reports.stats.hypothesis_tests import Family
from crossfold.reports.stats.intervals import Gain, Interval, Spread
from crossfold.reports.tables.entries import Entry, GainLine, Line, Table
from crossfold.reports.tables.escape import csv_value, latex, markdown
from crossfold.reports.tables.formats import to_csv, to_latex, to_markdown

HOSTILE = "<script>alert(1)</script> | \\input{x} $a_b^c$ & 50% #1 ~*`[l](u)`"
GAIN = Gain(0.0215, Spread(0.0112, 20.0, seeds=True), 6, Family(4, 2))


@pytest.fixture
def table() -> Table:
    measured = Entry(
        text="0.512 ± 0.010",
        verdict="below",
        printed="0.541",
        value=0.541,
        variant="ca {}",
        target="valence",
        mean=0.512,
        sd=0.01,
        interval=Interval(0.49, 0.53),
        video_mean=0.4,
        done=6,
        planned=6,
        cell_ids=("0123456789abcdef", "fedcba9876543210"),
    )
    missing = Entry("failed: diverged (2/6 cells)", "failed: diverged", printed=None, target="valence", planned=6)
    return Table(
        id="dca-t1",
        heading="A paper, Table 1",
        title="What fusion gains",
        caption="",
        setting=Setting("affwild2", "cafe", "demo", "12345678", "reported", 1, False),
        comparable=True,
        columns=("valence",),
        lines=(
            Line("CA [2] w/o DCA", "ca", (measured,), marks=("a", "b")),
            Line(HOSTILE, "=cmd()", (missing,)),
        ),
        sentences=("Measured on the paper's corpus.",),
        notes=("A note with 95% & more.",),
        footnotes=(("a", "First."), ("b", "Second.")),
        gains=(GainLine("CA → CA w/ DCA", "valence", 0.083, GAIN, "not distinguishable"),),
    )


def test_markdown_of_a_table(table, snapshot):
    assert to_markdown(table) == snapshot


def test_latex_of_a_table(table, snapshot):
    assert to_latex(table) == snapshot


def test_csv_of_a_table(table, snapshot):
    text = to_csv(table)
    assert text == snapshot
    rows = list(csv.DictReader(io.StringIO(text)))
    assert rows[1]["row"] == HOSTILE
    # A spreadsheet would run a cell that begins with an equals sign.
    assert rows[1]["system"] == "'=cmd()"


def test_text_that_runs_the_other_way_turns_nothing_around():
    """A right-to-left override in a name would make the rest of the line read backwards."""
    name = "good\u202egnp.live\u2066x\u200b"
    for written in (markdown(name), latex(name), str(csv_value(name))):
        assert not set(written) & set("\u202e\u2066\u200b")
    assert markdown("שלום") == "שלום"
    assert latex("שé") == "{[}U+05E9{]}é"


@pytest.mark.parametrize("value", ["=1+1", "+1", "-1", "@sum", "\tx", "  =x", "\n=x", "＝1"])
def test_nothing_in_a_csv_begins_a_formula(value):
    assert str(csv_value(value)).startswith("'")
    assert csv_value("a=b") == "a=b"
    assert csv_value(-0.5) == "-0.500000"


def test_markdown_keeps_no_html_and_no_pipe():
    assert "<" not in markdown(HOSTILE)
    assert markdown("a|b") == "a\\|b"


def test_latex_escapes_every_special_character():
    escaped = latex(HOSTILE)
    for character in "$&#%_^~":
        assert escaped.count(character) == escaped.count(f"\\{character}")
    assert "\\input" not in escaped
    assert latex("−1 ± 2 → 3 – 4") == "$-$1 $\\pm$ 2 $\\rightarrow$ 3 -- 4"


@pytest.fixture
def wide(table) -> Table:
    """Five columns, one of which cannot be measured; words next to the labels; a wrong mean; raw numbers."""
    first, second = table.lines
    (measured,), (missing,) = first.entries, second.entries
    processed = replace(measured, post="oracle", raw=0.481, verdict="not comparable")
    wrong_mean = replace(missing, printed="0.526", value=0.526, recomputed=0.5305, verdict="not run", text="2/6 cells")
    test = replace(missing, printed="0.467", value=0.467, verdict="not measurable", text="not measurable", planned=0)
    other = replace(test, text="not in this implementation")
    return replace(
        table,
        columns=("valence", "arousal", "mean", "valence", "arousal"),
        heads=("Valence, RJCA", "Arousal, RJCA", "Mean", "Test, Valence", "Valence, GRJCA"),
        row_head="Recursions",
        word_heads=("Type of Fusion",),
        lines=(
            replace(first, entries=(measured, processed, wrong_mean, test, missing), words=("RJCA",)),
            replace(second, entries=(other, other, other, other, other), words=("",)),
        ),
        gains=(),
        provenance=(("corpus", "affwild2"), ("seeds", "0, 1 and 2"), ("made", "2025-01-02 03:04 UTC")),
    )


@pytest.mark.parametrize("write", [to_markdown, to_latex, to_csv])
def test_a_wide_table(wide, write, snapshot):
    assert write(wide) == snapshot
