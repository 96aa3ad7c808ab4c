"""What commands print: tables for people, JSON for programs, errors on standard error."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from crossfold.platform.core.errors import UserError

# A pipe or a file has no width of its own; tables then take that of a wide terminal.
_width = None if sys.stdout.isatty() else 140
# Labels and paths hold brackets, which are no markup.
out = Console(highlight=False, markup=False, width=_width)
err = Console(stderr=True, highlight=False, markup=False, width=None if sys.stderr.isatty() else 140)


def emit(rows: Sequence[Mapping[str, Any]] | Mapping[str, Any], as_json: bool, title: str = "") -> None:
    """Rows as a table, or anything as JSON."""
    if as_json:
        # Not through rich, which would wrap it.
        typer.echo(json.dumps(rows, indent=1, default=str))
        return
    listed = [rows] if isinstance(rows, Mapping) else list(rows)
    if not listed:
        out.print(f"{title}: none" if title else "none")
        return
    if title:
        # Not as the table's own title, which is wrapped to the width of the table.
        out.print(title, style="italic")
    table = Table(header_style="bold")
    # Ids and paths are folded, not cut, so that they can be copied.
    for column in listed[0]:
        table.add_column(str(column), justify="right" if _is_number(listed[0][column]) else "left", overflow="fold")
    for row in listed:
        table.add_row(*(_format(value) for value in row.values()))
    out.print(table)


def say(*lines: str) -> None:
    """Prints each line unbroken, however long it is, so that paths and commands in it can be copied."""
    for line in lines:
        out.print(line, soft_wrap=True)


def print_error(error: UserError) -> None:
    """The problem and what to do about it."""
    err.print("error: ", style="bold red", end="")
    err.print(error.problem)
    if error.remedy:
        err.print(f"  -> {error.remedy}")


def counted(number: int, noun: str) -> str:
    """A number with its noun: `1 cell`, `2 cells`."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def format_workers(count: int) -> str:
    """1 worker, 2 workers."""
    return f"{count} worker{'s' * (count != 1)}"


def format_seconds(seconds: float) -> str:
    """A duration in words: 42 s, 3 min 10 s, 5 h 20 min."""
    # Rounded first, so that 59.7 s becomes 1 min 0 s and not 60 s.
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _is_number(value: Any) -> bool:
    # Python counts booleans as integers.
    return isinstance(value, int | float) and not isinstance(value, bool)


def _format(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)
