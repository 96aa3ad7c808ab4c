"""`crossfold rescore`: finished cells under another chain of post-processing or battery of stress."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import track

from crossfold.platform.edge.console import JsonOption, PluginOption, SetOption, WorkspaceOption, emit, out, tell_error
from crossfold.platform.errors import UserError
from crossfold.platform.results import Workspace

if TYPE_CHECKING:
    from crossfold.platform.contracts import Cell
    from crossfold.platform.edge.launch import Prepared
    from crossfold.platform.evaluation_options import Evaluation


def rescore(
    sweep: Annotated[str, typer.Argument(help="A YAML file, or the name of a sweep that ships.")],
    post: Annotated[
        str | None,
        typer.Option(help="A chain: none, ca2021, dca2024, or a YAML file.", show_default="as in the recipe"),
    ] = None,
    stress: Annotated[
        str | None,
        typer.Option(help="A battery: none, quick, default, full, or a YAML file.", show_default="as in the recipe"),
    ] = None,
    workspace: WorkspaceOption = None,
    set_: SetOption = None,
    plugin: PluginOption = None,
    device: Annotated[str, typer.Option(help="Where to compute: cpu or cuda.")] = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Score finished cells of a sweep in another way, without training. Their committed results never change."""
    from crossfold.platform.edge.launch import prepare_cells, read_sweep

    space = Workspace.locate(workspace)
    prepared = prepare_cells(read_sweep(sweep, set_, plugin), space)
    cells = prepared.plan.cells
    if not cells:
        raise UserError(f"{prepared.sweep.name} has no cells", "see what `crossfold plan` skips")
    evaluation = _asked(cells[0].recipe.evaluation, post, stress)
    done = sum(cell.cell_id in prepared.finished for cell in cells)
    computed, failed = rescore_cells(cells, evaluation, space, device=device, silent=as_json)
    folder = space.rescored / evaluation.key
    if as_json:
        spelled = {"evaluation": evaluation.key, "folder": str(folder), "finished": done}
        emit(spelled | {"rescored": computed, "failed": failed}, True)
    else:
        out.print(
            f"{prepared.sweep.name}: {done} of {len(cells)} cells finished; {computed} scored now, {failed} failed, "
            f"{done - computed - failed} had been before; in {folder}",
            markup=False,
            soft_wrap=True,
        )
    if failed:
        raise typer.Exit(1)


def rescore_cells(
    cells: "Sequence[Cell]", evaluation: "Evaluation", space: Workspace, *, device: str = "cpu", silent: bool = False
) -> tuple[int, int]:
    """Scores those finished cells that this evaluation has not seen; returns how many it did and how many failed."""
    from crossfold.platform.rescoring import rescore as rescore_cell
    from crossfold.platform.rescoring import to_rescore

    waiting, failed = list(to_rescore(cells, evaluation, space)), 0
    for cell in track(waiting, "scoring finished cells in another way", console=out, disable=silent or not waiting):
        try:
            rescore_cell(cell.cell_id, evaluation, space, device)
        except UserError as error:
            failed += 1
            tell_error(error)
    return len(waiting) - failed, failed


def look_again(prepared: "Prepared", space: Workspace, *, silent: bool) -> None:
    """The end of a run: cells finished earlier, under another chain or battery, are scored as this sweep says."""
    before = [cell for cell in prepared.plan.cells if cell.cell_id in prepared.finished]
    if before:
        rescore_cells(before, before[0].recipe.evaluation, space, silent=silent)


def _asked(own: "Evaluation", post: str | None, stress: str | None) -> "Evaluation":
    from crossfold.platform.evaluation_options import Evaluation

    given: dict[str, Any] = {"post": own.post, "stress": own.stress}
    for key, value in (("post", post), ("stress", stress)):
        if value is not None:
            given[key] = _from_file(value, key) if value.endswith((".yaml", ".yml")) else value
    return Evaluation.parse(given, "--post, --stress")


def _from_file(name: str, key: str) -> Any:
    """The chain or battery of a YAML file: bare, or under its key as in a recipe."""
    import yaml

    try:
        found = yaml.safe_load(Path(name).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"--{key} {name} cannot be read: {error}", "give a YAML file, or a name") from None
    if isinstance(found, dict) and key in found:
        return found[key]
    return {"steps": found} if key == "post" and isinstance(found, list) else found
