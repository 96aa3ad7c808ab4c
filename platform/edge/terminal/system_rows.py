"""What the command line shows of systems: the list, and what one of them computes."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossfold.platform.edge.terminal.kept_rows import kept_rows

if TYPE_CHECKING:
    from crossfold.fusion_models.system import System
    from crossfold.platform.core.base_model import FrozenModel


def system_list() -> list[dict[str, Any]]:
    """What `list systems` shows."""
    return kept_rows("systems", _rows, Path(__file__))


def _rows() -> list[dict[str, Any]]:
    from crossfold.fusion_models.catalogue import find_system, system_names, systems

    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "title": system.title,
            "modalities": "+".join(system.modalities),
            "paper and equations": system.source,
            "parameters": list(system.params.model_fields),
        }
        for name in system_names()
        for system in [find_system(name)]
    ]
    blank = dict.fromkeys(("modalities", "paper and equations", "parameters"))
    return rows + [{"name": n, "title": f"unavailable: {why}", **blank} for n, why in systems.unavailable.items()]


def system_facts(system: "System", params: "FrozenModel", widths: dict[str, int], frames: int) -> dict[str, Any]:
    """Everything `explain` says, as plain data. Runs one window through a freshly built module."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from crossfold.fusion_models.catalogue import documentation
    from crossfold.fusion_models.system import Features

    modalities = system.modalities_for(params)
    used = {m: widths[m] for m in modalities}
    with torch.random.fork_rng(), torch.no_grad():
        fusion = system.build(params, used, frames).eval()
        x = {m: torch.randn(1, frames, d) for m, d in used.items()}
        notes: dict[str, torch.Tensor] = {}
        with FlopCounterMode(display=False) as counter:
            z_BLZ = fusion(Features(x, torch.ones(1, frames, dtype=torch.bool)), notes)
    shapes = [{"name": f"X_{m}", "kind": "input", "shape": [frames, d]} for m, d in used.items()]
    shapes += [{"name": n, "kind": "weight", "shape": list(p.shape)} for n, p in fusion.named_parameters()]
    shapes += [{"name": n, "kind": "intermediate", "shape": list(v.shape[1:])} for n, v in notes.items()]
    shapes.append({"name": "Z", "kind": "output", "shape": list(z_BLZ.shape[1:])})
    uncounted = any(isinstance(module, torch.nn.LSTM) for module in fusion.modules())
    return {
        "system": system.name,
        "title": system.title,
        "source": system.source,
        "modalities": list(modalities),
        "about": documentation(system.name),
        "equations": system.equations.splitlines(),
        "shapes": shapes,
        "parameters": sum(p.numel() for p in fusion.parameters()),
        "flops_per_window": counter.get_total_flops(),
        "flops_note": "torch's counter does not see LSTM kernels" if uncounted else "",
        "streams": system.context(params) is not None,
        "switches": _switches(system, params),
        "released": dict(system.released),
        "bibtex": system.bibtex,
    }


def _switches(system: "System", params: "FrozenModel") -> list[dict[str, Any]]:
    """Every parameter; `departs` where its value is not the resolved reading of the print."""
    given, resolved = params.model_dump(mode="json"), system.params().model_dump(mode="json")
    return [
        {
            "switch": name,
            "value": given[name],
            "default": resolved[name],
            "departs": given[name] != resolved[name],
            "about": " ".join((info.description or "").split()),
        }
        for name, info in type(params).model_fields.items()
    ]
