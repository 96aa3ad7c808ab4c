"""Who runs the cells of a launch: one object, passed on from the command line to each worker."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from crossfold.platform.core.cell import Cell
from crossfold.platform.core.outcome import Outcome, Reporter
from crossfold.platform.scheduling.cell_queue import QueueLimits
from crossfold.platform.workspace.workspace import Workspace

ATTEMPT_CELL = "crossfold.platform.execution.run_cell:attempt_cell"


class CellRunner(Protocol):
    """Runs one cell and commits it to the workspace; never raises for trouble of the cell."""

    def __call__(
        self, cell: Cell, workspace: Workspace, *, reporter: Reporter, attempt: int = 1, device: str = "cpu"
    ) -> Outcome: ...


@dataclass(frozen=True)
class FleetOptions:
    """What may be chosen about the workers of a launch."""

    workers: int | None = None
    """None: one for each core, or for each share of a GPU; 0: no Ray, the cells run in this process.

    On a cluster that others started it is the most there will be, as workers come and go with its nodes.
    """
    address: str | None = None
    """Of a running Ray cluster; None: that of the Ray job this process is part of, else a cluster of our own."""
    use_gpu: bool | None = None
    """None: if there is a GPU."""
    gpu_bytes: int | None = None
    """Memory of the smallest GPU; None: a Ray task finds it."""
    device: str | None = None
    """Of the tensors; None: the GPU that Ray gave to the worker, or the CPU."""
    threads: int = 1
    """Torch threads of each worker, a core for each."""
    plugins: Sequence[Path] = ()
    """Files that register systems; each worker loads them as well."""
    runner: str | CellRunner = ATTEMPT_CELL
    """Runs one cell: a function, or the name of one as `package.module:function`."""
    limits: QueueLimits = field(default_factory=QueueLimits)
    patience_seconds: float = 180.0
    """The launch fails when no worker was heard for so long; on a cluster of others, for three times as long."""
    resize_seconds: float = 30.0
    """Seconds between two searches of the fleet for new nodes of a cluster."""
    stop_after: float | None = None
    """Seconds after which no cell starts any more, and running ones stop at the end of their epoch."""

    def __post_init__(self) -> None:
        # Workers have working folders of their own.
        object.__setattr__(self, "plugins", tuple(plugin.resolve() for plugin in self.plugins))

    @property
    def cluster(self) -> str | None:
        """Address of the cluster to join; None: one of our own is started."""
        address = self.address or os.environ.get("RAY_ADDRESS")
        return None if address in ("", "local") else address
