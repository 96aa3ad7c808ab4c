"""Frozen, strict configuration: what a sweep or a recipe may say, and nothing else."""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from crossfold.platform.errors import UserError, nearest


class Strict(BaseModel):
    """A frozen value whose unknown keys are refused with the nearest known one."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    @classmethod
    def parse(cls, data: Any, where: str) -> Self:
        """Builds the value from plain data.

        `where` names the source for the reader, such as `sweeps/demo.yaml`.
        Raises `UserError` that names each offending key, its value and the rule.
        """
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            lines = [_explain(cls, problem) for problem in error.errors()]
            raise UserError(f"{where}: " + "; ".join(lines), "correct the named keys") from None


def _explain(cls: type[BaseModel], problem: Any) -> str:
    path = ".".join(str(part) for part in problem["loc"]) or "(whole value)"
    if problem["type"] == "missing":
        return f"key {path!r} is missing"
    if problem["type"] != "extra_forbidden":
        return f"{path} = {problem['input']!r}: {problem['msg']}"
    known = _known_keys(cls, problem["loc"][:-1])
    return f"unknown key {path!r}" + nearest(str(problem["loc"][-1]), known)


def _known_keys(cls: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    fields = cls.model_fields
    for part in path:
        inner = fields[str(part)].annotation if str(part) in fields else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        fields = inner.model_fields
    return list(fields)


class Temporal(Strict):
    """The encoder of one modality before fusion, `X_m : B x L x d_m`."""

    kind: Literal["none", "tcn", "lstm", "bilstm"] = "tcn"
    """All but `bilstm` are causal. LSTMs stand before the fusion in the cited RJCA (A14)."""
    width: int = Field(64, ge=1)
    """d_m, the width each modality enters the fusion with (a linear map does it where `kind` is `none`)."""
    levels: int = Field(4, ge=1)
    """TCN levels; level i has dilation 2^i (release: 4 levels, spec 3.3). For an LSTM, its layers."""
    kernel: int = Field(5, ge=2)
    dropout: float = Field(0.1, ge=0, lt=1)


class Head(Strict):
    """From Z to one value per frame and target (spec 1.17)."""

    hidden: int = Field(64, ge=1)
    layers: int = Field(1, ge=0)
    """Hidden layers, each of half the width of the one before; 0 is a linear map (E12)."""
    activation: Literal["leaky_relu", "relu", "tanh"] = "leaky_relu"
    """As released with 002, 000 and 004."""
    recurrent: bool = False
    """A BiLSTM on Z with a residual linear map and L2 norm before the layers, as released with 000 (G2c)."""
    dropout: float = Field(0.1, ge=0, lt=1)
    output: Literal["tanh", "linear"] = "tanh"


class Loss(Strict):
    """The training loss, `1 - CCC` (004 eq 6, 002 eq 16)."""

    kind: Literal["ccc", "mse"] = "ccc"
    scope: Literal["window", "batch"] = "window"
    """E2: CCC of each window averaged, or one CCC over all frames of the batch."""


class Optimizer(Strict):
    """Adam and its schedule (spec 3.3)."""

    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(1e-3, ge=0)
    min_lr: float = Field(1e-8, ge=0)
    warmup_epochs: int = Field(0, ge=0)
    """E4, paper: each of the first epochs ramps the rate from 0 to `lr`."""
    plateau_patience: int = Field(5, ge=0)
    plateau_factor: float = Field(0.1, gt=0, lt=1)
    clip_norm: float | None = Field(None, gt=0)
    """Largest gradient norm; None: not clipped."""


class Recipe(Strict):
    """Everything about training and evaluation that a paper prescribes, as one value."""

    name: str = "custom"
    """A label; recipes that differ only in name are the same recipe."""
    window: int = Field(300, ge=2)
    """L, frames of a window (spec 0)."""
    hop: int = Field(200, ge=1)
    """Frames from one window to the next (D10); the tail window is the last L frames (A3)."""
    invalid: Literal["drop", "mask"] = "drop"
    """D5: frames without label are removed before windows are cut, or kept and masked."""
    temporal: Temporal = Temporal()
    head: Head = Head()
    loss: Loss = Loss()
    optimizer: Optimizer = Optimizer()
    batch: int = Field(12, ge=1)
    epochs: int = Field(100, ge=1)
    patience: int = Field(50, ge=1)
    """Early stopping: epochs without a better selection CCC (E9)."""
    reload_best: bool = False
    """E6: the best state so far is loaded again at the end of each epoch."""
    selection: Literal["reported", "held_out"] = "reported"
    """Which split picks the best epoch: the reported one, as in the papers, or a part of the training videos."""
    held_out: float = Field(0.2, gt=0, lt=1)
    """Share of the training videos that picks the epoch when `selection` is `held_out`."""

    @field_validator("hop")
    @classmethod
    def _no_gaps(cls, hop: int, info: ValidationInfo) -> int:
        window = info.data.get("window", hop)
        if hop > window:
            raise ValueError(f"frames between windows would be lost: give at most the window, {window}")
        return hop
