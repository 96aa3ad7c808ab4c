"""The progress of a launch: redrawn in place on a terminal, or as lines in a log."""

import contextlib
import math
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from crossfold.platform.core.cell import Cell
from crossfold.platform.core.outcome import Failure
from crossfold.platform.edge.terminal.console import format_seconds, format_workers
from crossfold.platform.scheduling.events import Event
from crossfold.platform.scheduling.monitor import Progress, SilentView, View

ROWS = 16
"""Running cells shown at once."""


class ConsoleView:
    """On a terminal the state of the launch, redrawn in place, and a line for each failure; elsewhere a line for each
    cell that ended, and the counts at the end."""

    def __init__(self, console: Console | None = None, names: Mapping[str, str] = MappingProxyType({})) -> None:
        """`console`: of standard output if not given. names: what cells are called, by id; else by their labels."""
        self._console = console or Console()
        self._names = names
        self._best: dict[str, float] = {}

    @contextlib.contextmanager
    def showing(self, progress: Progress) -> Iterator[None]:
        """Draws while the block runs; the last picture stays."""

        def draw() -> RenderableType:
            # Called by rich's own thread, four times a second.
            bar = ProgressBar(total=max(progress.total, 1), completed=progress.total - progress.left, width=48)
            state = progress.snapshot()
            return Group(Text(headline(state)), bar, running_cells(state))

        if self._console.is_terminal:
            with Live(console=self._console, get_renderable=draw, redirect_stderr=False):
                yield
        else:
            yield
            self.note(headline(progress.snapshot()))

    def event(self, event: Event, label: str, progress: Progress) -> None:
        """Prints a line for the end of an attempt."""
        if event.kind == "epoch" and event.report is not None:
            self._best[event.cell_id] = event.report.best_ccc
            return
        # An attempt that is repeated keeps its best score: it resumes from its checkpoint.
        line = _line(event, label, self._best.get(event.cell_id, math.nan))
        if event.ends:
            self._best.pop(event.cell_id, None)
        # On a terminal the picture shows what goes well.
        if line and (event.failure or not self._console.is_terminal):
            ended = progress.done + progress.failed + progress.cancelled
            self.note(f"[{ended:>{len(str(progress.total))}}/{progress.total}] {line}")

    def name_of(self, cell: Cell) -> str:
        """The name that distinguishes the cell from those of other variants."""
        return self._names.get(cell.cell_id, cell.label)

    def note(self, text: str) -> None:
        """Prints one line, on a terminal above the picture."""
        self._console.print(Text(text), soft_wrap=not self._console.is_terminal)


def choose_view(*, json: bool = False, names: Mapping[str, str] = MappingProxyType({})) -> View:
    """Nothing is shown where the output must be JSON. names: of cells, by id."""
    return SilentView() if json else ConsoleView(names=names)


def headline(state: Mapping[str, Any]) -> str:
    """The state of a launch (`Progress.snapshot`) in one line."""
    parts = [f"{state['done']}/{state['total']} done"]
    parts += [f"{state[name]} {name}" for name in ("failed", "cancelled") if state.get(name)]
    begun = state["running"] or state["done"] or state["failed"] or state.get("cancelled")
    if state["total"] and not begun:
        parts.append("starting workers")
    if state["running"]:
        parts.append(f"{len(state['running'])} running on {format_workers(state['workers'])}")
    if state.get("throughput_per_minute"):
        parts.append(f"{state['throughput_per_minute']:.1f} cells per minute")
    if state.get("eta_seconds"):
        parts.append(f"about {format_seconds(state['eta_seconds'])} left")
    return f"{state['sweep']}: {', '.join(parts)}"


def running_cells(state: Mapping[str, Any]) -> RenderableType:
    """A line for each running cell, by worker; rich wraps it where the terminal is narrow."""
    held = sorted(state["running"], key=lambda row: row["worker"])
    table = Table.grid(padding=(0, 2))
    for row in held[:ROWS]:
        table.add_row(f"  worker {row['worker']}", Text("  ".join(filter(None, _facts(row)))))
    if len(held) > ROWS:
        table.add_row(f"  and {len(held) - ROWS} more")
    return table


def _facts(row: Mapping[str, Any]) -> Iterator[str]:
    """Label, time, epoch, CCC, best CCC and GPU memory of a running cell, those that are known."""
    yield row["label"]
    yield format_seconds(row["seconds"]) if "seconds" in row else ""
    yield f"epoch {row['epoch']}/{row['epochs']}" if row["epochs"] else "loading"
    values = ", ".join(f"{target} {value:.3f}" for target, value in (row.get("ccc") or {}).items())
    yield f"CCC {values}" if values else ""
    yield f"best CCC {row['best_ccc']:.3f}" if row["best_ccc"] is not None else ""
    yield f"GPU {row['gpu_bytes'] / 2**30:.1f} GiB" if row.get("gpu_bytes") else ""


def reason_of(failure: Failure) -> str:
    """The first line of the message of a failure."""
    return failure.message.partition("\n")[0]


def _line(event: Event, label: str, best: float) -> str:
    reason = reason_of(event.failure) if event.failure else ""
    kind = f" ({event.failure.kind})" if event.failure else ""
    match event.kind:
        case "finished":
            score = f"  best CCC {best:.3f}" if math.isfinite(best) else ""
            return f"done       {label}  {event.seconds:.1f} s{score}"
        case "failed":
            return f"failed     {label}{kind}: {reason}"
        case "requeued" if event.failure:
            return f"again      {label}{kind}: {reason}"
        case "cancelled":
            return f"cancelled  {label}"
        case "fatal":
            return f"fatal      {reason}"
    return ""
