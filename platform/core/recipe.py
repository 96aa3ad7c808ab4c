"""Frozen, strict configuration: what a sweep or a recipe may say, and nothing else."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from crossfold.platform.core.base_model import MOST_COUNT, MOST_LAYERS, MOST_LEVELS, MOST_WIDTH, FrozenModel
from crossfold.platform.core.errors import UserError
from crossfold.platform.core.evaluation_config import SUITES, Chain, Evaluation, PostChain, StressSuite
from crossfold.platform.core.hashing import canonical_json

OUTSIDE_IDENTITY = ("name", "joint_targets", "post", "stress")
"""Fields that are in no cell's identity: a label, what the cell's targets say, and how a run is evaluated."""


class Temporal(FrozenModel):
    """The encoder of one modality before fusion, `X_m : B x L x d_m`."""

    kind: Literal["identity", "none", "tcn", "lstm", "bilstm"] = "tcn"
    """All but `bilstm` are causal. LSTMs stand before the fusion in the cited RJCA (A14).

    `none` is a linear map of each frame; `identity` is nothing at all, so d_m is the width of the features.
    """
    width: int = Field(64, ge=1, le=MOST_WIDTH)
    """d_m, the width each modality enters the fusion with."""
    widths: dict[str, int] = Field(default_factory=dict)
    """d_m by modality, where it is not `width`, such as `{visual: 256, audio: 128}` (G4b)."""
    levels: int = Field(4, ge=1, le=MOST_LEVELS)
    """TCN levels; level i has dilation 2^i (release: 4 levels). For an LSTM, its layers."""
    kernel: int = Field(5, ge=2, le=MOST_WIDTH)
    """Taps of each convolution of the TCN."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Dropout of the encoder, as a share of values."""
    input_norm: Literal["none", "l2"] = "none"
    """`l2`: the features of a frame are scaled to length one before the encoder, as released with 000 (G2c)."""
    channels: dict[str, tuple[Annotated[int, Field(ge=1)], ...]] = Field(default_factory=dict)
    """Widths of the levels of a TCN by modality, such as `{visual: [512, 512, 256, 256]}` (G7); the last one is d_m.
    The levels of a modality that is not named are as wide as d_m."""
    convolutions: int = Field(1, ge=1, le=MOST_LAYERS)
    """Convolutions of a level of the TCN, one after the other; 2 as released with 001 and 002 (G8)."""
    activation: Literal["relu", "leaky_relu"] = "relu"
    """After each convolution and each level of the TCN; `leaky_relu` as released with 001 and 002 (G8)."""
    output_linear: bool = True
    """A linear map after the last level of the TCN; none as released with 001 and 002 (G8)."""
    batch_norm: bool = False
    """Batch normalisation of X_m over all real frames of a batch, as released with 001, 002 and ABAW3 (G8)."""
    recurrent_form: Literal["map", "concat"] = "map"
    """Of `bilstm`: X_m = W h, or X_m = M / |M| with M = W [X ; h] and a learnt initial state, as released (G2c, G8)."""

    def width_of(self, modality: str) -> int:
        """d_m of one modality."""
        return self.widths.get(modality, self.width) if modality not in self.channels else self.channels[modality][-1]

    def channels_of(self, modality: str) -> tuple[int, ...]:
        """The width of each level of the TCN of one modality."""
        return self.channels.get(modality, (self.width_of(modality),) * self.levels)

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        for modality, channels in self.channels.items():
            if not channels:
                raise ValueError(f"channels of {modality} are empty: give a width for each level, or leave it out")
            if self.widths.get(modality, channels[-1]) != channels[-1]:
                raise ValueError(
                    f"channels of {modality} end with {channels[-1]}, and widths say {self.widths[modality]}: "
                    "give the same d_m in both"
                )
        if self.recurrent_form == "concat" and self.kind != "bilstm":
            raise ValueError(f"recurrent_form concat is of kind bilstm, and kind is {self.kind}: give one of the two")
        return self


class Head(FrozenModel):
    """From Z to one value per frame and target."""

    hidden: int = Field(64, ge=1, le=MOST_WIDTH)
    """Width of the first hidden layer."""
    layers: int = Field(1, ge=0, le=MOST_LAYERS)
    """Hidden layers, each of half the width of the one before; 0 is a linear map (E12)."""
    activation: Literal["leaky_relu", "relu", "tanh"] = "leaky_relu"
    """As released with 002, 000 and 004."""
    recurrent: bool = False
    """A BiLSTM on Z with a residual linear map and L2 norm before the layers, as released with 000 (G2c)."""
    recurrent_width: int | None = Field(None, ge=2, le=MOST_WIDTH)
    """Of that BiLSTM, both directions together; None: `hidden`."""
    recurrent_layers: int = Field(1, ge=1, le=MOST_LAYERS)
    """Layers of that BiLSTM; 2 as released with 000 (G8)."""
    recurrent_form: Literal["sum", "concat"] = "sum"
    """BiLSTM(Z) + W Z; or W [Z ; BiLSTM(Z)] from a learnt initial state, as released with 000 (G8)."""
    recurrent_shared: bool = False
    """One BiLSTM for the heads of all targets, as released with 000; else each head has one of its own."""
    batch_norm: bool = False
    """Batch normalisation of the first hidden layer over all real frames of a batch, as released with 002."""
    input_dropout: float = Field(0, ge=0, lt=1)
    """Dropout on Z, the attended features (004 and 003: 0.5)."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Dropout after each hidden layer. Where print says "p = 0.8", D12 reads 0.5."""
    output: Literal["tanh", "linear"] = "tanh"
    """`tanh` keeps predictions within the range of the labels."""


class Loss(FrozenModel):
    """The training loss: `1 - CCC` (004 eq 6, 002 eq 16), the mean square, or both."""

    kind: Literal["ccc", "mse", "ccc+mse"] = "ccc"
    """What is minimised: `1 - CCC`, the mean square, or their sum."""
    scope: Literal["window", "batch"] = "window"
    """E2: CCC of each window averaged, or one CCC over all frames of the batch."""
    mse_weight: float = Field(1.0, gt=0)
    """The weight of the mean square next to `1 - CCC` in `ccc+mse`."""


class Forced(FrozenModel):
    """A rate that replaces every other rule from some epoch on, as the trainer released with 000 forces it (G2e)."""

    after: int = Field(5, ge=0, le=MOST_COUNT)
    """Epochs that keep the ordinary rate, after epoch 0."""
    lr: float = Field(1e-3, gt=0)
    """The rate that is forced at first."""
    factor: float = Field(0.8, gt=0, le=1)
    """What each decay multiplies the rate by."""
    every: int = Field(2, ge=1, le=MOST_COUNT)
    """Epochs from one decay to the next."""


class Optimizer(FrozenModel):
    """The optimiser and its schedule."""

    kind: Literal["adam", "adamw", "sgd"] = "adam"
    """torch's optimiser of this name."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Of `sgd`; Adam does not read it."""
    lr: float = Field(1e-3, gt=0)
    """Learning rate after the warm-up, before the first plateau."""
    weight_decay: float = Field(1e-3, ge=0)
    """L2 penalty of the optimiser; decoupled with `adamw`."""
    min_lr: float = Field(1e-8, ge=0)
    """Where backbones are unfrozen, a reduction below it ends the stage (E5); elsewhere the rate stays at it."""
    warmup_epochs: int = Field(0, ge=0, le=MOST_COUNT)
    """First epochs of training, and of each stage of unfreezing, in which the rate is warmed up."""
    warmup: Literal["printed", "release"] = "printed"
    """E4: each of these epochs ramps from 0 to `lr`; or, as released with 002, epoch e of n to `lr` (e + 1) / n^2."""
    plateau_patience: int = Field(5, ge=0, le=MOST_COUNT)
    """Epochs without a better CCC that are borne; one more lowers the rate."""
    plateau_factor: float = Field(0.1, gt=0, le=1)
    """1 keeps the rate constant."""
    forced: Forced | None = None
    """A rate that replaces all rules above from some epoch on; null: none."""
    clip_norm: float | None = Field(None, gt=0)
    """Largest gradient norm; None: not clipped."""


class Thaw(FrozenModel):
    """Which backbones train, and when their groups of layers are released (002 and 001; E5, E8, E9)."""

    modalities: tuple[str, ...] | None = None
    """Backbones that are released; None: all. 003 releases the visual one only (E8)."""
    groups: int = Field(3, ge=0, le=3)
    """Groups that are released, one per stage, the first at epoch 0; 0 keeps backbones frozen."""
    at_once: bool = False
    """Everything trains from epoch 0, in one stage (004's separately trained nets)."""
    reset_optimizer: bool = True
    """A new stage begins with fresh moments and the best state so far, as released with 002."""
    reset_patience: bool = True
    """E9: early stopping counts from the start of each stage."""
    always: bool = False
    """Go through the stages also in feature mode, where they release nothing, as the release does."""


class Clip(FrozenModel):
    """What one index of a window stands for (A16): a frame, or several frames that share one prediction."""

    frames: int = Field(1, ge=1, le=MOST_COUNT)
    """1 for 001 to 003; 16, a sub-sequence, for 004; 32, a clip, for 000. A window then spans `window` x `frames`."""
    label: Literal["mean", "last"] = "mean"
    """D9: the target of a clip in training. Scores stay at annotation rate: a prediction holds for all its frames."""
    feature: Literal["last", "middle", "mean"] = "last"
    """The input of a clip: its last frame (where clips of pictures and of sound end), its middle one, or the mean."""
    predicts: Literal["clip", "frame"] = "clip"
    """`clip`: a prediction holds for all frames of its clip. `frame`: it is of the last frame of its clip, and windows
    slide by one frame, as often as a clip has frames, then jump behind themselves: every frame is the last one of
    exactly one clip, as released with 000 (G10). Then a pass takes `frames` times as long, and `hop` is not read."""

    @property
    def held(self) -> int:
        """Frames that an index of a window gathers, and for which its prediction holds."""
        return self.frames if self.predicts == "clip" else 1

    @model_validator(mode="after")
    def _one_frame_each(self) -> Self:
        if self.predicts == "frame" and (self.frames == 1 or self.label != "last" or self.feature != "last"):
            raise ValueError(
                f"predicts = frame with frames = {self.frames}, label = {self.label}, feature = {self.feature}: a "
                "prediction of a last frame needs clips of several frames, label = last and feature = last"
            )
        return self


def _without_zeros(given: Mapping[Any, float]) -> dict[Any, float]:
    """A modality that is never dropped is one that is not named, so that both are the same recipe."""
    return {modality: share for modality, share in sorted(given.items()) if share != 0}


Dropout = Annotated[
    dict[Literal["audio", "visual", "text"], Annotated[float, Field(ge=0, lt=1)]], AfterValidator(_without_zeros)
]
"""Probability by modality."""


class Recipe(FrozenModel):
    """Everything about training and evaluation that a paper prescribes, as one value."""

    name: str = "custom"
    """A label; recipes that differ only in name are the same recipe."""
    joint_targets: bool = False
    """E1, for sweeps that do not say: one model with a head per target, or a model per target."""
    window: int = Field(300, ge=2, le=MOST_COUNT)
    """L, indices of a window."""
    hop: int = Field(200, ge=1, le=MOST_COUNT)
    """Indices from one window to the next (D10); the tail window is the last L (A3)."""
    clip: Clip = Clip()
    modality_dropout: Dropout = Field(default_factory=dict)
    """Training only: the probability with which a modality is missing throughout a window, such as `{audio: 0.3}`, as
    ModDrop (Neverova et al. 2016). A window that would lose all of its modalities keeps them."""
    invalid: Literal["drop", "drop_both", "mask"] = "drop"
    """D5: frames that lack any label, or all labels, are removed before windows are cut; or all are kept and masked."""
    backbones: dict[str, str] = Field(default_factory=dict)
    """End-to-end mode: a backbone by modality, such as `{visual: resnet50}`. Empty: features from the store."""
    weights: Literal["pretrained", "random"] = "pretrained"
    """Where backbones start: from their published weights, which you bring (`--weights`), or from nothing."""
    backbone_chunk: int = Field(128, ge=1, le=MOST_COUNT)
    """Frames that pass a backbone at a time; less needs less memory and changes no number beyond rounding."""
    thaw: Thaw = Thaw()
    temporal: Temporal = Temporal()
    head: Head = Head()
    loss: Loss = Loss()
    optimizer: Optimizer = Optimizer()
    batch: int = Field(12, ge=1, le=MOST_COUNT)
    """Windows of one step of the optimiser, however many parts and devices share it."""
    accumulate: int = Field(1, ge=1, le=MOST_COUNT)
    """Parts that a batch is computed in, one after the other, when memory does not hold it."""
    devices: int = Field(1, ge=1, le=MOST_COUNT)
    """Ray Train workers that share each batch of one cell."""
    precision: Literal["float32", "bf16", "auto"] = "float32"
    """Of training. `bf16`: features, matrix products and convolutions in bfloat16; weights, optimiser, sums, loss and
    reported predictions in float32. `auto`: whichever a short measurement finds quicker on the machine that trains."""
    cuda_graph: bool = False
    """On a GPU: a step of a full batch is recorded once and replayed, for small models on features."""
    determinism: Literal["strict", "fast"] = "strict"
    """`strict`: the same bytes on the same machine. `fast`: threads, TF32 and the quickest kernels."""
    epochs: int = Field(100, ge=1, le=MOST_COUNT)
    """The most epochs; early stopping may end training before."""
    patience: int = Field(50, ge=1, le=MOST_COUNT)
    """Early stopping: epochs without a better selection CCC (E9)."""
    reload_best: bool = False
    """E6: the best state so far is loaded again at the end of each epoch."""
    selection: Literal["reported", "held_out"] = "reported"
    """Which split picks the best epoch: the reported one, as in the papers, or a part of the training videos."""
    held_out: float = Field(0.2, gt=0, lt=1)
    """Share of the training videos that picks the epoch when `selection` is `held_out`."""

    post: PostChain = Chain()
    """Post-processing shown next to the raw score: `none`, `ca2021`, `dca2024`, or steps. Outside the identity."""
    stress: StressSuite = SUITES["default"]
    """Damage each cell is scored under too: `none`, `quick`, `default`, `full`, `{doses: [...]}`, or a
    list. Outside the identity."""

    @field_validator("hop")
    @classmethod
    def _no_gaps(cls, hop: int, info: ValidationInfo) -> int:
        window = info.data.get("window", hop)
        if hop > window:
            raise ValueError(f"frames between windows would be lost: give at most the window, {window}")
        return hop

    @field_validator("accumulate", "devices")
    @classmethod
    def _parts_add_up(cls, parts: int, info: ValidationInfo) -> int:
        loss: Loss | None = info.data.get("loss")
        if parts > 1 and loss is not None and loss.scope == "batch" and loss.kind != "mse":
            raise ValueError("one CCC over the batch needs the whole batch at once: use loss.scope = window")
        if parts > info.data.get("batch", parts):
            raise ValueError(f"a batch of {info.data['batch']} windows has no {parts} parts")
        return parts

    @model_validator(mode="after")
    def _one_pass_is_recorded(self) -> "Recipe":
        several = {"accumulate": self.accumulate > 1, "devices": self.devices > 1, "backbones": bool(self.backbones)}
        if self.cuda_graph and (other := [name for name, found in several.items() if found]):
            raise ValueError(f"cuda_graph records one pass over features: leave out {other[0]}, or cuda_graph")
        return self

    def check_device(self, kind: str) -> None:
        """Raises `UserError` where a CUDA graph is asked for, and the device is of another kind, such as `cpu`."""
        if self.cuda_graph and kind != "cuda":
            raise UserError(
                f"recipe {self.name}: cuda_graph is true, and the device is {kind}",
                "train on a GPU, or with --set cuda_graph=false",
            )

    def identity(self) -> dict[str, Any]:
        """The part of the recipe that is hashed with a cell."""
        identity = self.model_dump(mode="json", exclude=set(OUTSIDE_IDENTITY))
        for group, defaults in LATER.items():
            identity[group] = {k: v for k, v in identity[group].items() if k not in defaults or v != defaults[k]}
        if not self.modality_dropout:  # later than commit ed74c6d, as those of `LATER`
            del identity["modality_dropout"]
        if not self.cuda_graph:
            del identity["cuda_graph"]
        return identity

    @property
    def identity_json(self) -> str:
        """The canonical JSON of `identity()`; written once for all cells that share this very object."""
        return _canonical(_Itself(self))

    @property
    def frames_per_window(self) -> int:
        """Frames from the first of one window to the first of the next, on average."""
        return self.hop * self.clip.frames if self.clip.predicts == "clip" else self.window

    @property
    def evaluation(self) -> Evaluation:
        """How its cells are evaluated."""
        return Evaluation(post=self.post, stress=self.stress)

    def groups_to_thaw(self) -> int:
        """Stages of training in which a group of backbone layers is released, one per stage; 0: one plain stage."""
        stages = self.backbones or self.thaw.always
        return self.thaw.groups if stages and not self.thaw.at_once else 0


LATER: Mapping[str, Mapping[str, Any]] = {
    "clip": {"predicts": "clip"},
    "temporal": {
        "input_norm": "none",
        "channels": {},
        "convolutions": 1,
        "activation": "relu",
        "output_linear": True,
        "batch_norm": False,
        "recurrent_form": "map",
    },
    "head": {"recurrent_layers": 1, "recurrent_form": "sum", "recurrent_shared": False},
}
"""By group, the fields that recipes of commit ed74c6d lack, each with the value that gives the numbers of then. With
this value a field is outside the identity, so that a cell from before it existed keeps its id. A field that is added
belongs here."""


class _Itself:
    """A recipe as a key, equal to itself alone: a value cached on the model would survive `model_copy(update=...)`."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    def __hash__(self) -> int:
        return id(self.recipe)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Itself) and other.recipe is self.recipe


@lru_cache(maxsize=64)
def _canonical(key: _Itself) -> str:
    return canonical_json(key.recipe.identity())
