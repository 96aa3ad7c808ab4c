"""How many workers share a GPU: from what cells were measured to need, less one whenever that was too much."""

import math
from collections.abc import Iterable, Sequence

from crossfold.platform.core.cell import Cell
from crossfold.platform.core.outcome import FailureClass
from crossfold.platform.execution.cost_history import GPU_PEAKS, cost_key
from crossfold.platform.scheduling.events import Event
from crossfold.platform.workspace.workspace import Workspace

HEADROOM = 0.15
"""Part of a GPU's memory kept free: fragments, other processes, batches larger than those of the probe."""
CONTEXT_BYTES = 600 * 2**20
"""What a process takes of a GPU before its first tensor: driver context, kernels of cuBLAS and cuDNN."""
MOST = 8
"""More processes than this on one GPU wait for each other rather than for memory."""
GRAIN = 10_000
"""Ray counts resources in ten-thousandths."""


def fraction_of(k: int) -> float:
    """What each of k workers asks Ray for: 1/k rounded down to Ray's grain, so that k of them surely fit."""
    return 1.0 if k == 1 else math.floor((1 - 1e-9) * GRAIN / k) / GRAIN


def workers_per_gpu(
    total_bytes: int,
    peak_bytes: Iterable[int],
    *,
    headroom: float = HEADROOM,
    context_bytes: int = CONTEXT_BYTES,
    most: int = MOST,
) -> int:
    """How many workers share each GPU: so many that the variant with the largest need fits as often into the smallest.

    total_bytes: memory of the smallest GPU. peak_bytes: of each variant, what torch held at most; 0 where unknown.
    headroom: part of the memory that stays free. Without any measurement, or if one variant alone is too large, 1.
    """
    known = [peak for peak in peak_bytes if peak > 0]
    if not known or total_bytes <= 0:
        return 1
    fitting = int(total_bytes * (1 - headroom) // (max(known) + context_bytes))
    return min(max(fitting, 1), most)


def smallest_excess(total_bytes: int, k: int) -> int:
    """The smallest peak with which k workers do not fit; 0 for one worker, which has the whole GPU."""
    return int(total_bytes * (1 - HEADROOM) / k) - CONTEXT_BYTES + 1 if k > 1 and total_bytes > 0 else 0


class Sharing:
    """The share of a launch: starts from what earlier launches measured, follows what its own cells need."""

    def __init__(self, total_bytes: int, workspace: Workspace) -> None:
        """total_bytes: memory of the smallest GPU; 0 if unknown, which means one worker a GPU."""
        self._total = total_bytes
        self._workspace = workspace
        self._most = MOST
        self._kinds: dict[str, str] = {}
        """The cost key of each cell, by identity."""
        self._started_under: dict[str, int] = {}
        """How many workers a GPU had when the last attempt at each cell began."""
        self._peaks: dict[str, int] = GPU_PEAKS.read(workspace)
        self.k = 1
        """Workers that share each GPU."""

    def expect(self, cells: Sequence[Cell]) -> None:
        """Announces cells that will run. Before the first one does, what is known of their kinds sets the share."""
        self._kinds |= {cell.cell_id: cost_key(cell) for cell in cells}

    def observe(self, events: Iterable[Event]) -> bool:
        """Learns what cells needed; returns whether the share changed, so that the workers must form a new group."""
        for event in events:
            kind = self._kinds.get(event.cell_id)
            if event.kind == "started":
                self._started_under[event.cell_id] = self.k
            elif event.report is not None and kind is not None and event.report.gpu_bytes > 0:
                self._peaks[kind] = max(self._peaks.get(kind, 0), event.report.gpu_bytes)
            elif event.failure is not None and event.failure.kind == FailureClass.OOM:
                # Several cells that ran out of memory together lower it once.
                k = self._started_under.get(event.cell_id, self.k)
                self._most = min(self._most, max(k - 1, 1))
                if kind is not None:
                    # The next launch shall know too that so many did not fit.
                    self._peaks[kind] = max(self._peaks.get(kind, 0), smallest_excess(self._total, k))
        before, self.k = self.k, self._wanted()
        return self.k != before

    def save(self) -> None:
        """Writes what was measured into the workspace, for the next launch."""
        GPU_PEAKS.update(self._workspace, lambda _: self._peaks)

    def _wanted(self) -> int:
        """Grows only once every kind was measured: a guess that is too high costs every running cell its epoch."""
        peaks = [self._peaks.get(kind, 0) for kind in set(self._kinds.values())]
        return min(workers_per_gpu(self._total, peaks if all(peaks) else ()), self._most)
