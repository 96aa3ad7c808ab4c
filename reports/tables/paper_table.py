"""A paper's table as declared, and the measured cells, become one `Table`."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from crossfold.platform.core.hashing import canonical_json
from crossfold.reports.results.model import Results, Setting
from crossfold.reports.results.runs import RAW
from crossfold.reports.results.systems import corpus_name
from crossfold.reports.tables import comparison, notes
from crossfold.reports.tables.conv_sizes import recomputed_sizes
from crossfold.reports.tables.entries import AGREES, NOT_MEASURABLE, Entry, Line, Table
from crossfold.reports.tables.measure import find_variant, measure, measure_mean, method_notes, with_published
from crossfold.reports.tables.published import MEAN, CellQuery, Row, TableSpec, footnotes

_ROW_HEADS = {"recursions": "Recursions", "fold": "Fold"}


def choose_setting(spec: TableSpec, results: Results) -> Setting:
    """Where a table's numbers come from: the paper's corpus and recipe as far as they were run, else the most cells.

    A setting without any system of the table is taken last; of equal ones, that which ran more of its rows is first.
    """
    systems = set(spec.systems)
    ran = {key for key, system in results.variants_of if system in systems} - borrowed_settings(spec, results)

    queries = [spec.asked(row, column) for row in spec.rows for column in spec.columns]
    wanted = {(each.system, canonical_json(each.params)): each for each in queries if not each.why_not}

    def rank(setting: Setting) -> tuple[bool, bool, bool, bool, bool, bool, int]:
        right = setting.recipe.removesuffix(notes.RELEASED) == spec.recipe
        found = sum(bool(_variant(each, results, setting)[0]) for each in wanted.values())
        departed = bool(comparison.departures(spec, setting))
        other = setting.recipe != spec.recipe
        folds = not comparison.same_folds(setting, spec.folds)
        return setting.key not in ran, setting.corpus != spec.corpus, not right, departed, folds, other, -found

    # A table of a paper says nothing about somebody's own corpus or a planted dose, unless there is nothing else.
    settings = list(results.settings.values())
    candidates = [setting for setting in settings if not setting.unprinted] or settings
    # `min` takes the first of equals: the setting with the most finished cells.
    return min(candidates, key=rank)


def build(spec: TableSpec, results: Results, setting: Setting) -> Table:
    """The table as measured in one setting, each number next to the published one. Pure."""
    if spec.architecture:
        return _architecture(spec, setting)
    comparable = not comparison.departures(spec, setting)
    spec, stand_in = _with_targets(spec, results, setting)  # elsewhere, a corpus may have other targets
    asked = [[spec.asked(row, column) for column in spec.columns] for row in spec.rows]
    borrowed = borrowed_settings(spec, results)
    places = [_place(row, results, setting, borrowed) for row in spec.rows]
    folds = _folds(spec, asked, results, setting, places)
    marks = _marks(spec.rows)
    lines: list[Line] = []
    placed: list[str] = []
    for row, cells, place in zip(spec.rows, asked, places, strict=True):
        variants = [_variant(each, results, place) if place else ("", []) for each in cells]
        names = [first for first, _ in variants]
        entries = _entries(spec, row, cells, names, results, place or setting, folds, comparable)
        if place and place != setting:
            entries = tuple(replace(entry, elsewhere=place) for entry in entries)
            what = "recipe fields" if row.set else "features"
            placed.append(f"{row.label}: store {place.store}, from sweep {row.sweep}; the {what} are its own.")
        row_marks = tuple(sorted(marks[note] for note in row.footnotes))
        lines.append(Line(row.label, row.system, entries, row_marks, words=row.extra))
        for first, others in variants:
            if others:
                also = "; ".join(results.variants[other] for other in others)
                placed.append(f"{row.label}: the table shows {results.variants[first]}; also run: {also}.")
    entries = tuple(entry for line in lines for entry in line.entries)
    gains = comparison.measured_gains(spec, lines, results, setting)
    return _table(
        spec,
        setting,
        comparable=comparable and _any_same_folds(asked, setting),
        columns=tuple(column.target for column in spec.columns),
        heads=tuple(column.head for column in spec.columns),
        row_head=_ROW_HEADS.get(spec.row_axis, ""),
        word_heads=spec.extra,
        lines=tuple(lines),
        sentences=_sentences(spec, setting, entries),
        findings=(*comparison.gain_sentences(gains), *comparison.order_sentences(spec, lines)),
        legend=notes.legend(entries),
        notes=(
            *method_notes(entries, setting),
            *((comparison.PAIRS_NOTE,) if any(gain.gain for gain in gains) else ()),
            *filter(None, (notes.note_text(note, spec, setting, entries) for note in spec.notes)),
            *_unprocessed(spec, entries),
            *stand_in,
            *dict.fromkeys(placed),
        ),
        footnotes=tuple(_footnotes(spec, setting, lines, marks)),
        gains=gains,
    )


def _any_same_folds(asked: Sequence[Sequence[CellQuery]], setting: Setting) -> bool:
    """Whether some cell of a table reports the trials that the printed one reports."""
    return any(comparison.same_folds(setting, each.folds) for row in asked for each in row if not each.why_not)


def borrowed_settings(spec: TableSpec, results: Results) -> set[str]:
    """Settings in which nothing ran but the sweeps of single rows: no other row may take its numbers from them."""
    single = {cell for row in spec.rows if row.sweep for cell in results.sweep_cells.get(row.sweep, ())}
    inside = results.cells["cell_id"].isin(single)
    return {*results.cells.loc[inside, "setting"].unique()} - {*results.cells.loc[~inside, "setting"].unique()}


def _place(row: Row, results: Results, setting: Setting, borrowed: Collection[str]) -> Setting | None:
    """Where a row is measured: with the table, or in what its own sweep ran.

    That differs in the store alone, or in the recipe fields that the row names too.
    """
    if not row.sweep:
        return None if setting.key in borrowed else setting
    ran = set(results.cells.loc[results.cells["cell_id"].isin(results.sweep_cells.get(row.sweep, ())), "setting"])
    for key, found in results.settings.items():
        own = key in borrowed or found.store != setting.store
        same = replace(found, store=setting.store, recipe_hash=setting.recipe_hash if row.set else found.recipe_hash)
        if key in ran and own and same == setting:
            return found
    return None


def _entries(
    spec: TableSpec,
    row: Row,
    asked: Sequence[CellQuery],
    variants: Sequence[str],
    results: Results,
    setting: Setting,
    folds: Sequence[int],
    comparable: bool,
) -> tuple[Entry, ...]:
    """The entries of one row, one a column; a mean over targets comes from the others of its partition."""
    entries: list[Entry] = []
    for column, each, variant in zip(spec.columns, asked, variants, strict=True):
        printed, value = row.printed.get(column.key), row.values.get(column.key)
        inside = (row.fold,) if row.fold is not None else folds
        if each.why_not:
            entry = Entry(each.why_not, NOT_MEASURABLE, printed=printed, value=value, target=column.target)
        elif printed == "-":  # the paper leaves this cell empty
            entry = Entry("not printed", NOT_MEASURABLE, printed=printed, target=column.target)
        else:
            if column.target == MEAN:
                entry = measure_mean(results, setting, variant, entries, inside, spec.post)
            else:
                entry = measure(results, setting, variant, column.target, inside, spec.post)
            values = comparable and each.judged and comparison.same_folds(setting, inside)
            entry = with_published(entry, printed, value, comparable=values)
        bold = column.key in row.bold
        entries.append(replace(entry, column=column.key, recomputed=spec.recomputed(row, column), bold=bold))
    return tuple(entries)


def _variant(asked: CellQuery, results: Results, setting: Setting) -> tuple[str, list[str]]:
    return ("", []) if asked.why_not else find_variant(results, setting, asked.system, asked.params, asked.folds)


def _folds(
    spec: TableSpec,
    asked: Sequence[Sequence[CellQuery]],
    results: Results,
    setting: Setting,
    places: Sequence[Setting | None],
) -> tuple[int, ...]:
    """The folds that count: the printed ones on the paper's corpus, elsewhere those that all rows of the table have."""
    if setting.corpus == spec.corpus:
        return spec.folds
    keys = [
        (place.key, _variant(each, results, place)[0], column.target)
        for row, place in zip(asked, places, strict=True)
        if place
        for each, column in zip(row, spec.columns, strict=True)
    ]
    having = [{int(fold) for fold in results.groups[key]["fold"]} for key in keys if key in results.groups]
    return tuple(sorted(set.intersection(*having))) if having else ()


def _with_targets(spec: TableSpec, results: Results, setting: Setting) -> tuple[TableSpec, tuple[str, ...]]:
    """The table with targets that the setting has, and notes on replaced ones: never on the paper's own corpus."""
    having = sorted({target for key, _, target in results.groups if key == setting.key}, reverse=True)
    lacking = {c.target for c in spec.columns if c.target not in (*having, MEAN)}
    if setting.corpus == spec.corpus or not having or len(lacking) != len({c.target for c in spec.columns} - {MEAN}):
        return spec, ()
    stand_in = dict(zip(sorted(lacking, reverse=True), having, strict=False))
    columns = tuple(
        replace(c, target=stand_in[c.target], head=f"{c.head} (here {stand_in[c.target]})")
        if c.target in stand_in
        else c
        for c in spec.columns
    )
    corpus = corpus_name(setting.corpus)
    notes = tuple(f"{corpus} has no {old}: {new} replaces it." for old, new in stand_in.items())
    return replace(spec, columns=columns), notes


def _sentences(spec: TableSpec, setting: Setting, entries: Sequence[Entry]) -> tuple[str, ...]:
    """What may be compared."""
    if not any(entry.verdict != NOT_MEASURABLE for entry in entries):
        return ("No cell of this table can be measured here: test labels are withheld by the organisers.",)
    if not any(entry.mean is not None for entry in entries):
        return ("No cell of this table is measured yet.",)
    return (comparison.what_compares(spec, setting),)


def _footnotes(
    spec: TableSpec, setting: Setting, lines: Sequence[Line], marks: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Mark and text of each footnote, as far as it is true of the rows that have its mark."""
    for note, mark in marks.items():
        entries = [entry for line in lines if mark in line.marks for entry in line.entries]
        yield mark, notes.note_text(footnotes()[note], spec, setting, entries)


def _unprocessed(spec: TableSpec, entries: Sequence[Entry]) -> tuple[str, ...]:
    """That runs lack the post-processing of the paper, where some do."""
    raw = [entry.post == RAW for entry in entries if entry.mean is not None]
    if spec.post == RAW or not any(raw):
        return ()
    which = "The runs were" if all(raw) else "Some runs were"
    shown = "measured numbers are raw" if all(raw) else "their measured numbers are raw"
    return (
        f"{which} not scored with the post-processing of the paper; {shown}. `crossfold rescore` scores finished runs "
        "again without training.",
    )


def _architecture(spec: TableSpec, setting: Setting) -> Table:
    """A printed network: each output size with the one that follows from the printed kernels and strides."""
    sizes = recomputed_sizes(spec.blocks, spec.layers)
    lines = []
    for (stage, layers, printed), size in zip(spec.blocks, sizes, strict=True):
        verdict = AGREES if size.replace(" ", "") == printed.replace(" ", "") else "differs"
        lines.append(Line(stage, "", (Entry(size, verdict, printed=printed, target="output size"),), words=(layers,)))
    agreeing = sum(line.entries[0].verdict == AGREES for line in lines)
    return _table(
        spec,
        setting,
        comparable=False,
        columns=("output size",),
        row_head="Stage",
        word_heads=("Layers",),
        lines=tuple(lines),
        sentences=(f"{agreeing} of {len(lines)} printed output sizes follow from the printed kernels and strides.",),
        notes=tuple(note.says for note in spec.notes),
        architecture=True,
    )


def _table(spec: TableSpec, setting: Setting, **content: Any) -> Table:
    heading = f"{spec.paper}, {spec.number}"
    return Table(spec.id, heading, spec.title, spec.caption, setting, **content)


def _marks(rows: Sequence[Row]) -> dict[str, str]:
    """Footnote -> its letter, in the order in which rows first need them."""
    notes = dict.fromkeys(note for row in rows for note in row.footnotes)
    return {note: chr(ord("a") + index) for index, note in enumerate(notes)}
