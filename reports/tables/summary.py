"""What a report found, in a few lines for a terminal."""

from collections.abc import Iterator, Sequence

from crossfold.platform.core.cell import EARLIER_FOLDS, SEEN, folds_advice
from crossfold.platform.core.outcome import Failure
from crossfold.reports.stats.formatting import listing
from crossfold.reports.tables.claims import Verdict, count_words
from crossfold.reports.tables.entries import NOT_MEASURABLE, Entry, Table
from crossfold.reports.tables.published import LEADERBOARD, MEAN

FAILED_SHOWN = 10
"""The most failed cells that the terminal names."""


def summary(
    tables: Sequence[Table], verdicts: Sequence[Verdict], failures: Sequence[Failure] = (), *, asked: bool = True
) -> str:
    """A few lines for a terminal: what each table measures, the claims, tables without any run, what failed.

    asked: whether the tables were named. Where none was, and every corpus is embedded, one sentence stands for those of
    the papers, which then say nothing about the papers; a leaderboard that is complete was printed already.
    """
    if not asked and all(table.id.startswith(LEADERBOARD) for table in tables):
        claims, lines = "", list(_measured([table for table in tables if not table.idle and not _is_complete(table)]))
    elif not asked and (lines := list(_elsewhere(tables))):
        claims = ""
    else:
        claims = count_words(verdicts)
        lines = list(_measured([table for table in tables if not table.idle or len(tables) == 1]))
        idle = [table.id for table in tables if table.idle]
        if idle and len(tables) > 1:
            lines.append(f"nothing run for {listing(idle)}: `crossfold run TABLE` runs one")
    stores = sorted({(table.setting.corpus, table.setting.store) for table in tables if _on_earlier_folds(table)})
    if seen := _seen(tables):
        lines.append(f"marked seen ({seen}): {SEEN}")
    lines += [f"note: {folds_advice(*store)}" for store in stores]
    return "\n".join([*lines, *filter(None, [claims]), *_failed(failures)])


def _is_complete(table: Table) -> bool:
    return all(entry.mean is not None for entry in _measurable(table))


def _elsewhere(tables: Sequence[Table]) -> Iterator[str]:
    """One sentence about the papers' tables where all that they measure is on embedded corpora; else nothing."""
    measured = [table for table in tables if not table.idle and not table.architecture]
    papers = [table for table in measured if not table.id.startswith(LEADERBOARD)]
    if papers and all(table.setting.label for table in measured):
        count = "one of the papers' tables has" if len(papers) == 1 else f"{len(papers)} of the papers' tables have"
        corpora = listing(sorted({table.setting.corpus for table in papers}))
        yield f"{count} entries measured on {corpora}, which is not the papers' data; report.html shows them"


def _on_earlier_folds(table: Table) -> bool:
    numbered = any(fold != 0 for entry in table.entries for fold in entry.folds)
    return numbered and table.setting.fold_rule == EARLIER_FOLDS


def leaderboard_title(table: Table) -> str:
    """What the numbers of `leaderboard_rows` are, and on which corpus where that needs a label."""
    return f"{table.title}, CCC" + (f" ({table.setting.label})" if table.setting.label else "")


def leaderboard_rows(table: Table) -> list[dict[str, str]]:
    """A leaderboard for a terminal: each system with its mean CCC in each column, and what is finished of n/N."""
    return [
        {"system": line.label}
        | {
            column: f"{entry.mean:.3f}" if entry.mean is not None else f"{entry.done}/{entry.planned} done"
            for column, entry in zip(table.columns, line.entries, strict=True)
        }
        for line in table.lines
    ]


def _failed(failures: Sequence[Failure]) -> Iterator[str]:
    """The failed cells, each with its reason."""
    if failures:
        counted = "1 cell" if len(failures) == 1 else f"{len(failures)} cells"
        yield f"{counted} failed and count as unfinished:"
    for failure in failures[:FAILED_SHOWN]:
        reason = (failure.message.splitlines() or [""])[0]
        attempt = f", attempt {failure.attempt}" if failure.attempt > 1 else ""
        yield f"  {failure.label} ({failure.kind}{attempt}): {reason}; crossfold why {failure.cell_id}"
    if len(failures) > FAILED_SHOWN:
        yield f"  and {len(failures) - FAILED_SHOWN} more, all in report.html"


def _measured(tables: Sequence[Table]) -> Iterator[str]:
    """How much of each table is measured: a line for each corpus, and one for each table that measures nothing."""
    corpora: dict[str, list[str]] = {}
    for table in tables:
        if table.architecture:
            yield f"{table.id}: {table.sentences[0]}"
        elif entries := _measurable(table):
            label = f" ({table.setting.label})" if table.setting.label else ""
            done = sum(entry.mean is not None for entry in entries)
            counted = corpora.setdefault(f"{table.setting.corpus}{label}", [])
            counted.append(f"{table.id} {done} of {len(entries)}")
        else:
            yield f"{table.id}: nothing in it can be measured here"
    for corpus, counted in corpora.items():
        yield f"entries measured on {corpus}: {', '.join(counted)}"


def _measurable(table: Table) -> list[Entry]:
    return [entry for entry in table.entries if entry.target != MEAN and entry.verdict != NOT_MEASURABLE]


def _seen(tables: Sequence[Table]) -> str:
    """The tables with numbers that are marked seen: "all", or their names with the number of such entries."""
    measured = {table.id: [e for e in _measurable(table) if e.mean is not None] for table in tables}
    seen = {name: sum(bool(entry.seen) for entry in entries) for name, entries in measured.items()}
    if all(seen[name] == len(entries) for name, entries in measured.items()):
        return "all" if any(seen.values()) else ""
    return ", ".join(f"{name} {count}" for name, count in seen.items() if count)
