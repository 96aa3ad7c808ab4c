"""What `crossfold status` shows: how far sweeps are, what runs, what failed, who drives; read from files alone.

Everything comes from the workspace, so it works from any machine that sees it, and needs neither Ray nor the driver.
"""

import datetime
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from crossfold.platform.core.errors import DataError, UserError, did_you_mean
from crossfold.platform.core.outcome import Failure
from crossfold.platform.edge.terminal.console import format_seconds, format_workers
from crossfold.platform.workspace.driver_lease import alive, driver_of
from crossfold.platform.workspace.workspace import Workspace

FRESH_SECONDS = 30.0
"""Age above which the live state of a driver is of one that is gone; it is written every second."""
WIDE = 120
"""Columns from which a running cell has a line to itself."""
_ROWS = 24
_FAILED = 5


@dataclass(frozen=True)
class Status:
    """A workspace at one moment."""

    sweeps: list[dict[str, Any]]
    """A row a launched sweep: sweep, corpus, cells, done, running, failed, to_run."""
    launches: list[dict[str, Any]]
    """The live states of drivers (`Progress.snapshot`), of those sweeps, that are fresh."""
    failures: list[Failure]
    """The last failed try of each cell that counts as failed, oldest first."""
    driver: dict[str, Any]
    """The lease of the driver; empty if nobody drives."""

    @property
    def over(self) -> bool:
        """Whether nothing is left to run."""
        return all(row["done"] + row["failed"] >= row["cells"] for row in self.sweeps)


def read_status(space: Workspace, sweep: str | None = None) -> Status:
    """The state of one launched sweep, or of all. Raises `UserError` with the nearest name for an unknown one."""
    space.refresh()
    names = sorted(path.stem for path in space.sweeps.glob("*.json"))
    if sweep is not None:
        sweep = Path(sweep).stem
        if sweep not in names:
            raise UserError(f"no sweep {sweep!r} was launched in {space}{did_you_mean(sweep, names)}", "crossfold run")
        names = [sweep]
    asked = {name: json.loads((space.sweeps / f"{name}.json").read_text()) for name in names}
    launches = [state for state in _launches(space) if set(state["sweep"].split("+")) & set(names)]
    running = {row["cell_id"] for state in launches for row in state["running"]}
    finished = space.finished()
    last = {failure.cell_id: failure for failure in space.failures_of() if failure.cell_id not in finished | running}
    rows = []
    for name, launched in asked.items():
        cells = set(launched["cells"])
        counts = {"done": len(cells & finished), "running": len(cells & running), "failed": len(cells & set(last))}
        left = len(cells) - sum(counts.values())
        rows.append(
            {"sweep": name, "corpus": launched["corpus"], "cells": len(cells), **counts, "to_run": max(left, 0)}
        )
    owed = {cell_id for launched in asked.values() for cell_id in launched["cells"]}
    failures = [failure for cell_id, failure in last.items() if cell_id in owed]
    return Status(rows, launches, failures, driver_of(space))


def cell_rows(space: Workspace, sweep: str | None = None) -> list[dict[str, Any]]:
    """A row a cell of one launched sweep, or of all: id, label, sweep, state, and epoch and mean CCC where known."""
    status = read_status(space, sweep)
    running = {row["cell_id"]: row for state in status.launches for row in state["running"]}
    failed = {failure.cell_id: failure for failure in status.failures}
    finished = space.finished()
    rows: dict[str, dict[str, Any]] = {}
    for name in (row["sweep"] for row in status.sweeps):
        launched = json.loads((space.sweeps / f"{name}.json").read_text())
        for cell_id in launched["cells"]:
            row = {"cell": cell_id, "label": launched["labels"][cell_id]["label"], "sweep": name}
            row |= {"state": "to run", "epoch": None, "ccc": None}
            if cell_id in finished:
                row |= _chosen(space, cell_id)
            elif cell_id in running:
                row |= {"state": "running", "epoch": running[cell_id]["epoch"], "ccc": running[cell_id]["best_ccc"]}
            elif cell_id in failed:
                row["state"] = f"failed: {failed[cell_id].kind}"
            rows.setdefault(cell_id, row)
    return list(rows.values())


def _chosen(space: Workspace, cell_id: str) -> dict[str, Any]:
    try:
        chosen = space.read_exactly(cell_id).result["selection"]
    except DataError:
        return {"state": "damaged"}
    return {"state": "done", "epoch": chosen["best_epoch"], "ccc": chosen["best_ccc"]}


def _launches(space: Workspace) -> list[dict[str, Any]]:
    states = []
    for path in sorted((space.root / "status").glob("[!.]*.json")):
        try:
            if time.time() - path.stat().st_mtime <= FRESH_SECONDS:
                states.append(json.loads(path.read_text()))
        except (OSError, ValueError):
            continue
    return states


def picture(status: Status) -> RenderableType:
    """Sweeps with bars, running cells, the last failures, and who drives."""
    parts: list[RenderableType] = [_Sweeps(status)]
    for state in status.launches:
        if state["running"]:
            parts += [Text(_headline(state)), _Running(state)]
    if status.failures:
        parts.append(Text(f"{len(status.failures)} failed, the last ones:", style="bold red"))
        parts += [_one_line(f"  {_failed(failure)}") for failure in status.failures[-_FAILED:]]
        parts.append(Text("  crossfold why CELL tells the rest", style="dim"))
    parts.append(Text(driver_line(status.driver), style="dim"))
    return Group(*parts)


@dataclass(frozen=True)
class _Sweeps:
    """A row a sweep; its bar is shorter where the terminal is narrow."""

    status: Status

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        columns = ("sweep", "corpus", "cells", "done", "running", "failed", "to_run")
        table = Table(title="Sweeps", title_justify="left", header_style="bold")
        for column in columns:
            table.add_column(column.replace("_", " "), justify="left" if column in ("sweep", "corpus") else "right")
        width = 16 if options.max_width >= WIDE else 6
        table.add_column("", min_width=width)
        for row in self.status.sweeps:
            bar = ProgressBar(total=max(row["cells"], 1), completed=row["done"] + row["failed"], width=width)
            table.add_row(*(str(row[column]) for column in columns), bar)
        yield table


def _headline(state: dict[str, Any]) -> str:
    parts = [f"{state['sweep']}: {len(state['running'])} running on {format_workers(state['workers'])}"]
    if state.get("throughput_per_minute"):
        parts.append(f"{state['throughput_per_minute']:.1f} cells a minute")
    if state.get("eta_seconds") is not None:
        parts.append(f"about {format_seconds(state['eta_seconds'])} left")
    return ", ".join(parts)


@dataclass(frozen=True)
class _Running:
    """A line for each running cell, two where the terminal is narrow."""

    state: dict[str, Any]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        held = sorted(self.state["running"], key=lambda row: row["worker"])
        wide = options.max_width >= WIDE
        shown = held[: _ROWS if wide else _ROWS // 2]
        if wide:
            table = Table.grid(padding=(0, 2))
            for row in shown:
                table.add_row(f"  worker {row['worker']}", Text(row["label"]), *_now(row))
            yield table
        else:
            for row in shown:
                epochs, score, best, spent, memory = _now(row)
                yield _one_line(f"  worker {row['worker']}  {row['label']}  {spent}")
                yield _one_line("    " + "  ".join(filter(None, (epochs, score, best, memory))))
        if len(held) > len(shown):
            yield Text(f"  and {len(held) - len(shown)} more")


def _now(row: dict[str, Any]) -> tuple[str, ...]:
    """Where a running cell stands: epoch, CCC, best CCC, time, GPU memory; empty where there is none yet."""
    epochs = f"epoch {row['epoch']}/{row['epochs']}" if row["epochs"] else "loading"
    now = ", ".join(f"{target} {value:.3f}" for target, value in (row.get("ccc") or {}).items())
    best = f"best {row['best_ccc']:.3f}" if row["best_ccc"] is not None else ""
    spent = format_seconds(row["seconds"]) if "seconds" in row else ""
    memory = f"GPU {row['gpu_bytes'] / 2**30:.1f} GiB" if row.get("gpu_bytes") else ""
    return epochs, f"CCC {now}" if now else "", best, spent, memory


def _one_line(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="ellipsis")


def _failed(failure: Failure) -> str:
    reason = failure.message.splitlines()[0] if failure.message else ""
    return f"{failure.label} ({failure.kind}, try {failure.attempt}): {reason}"


def driver_line(holder: dict[str, Any]) -> str:
    """Who drives the workspace, in a sentence."""
    if not holder:
        return "nobody drives this workspace now; `crossfold run` continues what is left"
    who = f"process {holder.get('pid', '?')} on {holder.get('host', '?')}"
    try:
        heard = datetime.datetime.fromisoformat(str(holder["heartbeat"]))
    except (KeyError, ValueError):
        return f"driven by {who}"
    age = format_seconds(max((datetime.datetime.now(datetime.UTC) - heard).total_seconds(), 0))
    if alive(holder):
        return f"driven by {who}, heard {age} ago"
    return f"{who} drove this workspace and was last heard {age} ago; `crossfold run` takes over"
