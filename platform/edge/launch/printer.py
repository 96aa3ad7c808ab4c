"""What `run`, `demo` and `search` print about a launch; nothing where the output must be JSON."""

import os
from collections.abc import Sequence, Set
from pathlib import Path

from crossfold.platform.core.cell import EARLIER_FOLDS, PROTOCOL, SEEN, Cell, changes_since, folds_advice
from crossfold.platform.edge.terminal.console import counted, format_seconds, format_workers, out
from crossfold.platform.edge.terminal.progress import choose_view
from crossfold.platform.scheduling.monitor import FleetSummary, View
from crossfold.platform.workspace.workspace import Workspace
from crossfold.sweeps.launched import Earlier, variant_names
from crossfold.sweeps.prepared import Prepared

MOST_NAMED = 6
"""Skipped variants that are named for each reason; the others are counted."""
MOST_FAILURES = 5
"""Failures that are named at the end of a launch."""


class LaunchPrinter:
    """Says what a launch is about to do, and how it went."""

    def __init__(self, space: Workspace, *, silent: bool) -> None:
        """`silent`: prints nothing."""
        self._space = space
        self._silent = silent

    def view(self, sweeps: Sequence[Prepared]) -> View:
        """Where progress is shown while the cells run, each under the name of its variant."""
        names: dict[str, str] = {}
        for prepared in sweeps:
            named = variant_names(prepared.plan.cells)
            names |= {cell.cell_id: cell.label_of(named[cell.cell_id]) for cell in prepared.plan.cells}
        return choose_view(json=self._silent, names=names)

    def skipped(self, sweeps: Sequence[Prepared]) -> None:
        """Says which variants of the sweeps do not run, and why."""
        reasons: dict[str, list[str]] = {}
        for skipped in (skipped for prepared in sweeps for skipped in prepared.plan.skipped):
            reasons.setdefault(skipped.reason, []).append(skipped.label)
        for reason, labels in reasons.items():
            more = f" and {len(labels) - MOST_NAMED} more" if len(labels) > MOST_NAMED else ""
            self._print(f"skipped {', '.join(labels[:MOST_NAMED])}{more}: {reason}")

    def damaged(self, label: str, damage: str, place: Path) -> None:
        """Says that a finished cell was not what had been committed."""
        self._print(f"damaged {label}: {damage}; it is set aside in {place} and runs again")

    def recomputed(self, prepared: Prepared, earlier: Earlier) -> None:
        """Says which cells of a sweep run again, and why, if they were planned under an earlier protocol."""
        if not earlier.planned:
            return
        protocol, left = earlier.protocol, len(prepared.missing)
        self._print(
            f"{prepared.sweep.name}: {earlier.planned} cell{'s were' if earlier.planned > 1 else ' was'} planned under "
            f"protocol {protocol}, {len(earlier.finished)} of them finished. Today's protocol is {PROTOCOL}: "
            f"{changes_since(protocol)}. So {left} cell{'s are' if left != 1 else ' is'} computed under protocol "
            f"{PROTOCOL}; what has finished stays, and reports show it as protocol {protocol}, never mixed with others"
        )

    def earlier_folds(self, prepared: Prepared) -> None:
        """Says that the store of a sweep numbers its folds as an earlier version did, where that matters."""
        store = prepared.store
        if store.fold_rule == EARLIER_FOLDS and any(cell.fold > 0 for cell in prepared.plan.cells):
            self._print(f"{prepared.sweep.name}: {folds_advice(store.corpus, store.content_hash)}")

    def seen(self, prepared: Prepared) -> None:
        """Says which folds of a sweep were seen when its parameters or recipe were chosen."""
        if folds := prepared.seen:
            named = ", ".join(map(str, folds))
            self._print(f"{prepared.sweep.name}: numbers of fold {named} are marked seen: {SEEN}")

    def nothing_to_run(self, prepared: Prepared, conditions: Sequence[str]) -> None:
        """Says that the cells of a sweep, or those that satisfy the conditions, are done."""
        which = "the chosen cells" if conditions else f"all {len(prepared.plan.cells)} cells"
        self._print(f"{prepared.sweep.name}: {which} are done; nothing to run")

    def begins(self, prepared: Prepared, cells: Sequence[Cell], conditions: Sequence[str]) -> None:
        """Says how many cells of a sweep will run."""
        total, left = len(prepared.plan.cells), len(prepared.missing)
        chosen = f", {len(cells)} of them chosen" if conditions else ""
        name = prepared.sweep.name
        self._print(
            f"{name}: {counted(total, 'cell')}, {total - left} done, {left} to run{chosen} in {self._space}; "
            f"folds by the rule {prepared.store.fold_rule}"
        )

    def mlflow(self) -> None:
        """Says where MLflow shows the launch."""
        server = os.environ.get("MLFLOW_TRACKING_URI")
        self._print(f"MLflow: {server or f'crossfold mlflow ui -w {self._space}'}")

    def ended(self, name: str, summary: FleetSummary, cells: Set[str]) -> None:
        """Says how the launch went. `cells`: identities of those it was to run."""
        self._print(
            f"{name}: {summary.done} done, {summary.failed} failed in {format_seconds(summary.wall_seconds)} on "
            f"{format_workers(summary.workers)}; start-up {format_seconds(summary.startup_seconds)}, "
            f"beyond training {format_seconds(summary.overhead_seconds)}"
        )
        if summary.interrupted:
            self._print("stopped; the same command continues")
        if summary.time_up:
            self._print(f"the time is up, with {counted(summary.cancelled, 'cell')} left; the same command continues")
        unfinished = cells - self._space.finished()
        last = {failure.cell_id: failure for failure in self._space.failures_of() if failure.cell_id in unfinished}
        for failure in list(last.values())[-MOST_FAILURES:] if summary.failed else []:
            self._print(f"  failed ({failure.kind}): {failure.label}: {failure.message}")
            self._print(f"    crossfold why {failure.cell_id}")

    def _print(self, line: str) -> None:
        if not self._silent:
            # A path that is cut into lines cannot be copied.
            out.print(line, soft_wrap=True)
