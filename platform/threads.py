"""One thread at a time, where the number of threads would decide the last bit."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread, and on a GPU no choice among kernels: sums in one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    flags: Any = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    try:
        with flags:
            yield
    finally:
        torch.set_num_threads(before)
