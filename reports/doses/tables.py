"""Tables of corpora with a dose: how much of the possible each system takes, slopes, and where errors are."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from crossfold.datasets.corpora.embedded.ceilings import Observer
from crossfold.datasets.corpora.embedded.episodes import SENSES
from crossfold.reports.doses.scores import Axis, DosePoint, GateScore, SystemScore
from crossfold.reports.results.systems import system_label
from crossfold.reports.stats.formatting import DASH, number
from crossfold.reports.stats.shares import Share
from crossfold.reports.tables.formats import csv_text, pipe_table
from crossfold.reports.tables.grid import Grid, GridCell, gain_cell, label_cell, p_cell, words_cell

SHARE_NOTE = (
    "Share: how far a system is on the way from the best fixed weights (0 %) to the ideal observer (100 %), which "
    "infers what is damaged from all of the clip, in mean CCC over targets; with its 95 % interval over videos and "
    "seeds; a dash where that way is short. Oracle: the same with the damage known. Ceilings: whether Fixed, Ideal "
    "and Oracle are exact, or estimated with linear probes and a switching Gaussian model, which were fitted on the "
    "training clips and their planted spans; a system can be better than an estimated observer, and its share above "
    "100 %. Gain: over the system without the gate. AUROC, with its 95 % interval over seeds, and ECE: of the weight "
    "of unattended features, as a detector of damage of the gate's own modality; far below 0.5 it detects damage, "
    "too, and gives it less of that weight."
)
SLOPE_NOTE = (
    "Slope of the gain in CCC against the dose, by least squares, with its 95 % interval over videos and seeds, and p "
    "that it is zero, not corrected for the number of rows. Against `clips` and `frames`: for each doubling."
)
ERROR_NOTE = "Mean squared error over the frames of each kind of episode, in units of the mean squared label."
PLACE_NOTE = (
    "By how much the mean squared error of the gated system is smaller than that of the system without the gate, by "
    "kind of episode, in units of the mean squared label; with its 95 % interval over videos and seeds. A gate that "
    "uses the reliability of modalities gains in damaged episodes."
)
_KINDS = ("good", "missing", "corrupted", "conflict", "complementary")


@dataclass(frozen=True)
class DoseTable:
    """One table with its words."""

    title: str
    note: str
    grid: Grid


def dose_tables(points: Sequence[DosePoint], axes: Sequence[Axis]) -> list[DoseTable]:
    """The tables that have rows."""
    made = (
        DoseTable("Share of the way to the ideal observer", SHARE_NOTE, _shares(points)),
        DoseTable("Gain against the dose", SLOPE_NOTE, _slopes(axes)),
        DoseTable("Where gains arise", PLACE_NOTE, _places(points)),
        DoseTable("Where the errors are", ERROR_NOTE, _errors(points)),
    )
    return [table for table in made if table.grid.rows]


def dose_words(dose: Any) -> str:
    """A dose as `conflict 0.4, clips 64`; the seed of the corpus is left out."""
    given = dose.model_dump(exclude_defaults=True, exclude={"seed"})
    return ", ".join(f"{name} {_short(value)}" for name, value in given.items()) or "none"


def share_text(share: Share | None) -> str:
    """`31 % [24, 38]`; a dash for none."""
    if share is None:
        return DASH
    ends = share.interval
    return f"{_percent(share.mean)} %" + (f" [{_percent(ends.low)}, {_percent(ends.high)}]" if ends else "")


def auroc_text(gate: GateScore) -> str:
    """`0.48 [0.41, 0.55]`."""
    ends = gate.interval
    return f"{gate.auroc:.2f}" + (f" [{ends.low:.2f}, {ends.high:.2f}]" if ends else "")


def dose_markdown(tables: Iterable[DoseTable], findings: Sequence[str], label: str) -> str:
    """The findings and tables as Markdown."""
    parts = ["# Gains against a dose", label, "\n".join(f"- {finding}" for finding in findings)]
    for table in tables:
        parts += [f"## {table.title}", pipe_table(table.grid), table.note]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def dose_csv(points: Sequence[DosePoint]) -> str:
    """One line for each system and observer at each dose, with all digits."""
    records = [record for point in points for record in _records(point)]
    # Puppets and synthetic clips have other parameters of the dose.
    columns = list(dict.fromkeys(column for record in records for column in record))
    return csv_text(columns, records)


def _records(point: DosePoint) -> Iterator[dict[str, object]]:
    dose = {f"dose_{name}": value for name, value in point.dose.model_dump().items()}
    common = {"corpus": point.setting.corpus, "store": point.setting.store, "recipe": point.setting.recipe, **dose}
    common["ceilings"] = point.ceiling_origin
    for observer, ccc in point.ceilings.items():
        yield common | _record(f"observer {observer}", ccc, None, point.ceiling_errors[observer])
    for score in point.systems:
        yield common | _record(score.variant, score.ccc, score, score.errors)


def _record(name: str, ccc: float, score: SystemScore | None, errors: Any) -> dict[str, object]:
    share = score.share if score else None
    ends = share.interval if share else None
    gain = score.gain if score else None
    gate = score.gate if score else None
    return {
        "variant": name,
        "ccc": ccc,
        "share": share.mean if share else "",
        "share_low": ends.low if ends else "",
        "share_high": ends.high if ends else "",
        "base": score.base if score else "",
        "gain": gain.mean if gain else "",
        "gain_low": gain.low if gain and gain.low is not None else "",
        "gain_high": gain.high if gain and gain.high is not None else "",
        "gain_p": gain.p if gain and gain.p is not None else "",
        "gate_auroc": gate.auroc if gate else "",
        "gate_auroc_low": gate.interval.low if gate and gate.interval else "",
        "gate_auroc_high": gate.interval.high if gate and gate.interval else "",
        **{f"gate_auroc_{m}": gate.by_modality.get(m, "") if gate else "" for m in SENSES},
        "gate_ece": gate.ece if gate else "",
        **{f"error_{kind}": errors.get(kind, "") for kind in _KINDS},
    }


def _shares(points: Sequence[DosePoint]) -> Grid:
    heads = ("Dose", "System", "CCC", "Fixed", "Ideal", "Oracle", "Ceilings", "Share", "Gain", "AUROC", "ECE")
    rows = []
    for point in points:
        ends = [
            GridCell(number(ccc), sort=ccc) if (ccc := point.ceilings.get(end)) is not None else words_cell("")
            for end in ("fixed", "ideal", "oracle")
        ]
        for score in point.systems:
            gate = (GridCell(auroc_text(score.gate)), GridCell(number(score.gate.ece))) if score.gate else ()
            rows.append(
                (
                    label_cell(dose_words(point.dose)),
                    label_cell(score.name),
                    GridCell(number(score.ccc), sort=score.ccc),
                    *ends,
                    words_cell(point.ceiling_origin),
                    GridCell(share_text(score.share), sort=score.share.mean if score.share else None),
                    gain_cell(score.gain, unclear=bool(score.gain and not score.gain.sign)),
                    *(gate or (words_cell(""), words_cell(""))),
                )
            )
    return Grid((), heads, tuple(rows))


def _slopes(axes: Sequence[Axis]) -> Grid:
    rows = [
        (
            label_cell(axis.parameter),
            words_cell(", ".join(_short(value) for value in axis.values)),
            words_cell(axis.fixed),
            words_cell(f"{score.name} over {system_label(score.base)}"),
            gain_cell(slope, unclear=not slope.sign),
            p_cell(slope.p),
        )
        for axis in axes
        for score, slope in axis.slopes()
    ]
    return Grid((), ("Dose", "Values", "With", "Gain of", "Slope", "p"), tuple(rows))


def _errors(points: Sequence[DosePoint]) -> Grid:
    found = []
    for point in points:
        ends: dict[str, Observer] = {"best fixed weights": "fixed", "ideal observer": "ideal"}
        of_ends = [(words, point.ceiling_errors[end]) for words, end in ends.items() if end in point.ceiling_errors]
        for name, errors in [*of_ends, *((score.name, score.errors) for score in point.systems)]:
            if errors:
                found.append((point, name, errors))
    kinds = [kind for kind in _KINDS if any(kind in errors for _, _, errors in found)]
    rows = [
        (
            label_cell(dose_words(point.dose)),
            label_cell(name),
            *(GridCell(number(errors[kind])) if kind in errors else words_cell("") for kind in kinds),
        )
        for point, name, errors in found
    ]
    return Grid((), ("Dose", "System", *kinds), tuple(rows))


def _places(points: Sequence[DosePoint]) -> Grid:
    found = [(point, score) for point in points for score in point.systems if score.places]
    kinds = [kind for kind in _KINDS if any(kind in score.places for _, score in found)]
    rows = [
        (
            label_cell(dose_words(point.dose)),
            label_cell(f"{score.name} over {system_label(score.base)}"),
            *(
                gain_cell(gain, unclear=not gain.sign) if (gain := score.places.get(kind)) else words_cell("")
                for kind in kinds
            ),
        )
        for point, score in found
    ]
    return Grid((), ("Dose", "Gain of", *kinds), tuple(rows))


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float | int) else str(value)


def _percent(value: float) -> str:
    return f"{100 * value:.0f}".replace("-0", "0") if abs(value) < 0.005 else f"{100 * value:.0f}".replace("-", "−")
