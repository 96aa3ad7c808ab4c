"""`crossfold power`: how likely a gain is to be seen, from the finished runs of a sweep. Never trains, needs no GPU."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from crossfold.platform.core.errors import UserError, did_you_mean
from crossfold.platform.workspace.workspace import Workspace
from crossfold.reports.all_tables import build_tables, tables_for
from crossfold.reports.results.load import launched_sweeps, load_results
from crossfold.reports.results.model import Results
from crossfold.reports.results.power import TargetPower, sweep_power
from crossfold.reports.tables.claims import judge
from crossfold.reports.tables.published import LEADERBOARD


@dataclass(frozen=True)
class SweepPower:
    """What the finished runs of a sweep say about the power of verdicts."""

    sweep: str
    targets: tuple[TargetPower, ...]
    """One for each setting and target."""
    printed: tuple[dict[str, Any], ...]
    """One for each printed gain that the sweep measures: claim, table, comparison, target, printed_gain, and the chance
    (with low and high) that a true gain of this size would be seen with what the paper ran."""

    def as_dict(self) -> dict[str, Any]:
        """In the form of `--json`."""
        return {
            "sweep": self.sweep,
            "targets": [each.as_dict() for each in self.targets],
            "printed": list(self.printed),
        }


def forecast_power(workspace: Workspace, sweep: str, gain: float, pair: Sequence[str] = ()) -> SweepPower:
    """The power of the verdicts of a finished sweep, for gains in CCC of this size.

    sweep: the name of one that was launched in the workspace. pair: two systems, better and base; without, the typical
    pair of all. Raises `UserError` for an unknown sweep or system, one that is not finished, one system, seed or video,
    and a gain that is not between 0 and 2.
    """
    known = launched_sweeps(workspace)
    if sweep not in known:
        raise UserError(
            f"no sweep {sweep!r} was launched in {workspace}{did_you_mean(sweep, known)}",
            f"run it first: `crossfold run {sweep}`; `crossfold status` shows what was launched",
        )
    results = load_results(workspace).of_sweeps([sweep])
    return SweepPower(sweep, sweep_power(results, gain, pair), _printed(results))


def _printed(results: Results) -> tuple[dict[str, Any], ...]:
    tables = build_tables(results, [name for name in tables_for(results) if name != LEADERBOARD])
    return tuple(
        {
            "claim": verdict.claim.id,
            "table": verdict.claim.table,
            "comparison": line.label,
            "target": line.target,
            "printed_gain": line.printed,
            "chance": line.power.chance,
            "low": line.power.low,
            "high": line.power.high,
        }
        for verdict in judge(results, tables)
        for line in verdict.comparisons
        if line.power
    )
