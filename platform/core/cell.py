"""The words every room shares: cells, epochs, failures.

Nothing here imports torch, Ray or MLflow, so that the reports can read results on any machine.
"""

import hashlib
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from crossfold.platform.core.base_model import MOST_COUNT, FrozenModel
from crossfold.platform.core.hashing import canonical_json
from crossfold.platform.core.recipe import Recipe

PROTOCOL = 3
"""Version of seeds, windows, masks, normalisation, stitching and scoring. A table never mixes two of them."""

PROTOCOL_CHANGES: Mapping[int, str] = {
    2: "features are normalised by the clips that a cell trains on, also on inner folds and with a held-out selection",
    3: "initial weights and dropout follow from the parts of a model, no longer from the name of its system; dropout "
    "draws 16 bits a value",
}
"""What is different since each protocol."""


def changes_since(protocol: int) -> str:
    """What is different today from an earlier protocol, in words."""
    return "; ".join(words for version, words in PROTOCOL_CHANGES.items() if version > protocol)


SEEN = "the parameters or the recipe were tuned on clips that are reported here"
"""What the label `seen` of a number means."""

MODALITIES = ("audio", "visual", "text")
"""Canonical order wherever modalities are concatenated or listed."""

TARGETS = ("valence", "arousal")

GROUPED, AS_RELEASED = "grouped", "as_released"
EARLIER_FOLDS, GIVEN_FOLDS = "grouped_upwards", "given"
"""Folds of stores made before chunks were numbered as in the papers (fold k reports chunk k), and folds that a corpus
or a file lists itself."""

FOLD_RULES: Mapping[str, str] = {
    GROUPED: "whole videos and subjects on one side, numbered as in the papers",
    AS_RELEASED: "the cuts of the papers' released code, which may put a video or a subject on both sides",
    EARLIER_FOLDS: "whole videos and subjects on one side, numbered the other way round than in the papers: fold 1 "
    "reports what the last fold of `grouped` reports",
    GIVEN_FOLDS: "listed by the corpus or by a file of folds",
}
"""The rules by which folds are made, each in words."""


def folds_advice(corpus: str, store: str) -> str:
    """What a user should know and may do about a store with `EARLIER_FOLDS`."""
    return (
        f"store {corpus}-{store} is of an earlier version and numbers its folds from 1 on the other way round than the "
        "papers: its fold 1 reports what the last fold reports now. It and its cells stay as they are. To go on with "
        f"it, run sweeps with --set store={store}; `crossfold prepare {corpus} --root DIR` makes another one, numbered "
        "as in the papers"
    )


class Inner(FrozenModel):
    """An inner fold, made of the training clips of an outer fold only; what a search may look at."""

    of: int = Field(ge=2, le=MOST_COUNT)
    index: int = Field(ge=0, le=MOST_COUNT)

    @field_validator("index")
    @classmethod
    def _one_of_them(cls, index: int, info: ValidationInfo) -> int:
        if index >= info.data.get("of", index + 1):
            raise ValueError(f"inner folds count from 0 to {info.data['of'] - 1}")
        return index


class Cell(BaseModel):
    """One training run: the unit of planning, scheduling, storage, tracking and reporting."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    system: str
    """Registered name, such as `rjca+dca`."""
    params: dict[str, Any]
    """Every parameter of the system, resolved: defaults included."""
    corpus: str
    store: str
    """Content hash of the feature store."""
    fold: int
    inner: Inner | None = None
    """Set for the cells of a search; such a cell never sees the reported split of `fold`."""
    targets: tuple[str, ...]
    """One name (a model per target) or several (one model, a head each)."""
    seed: int
    recipe: Recipe
    protocol: int = PROTOCOL
    revision: int = 1
    """Revision of the system's mathematics, raised when its numbers change on purpose."""

    def identity(self) -> dict[str, Any]:
        """The mapping that is hashed. `OUTSIDE_IDENTITY` of the recipe stays outside."""
        identity = self.model_dump(mode="json", exclude={"recipe"} | ({"inner"} if self.inner is None else set()))
        return identity | {"recipe": self.recipe.identity()}

    @cached_property
    def cell_id(self) -> str:
        """First 16 hex digits of the SHA-256 of the canonical JSON of `identity()`; computed once per cell."""
        before, after = self.around_seed
        return _first_digits(f"{before}{self.seed}{after}")

    @cached_property
    def around_seed(self) -> tuple[str, str]:
        """The canonical JSON of `identity()` before and after the seed."""
        return self._canonical(self.recipe.identity_json)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """As pydantic has it, without the id of the original: a copy with changes is another cell."""
        copied = super().model_copy(update=update, deep=deep)
        for cached in ("cell_id", "around_seed"):
            copied.__dict__.pop(cached, None)
        return copied

    def with_seed(self, seed: int) -> Self:
        """The same cell with another seed; what the two share is checked and written once."""
        shared = self.around_seed
        copied = self.model_copy(update={"seed": seed})
        copied.__dict__["around_seed"] = shared
        return copied

    def _canonical(self, recipe_json: str) -> tuple[str, str]:
        """`around_seed`, with the recipe written once for all cells that share it."""
        before: dict[str, Any] = {"corpus": self.corpus, "fold": self.fold, "params": self.params}
        before["protocol"] = self.protocol
        if self.inner is not None:
            before["inner"] = self.inner.model_dump(mode="json")
        after = {"store": self.store, "system": self.system, "targets": list(self.targets)}
        middle = f'"recipe":{recipe_json},"revision":{self.revision},"seed":'
        return f"{canonical_json(before)[:-1]},{middle}", f",{canonical_json(after)[1:]}"

    @property
    def target(self) -> str:
        """The targets as one word, for listings: `valence` or `valence+arousal`."""
        return "+".join(self.targets)

    @property
    def label(self) -> str:
        """A name people can read, with the first digits of the id: two variants of a system differ in nothing else."""
        return self.label_of(self.system)

    def label_of(self, variant: str) -> str:
        """The label under another name for the system, such as one that distinguishes its variants."""
        inner = f" inner {self.inner.index + 1}/{self.inner.of}" if self.inner else ""
        held_out = " held out" if self.recipe.selection == "held_out" and not self.inner else ""
        return f"{variant} {self.target} fold {self.fold}{inner} seed {self.seed}{held_out} [{self.cell_id[:6]}]"


def pair_key(cell: Cell) -> str:
    """Equal for two cells that differ in `recipe.selection` only: the two sides of the papers' optimism."""
    unselected = canonical_json({k: v for k, v in cell.recipe.identity().items() if k != "selection"})
    before, after = cell._canonical(unselected)
    return _first_digits(f"{before}{cell.seed}{after}")


def _first_digits(canonical: str) -> str:
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]
