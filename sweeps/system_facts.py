"""What a plan asks of the systems, kept in the cache folder (`kept_files.py`) so that a plan does without torch."""

import contextlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from crossfold.platform.core import base_model
from crossfold.platform.core.files import write_json
from crossfold.platform.core.hashing import canonical_json
from crossfold.sweeps.kept_files import kept_file, systems_are_loaded
from crossfold.sweeps.sweep_files import Variant

_MOST_KEPT = 20_000
"""Variants in the file; a sweep of more is resolved by its systems."""


@dataclass(frozen=True)
class VariantFacts:
    """A system with its parameters, as a plan needs it."""

    system: str
    params: dict[str, Any]
    """Every parameter of the system, with the defaults filled in."""
    modalities: tuple[str, ...]
    """Those that enter the fusion, in canonical order."""
    revision: int
    """Of the system; part of the identity of its cells."""


def variant_facts(variants: Sequence[Variant]) -> list[VariantFacts]:
    """The facts of each variant, none of whose parameters is a list to expand.

    Raises `UserError` for an unknown system, and for parameters that it does not take.
    """
    if systems_are_loaded():
        return [_ask(variant) for variant in variants]
    kept = _read()
    found = [kept.get(key) if (key := _key(variant)) else None for variant in variants]
    if None not in found:
        return [facts for facts in found if facts is not None]
    asked = [facts or _ask(variant) for variant, facts in zip(variants, found, strict=True)]
    # A cell holds the parameters with their defaults filled in, and is asked for next.
    whole = [Variant(system=facts.system, params=facts.params) for facts in asked]
    named = zip([*variants, *whole], asked + asked, strict=True)
    _keep(kept | {key: facts for variant, facts in named if (key := _key(variant))})
    return asked


def _ask(variant: Variant) -> VariantFacts:
    from crossfold.fusion_models.catalogue import find_system

    system = find_system(variant.system)
    params = system.params.parse(variant.params, f"parameters of {variant.system}")
    modalities = system.modalities_for(params)
    return VariantFacts(variant.system, params.model_dump(mode="json"), modalities, system.revision)


def _key(variant: Variant) -> str:
    """Empty for parameters that JSON does not hold, such as a date; they are never kept."""
    with contextlib.suppress(TypeError, ValueError):
        return canonical_json({"system": variant.system, "params": variant.params})
    return ""


def _file() -> Path:
    return kept_file("variants", Path(__file__), Path(base_model.__file__))


def _read() -> dict[str, VariantFacts]:
    """What is kept; nothing where there is no such file or a damaged one."""
    try:
        return {
            key: VariantFacts(**{**each, "modalities": tuple(each["modalities"])})
            for key, each in json.loads(_file().read_bytes()).items()
        }
    except (OSError, RuntimeError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _keep(facts: dict[str, VariantFacts]) -> None:
    from crossfold.fusion_models.catalogue import systems

    # What is unavailable today may be installed tomorrow, and without a cache folder a plan is only slower.
    if len(facts) <= _MOST_KEPT and not systems.unavailable:
        with contextlib.suppress(OSError, RuntimeError):
            write_json(_file(), {key: asdict(each) for key, each in facts.items()})
