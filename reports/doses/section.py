"""What a report says of corpora with a dose: a part of the page, and files."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from crossfold.datasets.corpora.embedded.dose import Dose, SyntheticDose, dose_of
from crossfold.platform.core.errors import UserError
from crossfold.platform.workspace.workspace import Workspace
from crossfold.reports.doses.charts import dose_figures
from crossfold.reports.doses.findings import ceiling_words, dose_findings, dose_verdicts
from crossfold.reports.doses.first_verdicts import first_verdicts
from crossfold.reports.doses.scores import DosePoint, dose_axes, dose_points
from crossfold.reports.doses.tables import DoseTable, dose_csv, dose_markdown, dose_tables, dose_words, share_text
from crossfold.reports.figures.base import Figure
from crossfold.reports.results.load import launched_corpora
from crossfold.reports.results.model import Results


@dataclass(frozen=True)
class DoseSection:
    """What is known of gains against a dose."""

    points: Sequence[DosePoint]
    first: Sequence[str]
    """What fusion, attention and gates add, a short sentence each, for the first screen."""
    findings: Sequence[str]
    """What the numbers say, a sentence each."""
    tables: Sequence[DoseTable]
    figures: Sequence[Figure]
    label: str
    """The warning on every table and figure, which are of embedded corpora."""


def dose_section(workspace: Workspace, results: Results, *, figures: bool) -> DoseSection | None:
    """The section; None where no cell of a corpus with a dose has finished."""
    points = dose_points(results, workspace)
    if not points:
        return None
    axes = dose_axes(points)
    label = embedded_label([point.dose for point in points])
    drawn = dose_figures(axes, label) if figures else ()
    return DoseSection(
        points, first_verdicts(points), dose_findings(points, axes), dose_tables(points, axes), drawn, label
    )


def embedded_label(doses: Iterable[Dose]) -> str:
    """The warning on all that is shown of these doses: no numbers of the papers' data."""
    kinds = sorted({"synthetic" if isinstance(dose, SyntheticDose) else "puppets" for dose in doses})
    return f"embedded corpus: {' and '.join(kinds)} with a dose - not the papers' data"


def dose_texts(section: DoseSection, formats: Sequence[str]) -> dict[str, str]:
    """The section as files `dose.md` and `dose.csv`, by name: those of the formats asked for."""
    made = {
        "dose.md": dose_markdown(section.tables, section.findings, section.label),
        "dose.csv": dose_csv(section.points),
    }
    return {name: text for name, text in made.items() if name.rpartition(".")[2] in formats}


def dose_summary(section: DoseSection) -> str:
    """The verdicts; then a line for each dose at which there is something to gain: what each system takes of it."""
    shares = (
        f"dose {dose_words(point.dose)}: "
        + "; ".join(f"{score.name} takes {share_text(score.share)}" for score in point.systems)
        + f" of the {point.ceilings['ideal'] - point.ceilings['fixed']:.3f} CCC that an ideal observer gains"
        for point in section.points
        if any(score.share for score in point.systems)
    )
    return "\n".join(filter(None, (dose_verdicts(section.points), *shares, ceiling_words(section.points))))


def is_dosed(corpus: str) -> bool:
    """Whether a corpus of this name has a dose."""
    return dose_of(corpus) is not None


def dosed_sweeps(workspace: Workspace) -> list[str]:
    """The launched sweeps of corpora with a dose. Raises `UserError` where there is none."""
    found = [name for name, corpus in launched_corpora(workspace).items() if is_dosed(corpus)]
    if not found:
        raise UserError(f"no sweep with doses was launched in {workspace}", "run `crossfold run dose-synthetic` first")
    return found
