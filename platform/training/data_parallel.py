"""One of several processes that train a cell together, each on its share of every batch (`devices` of a recipe).

The processes hold the same weights and take the same steps: gradients are summed over them, the first one validates,
reports and commits, and what it finds out, errors included, reaches the others. Alone, nothing of this costs anything.
"""

import pickle
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

T = TypeVar("T")


class ProcessGroup:
    """This process among those that share a cell. With a `world` of 1, every method does nothing or the plain thing."""

    def __init__(self, rank: int = 0, world: int = 1) -> None:
        """For a `world` above 1 a process group of that size must have been set up."""
        self.rank = rank
        self.world = world

    @property
    def first(self) -> bool:
        """Whether this one validates, reports, writes checkpoints and commits."""
        return self.rank == 0

    def shard(self, chosen: np.ndarray) -> np.ndarray:
        """Every `world`-th window of a batch. May be empty."""
        return chosen[self.rank :: self.world]

    def total(self, value: Tensor) -> Tensor:
        """Sum over all processes."""
        if self.world > 1:
            dist.all_reduce(value)
        return value

    def sum_gradients(self, parameters: Sequence[nn.Parameter], windows: int) -> None:
        """Replaces each gradient by its sum over all processes; one that no process has stays absent.

        windows: of the whole batch.
        """
        if self.world == 1:
            return
        learning = [p for p in parameters if p.requires_grad]
        held = [p for p in learning if p.grad is not None]
        if windows < self.world:
            # A process whose share of the batch is empty has no gradients, and must send as many numbers as the
            # others. In any other batch all of them have the same ones, and no host waits for its device to say so.
            had = torch.tensor([p.grad is not None for p in learning], dtype=torch.int32, device=learning[0].device)
            dist.all_reduce(had, op=dist.ReduceOp.MAX)
            held = [p for p, any_had in zip(learning, had.tolist(), strict=True) if any_had]
        for dtype in {p.dtype for p in held}:
            alike = [p for p in held if p.dtype == dtype]
            flat = torch.cat([torch.zeros_like(p).ravel() if p.grad is None else p.grad.ravel() for p in alike])
            dist.all_reduce(flat)
            for p, part in zip(alike, torch.split(flat, [p.numel() for p in alike]), strict=True):
                p.grad = part.view_as(p).clone()

    def broadcast(self, compute: Callable[[], T]) -> T:
        """What the first process computes, or raises, for all of them."""
        if self.world == 1:
            return compute()
        answer: list[Any] = [None, None]
        if self.first:
            try:
                answer[0] = compute()
            except Exception as error:  # whatever it is, the others must stop with it
                answer[1] = _sendable(error)
        dist.broadcast_object_list(answer, src=0)
        if answer[1] is not None:
            raise answer[1]
        result: T = answer[0]
        return result


def _sendable(error: Exception) -> Exception:
    """The error, or its words where it cannot travel: the others wait for something."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # an error may break in any way when it is taken apart
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


SINGLE_PROCESS = ProcessGroup()
