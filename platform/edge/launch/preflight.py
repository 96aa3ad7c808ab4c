"""What `run`, `search` and `demo` have in common: from a sweep to finished cells."""

import os
from collections.abc import Sequence
from pathlib import Path

from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.platform.core.cell import Cell
from crossfold.platform.core.errors import UserError
from crossfold.platform.workspace.workspace import Workspace
from crossfold.sweeps.plan import expand
from crossfold.sweeps.prepared import Prepared
from crossfold.sweeps.sweep_files import Search
from crossfold.sweeps.trials import check_space, corners, trial_cells, winner_sweep


def use_weights(folder: Path | None) -> None:
    """What `--weights` names, for this process and every worker it starts, as `CROSSFOLD_WEIGHTS`."""
    if folder is not None:
        os.environ["CROSSFOLD_WEIGHTS"] = str(folder.resolve())


def check_address(address: str | None) -> None:
    """Ray waits for minutes for what is no address at all; a dashboard's is for `submit`."""
    if address is None or address in ("auto", "local"):
        return
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if address.startswith("http") or not (host and colon and port.isdecimal()):
        what = "the address of a dashboard" if address.startswith("http") else "no address of a Ray cluster"
        remedy = "give auto, head:6379 or ray://head:10001"
        raise UserError(
            f"--address {address!r} is {what}", remedy + (", or use `crossfold submit`" if "http" in address else "")
        )


def check_before_work(prepared: Prepared, workspace: Workspace, weights: Path | None = None) -> None:
    """Raises `UserError` where the store lacks what the cells feed on, or weights they start from are not there."""
    check_cells(prepared.missing, prepared.store, workspace, weights)


def check_search(search: Search, store: FeatureStore, workspace: Workspace) -> None:
    """The same for all that a search may choose, and for the cells of its winner; and that its space is sound.

    Trials run on the workers of one fleet, which have a device each.
    """
    check_space(search, store)
    cells: list[Cell] = []
    for chosen in corners(search):
        cells += trial_cells(search, store, chosen)
        if wide := [cell.recipe.devices for cell in cells if cell.recipe.devices > 1]:
            raise UserError(
                f"search {search.name}: devices {wide[0]}, and the cells of a search have one device each",
                "search with --set devices=1; a sweep of the winner may have more",
            )
        cells += expand(winner_sweep(search, chosen), store).cells
    check_cells(cells, store, workspace)


def check_cells(cells: Sequence[Cell], store: FeatureStore, workspace: Workspace, weights: Path | None = None) -> None:
    """Raises `UserError` where `store` lacks what one of these feeds on, or weights it starts from are not there."""
    from crossfold.platform.modeling.emotion_model import modalities_of
    from crossfold.platform.modeling.frame_encoder import check_inputs, check_weights
    from crossfold.platform.modeling.pretrained_files import weights_folder

    folder = weights_folder(weights, workspace)
    variants = {(cell.system, id(cell.params), id(cell.recipe)): cell for cell in cells}
    asked = {(cell.recipe.identity_json, modalities_of(cell)): cell.recipe for cell in variants.values()}
    for (_, modalities), recipe in asked.items():
        check_inputs(recipe, store, modalities)
        check_weights(recipe, modalities, folder)
