"""How many workers share a GPU: from what cells were measured to need, less one whenever that was too much."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from crossfold.platform.core.cell import Cell
from crossfold.platform.core.outcome import FailureClass
from crossfold.platform.execution.cost_history import cost_key, known_gpu_peaks, save_gpu_peaks
from crossfold.platform.scheduling.cell_queue import Event
from crossfold.platform.workspace.workspace import Workspace

HEADROOM = 0.15
"""Part of a GPU's memory kept free: fragments, other processes, batches larger than those of the probe."""
CONTEXT_BYTES = 600 * 2**20
"""What a process takes of a GPU before its first tensor: driver context, kernels of cuBLAS and cuDNN."""
MOST = 8
"""More processes than this on one GPU wait for each other rather than for memory."""
GRAIN = 10_000
"""Ray counts resources in ten-thousandths."""


@dataclass(frozen=True)
class GpuShare:
    """`k` workers a GPU."""

    k: int = 1

    @property
    def fraction(self) -> float:
        """What a worker asks Ray for: 1/k rounded down to Ray's grain, so that k of them surely fit."""
        return 1.0 if self.k == 1 else math.floor((1 - 1e-9) * GRAIN / self.k) / GRAIN

    def lowered(self) -> "GpuShare":
        """One worker a GPU less, after cells ran out of its memory; the last one stays."""
        return GpuShare(max(self.k - 1, 1))


def share_for(
    total_bytes: int,
    peak_bytes: Iterable[int],
    *,
    headroom: float = HEADROOM,
    context_bytes: int = CONTEXT_BYTES,
    most: int = MOST,
) -> GpuShare:
    """The share of the smallest GPU that carries the hungriest variant k times.

    total_bytes: memory of the smallest GPU. peak_bytes: of each variant, what torch held at most; 0 where unknown.
    headroom: part of the memory that stays free. Without any measurement, or if one variant alone is too large, 1.
    """
    known = [peak for peak in peak_bytes if peak > 0]
    if not known or total_bytes <= 0:
        return GpuShare(1)
    fitting = int(total_bytes * (1 - headroom) // (max(known) + context_bytes))
    return GpuShare(min(max(fitting, 1), most))


def too_much_for(total_bytes: int, k: int) -> int:
    """The smallest peak of which `share_for` says that k workers do not fit; 0 for one worker, who has all there is."""
    return int(total_bytes * (1 - HEADROOM) / k) - CONTEXT_BYTES + 1 if k > 1 and total_bytes > 0 else 0


class Sharing:
    """The share of a launch: begins with what earlier launches measured, follows what its own cells need."""

    def __init__(self, total_bytes: int, workspace: Workspace) -> None:
        """total_bytes: memory of the smallest GPU; 0 if unknown, which means one worker a GPU."""
        self._total = total_bytes
        self._workspace = workspace
        self._most = MOST
        self._kinds: dict[str, str] = {}
        self._tries: dict[str, int] = {}
        """The workers a GPU had when the last try of each cell began."""
        self._peaks: dict[str, int] = dict(known_gpu_peaks(workspace))
        self._expected: set[str] = set()
        self.share = GpuShare()

    def expect(self, cells: Sequence[Cell]) -> None:
        """Cells that will run. Before the first one does, what is known of their kinds sets the share."""
        for cell in cells:
            self._kinds[cell.cell_id] = cost_key(cell)
        self._expected |= {self._kinds[cell.cell_id] for cell in cells}

    def listen(self, events: Iterable[Event]) -> bool:
        """Takes in what cells needed; says whether the share changed, and with it the group of workers must."""
        for event in events:
            kind = self._kinds.get(event.cell_id)
            if event.kind == "started":
                self._tries[event.cell_id] = self.share.k
            elif event.report is not None and kind is not None and event.report.gpu_bytes > 0:
                self._peaks[kind] = max(self._peaks.get(kind, 0), event.report.gpu_bytes)
            elif event.failure is not None and event.failure.kind == FailureClass.OOM:
                # Several cells that ran out of memory together lower it once.
                held = self._tries.get(event.cell_id, self.share.k)
                self._most = min(self._most, max(held - 1, 1))
                if kind is not None:
                    # The next launch shall know too that so many did not fit.
                    self._peaks[kind] = max(self._peaks.get(kind, 0), too_much_for(self._total, held))
        wanted = self._wanted()
        changed, self.share = wanted != self.share, wanted
        return changed

    def keep(self) -> None:
        """Writes what was measured down, for the next launch."""
        save_gpu_peaks(self._workspace, self._peaks)

    def _wanted(self) -> GpuShare:
        """Grows only once every kind was measured: a guess that is too high costs every running cell its epoch."""
        peaks = [self._peaks.get(kind, 0) for kind in self._expected]
        share = share_for(self._total, peaks if all(peaks) else ())
        return GpuShare(min(share.k, self._most))
