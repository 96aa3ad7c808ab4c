"""What a workspace keeps for trackers in addition to cells and failures: launches, and epochs of unfinished cells."""

import contextlib
import json
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from crossfold.platform.core.cell import Cell
from crossfold.platform.core.files import utc_now, write_json
from crossfold.platform.workspace.documents import Listing, read_document
from crossfold.platform.workspace.workspace import Workspace


@dataclass(frozen=True)
class Launch:
    """One launch of a sweep, in `launches/` of the workspace."""

    sweep: str
    count: int
    """Cells it began with."""
    cells: tuple[str, ...]
    """Identities of those, of cells added later, and of cells that it logged and that no launch had asked for."""
    launch_id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    at: str = field(default_factory=utc_now)
    ended: str | None = None
    """None while it runs, and for ever if its driver was killed."""

    @property
    def name(self) -> str:
        """For people: the sweep, and when, to the second."""
        return f"{self.sweep} {self.at[:19].replace('T', ' ')}"


def save_launch(workspace: Workspace, launch: Launch) -> None:
    """Writes the file of a launch, over an earlier one."""
    write_json(workspace.paths.launches / f"{launch.launch_id}.json", asdict(launch))


def launches(workspace: Workspace) -> list[Launch]:
    """All launches, oldest first."""
    found = []
    for content in _read(workspace.paths.launches):
        with contextlib.suppress(TypeError, KeyError):
            found.append(Launch(**content | {"cells": tuple(content["cells"])}))
    return sorted(found, key=lambda launch: (launch.at, launch.launch_id))


class LaunchIndex:
    """Which launch computed what, by the launches of a workspace as they stand now."""

    def __init__(self, known: Sequence[Launch]) -> None:
        """`known`: oldest first."""
        self._by_cell: dict[str, list[Launch]] = {}
        for launch in known:
            for cell_id in launch.cells:
                self._by_cell.setdefault(cell_id, []).append(launch)

    def of(self, cell_id: str, at: str) -> Launch | None:
        """The last launch with this cell that had begun when something happened to it; else the first with it."""
        having = self._by_cell.get(cell_id, [])
        before = [launch for launch in having if launch.at <= at]
        return before[-1] if before else having[0] if having else None

    def having(self, cell_id: str) -> Launch:
        """The first launch with this cell; raises `KeyError` where there is none."""
        return self._by_cell[cell_id][0]


def assign_launches(workspace: Workspace, cell_ids: Iterable[str]) -> None:
    """Gives cells that no launch has, as after a merge, one for each sweep; it ended when it began."""
    listed_by: dict[str, str] = {}
    for folder in (workspace.paths.sweeps, workspace.paths.searches):
        for path in sorted(folder.glob("[!.]*.json")):
            listing = read_document(path, Listing, "delete it; the next launch of its sweep or search writes it again")
            listed_by = dict.fromkeys(listing.get("cells", ()), listing["name"]) | listed_by
    sweeps: dict[str, list[str]] = {}
    for cell_id in cell_ids:
        sweeps.setdefault(listed_by.get(cell_id, "cells"), []).append(cell_id)
    now = utc_now()
    for sweep, members in sweeps.items():
        save_launch(workspace, Launch(sweep, len(members), tuple(members), at=now, ended=now))


@dataclass(frozen=True)
class Unfinished:
    """A cell that was begun, in `unfinished/` of the workspace until it lies in `cells/`."""

    cell: Cell
    sweep: str
    """Of the launch that began it first."""
    launch_id: str = ""
    """Of the launch that worked on it last."""
    epochs: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    """What each finished epoch reported, by its number."""


def save_unfinished(workspace: Workspace, unfinished: Unfinished) -> None:
    """Saves the epochs of a cell that is not finished."""
    content = {
        "cell": unfinished.cell.model_dump(mode="json"),
        "sweep": unfinished.sweep,
        "launch": unfinished.launch_id,
        # As text: JSON has no infinity, and a training that diverges has.
        "epochs": {step: {key: repr(value) for key, value in at.items()} for step, at in unfinished.epochs.items()},
    }
    write_json(workspace.paths.unfinished / f"{unfinished.cell.cell_id}.json", content)


def unfinished_cell(workspace: Workspace, cell_id: str) -> Unfinished | None:
    """What was saved of one cell; None if nothing was."""
    return next(_parsed(workspace.paths.unfinished.glob(f"{cell_id}.json")), None)


def unfinished_cells(workspace: Workspace) -> list[Unfinished]:
    """All cells that were begun and not finished."""
    finished = workspace.finished()
    return list(
        _parsed(path for path in sorted(workspace.paths.unfinished.glob("[!.]*.json")) if path.stem not in finished)
    )


def delete_unfinished(workspace: Workspace, cell_ids: Iterable[str]) -> None:
    """Removes what was saved of cells that are finished by now."""
    for cell_id in cell_ids:
        with contextlib.suppress(OSError):
            (workspace.paths.unfinished / f"{cell_id}.json").unlink(missing_ok=True)


def _parsed(paths: Iterable[Path]) -> Iterator[Unfinished]:
    for path in paths:
        with contextlib.suppress(OSError, ValueError, KeyError, AttributeError, TypeError):
            content = json.loads(path.read_text(encoding="utf-8"))
            epochs = {
                int(step): {key: float(value) for key, value in at.items()} for step, at in content["epochs"].items()
            }
            cell = Cell.model_validate(content["cell"])
            yield Unfinished(cell, str(content["sweep"]), str(content["launch"]), epochs)


def _read(folder: Path) -> Iterator[dict[str, Any]]:
    for path in folder.glob("[!.]*.json"):
        with contextlib.suppress(OSError, ValueError):
            yield json.loads(path.read_text(encoding="utf-8"))
