"""Verdicts on the papers' claims as Markdown, LaTeX and CSV."""

import csv
import io
from collections.abc import Sequence

from crossfold.reports.tables.claims import METHOD, Verdict, claims_grid, comparisons_grid, count_words
from crossfold.reports.tables.escape import csv_value, latex, markdown
from crossfold.reports.tables.formats import pipe_table, tabular

TITLE = "Claims of the papers"
_COLUMNS = (
    "claim", "says", "paper", "where", "table", "verdict", "comparison", "target", "printed_gain", "measured_gain",
    "low", "high", "pairs", "p_t", "p_holm", "p_wilcoxon", "p_tost", "cohens_d", "state",
    "corpus", "store", "recipe", "recipe_hash", "protocol", "selection", "comparable", "label",
    "versions", "made",
)  # fmt: skip


def claims_markdown(verdicts: Sequence[Verdict]) -> str:
    """A section with one row a claim, and one row a measured comparison."""
    parts = [f"## {TITLE}", *(f"> {markdown(label)}" for label in labels(verdicts)), markdown(count_words(verdicts))]
    parts.append(pipe_table(claims_grid(verdicts)))
    compared = comparisons_grid(verdicts)
    if compared:
        parts += ["### The comparisons", pipe_table(compared)]
    return "\n\n".join([*parts, markdown(METHOD), *(markdown(line) for line in origins(verdicts))]) + "\n"


def claims_latex(verdicts: Sequence[Verdict]) -> str:
    """A `table` environment a paper, so that each fits a page; needs the packages booktabs and graphicx.

    The comparisons are too many for a float: they stand in the Markdown and the CSV.
    """
    lines = ["% needs \\usepackage{booktabs,graphicx}"]
    for paper in dict.fromkeys(verdict.claim.paper for verdict in verdicts):
        own = [verdict for verdict in verdicts if verdict.claim.paper == paper]
        told = [f"{TITLE}: {own[0].paper}.", *(f"{label.capitalize()}." for label in labels(own)), count_words(own)]
        lines += [
            "\\begin{table}[t]",
            "\\centering\\small",
            f"\\caption{{{latex(' '.join(told))}}}",
            f"\\label{{tab:claims-{paper}}}",
            tabular(claims_grid(own), {0: "6cm", 1: "4.5cm", 5: "4.5cm"}),
            *(f"\\par\\smallskip\\scriptsize {latex(line)}" for line in (METHOD, *origins(own))),
            "\\end{table}",
        ]
    return "\n".join([*lines, ""])


def claims_csv(verdicts: Sequence[Verdict]) -> str:
    """One line a comparison, numbers as numbers; a claim without comparisons has one line of its own."""
    out = io.StringIO()
    writer = csv.DictWriter(out, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    for verdict in verdicts:
        claim, setting = verdict.claim, verdict.setting
        own = {
            "claim": claim.id,
            "says": claim.says,
            "paper": verdict.paper,
            "where": claim.where,
            "table": claim.table,
            "verdict": verdict.says,
            "state": claim.untestable,
            "corpus": setting.corpus,
            "store": setting.store,
            "recipe": setting.recipe,
            "recipe_hash": setting.recipe_hash,
            "protocol": setting.protocol,
            "selection": setting.selection,
            "comparable": verdict.comparable,
            "label": setting.label,
            **{name: dict(verdict.provenance).get(name) for name in ("versions", "made")},
        }
        records: list[dict[str, object]] = [
            {
                "comparison": each.label,
                "target": each.target,
                "printed_gain": each.printed,
                "measured_gain": each.gain.mean if each.gain else None,
                "low": each.gain.low if each.gain else None,
                "high": each.gain.high if each.gain else None,
                "pairs": each.gain.n if each.gain else None,
                "p_t": each.gain.p if each.gain else None,
                "p_holm": each.p,
                "p_wilcoxon": each.gain.p_wilcoxon if each.gain else None,
                "p_tost": each.p_same,
                "cohens_d": each.effect,
                "state": each.state,
            }
            for each in verdict.comparisons
        ]
        for record in records or [{}]:
            writer.writerow({key: csv_value(value) for key, value in {**own, **record}.items()})
    return out.getvalue()


def origins(verdicts: Sequence[Verdict], *, dated: bool = True) -> list[str]:
    """Where the numbers come from, one line a setting; not `dated` on a page that gives its date once."""
    told = ("corpus", "store", "recipe", "protocol", "selection", "versions", *(("made",) if dated else ()))
    lines = [
        "; ".join(f"{term}: {value}" for term, value in verdict.provenance if term in told and value) + "."
        for verdict in verdicts
        if verdict.done and verdict.provenance
    ]
    return list(dict.fromkeys(lines))


def labels(verdicts: Sequence[Verdict]) -> list[str]:
    """What must stand on everything that is made from an embedded corpus."""
    return list(dict.fromkeys(verdict.setting.label for verdict in verdicts if verdict.setting.label))
