"""Where the time, the operations and the memory of a training step go, next to what this machine can do at best.

Legend: B batch, L frames of a window, I features of a modality, T targets.
"""

import contextlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from time import perf_counter, thread_time

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from crossfold.datasets.batches.source import Batch
from crossfold.platform.core.cell import Cell
from crossfold.platform.core.errors import UserError
from crossfold.platform.execution.machine_rates import MachineRates, machine_rates, optimiser_bytes
from crossfold.platform.modeling.determinism import arithmetic
from crossfold.platform.modeling.emotion_model import EmotionModel, build_model
from crossfold.platform.training.losses import loss_of
from crossfold.platform.training.train import make_optimizer

REPEATS = 5
"""Timed steps; of each part the median counts."""

Measure = Callable[[str, str], contextlib.AbstractContextManager[object]]
"""(part, `forward` or `backward`) -> a context around its work."""
FUSION = "fusion and head"
OPTIMISER = "optimiser"


@dataclass(frozen=True)
class StepPart:
    """One part of a step."""

    part: str
    forward: float
    """Seconds; of the optimiser, all of them."""
    backward: float
    """Seconds."""
    flops: int | None
    """Of both passes; None where torch's counter does not see the kernels, those of recurrent layers."""
    kept: int
    """Bytes that the forward pass keeps for the backward pass, weights excluded."""
    limit: float | None
    """Seconds at the rates of the machine: of the products, or of the memory that the optimiser reads and writes; None
    where neither is known. What is neither a product nor the optimiser has no part in it."""


@dataclass(frozen=True)
class StepProfile:
    """A training step of a cell, part by part."""

    parts: tuple[StepPart, ...]
    rates: MachineRates
    threads: int
    parameters: int

    @property
    def seconds(self) -> float:
        """Of the whole step."""
        return sum(part.forward + part.backward for part in self.parts)


def profile_step(cell: Cell, inputs: Mapping[str, int]) -> StepProfile:
    """Times steps of the untrained model of a cell on random features of these widths I, on the CPU.

    Gathering the batch is not part of it. The recipe has no backbones. Raises `UserError` for `precision: auto`.
    """
    if cell.recipe.precision == "auto":
        raise UserError(
            "precision auto is decided when a cell trains, and a profile is of one precision",
            "use --set precision=float32, and once more --set precision=bf16",
        )
    with arithmetic(cell):
        model = build_model(cell, inputs).train()
        model.narrow = cell.recipe.precision == "bf16"
        batch = _random_batch(cell, inputs)
        optimizer = make_optimizer(list(model.parameters()), cell.recipe.optimizer)

        def step(measure: Measure) -> None:
            _step(cell, model, optimizer, batch, measure)

        # The first step finds memory and kernels, and the optimiser makes its state.
        flops, kept = _counted(step, model)
        clock = thread_time if torch.get_num_threads() == 1 else perf_counter
        took = _timed(step, clock)
        rates = machine_rates(clock, narrow=cell.recipe.precision == "bf16")
        threads = torch.get_num_threads()
    size = sum(parameter.numel() for parameter in model.parameters())
    hidden = _uncounted(model)
    parts = []
    for part in dict.fromkeys(name for name, _ in took):
        known = None if part in hidden else flops[part]
        limit = None if not known else known / rates.products
        if part == OPTIMISER:
            limit = optimiser_bytes(cell.recipe.optimizer, size) / rates.copies
        parts.append(StepPart(part, took[part, "forward"], took[part, "backward"], known, kept[part], limit))
    return StepProfile(tuple(parts), rates, threads, size)


def _random_batch(cell: Cell, inputs: Mapping[str, int]) -> Batch:
    size = (cell.recipe.batch, cell.recipe.window)
    x = {m: torch.randn(*size, width) for m, width in inputs.items()}
    y_BLT = torch.rand(*size, len(cell.targets)) * 2 - 1
    return Batch(x, y_BLT, torch.ones_like(y_BLT, dtype=torch.bool), torch.ones(size, dtype=torch.bool))


def _step(cell: Cell, model: EmotionModel, optimizer: torch.optim.Optimizer, batch: Batch, measure: Measure) -> None:
    """A step as training takes it; the graph is cut between the parts, so that each has its own backward pass."""
    optimizer.zero_grad(set_to_none=True)
    encoded: dict[str, Tensor] = {}
    for m in model.encoders:
        with measure(_encoder(m), "forward"):
            encoded |= model.encode({m: batch.x[m]}, batch.real)
    shown = {m: x_BLD.detach().requires_grad_() for m, x_BLD in encoded.items()}
    with measure(FUSION, "forward"):
        y_BLT = model.fuse(dict(shown), batch.real)
    scored_BLT = y_BLT.detach().requires_grad_()
    with measure("loss", "forward"):
        loss = loss_of(scored_BLT, batch, cell.recipe.loss)
    with measure("loss", "backward"):
        loss.backward()  # type: ignore[no-untyped-call]
    with measure(FUSION, "backward"):
        y_BLT.backward(scored_BLT.grad)  # type: ignore[no-untyped-call]
    for m, x_BLD in encoded.items():
        with measure(_encoder(m), "backward"):
            # An encoder without weights has no gradient, and neither has one that the system does not read.
            if x_BLD.requires_grad and shown[m].grad is not None:
                x_BLD.backward(shown[m].grad)  # type: ignore[no-untyped-call]
    with measure(OPTIMISER, "forward"):
        if cell.recipe.optimizer.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), cell.recipe.optimizer.clip_norm)
        optimizer.step()


def _encoder(modality: str) -> str:
    return f"encoder of {modality}"


def _counted(step: Callable[[Measure], None], model: EmotionModel) -> tuple[Counter[str], Counter[str]]:
    """FLOPs and bytes kept, by part."""
    flops: Counter[str] = Counter()
    kept: Counter[str] = Counter()
    known = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    @contextlib.contextmanager
    def measure(part: str, which: str) -> Iterator[None]:
        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in known:
                known.add(storage.data_ptr())
                kept[part] += storage.nbytes()
            return tensor

        kept_by = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
        with kept_by, FlopCounterMode(display=False) as counter:
            yield
        flops[part] += counter.get_total_flops()

    step(measure)
    return flops, kept


def _timed(step: Callable[[Measure], None], clock: Callable[[], float]) -> dict[tuple[str, str], float]:
    """Seconds by part and pass."""
    took: dict[tuple[str, str], list[float]] = defaultdict(list)

    @contextlib.contextmanager
    def measure(part: str, which: str) -> Iterator[None]:
        began = clock()
        yield
        took[part, which].append(clock() - began)

    for _ in range(REPEATS):
        step(measure)
    return defaultdict(float, {key: median(times) for key, times in took.items()})


def _uncounted(model: EmotionModel) -> set[str]:
    """The parts with recurrent layers."""
    rest: Iterable[nn.Module | None] = (model.fusion, model.mix, model.heads)
    parts = {_encoder(m): [encoder] for m, encoder in model.encoders.items()}
    parts[FUSION] = [module for module in rest if module is not None]
    return {
        part
        for part, modules in parts.items()
        if any(isinstance(inner, nn.RNNBase) for module in modules for inner in module.modules())
    }
