"""What a cell is called in MLflow: its tags, parameters and metrics. Needs no MLflow."""

import datetime
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from crossfold.platform.core.cell import Cell
from crossfold.platform.core.outcome import Failure
from crossfold.platform.workspace.cell_record import CellRecord

FINAL_METRICS = ("ccc", "ccc_video_mean", "pcc", "rmse")
SETTLED = "best_ccc"
"""A run that has this metric has all final ones: they come in one batch."""

FAILURE_TAGS = frozenset({"failure", "failure_message", "attempt", "failed_tries"})
"""Of a try that failed; a finished cell keeps those that still hold."""

Epochs = Mapping[int, Mapping[str, float]]
"""Metrics by step; step n is the n-th finished epoch."""


def cell_tags(cell: Cell) -> dict[str, str]:
    """The axes of a cell."""
    inner = {"inner": f"{cell.inner.index + 1}/{cell.inner.of}"} if cell.inner else {}
    return {
        "kind": "cell",
        "cell_id": cell.cell_id,
        "system": cell.system,
        "corpus": cell.corpus,
        "store": cell.store,
        "fold": str(cell.fold),
        "target": cell.target,
        "seed": str(cell.seed),
        "recipe": cell.recipe.name,
        "protocol": str(cell.protocol),
        "revision": str(cell.revision),
    } | inner


def cell_params(cell: Cell) -> dict[str, str]:
    """Every parameter of the system by name, every field of the recipe as `recipe.<dotted name>`.

    Fields outside the cell's identity, such as the stress battery, are left out: MLflow holds a parameter for ever, and
    the same cell may be looked at in another way later.
    """
    flat = dict(_flatten("", cell.params)) | dict(_flatten("recipe.", cell.recipe.identity()))
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in flat.items()}


def curve_epochs(record: CellRecord) -> Epochs:
    """The training curve as it is logged live: learning rate, training loss, selection CCC of each target."""
    rows = record.curve.drop(columns="epoch").to_dict("records")
    return {
        step: {str(key).replace("ccc_", "selection_ccc_", 1): float(value) for key, value in row.items()}
        for step, row in enumerate(rows, start=1)
    }


def final_metrics(record: CellRecord) -> dict[str, float]:
    """Scores of the reported split for each target, and how the cell came to them."""
    result = record.result
    scores = {
        f"{name}_{target}": values[name]
        for target, values in result["metrics"].items()
        for name in FINAL_METRICS
        if values.get(name) is not None
    }
    extra = {
        "best_epoch": result["selection"]["best_epoch"],
        "epochs": result["selection"]["epochs"],
        SETTLED: result["selection"]["best_ccc"],
        "parameters": result["model"]["parameters"],
        "train_seconds": record.env.get("train_seconds", 0.0),
    }
    return {key: float(value) for key, value in (scores | extra).items()}


def environment_tags(record: CellRecord) -> dict[str, str]:
    """Where the cell ran, and with which versions."""
    versions = {f"version.{name}": str(version) for name, version in record.env.get("versions", {}).items()}
    machine = record.env.get("machine", {})
    facts = {"host": machine.get("host"), "device": record.env.get("device"), "attempt": record.env.get("attempt")}
    return versions | {name: str(value) for name, value in facts.items() if value is not None}


def failure_tags(tries: Sequence[Failure], *, finished: bool = False) -> dict[str, str]:
    """The failed tries of a cell: how many, and of one that is not finished why the last one failed."""
    counted = {"failed_tries": str(len(tries))} if tries else {}
    if finished or not tries:
        return counted
    last = tries[-1]
    return counted | {"failure": str(last.kind), "failure_message": last.message, "attempt": str(last.attempt)}


def finished_at(record: CellRecord) -> int | None:
    """When the cell was committed, in milliseconds since 1970."""
    return milliseconds(record.env.get("finished_at"))


def milliseconds(at: str | None) -> int | None:
    """A time, ISO 8601, as MLflow has it: since 1970."""
    try:
        return int(datetime.datetime.fromisoformat(at).timestamp() * 1000) if at else None
    except ValueError:
        return None


def _flatten(prefix: str, value: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _flatten(f"{prefix}{key}.", inner)
        else:
            yield f"{prefix}{key}", inner
