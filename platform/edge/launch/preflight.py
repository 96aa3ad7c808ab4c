"""What is checked and tidied before any cell runs: addresses, inputs, weights, disk, leftovers, damaged cells."""

import contextlib
import os
from collections.abc import Iterator, Sequence, Set
from pathlib import Path

from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.platform.core.cell import Cell
from crossfold.platform.core.errors import UserError
from crossfold.platform.edge.fleet.ray_address import find_cluster
from crossfold.platform.modeling.inputs import check_inputs, check_weights
from crossfold.platform.modeling.pretrained_files import weights_folder
from crossfold.platform.scheduling.fleet_options import FleetOptions
from crossfold.platform.workspace.disk_space import require_space
from crossfold.platform.workspace.driver_lease import driver_lock
from crossfold.platform.workspace.repair import damaged_cells, move_damaged_aside, remove_leftovers
from crossfold.platform.workspace.workspace import Workspace
from crossfold.sweeps.plan import expand
from crossfold.sweeps.prepared import Prepared
from crossfold.sweeps.sweep_files import Search, Variant
from crossfold.sweeps.system_facts import variant_facts
from crossfold.sweeps.trials import check_space, corners, trial_cells, winner_sweep


def use_weights(folder: Path | None) -> None:
    """Sets `CROSSFOLD_WEIGHTS` to what `--weights` names, for this process and every worker it starts."""
    if folder is not None:
        os.environ["CROSSFOLD_WEIGHTS"] = str(folder.resolve())


def check_cluster(options: FleetOptions) -> None:
    """Raises `UserError` where a launch would join a Ray cluster that does not answer: Ray would try for minutes."""
    if options.workers != 0 and options.cluster is not None:
        find_cluster(options.cluster)


def check_graphs(cells: Sequence[Cell], options: FleetOptions) -> None:
    """Raises `UserError` where a cell records a CUDA graph, and all workers are on a machine without a GPU."""
    recording = next((cell.recipe for cell in cells if cell.recipe.cuda_graph), None)
    if recording is not None and options.cluster is None:
        import torch

        unused = options.workers == 0 or options.use_gpu is False or not torch.cuda.is_available()
        recording.check_device("cpu" if unused else "cuda")


def check_before_work(prepared: Prepared, workspace: Workspace, weights: Path | None = None) -> None:
    """Raises `UserError` where the store lacks an input of the cells, or weights they start from are missing."""
    for store, cells in prepared.missing_by_store:
        check_cells(cells, store, workspace, weights)


def check_search(search: Search, store: FeatureStore, workspace: Workspace) -> None:
    """Raises `UserError` for a space that is not sound, and where the store or the weights lack what a cell of a trial
    or of the winner needs.

    Trials run on the workers of one fleet, which have one device each.
    """
    check_space(search, store)
    cells: list[Cell] = []
    for chosen in corners(search):
        cells += trial_cells(search, store, chosen)
        if several := [cell.recipe.devices for cell in cells if cell.recipe.devices > 1]:
            raise UserError(
                f"search {search.name}: devices {several[0]}, and the cells of a search have one device each",
                "search with --set devices=1; a sweep of the winner may have more",
            )
        cells += expand(winner_sweep(search, chosen), store).cells
    check_cells(cells, store, workspace)


def check_cells(cells: Sequence[Cell], store: FeatureStore, workspace: Workspace, weights: Path | None = None) -> None:
    """Raises `UserError` where `store` lacks an input of one of these, or weights it starts from are missing."""
    folder = weights_folder(weights, workspace)
    # Cells of one variant share these objects, and one cell of each variant is enough.
    variants = {(cell.system, id(cell.params), id(cell.recipe)): cell for cell in cells}
    facts = variant_facts([Variant(system=cell.system, params=cell.params) for cell in variants.values()])
    asked = {
        (cell.recipe.identity_json, each.modalities): cell.recipe
        for cell, each in zip(variants.values(), facts, strict=True)
    }
    for (_, modalities), recipe in asked.items():
        check_inputs(recipe, store, modalities)
        check_weights(recipe, modalities, folder)


@contextlib.contextmanager
def driving(space: Workspace) -> Iterator[None]:
    """Holds the right to drive a workspace, and removes what killed processes left half-written.

    Raises `OSError` on a full disk, and `UserError` where another process drives.
    """
    require_space(space.root)
    with driver_lock(space):
        remove_leftovers(space)
        yield


def tidy(space: Workspace) -> None:
    """As `driving` does, for a command that runs no cell; another process that drives will do it, or did."""
    with contextlib.suppress(UserError), driver_lock(space):
        remove_leftovers(space)


def move_damaged(space: Workspace, cell_ids: Set[str]) -> dict[str, tuple[str, Path]]:
    """Moves those finished cells aside that are no longer what was committed: (what is wrong, where it is) by cell."""
    damaged = damaged_cells(space, cell_ids)
    if not damaged:
        return {}
    with driver_lock(space):
        return move_damaged_aside(space, damaged)
