"""What the page holds: for each setting its leaderboard, its figures and how it was run; then what all share."""

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.platform.core.errors import UserError
from crossfold.platform.workspace.workspace import Workspace
from crossfold.reports.doses.section import DoseSection
from crossfold.reports.figures.base import Figure
from crossfold.reports.figures.clip_media import Album, open_album
from crossfold.reports.page import describe, draw
from crossfold.reports.page.compared import comparison_data
from crossfold.reports.page.first_page import FirstPage, first_page
from crossfold.reports.page.searches import SearchSection, search_sections
from crossfold.reports.results.model import Results, Setting
from crossfold.reports.tables.claims import Verdict
from crossfold.reports.tables.entries import Table
from crossfold.reports.tables.published import LEADERBOARD

DATE = "%Y-%m-%d %H:%M %Z"
MOST_DRAWN = 6
"""Settings with figures, those with the most finished cells; the others have their tables."""
CLIPS = 3
"""Clips that a reader may choose from in the first setting; the others show one."""


@dataclass(frozen=True)
class Block:
    """Everything of one setting."""

    number: int
    """From 1, the setting with the most finished cells first."""
    setting: Setting
    name: str
    """Unique among the settings of the page."""
    summary: str
    """What was measured, in one sentence."""
    facts: Sequence[tuple[str, str]]
    """How it was run, as term and description."""
    notices: Sequence[str]
    leaderboard: Table | None
    first: FirstPage | None = None
    """What a reader sees first; None without a leaderboard."""
    note: str = ""
    """Where the numbers of all figures come from: store, recipe, protocol, selection, folds, seeds and versions."""
    standing: Sequence[Figure] = ()
    """Figures that belong to the leaderboard: ranks, wins, cost."""
    figures: Sequence[Figure] = ()
    clips: Sequence[Figure] = ()
    """One clip each; the reader chooses."""
    compared: Mapping[str, Any] = field(default_factory=dict)
    """What the page needs to compare a few systems of the setting; empty without."""
    album: Album = field(default_factory=Album)
    """Where their faces and sound come from, or why there are none."""

    @property
    def suffix(self) -> str:
        """Ends the ids of the page in this block."""
        return f"-{self.number}" if self.number > 1 else ""

    @property
    def drawn(self) -> tuple[Figure, ...]:
        """All figures."""
        return (*self.standing, *self.figures, *self.clips)


@dataclass(frozen=True)
class Page:
    """Everything the page shows, already computed."""

    title: str
    date: str
    blocks: Sequence[Block]
    tables: Sequence[Table]
    """Of papers, without the leaderboards."""
    notices: Sequence[str]
    verdicts: Sequence[Verdict] = ()
    """On the papers' claims."""
    searches: Sequence[SearchSection] = ()
    """Of parameters, one section for each file of searches."""
    doses: DoseSection | None = None
    """Gains against the dose of synthetic corpora, where such cells have finished."""

    @property
    def figures(self) -> tuple[Figure, ...]:
        """Of all settings, searches and doses."""
        drawn = tuple(figure for block in self.blocks for figure in block.drawn)
        doses = self.doses.figures if self.doses else ()
        return (*drawn, *(figure for section in self.searches for figure in section.figures), *doses)


def make_page(
    workspace: Workspace,
    results: Results,
    tables: Sequence[Table],
    verdicts: Sequence[Verdict],
    moment: datetime.datetime,
    *,
    figures: bool = True,
    media: Path | None = None,
    doses: DoseSection | None = None,
) -> Page:
    """The page of the tables that were built. Without `figures` nothing is drawn and no prediction is read.

    media: folder of a corpus whose faces and sound the clips shall show, people included (`open_album`).
    """
    papers = [table for table in tables if not table.id.startswith(LEADERBOARD)]
    names = describe.setting_names(list(results.settings.values()))
    boards = {table.setting.key: table for table in tables if table.id.startswith(LEADERBOARD)}
    printed = [gain.printed for table in papers for gain in table.gains if gain.printed is not None]
    blocks: list[Block] = []
    for number, setting in enumerate(results.settings.values(), start=1):
        if tables and not boards and not any(table.setting.key == setting.key for table in papers):
            # A report of chosen tables shows the settings of these tables only.
            continue
        store, notices = _open_store(workspace, setting)  # a report without it lacks clips only
        board = boards.get(setting.key)
        block = Block(
            number=number,
            setting=setting,
            name=names[setting.key],
            summary=describe.summary_of(results, setting, store),
            facts=describe.facts_of(results, setting, store),
            notices=[*notices, *describe.weights_notices(results, setting)],
            leaderboard=board,
            first=first_page(results, setting, board, store) if board else None,
            note=describe.figure_note(results, setting),
        )
        if figures and len(blocks) < MOST_DRAWN:
            album = open_album(workspace, store, media) if store else Album()
            block = _draw(replace(block, album=album), results, store, printed)
        blocks.append(block)
    corpora = sorted({block.setting.corpus for block in blocks})
    return Page(
        title=describe.page_title(corpora),
        date=moment.strftime(DATE).strip(),
        blocks=blocks,
        tables=papers,
        notices=describe.page_notices(results),
        verdicts=verdicts,
        # A report of chosen tables is about these tables only.
        searches=search_sections(workspace, results, figures=figures) if boards or not tables else (),
        doses=doses,
    )


def _draw(block: Block, results: Results, store: FeatureStore | None, printed: Sequence[float]) -> Block:
    """The block with its figures, under ids that are unique on the page."""
    setting, note = block.setting, block.note
    clips = draw.draw_clips(results, setting, store, block.album, CLIPS if block.number == 1 else 1) if store else []

    def placed(figures: Sequence[Figure]) -> list[Figure]:
        return [replace(figure, id=f"{figure.id}{block.suffix}", note=note) for figure in figures]

    return replace(
        block,
        standing=placed(draw.draw_standing(results, setting)),
        figures=placed(draw.draw_figures(results, setting, printed)),
        compared=comparison_data(results, setting, store, [figure.choice for figure in clips]),
        clips=[replace(figure, id=f"{figure.id}-{at}") for at, figure in enumerate(placed(clips), start=1)],
    )


def _open_store(workspace: Workspace, setting: Setting) -> tuple[FeatureStore | None, list[str]]:
    """The feature store that was measured, or a notice that it is elsewhere, as after a merge from another machine."""
    try:
        return FeatureStore(workspace.find_store(setting.corpus, setting.store)), []
    except UserError:
        return None, [f"Feature store {setting.corpus}-{setting.store} is not in this workspace, so no clip is shown."]
