"""How exact a cell computes: the `determinism` of its recipe, for as long as the cell runs, and not a moment longer."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from crossfold.platform.config import Recipe


@contextmanager
def arithmetic(recipe: Recipe, seed: int) -> Iterator[None]:
    """`strict`: same cell, same bytes: one thread, deterministic kernels; `fast`: threads, TF32, quickest kernels.

    Either way the cell draws from a generator of its own, begun at `seed`, and the process is left as it was.
    """
    before = _settings()
    strict = recipe.determinism == "strict"
    if strict:
        # cuBLAS reads it when its handle is made; without it torch refuses deterministic products on a GPU.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.set_num_threads(1)
    torch.use_deterministic_algorithms(strict)
    torch.backends.cudnn.benchmark = not strict
    torch.backends.cuda.matmul.allow_tf32 = not strict
    torch.backends.cudnn.allow_tf32 = not strict
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            yield
    finally:
        _restore(*before)


def _settings() -> tuple[int, bool, bool, bool, bool]:
    return (
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.cudnn.benchmark,
        torch.backends.cuda.matmul.allow_tf32,
        torch.backends.cudnn.allow_tf32,
    )


def _restore(threads: int, deterministic: bool, benchmark: bool, products: bool, convolutions: bool) -> None:
    torch.use_deterministic_algorithms(deterministic)
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = benchmark
    torch.backends.cuda.matmul.allow_tf32 = products
    torch.backends.cudnn.allow_tf32 = convolutions
