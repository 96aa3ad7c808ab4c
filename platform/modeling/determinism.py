"""How exact a cell computes: the `determinism` of its recipe, for as long as the cell runs, and not a moment longer."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from crossfold.platform.core.errors import UserError
from crossfold.platform.core.recipe import Recipe


@contextmanager
def arithmetic(recipe: Recipe, seed: int, device: str = "cpu") -> Iterator[None]:
    """`strict`: same cell, same bytes: one thread, deterministic kernels; `fast`: threads, TF32, quickest kernels.

    Either way the cell draws from generators of its own, begun at `seed`, and the process is left as it was. What
    cannot be strict on a GPU (the backward pass of 3-d pooling) raises torch's `RuntimeError` instead of drifting.
    """
    # torch and cuBLAS read it once a process, at the first product on a GPU, and a strict cell may follow a fast one.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = _settings()
    strict = recipe.determinism == "strict"
    if strict:
        torch.set_num_threads(1)
    torch.use_deterministic_algorithms(strict)
    torch.backends.cudnn.deterministic = strict
    torch.backends.cudnn.benchmark = not strict
    torch.backends.cuda.matmul.allow_tf32 = not strict
    torch.backends.cudnn.allow_tf32 = not strict
    # Sums of bfloat16 products split over blocks are then rounded once, at the end.
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = not strict
    try:
        # A worker may see all GPUs of its node, and has one.
        with torch.random.fork_rng([device] if device.startswith("cuda") else []):
            torch.manual_seed(seed)
            yield
    finally:
        _restore(*before)


def _settings() -> tuple[int, bool, bool, bool, bool, bool, bool]:
    return (
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.cudnn.deterministic,
        torch.backends.cudnn.benchmark,
        torch.backends.cuda.matmul.allow_tf32,
        torch.backends.cudnn.allow_tf32,
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction,
    )


def _restore(
    threads: int, algorithms: bool, kernels: bool, benchmark: bool, products: bool, convolutions: bool, narrow: bool
) -> None:
    torch.use_deterministic_algorithms(algorithms)
    torch.set_num_threads(threads)
    torch.backends.cudnn.deterministic = kernels
    torch.backends.cudnn.benchmark = benchmark
    torch.backends.cuda.matmul.allow_tf32 = products
    torch.backends.cudnn.allow_tf32 = convolutions
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = narrow


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
