"""Which tables there are: the published rows, and which system of Crossfold measures each cell.

The numbers and captions come from `published.json`; `tables.yaml` adds what print does not say: the parameters of a
row, which rows differ by one component, and what a reader must know. A new table is one more mapping there.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, model_validator

from crossfold.platform.core.base_model import FrozenModel
from crossfold.platform.core.errors import UserError, did_you_mean
from crossfold.reports.results.systems import UNIMODAL

PUBLISHED = Path(__file__).parent / "published.json"
DECLARED = Path(__file__).parent / "tables.yaml"
LEADERBOARD = "leaderboard"
"""The one table that is not a paper's: every system that ran, on the corpus it ran on."""

MEAN = "mean"
"""In the place of a target: the mean over the other targets of a row."""
NOT_IMPLEMENTED = "not in this implementation"
OTHERS = "ext:"
"""Begins the name of what others made and the papers quote."""
_OWN = "the paper's own method"
"""Replaces the "Ours" of a printed label, which readers of a report would take for Crossfold's."""
_ROUNDING = 0.001
"""A mean of two numbers with three decimals, itself printed with three, may be off by this much."""


Condition = Literal[
    "measured", "processed", "own_recipe", "official_76", "elsewhere",
    "folds_as_released", "folds_grouped", "folds_upwards", "folds_listed", "folds_unknown",
]  # fmt: skip
"""What must be true of the measured entries that a sentence is about; `notes.CONDITIONS` computes each."""


class Note(FrozenModel):
    """A note below a table."""

    says: str = ""
    """About print, or about Crossfold: true whatever was run."""
    where: dict[Condition, str] = Field(default_factory=dict)
    """About measurements: each sentence is shown where its condition holds for the entries of the note."""

    @model_validator(mode="before")
    @classmethod
    def _from_words(cls, value: Any) -> Any:
        return {"says": value} if isinstance(value, str) else value


class _RowMapping(FrozenModel):
    """What `published.json` does not hold of one row."""

    params: dict[str, Any] = Field(default_factory=dict)
    cited: bool = False
    """The number is quoted from another paper, so from another pipeline: measured, but no verdict."""
    sweep: str = ""
    """The sweep that runs the row, where it needs a store of other features than the table's other rows."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Recipe fields in which that sweep differs from the recipe of the table, by dotted name."""
    notes: tuple[str, ...] = ()


class _UnprintedRow(FrozenModel):
    """One row of an experiment without printed numbers."""

    system: str
    fold: int | None = None


class _Unprinted(FrozenModel):
    """An experiment that a paper speaks of and prints no number of; `rows` of the table hold its parameters."""

    paper: str
    number: str
    """In the place of a table's number, such as `Supplement, temperature`."""
    corpus: str
    rows: dict[str, _UnprintedRow]
    row_axis: str = ""

    @property
    def published(self) -> dict[str, Any]:
        """In the form of a table of `published.json`, without numbers."""
        targets = ("valence", "arousal")
        columns = [
            {"key": f"validation.{target}", "header": [target.capitalize()], "target": target} for target in targets
        ]
        empty = {column["key"]: None for column in columns}
        rows = [
            {**row.model_dump(exclude_none=True), "label": label, "measurable": True, "printed": empty, "cells": empty}
            for label, row in self.rows.items()
        ]
        return {
            "paper_key": self.paper,
            "number": self.number,
            "kind": "results",
            "caption": "",
            "dataset": self.corpus,
            "row_axis": self.row_axis,
            "columns": [{**column, "partition": "validation"} for column in columns],
            "rows": [{**row, "bold": []} for row in rows],
        }


class _TableMapping(FrozenModel):
    """What `published.json` does not hold of one table."""

    title: str
    recipe: str = ""
    folds: tuple[int, ...] = (0,)
    post: str = "raw"
    systems: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """The parameters that a system has throughout the table."""
    rows: dict[str, _RowMapping] = Field(default_factory=dict)
    gains: tuple[tuple[str, str], ...] = ()
    """Pairs of rows, base and better, that differ in one component."""
    copied: tuple[str, ...] = ()
    """Streams whose printed cells were copied from elsewhere and belong to no system of the table."""
    submit: bool = False
    """The sweep trains the models whose predictions go to the organisers of the test set."""
    unprinted: _Unprinted | None = None
    """Of an experiment that no table of the paper prints."""
    layers: tuple[dict[str, Any], ...] = ()
    """Of an architecture: how each printed block pads and pools, which the strings do not say."""
    notes: tuple[str | Note, ...] = ()
    """Below the table; a key such as `F1` is replaced by that footnote."""


class Ran(FrozenModel):
    """What a paper ran."""

    seeds: int | None = None
    """Runs whose mean is printed; None where the paper prints no number of them."""
    videos: dict[str, tuple[int, ...]]
    """Corpus -> the reported videos of each fold."""


class _Declared(FrozenModel):
    short: dict[str, str]
    """Papers as a table of claims names them."""
    papers: dict[str, str]
    ran: dict[str, Ran]
    footnotes: dict[str, Note]
    tables: dict[str, _TableMapping]


@dataclass(frozen=True)
class Column:
    """One printed column of scores."""

    key: str
    """Names the column's cells, such as `validation.valence`."""
    target: str
    """A target, or `MEAN` over the others."""
    partition: str
    head: str
    """As printed, its levels joined by commas."""
    system: str = ""
    """The system, where columns name systems."""
    stream: str = ""
    """audio, visual or fusion, where columns name those."""

    @property
    def measurable(self) -> bool:
        """Labels of test partitions are withheld (C22)."""
        return self.partition != "test"


@dataclass(frozen=True)
class Row:
    """One printed row."""

    label: str
    system: str
    """Empty where columns name systems; `ext:*` is a result of others that the paper quotes."""
    where: Mapping[str, Any] = field(default_factory=dict)
    """Parameters that a measured variant must have in addition to those of the table, such as `{"iterations": 2}`."""
    printed: Mapping[str, str | None] = field(default_factory=dict)
    """Column key -> the string as printed."""
    values: Mapping[str, float | None] = field(default_factory=dict)
    implemented: bool = True
    """Whether Crossfold can run it."""
    cited: bool = False
    sweep: str = ""
    """The sweep of its own that it has, because it needs a store of other features or other recipe fields."""
    set: Mapping[str, Any] = field(default_factory=dict)
    """The recipe fields in which that sweep differs."""
    fold: int | None = None
    """The one fold of this row, where rows are folds."""
    bold: tuple[str, ...] = ()
    """Column keys of the numbers that print sets in bold; the texts of 002 to 004 at hand have no bold."""
    extra: tuple[str, ...] = ()
    """Printed words under `TableSpec.extra`."""
    footnotes: tuple[str, ...] = ()


@dataclass(frozen=True)
class CellQuery:
    """What must have run for one cell of a table; or why nothing can."""

    system: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    folds: tuple[int, ...] = ()
    why_not: str = ""
    """`not in this implementation`, `not measurable` and the like; empty where the cell can be measured."""
    judged: bool = True
    """Whether printed and measured may be compared by value, on the paper's own corpus."""


@dataclass(frozen=True)
class Pair:
    """Two rows that differ in one component; labels of rows."""

    base: str
    better: str


@dataclass(frozen=True)
class TableSpec:
    """One printed table, and how each of its cells is measured."""

    id: str
    paper: str
    number: str
    title: str
    caption: str
    """As printed."""
    corpus: str
    recipe: str
    """The one it is to be run with."""
    post: str
    """The post-processing of the reported number, a name in `post` of `result.json`; `raw` is none."""
    folds: tuple[int, ...]
    """Folds that are the printed partition, on the paper's own corpus; elsewhere every fold counts."""
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    systems: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    pairs: tuple[Pair, ...] = ()
    extra: tuple[str, ...] = ()
    """Heads of printed columns of words."""
    row_axis: str = ""
    """What rows are, where they are not systems: recursions or fold."""
    copied: tuple[str, ...] = ()
    submit: bool = False
    layers: tuple[Mapping[str, Any], ...] = ()
    blocks: tuple[tuple[str, ...], ...] = ()
    """Of an architecture: stage, layers and output size as printed."""
    notes: tuple[Note, ...] = ()

    @property
    def printed(self) -> bool:
        """Whether the paper prints any number of it."""
        return self.architecture or any(row.values.get(key) is not None for row in self.rows for key in row.values)

    @property
    def architecture(self) -> bool:
        """Whether the table prints a network and no scores."""
        return bool(self.blocks)

    def asked(self, row: Row, column: Column) -> CellQuery:
        """What must have run for one cell. A declaration that tables, sweeps and tests share."""
        if not row.implemented:
            return CellQuery(why_not=NOT_IMPLEMENTED)
        if column.stream in self.copied:
            return CellQuery(why_not="not measurable")
        system = column.system or UNIMODAL.get(column.stream, row.system)
        # In a column of one modality the unimodal system runs, which has none of the row's parameters.
        params = {**self.systems.get(system, {}), **(row.where if column.stream not in UNIMODAL else {})}
        folds = self.folds if row.fold is None else (row.fold,)
        why = "" if column.measurable else "not measurable"
        return CellQuery(system, params, folds, why, judged=not row.cited)

    def recomputed(self, row: Row, column: Column) -> float | None:
        """The mean of the row's printed targets where the printed mean is not it (C6); None where it is."""
        printed = row.values.get(column.key)
        others = [c for c in self.columns if c.partition == column.partition and c.target != MEAN]
        parts = [value for c in others if (value := row.values.get(c.key)) is not None]
        if column.target != MEAN or printed is None or len(parts) != len(others):
            return None
        mean = sum(parts) / len(parts)
        return mean if abs(mean - printed) > _ROUNDING else None


def table_ids() -> tuple[str, ...]:
    """Every table that can be asked for, the leaderboard first."""
    return (LEADERBOARD, *declared().tables)


def check_tables(tables: Sequence[str]) -> tuple[str, ...]:
    """The tables asked for, or all. Raises `UserError` with the nearest right name."""
    for table in tables:
        if table not in table_ids():
            raise UserError(
                f"unknown table {table!r}{did_you_mean(table, table_ids())}", "`crossfold list tables` shows all"
            )
    return tuple(dict.fromkeys(tables)) or table_ids()


@cache
def table_spec(table: str) -> TableSpec:
    """The declaration of one paper's table. Raises `KeyError` where a mapping names what is not printed."""
    mapping = declared().tables[table]
    printed = mapping.unprinted.published if mapping.unprinted else _published()[table]
    architecture = printed["kind"] == "architecture"
    rows = () if architecture else _rows(mapping, printed)
    _check(table, mapping, rows)
    kept = ("title", "recipe", "post", "folds", "systems", "copied", "submit", "layers")
    return TableSpec(
        id=table,
        paper=declared().papers[printed["paper_key"]],
        number=printed["number"],
        caption=printed["caption"],
        corpus=printed["dataset"],
        columns=() if architecture else tuple(_column(column) for column in printed["columns"]),
        rows=rows,
        pairs=tuple(Pair(*pair) for pair in mapping.gains),
        extra=tuple(printed.get("extra_columns", ())),
        row_axis=printed.get("row_axis", ""),
        blocks=tuple(tuple(row) for row in printed["rows"]) if architecture else (),
        notes=tuple(_note(note) for note in mapping.notes),
        **{name: getattr(mapping, name) for name in kept},
    )


@cache
def abstract_scores(paper: str, system: str) -> Mapping[str, float]:
    """Column key -> what the abstract of a paper prints of a system; empty where it prints nothing."""
    claims = json.loads(PUBLISHED.read_text(encoding="utf-8"))["claims"]
    found = (each for each in claims if (each["paper_key"], each["system"]) == (paper, system))
    cells: Mapping[str, float] = next((each["cells"] for each in found if each["where"] == "abstract"), {})
    return cells


def footnotes() -> Mapping[str, Note]:
    """Ambiguities of the printed tables, by their number in the list of decisions."""
    return declared().footnotes


@lru_cache(maxsize=1)
def declared() -> _Declared:
    """`tables.yaml`, checked."""
    return _Declared.parse(yaml.safe_load(DECLARED.read_text(encoding="utf-8")), DECLARED.name)


def _rows(mapping: _TableMapping, printed: Mapping[str, Any]) -> tuple[Row, ...]:
    labels = [_label(row["label"]) for row in printed["rows"]]
    extra = printed.get("extra_columns", ())
    rows = []
    for row, label in zip(printed["rows"], labels, strict=True):
        words = tuple(row.get("extra", {}).get(head, "") for head in extra)
        # Two rows with one name differ in their words.
        unique = f"{label}, {words[0]}" if labels.count(label) > 1 else label
        own = mapping.rows.get(unique, _RowMapping())
        recursions = {"iterations": row["recursions"]} if "recursions" in row else {}
        rows.append(
            Row(
                label=unique,
                system=row["system"] or "",
                where={**recursions, **own.params},
                printed=row["printed"],
                values=row["cells"],
                implemented=row["measurable"],
                cited=own.cited,
                sweep=own.sweep,
                set=own.set,
                fold=row.get("fold"),
                bold=tuple(row["bold"]),
                extra=words,
                footnotes=own.notes,
            )
        )
    return tuple(rows)


def _note(note: str | Note) -> Note:
    return note if isinstance(note, Note) else footnotes().get(note, Note(says=note))


def _label(printed: str) -> str:
    label = re.sub(r"\b[Oo]urs\b", _OWN, printed.strip("$"))
    return label[0].upper() + label[1:] if label.startswith(_OWN) else label


def _column(column: Mapping[str, Any]) -> Column:
    names = ("key", "target", "partition", "system", "stream")
    return Column(head=", ".join(column["header"]), **{name: column[name] for name in names if name in column})


def _check(table: str, mapping: _TableMapping, rows: Sequence[Row]) -> None:
    # A label is written twice, here and in print, so a slip would silently lose a footnote or a gain.
    labels = {row.label for row in rows}
    unknown = {*mapping.rows, *(label for pair in mapping.gains for label in pair)} - labels
    if unknown:
        raise KeyError(f"table {table}: no printed row {sorted(unknown)}")
    missing = {note for row in rows for note in row.footnotes} - set(footnotes())
    if missing:
        raise KeyError(f"table {table}: no footnote {sorted(missing)}")


@lru_cache(maxsize=1)
def _published() -> dict[str, dict[str, Any]]:
    tables = json.loads(PUBLISHED.read_text(encoding="utf-8"))["tables"]
    return {table["id"]: table for table in tables}
