"""What a recipe reads of a store: features, or the raw frames of its backbones, and the weights these start from.

Neither torch nor a backbone is imported for a recipe without backbones, so that a plan is shown at once.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.datasets.store.input_kinds import clip_kind
from crossfold.platform.core.errors import UserError, did_you_mean
from crossfold.platform.core.recipe import Recipe
from crossfold.platform.modeling.pretrained_files import find_weights

if TYPE_CHECKING:
    from crossfold.fusion_models.backbones.catalogue import Backbone


def find_backbone(name: str, modality: str) -> "Backbone":
    """A backbone by name; a wrong name, or one of another modality, is answered with those that fit."""
    from crossfold.fusion_models.backbones.catalogue import BACKBONES

    fitting = [known for known in BACKBONES if BACKBONES.get(known).modality == modality]
    if name not in fitting:
        raise UserError(
            f"backbones.{modality}: {name!r} is no backbone for {modality}{did_you_mean(name, fitting)}",
            f"one of {', '.join(sorted(fitting))}",
        )
    return BACKBONES.get(name)


def wanted_inputs(recipe: Recipe, modalities: Sequence[str]) -> dict[str, str]:
    """The raw input of each modality that has a backbone, such as `crops48`."""
    return {m: find_backbone(recipe.backbones[m], m).input for m in modalities if m in recipe.backbones}


def check_inputs(recipe: Recipe, store: FeatureStore, modalities: Sequence[str]) -> None:
    """Raises `UserError` where the store does not hold the inputs that the recipe needs. No array is read."""
    wanted = wanted_inputs(recipe, modalities)
    for dropped in recipe.modality_dropout:
        if dropped not in store.modalities:
            raise UserError(
                f"modality_dropout names {dropped}, and store {store.path.name} has {', '.join(store.modalities)}",
                "name modalities of the store",
            )
    for m in modalities:
        held = store.input_kind(m)
        if m not in wanted:
            if held is not None:
                raise UserError(
                    f"{m} of store {store.path.name} is raw {held}, and the recipe has no backbone for it",
                    f"give `backbones: {{{m}: ...}}`, or prepare features: `crossfold prepare` with --{m} BACKBONE",
                )
            continue
        kind = clip_kind(wanted[m])
        needed = kind.stored if kind is not None else wanted[m]
        if held != needed:
            raise UserError(
                f"the recipe trains backbone {recipe.backbones[m]} on raw {wanted[m]}; {m} of store "
                f"{store.path.name} holds {'extracted features' if held is None else f'raw {held}'}",
                f"`crossfold prepare` with --{m} raw:{needed}, or train on features: recipe NAME+features",
            )
    if wanted and recipe.clip.feature == "mean" and recipe.clip.frames > 1:
        raise UserError("clip.feature = mean is not defined for raw frames", "use last or middle")


def input_widths(recipe: Recipe, store: FeatureStore, modalities: Sequence[str]) -> dict[str, int]:
    """What enters the temporal encoder of each modality: the backbone's features, or the stored ones."""
    return {
        m: find_backbone(recipe.backbones[m], m).width if m in recipe.backbones else store.width(m) for m in modalities
    }


def check_weights(recipe: Recipe, modalities: Sequence[str], folder: Path) -> None:
    """Raises `UserError` naming file and place if weights that the recipe starts from are missing or are others."""
    for m in modalities:
        if m in recipe.backbones and recipe.weights == "pretrained":
            backbone = find_backbone(recipe.backbones[m], m)
            if backbone.weights is not None:
                find_weights(backbone.weights, folder)
