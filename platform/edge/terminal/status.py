"""What `crossfold status` shows: the state of sweeps, what runs and what failed, read from files alone.

Everything comes from the workspace, so it works on any machine that can read it, and needs neither Ray nor the driver.
"""

import datetime
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from crossfold.platform.core.cell import EARLIER_FOLDS, folds_advice
from crossfold.platform.core.errors import DataError, UserError, did_you_mean
from crossfold.platform.core.outcome import Failure
from crossfold.platform.edge.terminal.console import format_seconds
from crossfold.platform.edge.terminal.progress import headline, reason_of, running_cells
from crossfold.platform.workspace.documents import LaunchedCells, read_launched
from crossfold.platform.workspace.driver_lease import alive, driver_of
from crossfold.platform.workspace.store_cache import fold_rule_of
from crossfold.platform.workspace.workspace import Workspace

FRESH_SECONDS = 30.0
"""A driver writes its state every second; an older state was left by a driver that has ended."""
FAILURES = 5
"""The most failed cells that are shown."""


@dataclass(frozen=True)
class Status:
    """A workspace at one moment."""

    launched: dict[str, dict[str, Any]]
    """What each launched sweep asks for, by name, as it lies in `sweeps/`."""
    states: dict[str, str]
    """done, running, failed or to_run, by cell."""
    launches: list[dict[str, Any]]
    """The states (`Progress.snapshot`) of drivers that run these sweeps now."""
    failures: list[Failure]
    """The last failed attempt of each failed cell, oldest first."""
    driver: dict[str, Any]
    """The lease of the driver; empty if no run is active."""
    advice: tuple[str, ...] = ()
    """What a user should know of the stores of these sweeps."""

    @property
    def sweeps(self) -> list[dict[str, Any]]:
        """A row for each launched sweep: sweep, corpus, cells, done, running, failed, to_run."""
        rows = []
        for name, asked in self.launched.items():
            counts = Counter(self.states[cell_id] for cell_id in set(asked["cells"]))
            row = {"sweep": name, "corpus": asked["corpus"], "cells": counts.total()}
            rows.append(row | {state: counts[state] for state in ("done", "running", "failed", "to_run")})
        return rows

    @property
    def over(self) -> bool:
        """Whether nothing is left to run."""
        return set(self.states.values()) <= {"done", "failed"}


def read_status(space: Workspace, sweep: str | None = None) -> Status:
    """The state of one launched sweep, or of all. Raises `UserError` with the nearest name for an unknown one."""
    space.refresh()
    # A name with a dot at its beginning is still being written.
    names = sorted(path.stem for path in space.paths.sweeps.glob("[!.]*.json"))
    if sweep is not None:
        sweep = Path(sweep).stem
        if sweep not in names:
            raise UserError(f"no sweep {sweep!r} was launched in {space}{did_you_mean(sweep, names)}", "crossfold run")
        names = [sweep]
    launched = {name: read_launched(space.paths.sweeps / f"{name}.json", LaunchedCells) for name in names}
    launches = [state for state in _fresh_states(space) if set(state["sweep"].split("+")) & set(names)]
    states = dict.fromkeys((cell_id for asked in launched.values() for cell_id in asked["cells"]), "to_run")
    failures = {failure.cell_id: failure for failure in space.failures_of()}
    running = {row["cell_id"] for state in launches for row in state["running"]}
    # The last state wins: a failed cell may have finished since, or run again.
    for state, cell_ids in (("failed", failures.keys()), ("done", space.finished()), ("running", running)):
        states |= dict.fromkeys(states.keys() & cell_ids, state)
    failed = [failure for cell_id, failure in failures.items() if states.get(cell_id) == "failed"]
    advice = _folds_advice(space, list(launched.values()))
    return Status(launched, states, launches, failed, driver_of(space), advice)


def _folds_advice(space: Workspace, sweeps: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """A sentence about each store whose folds are numbered as in earlier versions, where folds beyond 0 are used."""
    stores = {
        (str(sweep["corpus"]), str(sweep["store"]), str(sweep.get("fold_rule", "")))
        for sweep in sweeps
        if "store" in sweep and any(label.get("fold") not in (None, 0) for label in sweep["labels"].values())
    }
    return tuple(
        folds_advice(corpus, store)
        for corpus, store, rule in sorted(stores)
        if (rule or fold_rule_of(space.paths.store(corpus, store))) == EARLIER_FOLDS
    )


def cell_rows(space: Workspace, sweep: str | None = None) -> list[dict[str, Any]]:
    """A row for each cell of one launched sweep, or of all: cell, label, sweep, state, epoch and mean CCC if known."""
    status = read_status(space, sweep)
    running = {row["cell_id"]: row for state in status.launches for row in state["running"]}
    kinds = {failure.cell_id: failure.kind for failure in status.failures}
    rows: dict[str, dict[str, Any]] = {}
    for name, asked in status.launched.items():
        for cell_id in asked["cells"]:
            state, epoch, ccc = status.states[cell_id].replace("_", " "), None, None
            if state == "running":
                epoch, ccc = running[cell_id]["epoch"], running[cell_id]["best_ccc"]
            elif state == "failed":
                state = f"failed: {kinds[cell_id]}"
            elif state == "done":
                try:
                    selection = space.read_exactly(cell_id).result["selection"]
                    epoch, ccc = selection["best_epoch"], selection["best_ccc"]
                except DataError:
                    state = "damaged"
            row = {"cell": cell_id, "label": asked["labels"][cell_id]["label"], "sweep": name}
            # A cell that several sweeps ask for stands under the first.
            rows.setdefault(cell_id, row | {"state": state, "epoch": epoch, "ccc": ccc})
    return list(rows.values())


def _fresh_states(space: Workspace) -> Iterator[dict[str, Any]]:
    for path in sorted(space.paths.status.glob("[!.]*.json")):
        # The driver may replace or remove the file at any moment.
        try:
            if time.time() - path.stat().st_mtime <= FRESH_SECONDS:
                yield json.loads(path.read_text())
        except (OSError, ValueError):
            continue


def picture(status: Status) -> RenderableType:
    """Sweeps with bars, running cells, the last failures, and the driver."""
    columns = ("sweep", "corpus", "cells", "done", "running", "failed", "to_run")
    table = Table(title="Sweeps", title_justify="left", header_style="bold")
    for column in columns:
        table.add_column(column.replace("_", " "), justify="left" if column in ("sweep", "corpus") else "right")
    table.add_column("", min_width=6, max_width=16)
    for row in status.sweeps:
        bar = ProgressBar(total=max(row["cells"], 1), completed=row["done"] + row["failed"])
        table.add_row(*(str(row[column]) for column in columns), bar)
    parts: list[RenderableType] = [table]
    for state in status.launches:
        if state["running"]:
            parts += [Text(headline(state)), running_cells(state)]
    if status.failures:
        parts.append(Text(f"{len(status.failures)} failed, the last ones:", style="bold red"))
        for failure in status.failures[-FAILURES:]:
            line = f"  {failure.label} ({failure.kind}, attempt {failure.attempt}): {reason_of(failure)}"
            parts.append(Text(line, no_wrap=True, overflow="ellipsis"))
        parts.append(Text("  crossfold why CELL shows the log", style="dim"))
    parts += [Text(f"note: {sentence}") for sentence in status.advice]
    return Group(*parts, Text(driver_line(status.driver, left=not status.over), style="dim"))


def driver_line(holder: dict[str, Any], *, left: bool = True) -> str:
    """A sentence about the driver of the workspace; `left`: whether cells are left to run."""
    if not holder:
        return "No run is active; `crossfold run` continues what is left." if left else "No run is active."
    who = f"process {holder.get('pid', '?')} on {holder.get('host', '?')}"
    try:
        beat = datetime.datetime.fromisoformat(str(holder["heartbeat"]))
    except (KeyError, ValueError):
        return f"A run is active: {who}."
    age = format_seconds(max((datetime.datetime.now(datetime.UTC) - beat).total_seconds(), 0))
    if alive(holder):
        return f"A run is active: {who}, last heartbeat {age} ago."
    return f"No run is active: {who} sent its last heartbeat {age} ago; `crossfold run` continues what is left."
