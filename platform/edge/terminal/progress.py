"""The progress of a launch on a terminal, or as lines in a log."""

import contextlib
import math
import sys
from collections.abc import Iterator
from typing import IO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from crossfold.platform.scheduling.events import Event
from crossfold.platform.scheduling.monitor import Progress, SilentView, View

ROWS = 16
"""Running cells shown at once."""


class PlainView:
    """One line for each ended cell, for logs."""

    def __init__(self, file: IO[str] | None = None) -> None:
        """`file`: standard output if not given."""
        self._console = Console(file=file or sys.stdout, highlight=False, markup=False, soft_wrap=True)
        self._best: dict[str, float] = {}

    @contextlib.contextmanager
    def showing(self, progress: Progress) -> Iterator[None]:
        """Says at the end how it went."""
        yield
        self.note(_headline(progress))

    def event(self, event: Event, label: str, progress: Progress) -> None:
        """Prints the end of a try."""
        if event.kind == "epoch" and event.report is not None:
            self._best[event.cell_id] = event.report.best_ccc
        line = _line(event, label, self._best.get(event.cell_id, math.nan))
        if line:
            ended = progress.done + progress.failed + progress.cancelled
            width = len(str(progress.total))
            self.note(f"[{ended:>{width}}/{progress.total}] {line}")
        if event.kind in ("finished", "failed", "cancelled"):
            self._best.pop(event.cell_id, None)

    def note(self, text: str) -> None:
        """Prints one line."""
        self._console.print(text)


class RichView:
    """A bar over all cells and a line for each running one, redrawn in place."""

    def __init__(self, console: Console | None = None) -> None:
        """`console`: standard output if not given."""
        self._console = console or Console()

    @contextlib.contextmanager
    def showing(self, progress: Progress) -> Iterator[None]:
        """Draws while the block runs; the last picture stays."""
        with Live(console=self._console, get_renderable=lambda: _picture(progress), redirect_stderr=False):
            yield

    def event(self, event: Event, label: str, progress: Progress) -> None:
        """Leaves a line above the picture for what went wrong."""
        if event.kind in ("failed", "requeued", "fatal") and (line := _line(event, label, math.nan)):
            self.note(line)

    def note(self, text: str) -> None:
        """Prints one line above the picture."""
        self._console.print(Text(text))


def choose_view(*, json: bool = False) -> View:
    """Live on a terminal, plain lines elsewhere, nothing where the output must be JSON."""
    if json:
        return SilentView()
    return RichView() if sys.stdout.isatty() else PlainView()


def _line(event: Event, label: str, best: float) -> str:
    score = f"  best CCC {best:.3f}" if math.isfinite(best) else ""
    reason = event.failure.message.splitlines()[0] if event.failure and event.failure.message else ""
    kind = f" ({event.failure.kind})" if event.failure else ""
    match event.kind:
        case "finished":
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


def _headline(progress: Progress) -> str:
    parts = [f"{progress.done}/{progress.total} done"]
    parts += [f"{progress.failed} failed"] if progress.failed else []
    parts += [f"{progress.cancelled} cancelled"] if progress.cancelled else []
    parts += [f"{progress.per_minute:.1f} cells/min"] if progress.per_minute else []
    if progress.left:
        parts.append("starting workers" if progress.first_start is None else f"ETA {_duration(progress.eta_seconds)}")
    return f"{progress.sweep}: " + ", ".join(parts)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _picture(progress: Progress) -> RenderableType:
    rows = Table.grid(padding=(0, 2))
    held = sorted(progress.running.values(), key=lambda running: running.rank)
    for running in held[:ROWS]:
        report = running.report
        epochs = f"epoch {report.epoch}/{report.epochs}" if report else "loading"
        score = f"best CCC {report.best_ccc:.3f}" if report and math.isfinite(report.best_ccc) else ""
        rows.add_row(Text(f"worker {running.rank}"), Text(running.label), Text(epochs), Text(score))
    if len(held) > ROWS:
        rows.add_row(Text(f"and {len(held) - ROWS} more"))
    bar = ProgressBar(total=max(progress.total, 1), completed=progress.total - progress.left, width=48)
    return Group(Text(_headline(progress)), bar, rows)
