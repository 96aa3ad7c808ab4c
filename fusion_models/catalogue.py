"""All systems by name: one file registers one system; `+dca` composes onto any base that yields pairs."""

import re
import sys
from functools import cache
from importlib import resources

from torch import nn

from crossfold.fusion_models.blocks.gates import GateParams
from crossfold.fusion_models.blocks.readout import PairGate
from crossfold.fusion_models.system import Preset, System, Widths, combined, part
from crossfold.platform.core.base_model import FrozenModel
from crossfold.platform.core.errors import UserError, did_you_mean
from crossfold.platform.core.registry import Registry

systems: Registry[System] = Registry("system", "crossfold.fusion_models")

_files: dict[str, str] = {}

DCA_SUFFIX = "+dca"
DCA_EQUATIONS = """\
Y_m = X_att,m W_gl,m                                      000 eq 2     W_gl,m : d_m x 2
G_m = softmax_k(Y_m / T)                                  000 eq 3     T = 0.1, column 0 unattended, 1 attended
X_g,m = ReLU(G_m[0] * X_m + G_m[1] * X_att,m)             000 eqs 4-5
Z = [X_g,a ; X_g,v]"""


def citation(key: str) -> str:
    """The BibTeX entry of this key in `references.bib`. Raises `KeyError` for a key that is not there."""
    return references()[key]


@cache
def references() -> dict[str, str]:
    """The entries of `references.bib` by key."""
    text = resources.files("crossfold.fusion_models").joinpath("references.bib").read_text("utf-8")
    return {entry[1]: entry[0] for entry in re.finditer(r"^@\w+\{([^,]+),.*?^\}", text, re.M | re.S)}


def register(system: System) -> System:
    """Registers a system under its name; for plugins too. Raises `UserError` that names both files of a taken name."""
    file = sys._getframe(1).f_globals["__name__"]
    registered = systems.register(system.name, origin=file)(system)
    # Only now: a name that is taken stays with its file.
    _files[system.name] = file
    return registered


def own_title(name: str) -> str | None:
    """The title of a system of a plug-in, of the base where it is a composition; None for a system of Crossfold."""
    base = find_system(name).name.removesuffix(DCA_SUFFIX)
    return None if _files.get(base, "").startswith(f"{__package__}.") else systems.get(base).title


def documentation(name: str) -> str:
    """The docstring of the file of a system: what was read, and where it departs from print."""
    found = find_system(name).name.removesuffix(DCA_SUFFIX)
    return (sys.modules[_files[found]].__doc__ or "").strip()


def find_system(name: str) -> System:
    """A registered system, or a base with `+dca`. Raises `UserError` with the nearest right name."""
    if name not in systems and name not in system_names() and name.removesuffix(DCA_SUFFIX) not in systems:
        unavailable = "".join(f"; {module} is unavailable: {why}" for module, why in systems.unavailable.items())
        raise UserError(
            f"unknown system {name!r}{did_you_mean(name, system_names())}{unavailable}",
            systems.remedy,
        )
    if name in systems:
        return systems.get(name)
    base = systems.get(name.removesuffix(DCA_SUFFIX))
    if not base.yields_pairs:
        raise UserError(
            f"{name!r}: {base.name} yields no (unattended, attended) features for DCA to choose between",
            "put +dca on one of: " + ", ".join(n for n in systems if systems.get(n).yields_pairs),
        )
    return _with_dynamic_gate(base)


def system_names() -> list[str]:
    """Every system that can be named, compositions included."""
    names = list(systems)
    return sorted(names + [name + DCA_SUFFIX for name in names if systems.get(name).yields_pairs])


def _with_dynamic_gate(base: System) -> System:
    # G2d: the released DCA iterates twice, and its gate has a bias.
    twice = (("iterations", 2),) if "iterations" in base.params.model_fields else ()
    changed: Preset = (*twice, ("gate_bias", True)) if base.released else ()
    released = tuple((dict(base.released) | dict(changed)).items())

    def attend(params: FrozenModel, widths: Widths, frames: int) -> nn.Module:
        return base.attend(part(base.params, params), widths, frames)

    def readout(params: FrozenModel, widths: Widths, steps: int) -> nn.Module:
        return PairGate(part(GateParams, params), widths, base.readout(part(base.params, params), widths, steps))

    return System(
        name=base.name + DCA_SUFFIX,
        title=f"Dynamic cross-attention on {base.name}",
        source=f"000 eqs 2-5 on {base.source}",
        equations=f"{base.equations}\n{DCA_EQUATIONS}",
        bibtex=citation("praveen2024dca"),
        modalities=base.modalities,
        params=combined(f"{base.params.__name__}WithDca", base.params, GateParams, released=released),
        attend=attend,
        readout=readout,
        revision=base.revision,
        space={**base.space, "temperature": {"log": [0.03, 3.0]}},
        released=released,
        context=base.context,
    )
