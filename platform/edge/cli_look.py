"""Commands that only look: what there is, what would run, how far it is, what came out."""

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from crossfold.platform.core.errors import UserError, nearest
from crossfold.platform.edge.diagnostics.pretrained import doctor_rows
from crossfold.platform.edge.fleet.cluster import cores
from crossfold.platform.edge.terminal.console import (
    JsonOption,
    PluginOption,
    SetOption,
    WeightsOption,
    WorkspaceOption,
    emit,
    out,
    spell_seconds,
    spell_workers,
)
from crossfold.platform.edge.terminal.encoder_rows import backbone_rows, extractor_rows, weights_rows
from crossfold.platform.edge.terminal.recipe_rows import difference_rows, recipe_list
from crossfold.platform.workspace.workspace import Workspace

MOST_PATHS = 6
"""More tables than these are told as a number and a folder."""
WATCH_SECONDS = 2.0
"""Between two looks of `status --watch`."""
KINDS = ("systems", "corpora", "recipes", "sweeps", "tables", "extractors", "backbones", "weights")


def list_(
    kind: Annotated[str, typer.Argument(help=f"{', '.join(KINDS[:-1])} or {KINDS[-1]}")],
    as_json: JsonOption = False,
    plugin: PluginOption = None,
    workspace: WorkspaceOption = None,
    weights: WeightsOption = None,
    diff: Annotated[
        tuple[str, str] | None,
        typer.Option("--diff", help="Two recipes: the fields in which they differ.", metavar="A B", show_default=False),
    ] = None,
) -> None:
    """What there is to choose from."""
    from crossfold.platform.core.registry import load_plugin

    for path in plugin or ():
        load_plugin(path)
    if kind not in KINDS:
        raise UserError(f"unknown kind {kind!r}{nearest(kind, KINDS)}", f"one of {', '.join(KINDS)}")
    if diff is not None:
        if kind != "recipes":
            raise UserError(f"--diff compares recipes, not {kind}", "crossfold list recipes --diff A B")
        emit(difference_rows(*diff), as_json, f"{diff[0]} against {diff[1]}")
        return
    rows = weights_rows(workspace, weights) if kind == "weights" else _LISTERS[kind]()
    emit(rows, as_json, kind.capitalize())


def _systems() -> list[dict[str, Any]]:
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


def _corpora() -> list[dict[str, Any]]:
    from crossfold.datasets.corpora.registry import CORPORA

    return [
        {"name": name, "description": entry.description, "layout": entry.layout, "needs": entry.needs}
        for name in CORPORA
        for entry in [CORPORA.get(name)]
    ]


def _sweeps() -> list[dict[str, Any]]:
    from crossfold.sweeps.sweep_files import Search, load, shipped_sweeps

    rows = []
    for name in shipped_sweeps():
        sweep = load(name)
        kind = "search" if isinstance(sweep, Search) else "grid"
        rows.append({"name": name, "kind": kind, "corpus": sweep.corpus, "recipe": sweep.recipe})
    return rows


def _tables() -> list[dict[str, Any]]:
    from crossfold.reports.specs import LEADERBOARD, table_ids, table_spec

    own = {"name": LEADERBOARD, "paper": "", "caption": "Every system that ran, on the corpus it ran on."}
    papers = [table_spec(name) for name in table_ids() if name != LEADERBOARD]
    return [own, *({"name": spec.id, "paper": spec.paper, "caption": spec.caption} for spec in papers)]


_LISTERS = {
    "systems": _systems,
    "corpora": _corpora,
    "recipes": recipe_list,
    "sweeps": _sweeps,
    "tables": _tables,
    "extractors": extractor_rows,
    "backbones": backbone_rows,
}


def plan(
    sweep: Annotated[str, typer.Argument(help="A YAML file, or the name of a sweep that ships.")],
    workspace: WorkspaceOption = None,
    set_: SetOption = None,
    plugin: PluginOption = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Cells at a time, for the prediction.")] = None,
    weights: WeightsOption = None,
    as_json: JsonOption = False,
) -> None:
    """What a sweep would run: cells in all, done, to run, their time and peak memory, and what is skipped and why.

    Memory is that of finished cells of the same variant: of a GPU, or what a cell adds to its process on a CPU.
    """
    from crossfold.platform.edge.launch.preflight import check_before_work
    from crossfold.platform.execution.cost_history import cost_key, format_peaks, known_peaks
    from crossfold.platform.execution.duration_forecast import forecast
    from crossfold.sweeps.launched import variant_names
    from crossfold.sweeps.prepared import prepare_cells, read_sweep

    space = Workspace.locate(workspace)
    prepared = prepare_cells(read_sweep(sweep, set_, plugin), space)
    check_before_work(prepared, space, weights)
    seconds = forecast(prepared.missing, space, prepared.store)
    failed = {failure.cell_id for failure in space.failures_of()} - prepared.finished
    slots = workers or cores()
    # The longest cell takes its time however many workers there are.
    hours = max(sum(seconds.values()) / slots, *seconds.values(), 0.0) / 3600
    variants: dict[str, dict[str, Any]] = {}
    named, peaks = variant_names(prepared.plan.cells), known_peaks(space)
    for cell in prepared.plan.cells:
        name = named[cell.cell_id]
        if name not in variants:
            counts = {"cells": 0, "done": 0, "to_run": 0, "failed": 0, "each": 0.0}
            variants[name] = {"variant": name, **counts, "memory": dict(peaks.get(cost_key(cell), {}))}
        row = variants[name]
        row["cells"] += 1
        row["done" if cell.cell_id in prepared.finished else "to_run"] += 1
        row["failed"] += cell.cell_id in failed
        row["each"] = max(row["each"], seconds.get(cell.cell_id, 0.0))
    skipped = [{"system": entry.label, "reason": entry.reason} for entry in prepared.plan.skipped]
    total = {
        "sweep": prepared.sweep.name,
        "store": prepared.store.path.name,
        "cells": len(prepared.plan.cells),
        "done": len(prepared.plan.cells) - len(prepared.missing),
        "to_run": len(prepared.missing),
        "failed_before": len({cell.cell_id for cell in prepared.missing} & failed),
        "predicted_hours": hours,
        "workers": slots,
    }
    if as_json:
        emit({**total, "variants": list(variants.values()), "skipped": skipped}, True)
        return
    shown = [
        row | {"each": spell_seconds(row["each"]), "memory": format_peaks(row["memory"])} for row in variants.values()
    ]
    emit(shown, False, f"Plan of {total['sweep']}")
    if skipped:
        emit(skipped, False, "Skipped")
    out.print(
        f"{total['cells']} cells on {total['store']}: {total['done']} done, {total['to_run']} to run, "
        f"about {spell_seconds(hours * 3600)} with {spell_workers(slots)}"
    )


def status(
    sweep: Annotated[str | None, typer.Argument(help="A sweep that was launched; all of them if left out.")] = None,
    workspace: WorkspaceOption = None,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh every two seconds until all is done.")] = False,
    cells: Annotated[bool, typer.Option("--cells", help="A row a cell, with its id, state and CCC.")] = False,
    as_json: JsonOption = False,
) -> None:
    """How far the launched sweeps are, from any machine that sees the workspace."""
    from rich.live import Live

    from crossfold.platform.edge.terminal.status import cell_rows, picture, read_status

    space = Workspace.locate(workspace)
    if cells:
        if watch:
            raise UserError("--watch has no list of cells", "leave out --cells or --watch")
        emit(cell_rows(space, sweep), as_json, "Cells")
        return
    state = read_status(space, sweep)
    if as_json:
        emit(state.sweeps, True)
        return
    if not state.sweeps:
        out.print(f"no sweep was launched in {space} yet", soft_wrap=True)
        return
    if not watch:
        out.print(picture(state))
        return
    with Live(picture(state), console=out, auto_refresh=False) as live, contextlib.suppress(KeyboardInterrupt):
        while not state.over:
            time.sleep(WATCH_SECONDS)
            state = read_status(space, sweep)
            live.update(picture(state), refresh=True)


def report(
    tables: Annotated[list[str] | None, typer.Argument(help="Tables to build; all of them if left out.")] = None,
    workspace: WorkspaceOption = None,
    format_: Annotated[str, typer.Option("--format", help="Comma-separated: html, md, tex, csv.")] = "html,md,tex,csv",
    out_folder: Annotated[Path | None, typer.Option("--out", help="Folder; else <workspace>/reports.")] = None,
    charts: Annotated[bool, typer.Option("--charts/--no-figures", help="The page with charts, or small.")] = True,
    figures: Annotated[
        Path | None, typer.Option(help="Also write each chart as a file into this folder.", metavar="DIR")
    ] = None,
    figure_format: Annotated[str, typer.Option(help="Comma-separated: svg, png, pdf.")] = "svg",
    media: Annotated[
        Path | None,
        typer.Option(
            help="A corpus's folder: embed faces and sound of the clips shown, people included.", metavar="DIR"
        ),
    ] = None,
    serve: Annotated[
        bool, typer.Option("--serve", help="Serve the page here and refresh it while cells finish.")
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="For --serve; 0 takes any.")] = 8765,
) -> None:
    """Build the tables and the leaderboard from finished cells. Never trains, never needs a GPU."""
    from crossfold.reports.build import build_report
    from crossfold.reports.export import check_export, export_figures

    space = Workspace.locate(workspace)
    if media is not None and not media.is_dir():
        raise UserError(
            f"--media {media}: no such folder", "give the folder of the corpus, as --root of prepare had it"
        )
    if serve:
        _serve(space, port, tuple(tables or ()), charts, media)
        return
    formats = tuple(part.strip() for part in format_.split(",") if part.strip())
    if not formats:
        raise UserError(f"--format {format_!r} names no format", "give some of html, md, tex, csv")
    kinds = tuple(part.strip() for part in figure_format.split(",") if part.strip())
    if figures is not None:
        if "html" not in formats or not charts:
            raise UserError("--figures writes the charts of the page, and there is none", "leave html in --format")
        check_export(kinds)
    built = build_report(
        space, tables=tuple(tables or ()), formats=formats, out=out_folder, figures=charts, media=media
    )
    out.print(built.summary)
    _tell_files(built.paths, space, sent=out_folder is None)
    if figures is not None and built.page is not None:
        written = export_figures(built.page, figures, kinds, built.page.date)
        out.print(f"{len(written)} figures in {figures}", soft_wrap=True)


def _tell_files(paths: Sequence[Path], space: Workspace, *, sent: bool) -> None:
    """The page by its path, and tables by theirs unless they are many."""
    tables = [path for path in paths if path.suffix != ".html"]
    many = len(tables) > MOST_PATHS
    for path in paths:
        if not many or path.suffix == ".html":
            out.print(str(path), soft_wrap=True)
    if many:
        kinds = ", ".join(sorted({path.suffix for path in tables}))
        out.print(f"{len(tables)} tables ({kinds}) in {tables[0].parent}", soft_wrap=True)
    if sent and space.mirror is not None:
        out.print(f"all of it also at {space}/reports", soft_wrap=True)


def _serve(space: Workspace, port: int, tables: Sequence[str], charts: bool, media: Path | None) -> None:
    from crossfold.reports.serve import ReportServer
    from crossfold.reports.specs import check_tables

    check_tables(tables)
    server = ReportServer(space, port, tables, figures=charts, media=media)
    out.print(f"report of {space}: {server.url}", soft_wrap=True)
    out.print("It looks for finished cells every few seconds. Ctrl-C ends it.")
    with contextlib.suppress(KeyboardInterrupt):
        server.run()


def cite(
    what: Annotated[str, typer.Argument(metavar="SWEEP|SYSTEM", help="A sweep by file or name, or a system.")],
    plugin: PluginOption = None,
) -> None:
    """BibTeX of a system, or of every system a sweep runs."""
    from crossfold.platform.core.registry import load_plugin

    for path in plugin or ():
        load_plugin(path)
    from crossfold.fusion_models.catalogue import find_system, system_names
    from crossfold.sweeps.sweep_files import Search, load, shipped_sweeps

    if what in system_names():
        names = [what]
    else:
        try:
            asked = load(what)
        except UserError as error:
            if Path(what).is_file() or what in shipped_sweeps():
                raise
            hint = nearest(what, [*system_names(), *shipped_sweeps()])
            raise UserError(f"{what!r} is no system and no sweep{hint}", error.remedy) from None
        names = [asked.system] if isinstance(asked, Search) else [variant.system for variant in asked.systems]
    for entry in dict.fromkeys(find_system(name).bibtex for name in names):
        typer.echo(entry + "\n")


def look_at_place(given: str | None) -> tuple[Workspace, UserError | None]:
    """A workspace, and what is wrong with its URL; then the workspace is only the folder that would be used here."""
    try:
        space = Workspace.at(given)
        if space.mirror is not None:
            space.mirror.files.check(write=True)
    except UserError as error:
        return Workspace(Path(".crossfold")), error
    return space, None


def doctor(workspace: WorkspaceOption = None, weights: WeightsOption = None, as_json: JsonOption = False) -> None:
    """Checks what Crossfold needs on this machine and says what to do. Exits with 2 if something needed is not right.

    Pretrained weights are needed by recipes with backbones only, so missing ones are optional, damaged ones are not.
    """
    from crossfold.platform.edge.diagnostics.finding import row
    from crossfold.platform.edge.diagnostics.machine import machine_rows

    space, trouble = look_at_place(workspace)
    rows = machine_rows(space.root)
    if trouble is not None or space.mirror is not None:
        found = trouble.problem if trouble is not None else f"{space} can be read and written"
        rows.append(row("workspace URL", trouble is None, found, trouble.remedy if trouble is not None else ""))
    rows += doctor_rows(space, weights)
    emit(rows, as_json, "Doctor")
    if any(row["state"] in ("missing", "damaged") for row in rows):
        raise typer.Exit(2)
