"""`crossfold rescore`: score finished cells under another chain of post-processing or stress suite."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crossfold.platform.core.errors import UserError
from crossfold.platform.edge.cli import options
from crossfold.platform.edge.terminal.console import emit, say

if TYPE_CHECKING:
    from crossfold.platform.core.evaluation_config import Evaluation
    from crossfold.platform.core.process_pool import Workers
    from crossfold.platform.workspace.workspace import Workspace


def rescore(
    sweep: options.Sweep,
    post: Annotated[
        str | None,
        typer.Option(help="A chain: none, ca2021, dca2024, or a YAML file.", show_default="as in the recipe"),
    ] = None,
    stress: Annotated[
        str | None,
        typer.Option(
            help="A stress suite: none, quick, default, full, a YAML file, or '{doses: [0.25, 0.5, 1]}'.",
            show_default="as in the recipe",
        ),
    ] = None,
    workspace: options.Workspace = None,
    set_: options.Set = None,
    plugin: options.Plugin = None,
    only: options.Only = None,
    device: Annotated[str, typer.Option(help="Where to compute: cpu or cuda.")] = "cpu",
    processes: Annotated[
        int | None,
        typer.Option(min=1, help="How many cells are scored at a time.", show_default="cores, as far as it pays"),
    ] = None,
    address: options.Helpers = None,
    by_video: Annotated[
        bool,
        typer.Option(
            "--by-video",
            help="Also score cells again that have no numbers by video under damage, as those of version 0.1; the "
            "intervals of stress areas need them.",
        ),
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Score finished cells of a sweep in another way, without training. Their committed results never change."""
    from crossfold.platform.edge.launch.rescore import rescore_cells
    from crossfold.sweeps.launched import earlier_cells
    from crossfold.sweeps.prepared import prepare_cells, read_sweep
    from crossfold.sweeps.selection import only as choose

    if device not in ("cpu", "cuda"):
        raise UserError(f"--device {device!r} is neither cpu nor cuda", "give one of them")
    space = options.open_workspace(workspace)
    prepared = prepare_cells(read_sweep(sweep, set_, space), space)
    cells = choose((*prepared.plan.cells, *earlier_cells(prepared, space)), only or ())
    if not cells:
        raise UserError(f"{prepared.sweep.name} has no cells", "see what `crossfold plan` skips")
    evaluation = _asked(cells[0].recipe.evaluation, post, stress)
    done = sum(cell.cell_id in prepared.finished for cell in cells)
    with _workers(address, device, processes, space) as work:
        computed, failed = rescore_cells(
            cells,
            evaluation,
            space,
            device=device,
            workers=work,
            plugins=tuple(plugin or ()),
            by_video=by_video,
            silent=as_json,
        )
    folder = space.paths.rescored / evaluation.key
    if as_json:
        facts = {"evaluation": evaluation.key, "folder": str(folder), "finished": done}
        emit(facts | {"rescored": computed, "failed": failed}, True)
    else:
        say(
            f"{prepared.sweep.name}: {done} of {len(cells)} cells finished; {computed} scored now, {failed} failed, "
            f"{done - computed - failed} had been before; in {folder}"
        )
    if failed:
        raise typer.Exit(1)


@contextlib.contextmanager
def _workers(address: str | None, device: str, processes: int | None, space: "Workspace") -> "Iterator[Workers | None]":
    from crossfold.platform.core.process_pool import LocalWorkers

    if address is None:
        yield LocalWorkers(processes) if processes is not None else None
        return
    from crossfold.platform.edge.fleet.task_pool import RayWorkers

    seen = [space.root] if space.mirror is None else []
    with RayWorkers(address, seen, gpus=float(device == "cuda"), processes=processes) as workers:
        yield workers


def _asked(own: "Evaluation", post: str | None, stress: str | None) -> "Evaluation":
    from crossfold.platform.core.evaluation_config import Evaluation

    given: dict[str, Any] = {"post": own.post, "stress": own.stress}
    for key, value in (("post", post), ("stress", stress)):
        if value is not None:
            given[key] = _from_file(value, key) if value.endswith((".yaml", ".yml")) else _from_text(value, key)
    return Evaluation.parse(given, "--post, --stress")


def _from_text(text: str, key: str) -> Any:
    """A name, or a mapping as YAML writes it on one line."""
    from crossfold.platform.core.yaml_files import parse_yaml

    return parse_yaml(text, f"--{key}", "give a name, a YAML file, or {doses: [...]}") if "{" in text else text


def _from_file(name: str, key: str) -> Any:
    """The chain or stress suite of a YAML file: alone, or under its key as in a recipe."""
    from crossfold.platform.core.yaml_files import parse_yaml, read_yaml_text

    text = read_yaml_text(Path(name), f"the file of --{key}")
    found = parse_yaml(text, f"--{key} {name}", "give a YAML file, or a name")
    if isinstance(found, dict) and key in found:
        return found[key]
    return {"steps": found} if key == "post" and isinstance(found, list) else found
