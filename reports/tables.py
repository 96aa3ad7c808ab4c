"""A paper's table as declared, and the measured cells, become one `Table`."""

from collections.abc import Sequence

from crossfold.reports.cells import Results, Setting
from crossfold.reports.comparison import PAIRS_NOTE, gain_sentences, measured_gains, order_sentences, what_compares
from crossfold.reports.measure import beside, find_variant, measure, method_notes
from crossfold.reports.specs import FOOTNOTES, Column, Row, TableSpec
from crossfold.reports.values import NOT_MEASURABLE, Entry, Line, Table


def choose_setting(spec: TableSpec, results: Results) -> Setting:
    """Where a table's numbers come from: the paper's corpus if it was run, else the setting with the most cells."""
    settings = list(results.settings.values())
    return next((setting for setting in settings if setting.corpus == spec.corpus), settings[0])


def build(spec: TableSpec, results: Results, setting: Setting) -> Table:
    """The table as measured in one setting, each number beside the published one. Pure."""
    comparable = setting.corpus == spec.corpus
    folds = spec.folds if comparable else ()
    marks = _marks(spec.rows)
    lines, several = [], []
    for row in spec.rows:
        variant, others = find_variant(results, setting, row.system, row.where) if row.matched else ("", [])
        entries = tuple(_entry(row, column, measure(results, setting, variant, column.target, folds), comparable)
                        for column in spec.columns)  # fmt: skip
        lines.append(Line(row.label, row.system, entries, tuple(marks[note] for note in row.footnotes)))
        if others:
            also = "; ".join(results.variants[other] for other in others)
            several.append(f"{row.label}: {results.variants[variant]} stands here; also run: {also}.")
    gains = measured_gains(spec, lines, results, setting, folds)
    return Table(
        id=spec.id,
        heading=f"{spec.paper}, {spec.number}",
        title=spec.title,
        caption=spec.caption,
        setting=setting,
        comparable=comparable,
        columns=tuple(column.target for column in spec.columns),
        lines=tuple(lines),
        sentences=(what_compares(spec, setting), *gain_sentences(gains), *order_sentences(spec, lines)),
        notes=(
            *method_notes([entry for line in lines for entry in line.entries], setting),
            *((PAIRS_NOTE,) if any(gain.gain for gain in gains) else ()),
            *spec.notes,
            *several,
        ),
        footnotes=tuple((mark, FOOTNOTES[note]) for note, mark in marks.items()),
        gains=gains,
    )


def _entry(row: Row, column: Column, measured: Entry, comparable: bool) -> Entry:
    printed, value = row.printed.get(column.key), row.values.get(column.key)
    if not (row.measurable and column.measurable):
        return Entry(NOT_MEASURABLE, NOT_MEASURABLE, printed=printed, value=value, target=column.target)
    return beside(measured, printed, value, comparable=comparable)


def _marks(rows: Sequence[Row]) -> dict[str, str]:
    """Footnote -> its letter, in the order in which rows first need them."""
    notes = dict.fromkeys(note for row in rows for note in row.footnotes)
    return {note: chr(ord("a") + index) for index, note in enumerate(notes)}
