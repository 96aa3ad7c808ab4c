"""Which tables there are: the published rows, and which of our systems stands beside each. Declarations only.

The numbers and captions come from `published.json`; a mapping here adds what print does not say: the parameters a row
was made with, which rows differ by one component, and what a reader must know. A new table is one more mapping.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from crossfold.platform.errors import UserError, nearest

PUBLISHED = Path(__file__).parent / "published.json"
LEADERBOARD = "leaderboard"
"""The one table that is not a paper's: every system that ran, on the corpus it ran on."""

PAPERS = {
    "ca2021": "Praveen, Granger, Cardinal: Cross Attentional Audio-Visual Fusion (FG 2021)",
    "dca2024": "Praveen, Alam: Cross-Attention is Not Always Needed (ICME 2024)",
    "grjca2025": "Praveen, Alam, Charton: United we stand, Divided we fall (2025)",
    "grjca2025v1": "Praveen, Alam: Handling Weak Complementary Relationships (arXiv 2503.12261v1)",
    "rjcma2024": "Praveen, Alam: Recursive Joint Cross-Modal Attention (ABAW 2024)",
}

FOOTNOTES = {
    "A9": "The residual of CA is tanh(X + Xh) in the 2021 paper and a plain sum in the 2024 one; a table has its own.",
    "A13": "TCA is only cited; its equations are in none of the five papers, so any TCA row is our reading.",
    "A15": "The paper prints nothing about its self-attention baseline but a citation.",
    "C8": "The 2024 paper quotes CA on RECOLA as 0.687/0.831, which is neither of the two results printed here.",
    "C9": "CA on Aff-Wild2 is 0.541/0.517 here and 0.552/0.531 in the 2025 report; the cited paper has no such result.",
    "C15": "Printed JCA and RJCA without DCA equal results cited from other papers, so the printed gain may mix "
    "pipelines; measured bases are trained with the same recipe as their gated versions.",
    "features": "Needs other visual features than those of the store that was measured.",
}
"""Ambiguities of the printed tables, by their number in the list of decisions."""


@dataclass(frozen=True)
class Column:
    """One printed column of scores."""

    key: str
    """Names the column's cells, such as `validation.valence`."""
    target: str
    partition: str

    @property
    def measurable(self) -> bool:
        """Labels of test partitions are withheld (C22)."""
        return self.partition != "test"


@dataclass(frozen=True)
class Row:
    """One printed row, and the system that stands beside it."""

    label: str
    system: str
    where: Mapping[str, Any] = field(default_factory=dict)
    """Parameters that a measured variant must have, such as `{"residual": "sum"}`."""
    printed: Mapping[str, str | None] = field(default_factory=dict)
    """Column key -> the string as printed."""
    values: Mapping[str, float | None] = field(default_factory=dict)
    measurable: bool = True
    matched: bool = True
    """False where the row differs from another one by something no cell says, such as its features."""
    footnotes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pair:
    """Two rows that differ in one component; labels of rows."""

    base: str
    better: str


@dataclass(frozen=True)
class TableSpec:
    """One printed table, ready to be set beside measured results."""

    id: str
    paper: str
    number: str
    title: str
    caption: str
    """As printed."""
    corpus: str
    folds: tuple[int, ...]
    """Folds that are the printed partition, on the paper's own corpus; elsewhere every fold counts."""
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    pairs: tuple[Pair, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Mapping:
    """What `published.json` cannot say of a table."""

    title: str
    where: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    unmatched: tuple[str, ...] = ()
    footnotes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    pairs: tuple[tuple[str, str], ...] = ()
    folds: tuple[int, ...] = (0,)
    notes: tuple[str, ...] = ()


_MAPPINGS: Mapping[str, _Mapping] = {
    "dca-t1": _Mapping(
        title="Effect of dynamic cross-attention (DCA) on four fusion models, Aff-Wild2 validation set",
        where={"CA [2] w/o DCA": {"residual": "sum"}, "CA [2] w/ DCA": {"residual": "sum"}},
        footnotes={
            "CA [2] w/o DCA": ("A9", "C9"),
            "CA [2] w/ DCA": ("A9",),
            "TCA [9] w/o DCA": ("A13",),
            "TCA [9] w/ DCA": ("A13",),
            "JCA [12] w/o DCA": ("C15",),
            "RJCA [13] w/o DCA": ("C15",),
        },
        pairs=tuple((f"{base} w/o DCA", f"{base} w/ DCA") for base in ("CA [2]", "TCA [9]", "JCA [12]", "RJCA [13]")),
        notes=("Published: R3D and ResNet-18 features, average of three runs; the smoothing is not specified (F2).",),
    ),
    "ca-t2": _Mapping(
        title="Components of cross-attentional fusion (CA), RECOLA development set",
        where={"I3D + Cross-Attention (ours)": {"residual": "tanh"}},
        unmatched=("2D CNN + Feature Concatenation", "2D CNN + LSTM"),
        footnotes={
            "2D CNN + Feature Concatenation": ("features",),
            "2D CNN + LSTM": ("features",),
            "I3D + Self Attention": ("A15",),
            "I3D + Cross-Attention (ours)": ("A9", "C8"),
        },
        pairs=(
            ("I3D + Feature Concatenation", "I3D + Cross-Attention (ours)"),
            ("I3D + Self Attention", "I3D + Cross-Attention (ours)"),
        ),
        notes=(
            "Published: median filter, centring, scaling and time shift fitted on the development labels (F1), which "
            "brings CCC close to a rescaled correlation; measured: predictions as they are.",
        ),
    ),
}


def table_ids() -> tuple[str, ...]:
    """Every table that can be asked for, the leaderboard first."""
    return (LEADERBOARD, *_MAPPINGS)


def check_tables(tables: Sequence[str]) -> tuple[str, ...]:
    """The tables asked for, or all. Raises `UserError` with the nearest right name."""
    for table in tables:
        if table not in table_ids():
            raise UserError(
                f"unknown table {table!r}{nearest(table, table_ids())}", "`crossfold list tables` shows all"
            )
    return tuple(dict.fromkeys(tables)) or table_ids()


def table_spec(table: str) -> TableSpec:
    """The declaration of one paper's table. Raises `KeyError` where a mapping names a row that is not printed."""
    mapping, printed = _MAPPINGS[table], _published()[table]
    labels = {row["label"] for row in printed["rows"]}
    named = {
        *mapping.where,
        *mapping.unmatched,
        *mapping.footnotes,
        *(label for pair in mapping.pairs for label in pair),
    }
    if named - labels:
        raise KeyError(f"table {table}: no printed row {sorted(named - labels)}")
    return TableSpec(
        id=table,
        paper=PAPERS[printed["paper_key"]],
        number=printed["number"],
        title=mapping.title,
        caption=printed["caption"],
        corpus=printed["dataset"],
        folds=mapping.folds,
        columns=tuple(Column(c["key"], c["target"], c["partition"]) for c in printed["columns"]),
        rows=tuple(
            Row(
                label=row["label"],
                system=row["system"],
                where=mapping.where.get(row["label"], {}),
                printed=row["printed"],
                values=row["cells"],
                measurable=row["measurable"],
                matched=row["label"] not in mapping.unmatched,
                footnotes=mapping.footnotes.get(row["label"], ()),
            )
            for row in printed["rows"]
        ),
        pairs=tuple(Pair(*pair) for pair in mapping.pairs),
        notes=mapping.notes,
    )


@lru_cache(maxsize=1)
def _published() -> dict[str, dict[str, Any]]:
    tables = json.loads(PUBLISHED.read_text(encoding="utf-8"))["tables"]
    return {table["id"]: table for table in tables}
