"""How exactly a cell computes: the `determinism` of its recipe, for as long as the cell runs."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from crossfold.fusion_models.catalogue import own_title
from crossfold.platform.core.cell import Cell
from crossfold.platform.core.errors import UserError
from crossfold.platform.core.seeds import dropout_seed

_SWITCHES: tuple[tuple[Any, str, bool], ...] = (
    (torch.backends.cudnn, "deterministic", True),
    (torch.backends.cudnn, "benchmark", False),
    (torch.backends.cuda.matmul, "allow_tf32", False),
    (torch.backends.cudnn, "allow_tf32", False),
    # Sums of bfloat16 products split over blocks are then rounded once, at the end.
    (torch.backends.cuda.matmul, "allow_bf16_reduced_precision_reduction", False),
)
"""(owner, name, value of a `strict` cell); a `fast` cell has the opposite."""

_MEMORY: Any = torch.utils.deterministic


@contextmanager
def arithmetic(cell: Cell, device: str = "cpu") -> Iterator[None]:
    """`strict`: same cell, same bytes: one thread, deterministic kernels; `fast`: threads, TF32, quickest kernels.

    Either way the cell draws from generators of its own, and the process is left as it was. What cannot be strict on a
    GPU (the backward pass of 3-d pooling) raises torch's `RuntimeError` instead of drifting.
    """
    # torch and cuBLAS read it once per process, at the first product on a GPU, and a strict cell may follow a fast one.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    strict = cell.recipe.determinism == "strict"
    threads, algorithms = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    fills = _MEMORY.fill_uninitialized_memory
    before = [getattr(owner, name) for owner, name, _ in _SWITCHES]
    if strict:
        torch.set_num_threads(1)
    # As `use_deterministic_algorithms`, which also imports torch's compiler for a second; nothing is compiled here.
    torch.set_deterministic_debug_mode("error" if strict else "default")
    _MEMORY.fill_uninitialized_memory = _may_read_fresh_memory(cell, device)
    for owner, name, value in _SWITCHES:
        setattr(owner, name, value == strict)
    try:
        # A worker may see all GPUs of its node, and has one.
        with torch.random.fork_rng([device] if device.startswith("cuda") else []):
            torch.manual_seed(dropout_seed(cell))
            yield
    finally:
        torch.set_deterministic_debug_mode(algorithms)
        _MEMORY.fill_uninitialized_memory = fills
        torch.set_num_threads(threads)
        for (owner, name, _), value in zip(_SWITCHES, before, strict=True):
            setattr(owner, name, value)


def _may_read_fresh_memory(cell: Cell, device: str) -> bool:
    """Whether anything of a cell may read memory that nothing wrote; then torch fills all of it, which costs time.

    Crossfold's own systems write all they allocate, which tests show on the CPU. Plug-ins, backbones and the kernels of
    GPUs were not shown to.
    """
    return device != "cpu" or bool(cell.recipe.backbones) or own_title(cell.system) is not None


def pick_device(device: str) -> str:
    """`cpu` or `cuda`."""
    there = torch.cuda.is_available()
    if device == "cuda" and not there:
        raise UserError("device cuda: torch sees no GPU here", "use --device cpu")
    return "cuda" if there and device != "cpu" else "cpu"


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
