"""Searches in MLflow: a run for each search and, below it, one for each trial, from the records of the workspace."""

import json
import logging
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Any, cast

import pandas as pd

from crossfold.platform.edge.tracking.records import Run, Status
from crossfold.platform.edge.tracking.writer import RunWriter
from crossfold.platform.workspace.documents import read_search
from crossfold.platform.workspace.workspace import Workspace

logger = logging.getLogger(__name__)

STATUS: dict[str, Status] = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}


def search_runs(workspace: Workspace, names: Collection[str] = ()) -> Iterator[Run]:
    """The runs of these searches, by default of all; those of versions that searched one system only have none."""
    for path in sorted(workspace.paths.searches.glob("[!.]*.json")):
        record, table = read_search(path), path.with_suffix(".parquet")
        if "group" in record and table.is_file() and (not names or record["name"] in names):
            yield from _runs(record, pd.read_parquet(table))


def _runs(record: dict[str, Any], trials: pd.DataFrame) -> Iterator[Run]:
    name, study = record["name"], record["study"]
    common = {"search": name, "group": record["group"], "system": record["search"]["system"]}
    common |= {key: str(record[key]) for key in ("corpus", "store")}
    complete = trials[trials["state"] == "complete"]
    winner = _winner(record, complete)
    parent = Run(
        study, name, f"search {name}", "FINISHED",
        common | {"trial": study, "kind": "search", "winner_trial": str(winner)}
        | {f"trials.{state}": str(count) for state, count in record["trials"].items()},
        {"sampler": record["sampler"]["kind"], "scheduler": record["scheduler"]["kind"],
         "objectives": ", ".join(record["objectives"]), "space": json.dumps(record["space"], sort_keys=True)},
        {"best_ccc": record["best_value"]}
        | {f"importance.{row['parameter']}": row["fanova"] for row in record["importance"]}
        | {f"spent.{key}": float(value) for key, value in record["spent"].items()},
    )  # fmt: skip
    yield parent
    objectives = [column for column in trials.columns if str(column).startswith("objective_")]
    for row in cast(list[dict[str, Any]], trials.to_dict("records")):
        number, state = int(row["number"]), str(row["state"])
        params = {key: str(row[key]) for key in record["space"] if key in row and not _missing(row[key])}
        final = {"ccc": row["value"], "epochs": row["epochs"], **{key: row[key] for key in objectives}}
        yield Run(
            f"{study}-{number}", name, f"trial {number}", STATUS[state],
            common | {"trial": f"{study}-{number}", "kind": "trial", "state": state,
                      "winner": "true" if number == winner else "false"},
            params, {key: float(value) for key, value in final.items() if not _missing(value)}, parent=parent,
        )  # fmt: skip


def _winner(record: dict[str, Any], complete: pd.DataFrame) -> int:
    """The number of the first trial with the chosen parameters."""
    chosen = record["best_params"]
    for row in cast(list[dict[str, Any]], complete.to_dict("records")):
        if all(row.get(key) == value for key, value in chosen.items()):
            return int(row["number"])
    return -1


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)


def log_searches(workspace: Workspace, names: Collection[str]) -> None:
    """Logs searches that have ended. Trouble is one warning: `crossfold mlflow sync` writes the same later."""
    try:
        writer = RunWriter(workspace)
        writer.prepare()
        for name in names:
            found = writer.find_runs(f"tags.search = '{name}'")
            for run in search_runs(workspace, (name,)):
                # A question to the store for each of many trials would take minutes.
                writer.write(run if run.key in found else replace(run, fresh=True))
    except Exception as error:
        logger.warning("MLflow: a search could not be logged: %s: %s", type(error).__name__, error)
