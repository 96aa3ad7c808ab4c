"""Verdicts on the papers' claims as Markdown, LaTeX and CSV."""

from collections.abc import Sequence

from crossfold.reports.stats.formatting import facts_text
from crossfold.reports.tables.claims import METHOD, Verdict, claims_grid, comparisons_grid, count_words
from crossfold.reports.tables.escape import markdown
from crossfold.reports.tables.formats import csv_text, gain_columns, latex_float, origin_columns, pipe_table, tabular

TITLE = "Claims of the papers"
_COLUMNS = (
    "claim", "says", "paper", "where", "table", "verdict", "comparison", "target", "printed_gain", "seen_by_paper",
    "seen_by_paper_low", "seen_by_paper_high", "measured_gain", "low", "high", "pairs", "p_family", "p_tost",
    "cohens_d", "seen", "state",
    "corpus", "store", "recipe", "recipe_hash", "protocol", "selection", "fold_rule", "comparable", "label",
    "versions", "made",
)  # fmt: skip


def claims_markdown(verdicts: Sequence[Verdict]) -> str:
    """A section with one row per claim, and one row per measured comparison."""
    parts = [f"## {TITLE}", *(f"> {markdown(label)}" for label in labels(verdicts)), markdown(count_words(verdicts))]
    parts.append(pipe_table(claims_grid(verdicts)))
    compared = comparisons_grid(verdicts)
    if compared:
        parts += ["### The comparisons", pipe_table(compared)]
    return "\n\n".join([*parts, markdown(METHOD), *(markdown(line) for line in origins(verdicts))]) + "\n"


def claims_latex(verdicts: Sequence[Verdict]) -> str:
    """A `table` environment per paper, so that each fits a page; needs the packages booktabs and graphicx.

    The comparisons are too many for a float: only the Markdown and the CSV have them.
    """
    lines = ["% needs \\usepackage{booktabs,graphicx}"]
    for paper in dict.fromkeys(verdict.claim.paper for verdict in verdicts):
        own = [verdict for verdict in verdicts if verdict.claim.paper == paper]
        caption = [f"{TITLE}: {own[0].paper}.", *(f"{label.capitalize()}." for label in labels(own))]
        body = tabular(claims_grid(own), {0: "6cm", 1: "4.5cm", 6: "4.5cm"})
        lines += latex_float(" ".join(caption), f"claims-{paper}", [body], [count_words(own), METHOD, *origins(own)])
    return "\n".join([*lines, ""])


def claims_csv(verdicts: Sequence[Verdict]) -> str:
    """One line per comparison, numbers as numbers; a claim without comparisons has one line of its own."""
    records: list[dict[str, object]] = []
    for verdict in verdicts:
        claim = verdict.claim
        own = {
            "claim": claim.id,
            "says": claim.says,
            "paper": verdict.paper,
            "where": claim.where,
            "table": claim.table,
            "verdict": verdict.says,
            "state": claim.untestable,
            "comparable": verdict.comparable,
            **origin_columns(verdict.setting, verdict.provenance),
        }
        records += [
            {
                **own,
                "comparison": each.label,
                "target": each.target,
                "printed_gain": each.printed,
                "seen_by_paper": each.power and each.power.chance,
                "seen_by_paper_low": each.power and each.power.low,
                "seen_by_paper_high": each.power and each.power.high,
                **gain_columns(each.gain, mean="measured_gain", n="pairs", p="p_family"),
                "p_tost": each.p_same,
                "cohens_d": each.effect,
                "seen": int(each.seen) if each.gain else None,
                "state": each.verdict,
            }
            for each in verdict.comparisons
        ] or [own]  # an untestable claim has no comparison
    return csv_text(_COLUMNS, records)


def origins(verdicts: Sequence[Verdict], *, dated: bool = True) -> list[str]:
    """Where the numbers come from, one line per setting; not `dated` on a page that gives its date once."""
    shown = (
        "corpus",
        "store",
        "recipe",
        "protocol",
        "selection",
        "fold rule",
        "seen",
        "versions",
        *(("made",) if dated else ()),
    )
    origins = [verdict.provenance for verdict in verdicts if verdict.done and verdict.provenance]
    return list(dict.fromkeys(facts_text(fact for fact in origin if fact[0] in shown) for origin in origins))


def labels(verdicts: Sequence[Verdict]) -> list[str]:
    """The warnings that everything made from an embedded corpus must show."""
    return list(dict.fromkeys(verdict.setting.label for verdict in verdicts if verdict.setting.label))
