"""A training step as one CUDA graph: its kernels are recorded once, and then launched together.

Small models leave a GPU waiting for the host, which launches about a thousand kernels a step. A graph replays them at
the addresses at which they were recorded: batches are copied to one place, and gradients are found at another. The
forward and the backward pass are recorded; the optimiser, a few kernels, is launched as ever, so that learning rates
and clipping need no other form. A replay draws from the device's generator what the kernels would have drawn.
Source: torch.cuda.CUDAGraph, "Whole-network capture", in the notes of PyTorch on CUDA semantics.

Legend: B batch, L frames, T targets.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from crossfold.datasets.batches.source import Batch

WARM_STEPS = 3
"""Steps before the recording: libraries set themselves up in the first ones, which a recording does not allow."""

Pass = Callable[[Batch], tuple[Tensor, Tensor]]
"""A batch -> its loss [] and prediction B x L x T, both detached; the gradients are in the weights."""


class GraphedStep:
    """Forward and backward passes of batches, of which those of the full size are replayed."""

    def __init__(self, plain: Pass, parameters: Sequence[nn.Parameter], size: int) -> None:
        """`size`: windows of a full batch. The parameters keep their places in memory."""
        self.plain = plain
        self.parameters = parameters
        self.size = size
        self.warm = 0
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """As `plain` does; the parameters come without gradients. The next call writes over the prediction."""
        if len(batch.y) != self.size:
            return self.plain(batch)  # the last batch of an epoch
        if self.graph is None and self.warm < WARM_STEPS:
            self.warm += 1
            return self._aside(batch)
        if self.graph is None:
            self.graph = self._recorded(batch)
        for place, values in zip(_tensors(self.batch), _tensors(batch), strict=True):
            place.copy_(values)
        self.graph.replay()
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            parameter.grad = gradient
        return self.loss.clone(), self.prediction_BLT

    def _aside(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """On a stream of its own, as a recording is made on one."""
        stream, current = torch.cuda.Stream(), torch.cuda.current_stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            found = self.plain(batch)
        current.wait_stream(stream)
        return found

    def _recorded(self, batch: Batch) -> torch.cuda.CUDAGraph:
        """Records a pass, which computes nothing yet. Other threads may use the device meanwhile."""
        x = {modality: values.clone() for modality, values in batch.x.items()}
        self.batch = Batch(x, batch.y.clone(), batch.valid.clone(), batch.real.clone())
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self.loss, self.prediction_BLT = self.plain(self.batch)
        self.gradients = [parameter.grad for parameter in self.parameters]
        return graph


def _tensors(batch: Batch) -> list[Tensor]:
    return [*batch.x.values(), batch.y, batch.valid, batch.real]
