"""How much memory a cell needs at most: of its GPU, or, on a CPU, of the process that it adds to.

A worker runs many cells, so the peak of its whole life says nothing about one of them. On a GPU torch's count is reset
for each cell. On a CPU the kernel's is, where it is Linux; elsewhere a thread samples it twenty times a second.
"""

import contextlib
import ctypes
import gc
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypedDict

import psutil
import torch

from crossfold.datasets.batches import gpu_cache
from crossfold.platform.execution.cost_history import Kind

SAMPLE_SECONDS = 0.05
"""Between two samples of the process where the kernel keeps no peak."""
_FIELDS = re.compile(r"(VmHWM|RssAnon|RssFile|RssShmem):\s+(\d+) kB")


class Peak(TypedDict):
    """`peak_memory` of `env.json`."""

    bytes: int
    kind: Kind


Measured = Callable[[], Peak | None]
"""The peak since the measurement began; None where it cannot be known."""


@contextlib.contextmanager
def peak_memory(device: str) -> Iterator[Measured]:
    """Measures while the block runs; what it yields may be called at any time within.

    `device`: what torch's tensors took of that GPU, the features that stay there included; without the driver's context
    and without what the allocator keeps in reserve, which depend on the cells before. `process`: private memory beyond
    that of the process when the block began. Mapped pages of a store are shared by all workers and do not count.
    """
    if device.startswith("cuda"):
        # Until then torch keeps no count that could be reset.
        torch.cuda.init()  # type: ignore[no-untyped-call]
        release_cached_memory(device)
        torch.cuda.reset_peak_memory_stats(device)
        yield lambda: {"bytes": int(torch.cuda.max_memory_allocated(device)), "kind": "device"}
        return
    release_cached_memory(device)
    if _reset_high_water():
        before, _ = _private_memory()
        yield lambda: _process(_private_memory()[1], before)
        return
    with _Sampler() as sampler:
        yield sampler.peak


def release_cached_memory(device: str, *, features: bool = False) -> None:
    """Returns unused memory, to the GPU for its other processes, or to the operating system.

    features: also those that stay on the GPU for the next cell.
    """
    if features:
        gpu_cache.clear()
    if device.startswith("cuda"):
        gc.collect()
        torch.cuda.empty_cache()
        return
    # What the heap keeps of the cell before would otherwise hide what this one needs. What is older stays: to walk
    # through every object of the process would take longer than a short cell.
    gc.collect(1)
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _reset_high_water() -> bool:
    """Makes the kernel forget this process's peak; False where there is no such thing."""
    try:
        # 5: of the peak resident set size only.
        Path("/proc/self/clear_refs").write_text("5")
        _private_memory()
    except (OSError, KeyError):
        return False
    return True


def _private_memory() -> tuple[int, int]:
    """Bytes of this process alone, now and at the peak, in which the kernel includes mapped files."""
    status = {name: int(size) * 1024 for name, size in _FIELDS.findall(Path("/proc/self/status").read_text())}
    now = status["RssAnon"] + status.get("RssShmem", 0)
    # Pages of files are read in and hardly ever leave, so those of now are those of the peak.
    return now, max(status["VmHWM"] - status["RssFile"], now)


def _process(peak: int, before: int) -> Peak:
    return {"bytes": max(peak - before, 0), "kind": "process"}


class _Sampler:
    """Samples the resident memory of this process; mapped files count here, and short peaks are missed."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._before = self._most = self._now()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="peak-memory", daemon=True)

    def __enter__(self) -> "_Sampler":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def peak(self) -> Peak | None:
        self._most = max(self._most, self._now())
        return _process(self._most, self._before)

    def _now(self) -> int:
        return int(self._process.memory_info().rss)

    def _sample(self) -> None:
        while not self._over.wait(SAMPLE_SECONDS):
            self._most = max(self._most, self._now())
