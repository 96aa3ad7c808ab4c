"""Backbones that a cell has trained, taken out of it, so that another corpus or recipe may use them frozen.

004 trains its audio and its visual net alone, then fuses the features of both, frozen: cells of `ca2021_audio` and
`ca2021_visual` first, their backbones next into a folder of weights, and `crossfold prepare --weights` on it last.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file, save

from crossfold.platform.core.errors import UserError
from crossfold.platform.core.files import path_inside, write_bytes
from crossfold.platform.modeling.pretrained_files import OWN_SUFFIX
from crossfold.platform.workspace.cell_record import CellRecord


def write_backbones(record: CellRecord, folder: Path) -> tuple[Path, ...]:
    """Writes the best state of each backbone of a cell to `folder/<backbone>.safetensors`, whole or not at all.

    The file says which cell and fold it comes from: use its features on clips that the fold did not train on.
    Raises `UserError` where the recipe has no backbone, and where a file of another cell has the same name.
    """
    cell = record.cell
    if not cell.recipe.backbones:
        raise UserError(
            f"{cell.label} has no backbone: recipe {cell.recipe.name} trains on extracted features",
            "choose a recipe with `backbones`, such as ca2021_audio",
        )
    state = load_file(record.file("best.safetensors"))
    folder.mkdir(parents=True, exist_ok=True)
    about = {"cell_id": cell.cell_id, "cell": cell.label, "corpus": cell.corpus, "fold": str(cell.fold)}
    written = []
    for modality, backbone in sorted(cell.recipe.backbones.items()):
        beginning = f"frames.{modality}.net."
        own = {name.removeprefix(beginning): value for name, value in state.items() if name.startswith(beginning)}
        if not own:
            # The recipe has it, but the system of the cell does not read this modality.
            continue
        path = path_inside(folder, f"{backbone}{OWN_SUFFIX}")
        if path.is_file():
            there = load_file(path)
            if there.keys() != own.keys() or not all(torch.equal(there[name], own[name]) for name in own):
                raise UserError(f"{path} holds other weights", "give another --out, or remove the file first")
        else:
            write_bytes(path, save(own, metadata=about))
        written.append(path)
    return tuple(written)
