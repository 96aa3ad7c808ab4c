"""What cells of each kind cost, as finished ones were measured: seconds, and peak memory of processes and of GPUs.

Each cost lies in one JSON file of the workspace, by cost key. Nothing depends on these files: one that is damaged
counts as empty, and a disk that is full or away stops no launch.
"""

import contextlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic
from typing import Any, Generic, Literal, TypeVar

from filelock import FileLock

from crossfold.platform.core.cell import Cell
from crossfold.platform.core.files import write_json
from crossfold.platform.core.hashing import canonical_json
from crossfold.platform.core.layout import WorkspacePaths
from crossfold.platform.workspace.workspace import Workspace

SAVE_SECONDS = 20.0
"""Between two times that durations of finished cells are saved; a launch that is killed loses no more of them."""

Kind = Literal["device", "process"]
Cost = TypeVar("Cost")


def cost_key(cell: Cell) -> str:
    """What decides the cost of a cell: all of its identity but fold, target and seed."""
    recipe, inner = cell.recipe.identity_json, bool(cell.inner)
    return canonical_json(
        {"system": cell.system, "params": cell.params, "store": cell.store, "recipe": recipe, "inner": inner}
    )


def cost_keys(cells: Iterable[Cell]) -> dict[str, str]:
    """The cost key of each cell, by identity; made once for cells that share their parameters and recipe as objects."""
    made: dict[tuple[object, ...], tuple[Cell, str]] = {}
    found = {}
    for cell in cells:
        shared = (cell.system, id(cell.params), cell.store, id(cell.recipe), cell.inner is None)
        if shared not in made:
            # With the cell, or another object might take the place of one that is gone.
            made[shared] = (cell, cost_key(cell))
        found[cell.cell_id] = made[shared][1]
    return found


@dataclass(frozen=True)
class DurationStats:
    """What is known of the length of one kind of cell, in seconds."""

    probed: float = 0.0
    """What a few timed steps predict; 0 if they were never timed."""
    measured: float = 0.0
    """Mean of finished cells."""
    cells: int = 0
    """How many those are."""

    def with_cells(self, seconds: Sequence[float]) -> "DurationStats":
        """The same with more finished cells."""
        cells = self.cells + len(seconds)
        if not seconds:
            return self
        return DurationStats(self.probed, (self.measured * self.cells + sum(seconds)) / cells, cells)


@dataclass(frozen=True)
class CostFile(Generic[Cost]):
    """One file of costs by cost key, in the workspace."""

    place: Callable[[WorkspacePaths], Path]
    decode: Callable[[Any], Cost]
    encode: Callable[[Cost], Any]

    def read(self, workspace: Workspace) -> dict[str, Cost]:
        """What is known, by cost key."""
        try:
            content = json.loads(self.place(workspace.paths).read_text())
            return {str(key): self.decode(cost) for key, cost in content.items()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return {}

    def update(self, workspace: Workspace, change: Callable[[Mapping[str, Cost]], Mapping[str, Cost]]) -> None:
        """Adds what `change` makes of what is known, under a lock, so that no process loses what another measured."""
        path = self.place(workspace.paths)
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            # A file of its own: the other is replaced by every write.
            with FileLock(path.with_suffix(".lock")):
                known = self.read(workspace)
                write_json(path, {key: self.encode(cost) for key, cost in {**known, **change(known)}.items()})


DURATIONS = CostFile(
    lambda paths: paths.durations,
    lambda facts: DurationStats(float(facts["probed"]), float(facts["measured"]), int(facts["cells"])),
    asdict,
)
"""How long cells take."""
STARTUP = CostFile(lambda paths: paths.startup, float, float)
"""Seconds from the beginning of a launch to its first cell, under `RAY`."""
RAY = "ray"
RAY_SECONDS = 15.0
"""The same for a workspace in which no launch with Ray workers has been timed."""
PEAKS: CostFile[Mapping[Kind, int]] = CostFile(
    lambda paths: paths.memory, lambda peaks: {where: int(peak) for where, peak in dict(peaks).items()}, dict
)
"""The highest peaks of finished cells, in bytes, by where: `device`, `process`."""
GPU_PEAKS = CostFile(lambda paths: paths.gpu_memory, int, int)
"""The most GPU memory that cells held while running, in bytes, as measured so far."""


def startup_seconds(workspace: Workspace) -> float:
    """How long the next launch will take until Ray's workers begin: as long as the last one."""
    return STARTUP.read(workspace).get(RAY, RAY_SECONDS)


def save_startup(workspace: Workspace, seconds: float) -> None:
    """Saves how long a launch took until its first cell began on Ray's workers."""
    STARTUP.update(workspace, lambda known: {RAY: seconds})


class DurationHistory:
    """Collects how long finished cells took while a launch runs."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._pending: dict[str, list[float]] = {}
        self._saved_at = monotonic()

    def finished(self, cell: Cell, seconds: float) -> None:
        """A cell was committed; `seconds`: of its last attempt. Training over all attempts may have taken longer."""
        # At a URL, what another machine committed need not lie here.
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            env = json.loads((self._workspace.paths.cell(cell.cell_id) / "env.json").read_text())
            seconds = max(seconds, float(env["train_seconds"]))
        self._pending.setdefault(cost_key(cell), []).append(seconds)
        if monotonic() - self._saved_at > SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Saves what was collected since the last time."""
        pending, self._pending = self._pending, {}
        self._saved_at = monotonic()
        if pending:
            DURATIONS.update(
                self._workspace,
                lambda known: {key: known.get(key, DurationStats()).with_cells(s) for key, s in pending.items()},
            )


def save_peaks(workspace: Workspace, cells: Sequence[Cell]) -> None:
    """Adds the peaks of the finished ones among `cells` to `PEAKS`."""
    fresh: dict[str, dict[Kind, int]] = {}
    for cell in cells:
        with contextlib.suppress(OSError, ValueError):
            peak = json.loads((workspace.paths.cell(cell.cell_id) / "env.json").read_text()).get("peak_memory")
            if isinstance(peak, dict):
                _raise_to(fresh.setdefault(cost_key(cell), {}), {peak["kind"]: int(peak["bytes"])})
    if fresh:
        PEAKS.update(
            workspace, lambda known: {key: _raise_to(dict(known.get(key, {})), peaks) for key, peaks in fresh.items()}
        )


def format_peaks(peaks: Mapping[Kind, int]) -> str:
    """Peaks of one variant for people, such as `1.2 GiB GPU`; `not measured` where there are none."""
    words: dict[Kind, str] = {"device": "GPU", "process": "process"}
    shown = [f"{_format_bytes(peak)} {words[where]}" for where, peak in sorted(peaks.items())]
    return ", ".join(shown) or "not measured"


def _raise_to(held: dict[Kind, int], peaks: Mapping[Kind, int]) -> dict[Kind, int]:
    """`held` with each peak that is higher than what it holds."""
    held.update({key: max(held.get(key, 0), peak) for key, peak in peaks.items()})
    return held


def _format_bytes(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
