"""How one attempt at a cell goes: its epochs, and whether it ended with a result or a failure."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict

from crossfold.platform.core.files import utc_now


class FailureClass(StrEnum):
    """Why a try ended without a result. Only `INFRA` and `OOM` are worth trying again unchanged."""

    DATA = "data"
    CODE = "code"
    DIVERGED = "diverged"
    OOM = "oom"
    INFRA = "infra"


class EpochReport(BaseModel):
    """What one finished epoch says to whoever watches."""

    model_config = ConfigDict(frozen=True)

    epoch: int
    epochs: int
    """The most that the recipe allows."""
    learning_rate: float
    train_loss: float
    ccc: dict[str, float]
    """CCC of the selection split, per target."""
    best_ccc: float
    seconds: float
    gpu_bytes: int = 0
    """The most device memory that the worker held so far, as torch counts it; 0 without a GPU."""


class Reporter(Protocol):
    """Where a running cell sends its epochs. May raise `Cancelled` to stop it."""

    def epoch(self, cell_id: str, report: EpochReport) -> None: ...


class Silent:
    """A reporter that does nothing."""

    def epoch(self, cell_id: str, report: EpochReport) -> None:
        """Does nothing."""


@dataclass(frozen=True)
class Failure:
    """One failed try of one cell."""

    cell_id: str
    label: str
    kind: FailureClass
    attempt: int
    message: str
    log_tail: str
    at: str = field(default_factory=utc_now)
    """UTC time, ISO 8601."""


@dataclass(frozen=True)
class Outcome:
    """How one attempt at one cell ended."""

    status: Literal["done", "failed", "cancelled"]
    seconds: float
    failure: Failure | None = None
