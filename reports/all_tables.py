"""Which tables a report has, and all of them built."""

import datetime
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, count

from crossfold.reports.page.compose import DATE
from crossfold.reports.results.model import Results, Setting
from crossfold.reports.tables.entries import Table
from crossfold.reports.tables.leaderboard import build_leaderboard
from crossfold.reports.tables.measure import provenance
from crossfold.reports.tables.paper_table import build, choose_setting
from crossfold.reports.tables.published import LEADERBOARD, table_ids, table_spec


def tables_for(results: Results) -> tuple[str, ...]:
    """All tables; only the leaderboard where no paper can have a number of any corpus: own ones, and those with a dose.

    Claims are judged on the tables, so that none is judged there either.
    """
    return (LEADERBOARD,) if all(setting.unprinted for setting in results.settings.values()) else table_ids()


def _suffixes(settings: Sequence[Setting]) -> list[str]:
    """What the leaderboard of each setting is called after: its corpus where there are several, else its number."""
    several = len({setting.corpus for setting in settings}) > 1
    suffixes: list[str] = []
    for setting in settings:
        name = f"-{setting.corpus}" if several else ""
        numbered = (f"{name}-{number}" for number in count(2))
        # A corpus may have the name of another with a number.
        suffixes.append(next(suffix for suffix in chain([name], numbered) if suffix not in suffixes))
    return suffixes


def build_tables(results: Results, wanted: Sequence[str], made: datetime.datetime | None = None) -> tuple[Table, ...]:
    """The tables asked for; the leaderboard once a setting, papers' tables where they belong best.

    made: the date that each table carries.
    """
    built: list[Table] = []
    for name in wanted:
        if name == LEADERBOARD:
            settings = tuple(results.settings.values())
            for setting, suffix in zip(settings, _suffixes(settings), strict=True):
                built.append(build_leaderboard(results, setting, suffix))
        else:
            spec = table_spec(name)
            built.append(build(spec, results, choose_setting(spec, results)))
    date = made.strftime(DATE).strip() if made else ""  # a time without a zone leaves a space at the end
    return tuple(replace(table, provenance=provenance(results, table.setting, table.entries, date)) for table in built)
