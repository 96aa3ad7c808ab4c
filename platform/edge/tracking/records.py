"""What MLflow should hold of a workspace: the run of each launch and each cell, as a function of the records there.

Live logging and `crossfold mlflow sync` write what stands here and nothing else. Needs no MLflow.
"""

import datetime
import hashlib
import json
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from crossfold.platform.core.cell import SEEN, Cell
from crossfold.platform.core.outcome import Failure
from crossfold.platform.workspace.cell_record import CellRecord
from crossfold.platform.workspace.documents import seen_cells
from crossfold.platform.workspace.launches import Launch, LaunchIndex, Unfinished, launches, unfinished_cell
from crossfold.platform.workspace.workspace import Workspace

_REFUSED = re.compile(r"[^\w.\- :/]")
_LONGEST_NAME = 200  # characters; MLflow takes 250
FINAL_METRICS = ("ccc", "ccc_video_mean", "pcc", "rmse")
GIT_COMMIT = "mlflow.source.git.commit"
"""The tag that MLflow's own pages show as the version of the code."""
Epochs = Mapping[int, Mapping[str, float]]
"""Metrics by step; step n is the n-th finished epoch."""


Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]


@dataclass(frozen=True)
class Run:
    """What one run should hold, or holds; times are milliseconds since 1970, and None where no record says them."""

    key: str
    """Identity of the cell or of the launch."""
    experiment: str
    """Name of the sweep in which a new run is made."""
    name: str
    status: Status
    tags: Mapping[str, str]
    params: Mapping[str, str] = field(default_factory=dict)
    final: Mapping[str, float] = field(default_factory=dict)
    """Metrics of a finished cell, at step 0."""
    epochs: Epochs = field(default_factory=dict)
    """Of a finished cell its curve is read instead."""
    record: CellRecord | None = None
    """Of a finished cell, whose files are artifacts."""
    dataset: tuple[str, str] | None = None
    """Of a cell: its corpus, and the hash of the feature store that it trains on."""
    parent: "Run | None" = None
    """The launch of a cell."""
    began: int | None = None
    ended: int | None = None
    fresh: bool = False
    """Whether no earlier launch had it, so that no store needs to be searched for it."""


@dataclass
class LiveCell:
    """A cell of which this process knows more than the workspace."""

    note: Unfinished
    state: Literal["running", "failed", "finished", "stopped"] = "stopped"
    failure: Failure | None = None
    """Of the last attempt; the failure log may lack it, as when the disk is full."""
    changed: bool = True
    """Whether it was not written since."""
    began: int | None = None
    """When its first attempt in this process began, in milliseconds since 1970."""


class Records:
    """The records of one workspace, and what this process knows beyond them, read as runs."""

    def __init__(
        self, workspace: Workspace, current: Launch | None = None, live: Mapping[str, LiveCell] | None = None
    ) -> None:
        """`current`: the launch that this process runs; `live`: its cells by identity, followed as they change."""
        self.workspace, self.current, self.live = workspace, current, {} if live is None else live
        # A full disk may have kept the file of the current launch from being written.
        known = [*launches(workspace), *([current] if current else [])]
        self.launches = {launch.launch_id: launch for launch in known}
        self._index = LaunchIndex(list(self.launches.values()))

    def find(self, key: str) -> Run:
        """The run of a launch or a cell, by identity. Raises `DataError` for a damaged cell."""
        if key in self.launches:
            return self._launch(self.launches[key])
        # A worker of another machine may have finished a cell that is not here yet, so the live state comes first.
        live = self.live.get(key)
        if live.state == "finished" if live else self.workspace.paths.cell(key).is_dir():
            return self._finished(key)
        if live is None and (note := unfinished_cell(self.workspace, key)):
            live = LiveCell(note)
        return self._unfinished(key, live)

    def orphaned(self, cell_ids: Iterable[str]) -> list[str]:
        """Those of some cells that no launch has."""
        return [cell_id for cell_id in cell_ids if self._index.of(cell_id, "") is None]

    def _launch(self, launch: Launch) -> Run:
        """One without an end that this process does not run was killed."""
        here = launch is self.current
        tags = {"kind": "launch", "launch": launch.launch_id, "cells": str(launch.count)}
        return Run(
            launch.launch_id, launch.sweep, launch.name,
            "FINISHED" if launch.ended else "RUNNING" if here else "KILLED", tags,
            began=milliseconds(launch.at), ended=milliseconds(launch.ended), fresh=here,
        )  # fmt: skip

    def _finished(self, cell_id: str) -> Run:
        """It belongs to the launch that committed it."""
        record = self.workspace.read_exactly(cell_id)
        cell, at = record.cell, str(record.env.get("finished_at", ""))
        launch = self._index.of(cell_id, at)
        tags = cell_tags(cell) | environment_tags(record)
        tags |= failure_tags(self.workspace.failures_of(cell_id), finished=True) | self._seen_tags(cell_id)
        ended, seconds = milliseconds(at), float(record.env.get("seconds") or record.env.get("train_seconds") or 0)
        return Run(
            cell_id, launch.sweep if launch else "", cell.label, "FINISHED", tags, cell_params(cell),
            final_metrics(record), record=record, dataset=(cell.corpus, cell.store), parent=self._parent(launch),
            began=ended and ended - round(1000 * seconds), ended=ended, fresh=self._is_fresh(cell_id),
        )  # fmt: skip

    def _unfinished(self, cell_id: str, live: LiveCell | None) -> Run:
        """It runs in this process now, its last attempt failed, or it was killed. live: None if its note is lost."""
        failures = self.workspace.failures_of(cell_id) or ([live.failure] if live and live.failure else [])
        running = live is not None and live.state == "running"
        status: Status = "RUNNING" if running else "FAILED" if failures else "KILLED"
        tags, at = failure_tags(failures), failures[-1].at if status == "FAILED" else ""
        if live is None:
            return Run(cell_id, "", "", status, tags, ended=milliseconds(at))
        cell, last = live.note.cell, self.launches.get(live.note.launch_id)
        tags |= self._seen_tags(cell_id)
        launch = self._index.of(cell_id, at) if at or not last else last
        return Run(
            cell_id, live.note.sweep, cell.label, status, cell_tags(cell) | tags, cell_params(cell),
            epochs=live.note.epochs, dataset=(cell.corpus, cell.store), parent=self._parent(launch),
            began=live.began, ended=milliseconds(at), fresh=self._is_fresh(cell_id),
        )  # fmt: skip

    def _seen_tags(self, cell_id: str) -> dict[str, str]:
        """A tag of a cell whose reported clips were seen when its parameters or recipe were chosen."""
        return {"seen": SEEN} if cell_id in self._seen else {}

    @cached_property
    def _seen(self) -> frozenset[str]:
        return seen_cells(self.workspace.paths)

    def _is_fresh(self, cell_id: str) -> bool:
        return self.current is not None and self._index.of(cell_id, "") is self.current

    def _parent(self, launch: Launch | None) -> Run | None:
        return self._launch(launch) if launch else None


def cell_tags(cell: Cell) -> dict[str, str]:
    """The axes of a cell."""
    axes = ("cell_id", "system", "corpus", "store", "fold", "target", "seed", "protocol", "revision")
    tags = {name: str(getattr(cell, name)) for name in axes} | {"kind": "cell", "recipe": cell.recipe.name}
    return tags | ({"inner": f"{cell.inner.index + 1}/{cell.inner.of}"} if cell.inner else {})


def cell_params(cell: Cell) -> dict[str, str]:
    """The axes that MLflow's charts compare, each parameter of the system, each field of the recipe as `recipe.<name>`.

    Fields outside the cell's identity, such as the stress suite, are left out: MLflow never lets a parameter change,
    and the same cell may be evaluated in another way later.
    """
    flat = dict(_flatten("", cell.params)) | dict(_flatten("recipe.", cell.recipe.identity()))
    flat |= {name: str(getattr(cell, name)) for name in ("system", "corpus", "fold", "target", "seed")}
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in flat.items()}


def curve_epochs(record: CellRecord) -> Epochs:
    """The training curve as it is logged live: learning rate, training loss, selection CCC of each target."""
    rows = record.curve.drop(columns="epoch").rename(columns=lambda name: name.replace("ccc_", "selection_ccc_", 1))
    steps: list[Any] = rows.astype(float).to_dict("records")
    return dict(enumerate(steps, start=1))


def final_metrics(record: CellRecord) -> dict[str, float]:
    """Scores of the reported split for each target, the selected epoch, and the cost of the cell."""
    found = {
        f"{name}_{target}": values.get(name)
        for target, values in record.result["metrics"].items()
        for name in FINAL_METRICS
    }
    found |= {name: record.result["selection"][name] for name in ("best_epoch", "epochs", "best_ccc")}
    found["parameters"] = record.result["model"]["parameters"]
    found["train_seconds"] = record.env.get("train_seconds", 0.0)
    return {key: float(value) for key, value in found.items() if value is not None}


def metric_name(name: str) -> str:
    """The name under which MLflow takes a metric, such as `ccc_pain _0-10__1f0c` for `ccc_pain [0-10]`.

    MLflow refuses most marks, and names that are no plain paths. A name that has to change gets four digits of its
    hash, so that two names never become one; a tag `metric.<name>` of the run holds the true one.
    """
    plain = _REFUSED.sub("_", name)[:_LONGEST_NAME]
    if posixpath.normpath(plain) != plain or plain.startswith(("..", "/")):
        plain = plain.replace("/", "_").strip(".") or "_"
    return plain if plain == name else f"{plain}_{hashlib.sha256(name.encode()).hexdigest()[:4]}"


def environment_tags(record: CellRecord) -> dict[str, str]:
    """The machine on which the cell ran, and its versions."""
    found = {f"version.{name}": version for name, version in record.env.get("versions", {}).items()}
    found |= {"host": record.env.get("machine", {}).get("host")}
    found |= {name: record.env.get(name) for name in ("device", "attempt")}
    found |= {GIT_COMMIT: record.env.get("code", {}).get("commit")}
    return {name: str(value) for name, value in found.items() if value is not None}


FAILURE_TAGS = frozenset({"failure", "failure_message", "attempt", "failed_tries"})
"""A run loses those of them that no longer hold."""


def failure_tags(failures: Sequence[Failure], *, finished: bool = False) -> dict[str, str]:
    """The failed attempts at a cell: how many, and why the last one failed if the cell is not finished."""
    if not failures:
        return {}
    last, count = failures[-1], {"failed_tries": str(len(failures))}
    reason = {"failure": str(last.kind), "failure_message": last.message, "attempt": str(last.attempt)}
    return count if finished else count | reason


def milliseconds(at: str | None) -> int | None:
    """A time, ISO 8601, as MLflow has it: since 1970."""
    try:
        return int(datetime.datetime.fromisoformat(at).timestamp() * 1000) if at else None
    except ValueError:
        return None


def _flatten(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, Mapping):
        yield prefix[:-1], value
        return
    for key, inner in value.items():
        yield from _flatten(f"{prefix}{key}.", inner)
