"""Small pages without a script: a title, a few tables, and an address for every number."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from crossfold.reports.page.heads import explained
from crossfold.reports.page.render import TEMPLATES
from crossfold.reports.tables.formats import numeric, pipe_table
from crossfold.reports.tables.grid import Grid, flat_heads


@dataclass(frozen=True)
class Section:
    """One table of a sheet with the words around it."""

    heading: str
    label: str
    """The warning of an embedded corpus; empty for others."""
    above: tuple[str, ...]
    grid: Grid
    below: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sheet:
    """A page of tables."""

    title: str
    date: str
    summary: str
    """What the tables show, in one or two sentences."""
    sections: Sequence[Section]
    links: Sequence[tuple[str, str]] = ()
    """Words and addresses of other pages of the same folder."""


def sheet_html(sheet: Sheet) -> str:
    """The sheet as one HTML file; every number has an id of its row and column, which stays the same."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("sheet.html.j2").render(
        sheet=sheet,
        sections=[(section, _ids(section.grid, at)) for at, section in enumerate(sheet.sections, start=1)],
        numeric=numeric,
        explained=explained,
        css=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
    )


def sheet_markdown(sheet: Sheet) -> str:
    """The sheet as Markdown, for a terminal and for a comment."""
    parts = [f"# {sheet.title}", sheet.summary]
    for section in sheet.sections:
        parts += [f"## {section.heading}", *([f"> {section.label}"] if section.label else []), *section.above]
        parts += [pipe_table(section.grid), *section.below]
    return "\n\n".join(parts) + "\n"


def _ids(grid: Grid, number: int) -> list[list[str]]:
    """An id for each cell, of the words of its row and column; a number is added where two would be equal."""
    seen: set[str] = set()
    heads, found = [_slug(head) for head in flat_heads(grid)], []
    for row in grid.rows:
        line = []
        for head, _ in zip(heads, row, strict=True):
            base = f"{_slug(row[0].text)}--{head}" if number == 1 else f"{number}-{_slug(row[0].text)}--{head}"
            name = next(each for each in (base, *(f"{base}-{n}" for n in range(2, 10_000))) if each not in seen)
            seen.add(name)
            line.append(name)
        found.append(line)
    return found


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "x"
