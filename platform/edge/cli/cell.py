"""What one cell is made of, and computing it again: `crossfold why` and `crossfold rerun`."""

import itertools
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crossfold.platform.core.errors import UserError, did_you_mean
from crossfold.platform.edge.cli import options
from crossfold.platform.edge.terminal.console import emit, format_seconds, out, say

if TYPE_CHECKING:
    from crossfold.platform.core.cell import Cell
    from crossfold.platform.core.outcome import Failure
    from crossfold.platform.workspace.cell_record import CellRecord
    from crossfold.platform.workspace.workspace import Workspace

POST = {
    "train": "fitted on the training clips",
    "fixed": "fixed",
    "oracle": "fitted on the reported labels, as in the papers",
}
MOST_GATES = 12
"""Lines of gates before the rest is left to --json."""


def why(cell: options.CellId, workspace: options.Workspace = None, as_json: options.Json = False) -> None:
    """Show what a number is made of, or why a cell failed or is missing.

    It shows the identity, every score, the machine and the failed attempts.
    """
    space = options.open_workspace(workspace)
    failures = space.failures_of(cell)
    facts = _facts(space, cell, failures)
    if as_json:
        emit({**facts, "failures": [vars(failure) | {"kind": str(failure.kind)} for failure in failures]}, True)
        return
    for key, value in _lines(facts):
        out.print(f"{key}: ", style="bold", end="")
        say(value)
    for failure in failures:
        out.print(f"attempt {failure.attempt}", style="bold red", end="")
        out.print(f" at {failure.at[:19]} UTC, class {failure.kind}:")
        out.print(failure.message)
        out.print(failure.log_tail, style="dim")


def _facts(space: "Workspace", cell: str, failures: Sequence["Failure"]) -> dict[str, Any]:
    """Everything that is known of one cell, as plain data."""
    if any(name.startswith(cell) for name in space.finished()):
        record = space.read(cell)
        return _finished(space, record) | _rerun_command(space, record.cell_id)
    planned = _planned(space)
    found = {failure.cell_id for failure in failures} or {name for name in planned if name.startswith(cell)}
    if not found:
        options.check_is_no_sweep(space, cell)
    known = planned or space.finished()
    if len(found) != 1:
        raise UserError(
            f"{cell!r} begins {len(found) or 'no'} cells of {space}"
            + did_you_mean(cell, known if len(known) < 50 else ()),
            "see `crossfold status`, or the ids in the report",
        )
    (cell_id,) = found
    label, sweep = planned.get(cell_id, (failures[-1].label if failures else cell_id, ""))
    ended = f"failed: {failures[-1].kind}" if failures else "not run yet: no result and no failure on record"
    run = {"run": f"crossfold run {sweep}"} if sweep and not failures else {}
    return {"cell": cell_id, "label": label, "status": ended} | run | _rerun_command(space, cell_id)


def _finished(space: "Workspace", record: "CellRecord") -> dict[str, Any]:
    from crossfold.reports.page.drilldown import mlflow_runs

    env, result = record.env, record.result
    run, page = mlflow_runs(space).get(record.cell_id, (None, ""))
    return {
        "cell": record.cell_id,
        "label": _planned(space).get(record.cell_id, (record.cell.label, ""))[0],
        "status": "done",
        "when": f"{env['finished_at'][:19]} UTC, attempt {env['attempt']}, {format_seconds(env['seconds'])}",
        "identity": record.cell.identity(),
        "result": {"metrics": result["metrics"], "selection": result["selection"], "model": result.get("model")},
        "evaluations": [_shown(entry) for entry in space.evaluations(record)],
        "environment": {key: value for key, value in env.items() if key not in ("finished_at", "attempt", "seconds")},
        "mlflow": {"run_id": run, "page": page + run} if run and page else {"run_id": run},
        "folder": str(record.path),
    }


def _shown(entry: Mapping[str, Any]) -> dict[str, Any]:
    """One evaluation without what only figures need: scores of single videos, bins of gates."""
    columns = (entry["post"] or {}).get("columns", {})
    post = {name: {k: v for k, v in column.items() if k != "videos"} for name, column in columns.items()}
    gates = [{key: value for key, value in gate.items() if key != "bins"} for gate in entry["gates"] or ()]
    return {**entry, "post": post or None, "gates": gates or None}


def _planned(space: "Workspace") -> dict[str, tuple[str, str]]:
    """Label and sweep of every cell that a launched sweep asks for."""
    from crossfold.platform.workspace.documents import read_launched

    found: dict[str, tuple[str, str]] = {}
    for path in sorted(space.paths.sweeps.glob("[!.]*.json")):
        launched = read_launched(path)
        found |= {key: (value["label"], launched["name"]) for key, value in launched["labels"].items()}
    return found


def _lines(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The facts as lines for people."""
    for key, value in facts.items():
        match key:
            case "identity":
                yield from _identity(value)
            case "result":
                yield from _result(value)
            case "evaluations":
                for entry in value:
                    yield from _evaluation(entry)
            case "environment":
                machine, versions = value.get("machine", {}), value.get("versions", {})
                listed = ", ".join(f"{name} {version}" for name, version in versions.items())
                about = f"{machine.get('host')}, {value.get('device')}, python {machine.get('python')}"
                yield "machine", f"{about}, {listed}"
            case "mlflow":
                page = value.get("page") or "crossfold mlflow ui shows it"
                yield key, f"run {value['run_id']}, {page}" if value["run_id"] else "no run; crossfold mlflow sync"
            case _:
                yield key, str(value)


def _identity(identity: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    from crossfold.platform.core.recipe import Recipe
    from crossfold.platform.edge.terminal.recipe_rows import nearest_recipe

    params = ", ".join(f"{key}={value}" for key, value in identity["params"].items())
    yield "system", identity["system"] + (f": {params}" if params else "")
    inner = f", inner fold {identity['inner']['index']} of {identity['inner']['of']}" if "inner" in identity else ""
    targets = "+".join(identity["targets"])
    yield "data", f"{identity['corpus']}-{identity['store']}, fold {identity['fold']}{inner}, {targets}"
    yield "training", f"seed {identity['seed']}, protocol {identity['protocol']}"
    name, changes = nearest_recipe(Recipe.model_validate(identity["recipe"]))
    yield "recipe", name + (f", but {'; '.join(changes)}" if changes else "")


def _result(result: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for target, scores in result["metrics"].items():
        yield (
            target,
            f"CCC {scores['ccc']:.4f} over {scores['frames']} frames; "
            f"mean per video {_format(scores['ccc_video_mean'])}, "
            f"PCC {_format(scores['pcc'])}, RMSE {scores['rmse']:.4f}",
        )
    chosen = result["selection"]
    yield "chosen", f"epoch {chosen['best_epoch']} of {chosen['epochs']}, mean CCC {chosen['best_ccc']:.4f}"


def _evaluation(entry: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """CCC after each chain, under each damage, in each part, and what the gates saw; targets in the order above."""
    for name, column in (entry["post"] or {}).items():
        yield f"post-processing, {POST.get(name, name)}", f"CCC {_cccs(column['metrics'])}"
    damaged = [one for one in entry["stress"] or () if one["used"]]
    for (kind, modality), group in itertools.groupby(damaged, key=lambda one: (one["kind"], one["modality"])):
        yield f"{modality} {kind}", ", ".join(f"{one['strength']:g}: CCC {_cccs(one['metrics'])}" for one in group)
    unused = dict.fromkeys(one["modality"] for one in entry["stress"] or () if not one["used"])
    if unused:
        yield "stress", f"{', '.join(unused)} is not read, so its damage changes nothing"
    if entry["spans"]:
        yield "spans", ", ".join(f"{part}: CCC {_cccs(scores)}" for part, scores in entry["spans"].items())
    gates = entry["gates"] or ()
    for gate in gates[:MOST_GATES]:
        yield (
            f"{gate['gate']} of {gate['modality']}",
            f"against {gate['damage']} ({gate['truth']}): AUROC {_format(gate['auroc'])}, ECE {_format(gate['ece'])}, "
            f"weight {_format(gate['mean_damaged'])} damaged, {_format(gate['mean_clean'])} clean",
        )
    if len(gates) > MOST_GATES:
        yield "gates", f"{len(gates) - MOST_GATES} more with --json"


def _cccs(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    return " and ".join(_format(scores["ccc"]) for scores in metrics.values())


def _format(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"


def rerun(
    cell: options.CellId,
    workspace: options.Workspace = None,
    workers: Annotated[int, typer.Option(min=0, max=10_000, help="0 runs it in this process, without Ray.")] = 0,
    plugin: options.Plugin = None,
) -> None:
    """Compute one finished or failed cell again, and say whether the numbers are the same."""
    from crossfold.fusion_models.catalogue import find_system
    from crossfold.platform.edge.launch.rerun import rerun_cell

    space = options.open_workspace(workspace)
    again, before = _find_cell(space, cell)
    find_system(again.system)
    after = rerun_cell(again, space, workers=workers, plugins=plugin or ())
    if after is None:
        say(f"It did not finish; see `crossfold why {again.cell_id}`.")
        raise typer.Exit(1)
    for target, metrics in after.items():
        was = before[target]["ccc"] if before else None
        same = "" if was is None else " (as before)" if was == metrics["ccc"] else f" (before: {was!r})"
        say(f"{again.label}: {target} CCC {metrics['ccc']:.6f}{same}")


def _find_cell(space: "Workspace", cell: str) -> "tuple[Cell, dict[str, dict[str, float]] | None]":
    """A finished cell with its metrics, or a planned one of a launched sweep."""
    from crossfold.sweeps.launched import find_launched

    if any(name.startswith(cell) for name in space.finished()):
        record = space.read(cell)
        return record.cell, record.result["metrics"]
    planned = find_launched(space, cell)
    if planned is not None:
        return planned, None
    raise UserError(f"no cell {cell!r} in {space}", "see `crossfold status`, or the ids in the report")


def _rerun_command(space: "Workspace", cell_id: str) -> dict[str, str]:
    return {"again": f"crossfold rerun {cell_id} --workspace {shlex.quote(str(space))}"}
