"""`crossfold export`: predictions and weights for others to use; `crossfold folds`: folds for others to train on."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crossfold.platform.core.errors import UserError, did_you_mean
from crossfold.platform.edge.cli import options
from crossfold.platform.edge.terminal.console import counted, emit, say

if TYPE_CHECKING:
    from crossfold.platform.core.cell import Cell
    from crossfold.platform.workspace.cell_record import CellRecord
    from crossfold.platform.workspace.workspace import Workspace


FORMATS = ("abaw", "csv", "parquet", "backbone", "predictor", "results", "tensorboard")


def export(
    sweep: options.SweepOrCell,
    out_: Annotated[Path, typer.Option("--out", help="csv, parquet: a file or a folder; else a folder.")],
    format_: Annotated[
        str,
        typer.Option(
            "--format",
            help="abaw: files of the VA track; csv, parquet: a table of predictions; backbone: trained weights; "
            "predictor: all that `crossfold predict` needs on another machine; results: scores alone, for "
            "`crossfold report --join` of another group; tensorboard: learning curves.",
        ),
    ] = "abaw",
    system: options.SystemOfSweep = None,
    params: Annotated[list[str] | None, typer.Option(help="key=value of the system, where variants differ.")] = None,
    fold: Annotated[list[int] | None, typer.Option(help="Folds, each by its own --fold.", show_default="all")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Seeds; several are averaged.", show_default="all")] = None,
    best_folds: Annotated[
        int | None,
        typer.Option(
            min=1, help="Only so many folds: those with the best score on the split that chose their epochs (E13)."
        ),
    ] = None,
    sample: Annotated[
        Path | None, typer.Option(help="abaw: the organisers' sample file, whose lines are filled in its order.")
    ] = None,
    part: Annotated[
        str, typer.Option(help="reported: what the cells reported; test: the corpus's test part, predicted now.")
    ] = "reported",
    post: Annotated[
        bool, typer.Option("--post", help="Export predictions after the post-processing of each cell's recipe.")
    ] = False,
    workspace: options.Workspace = None,
    set_: options.Set = None,
    plugin: options.Plugin = None,
    as_json: options.Json = False,
) -> None:
    """Write what finished cells give: an ABAW submission, a table of predictions, trained weights, or scores alone."""
    from crossfold.platform.evaluation.ensembles import best_folds as choose_folds
    from crossfold.platform.evaluation.ensembles import scores_of_means
    from crossfold.platform.export.abaw import ABAW_TARGETS, JOINT_FILE, write_abaw
    from crossfold.platform.export.predictions_table import tidy, write_table
    from crossfold.platform.export.tracks import join, predictions_of_part
    from crossfold.sweeps.prepared import prepare_cells, read_sweep

    if format_ not in FORMATS:
        raise UserError(f"--format {format_}{did_you_mean(format_, FORMATS)}", f"give one of {', '.join(FORMATS)}")
    space = options.open_workspace(workspace)
    if format_ == "predictor":
        _export_predictor(space, sweep, out_, as_json)
        return
    prepared = prepare_cells(read_sweep(sweep, set_, space), space)
    cells = _chosen(prepared.plan.cells, system, params, fold, seed)
    if format_ == "abaw":
        cells = _one_variant(cells, ABAW_TARGETS)
    records = _finished(space, cells, prepared.finished, sweep)
    if best_folds is not None:
        kept = choose_folds(records, best_folds)
        records = [record for record in records if record.cell.fold in kept]
    if format_ == "backbone":
        _export_backbones(records, out_, as_json)
        return
    if format_ == "results":
        from crossfold.platform.export.results_folder import write_results

        write_results(space, records, out_)
        if as_json:
            emit({"folder": str(out_), "cells": len(records)}, True)
        else:
            say(f"{out_}: {counted(len(records), 'cell')}", f"next: crossfold report --join WORKSPACE {out_}")
        return
    if format_ == "tensorboard":
        from crossfold.platform.edge.tracking.tensorboard import write_tensorboard

        write_tensorboard(records, out_)
        if as_json:
            emit({"folder": str(out_), "cells": len(records)}, True)
        else:
            say(f"{out_}: {counted(len(records), 'cell')}", f"next: tensorboard --logdir {out_}")
        return
    stores = {store.content_hash: store for store in prepared.stores}
    members = [predictions_of_part(record, stores[record.cell.store], part, post=post) for record in records]
    if format_ == "abaw":
        path = out_ / JOINT_FILE
        written = write_abaw(out_, join(members, ABAW_TARGETS), sample)
        facts: dict[str, Any] = {"file": str(path), "cells": len(records), **vars(written)}
        facts |= {"averaged": _labels(records), "scores": scores_of_means(members)}
    else:
        from crossfold.platform.workspace.workspace import corpora_of

        # Two corpora of one workspace would else overwrite each other's file.
        of = f"-{records[0].cell.corpus}" if records and len(corpora_of(space)) > 1 else ""
        path = out_ if out_.suffix == f".{format_}" else out_ / f"predictions{of}.{format_}"
        table = tidy([(record.cell, predictions) for record, predictions in zip(records, members, strict=True)])
        write_table(path, table)
        facts = {"file": str(path), "cells": len(records), "rows": len(table), "averaged": {}, "scores": []}
    if as_json:
        emit(facts, True)
        return
    counts = ", ".join(f"{value} {name}" for name, value in facts.items() if isinstance(value, int))
    say(f"{path}: {counts}", *(f"  of {label}" for label in facts["averaged"].values()))
    for score in facts["scores"]:
        say(
            f"{score['target']} CCC {score['ccc']:.4f}: the mean of {counted(score['cells'], 'cell')} on "
            f"{counted(score['clips'], 'clip')}, {score['frames']} labelled frames"
        )


def _labels(records: Sequence["CellRecord"]) -> dict[str, str]:
    """The cells that an export is made of, by identity."""
    return {record.cell_id: record.cell.label for record in records}


def _export_predictor(space: "Workspace", cell: str, folder: Path, as_json: bool) -> None:
    from crossfold.datasets.store.feature_store import FeatureStore
    from crossfold.platform.export.predictor import write_deployment

    options.check_is_no_sweep(space, cell)
    record = space.read(cell)
    store = FeatureStore(space.find_store(record.cell.corpus, record.cell.store))
    write_deployment(record, store, folder)
    if as_json:
        emit({"cell": record.cell_id, "folder": str(folder)}, True)
        return
    say(f"{folder}: {record.cell.label}", f"next: crossfold predict {folder} VIDEO")


def _export_backbones(records: Sequence["CellRecord"], folder: Path, as_json: bool) -> None:
    from crossfold.platform.export.backbone_weights import write_backbones

    if len(records) > 1:
        raise UserError(
            f"{len(records)} cells, such as {records[0].cell.label} and {records[1].cell.label}",
            "weights are of one: give --system, --fold, --seed, and --set targets=[valence] where targets are apart",
        )
    paths = write_backbones(records[0], folder)
    if as_json:
        emit({"cell": records[0].cell_id, "files": [str(path) for path in paths]}, True)
        return
    for path in paths:
        say(f"{path}: of {records[0].cell.label}")
    say(f"next: crossfold prepare CORPUS --root DIR --weights {folder}")


def _chosen(
    cells: Sequence["Cell"],
    system: str | None,
    params: Sequence[str] | None,
    folds: Sequence[int] | None,
    seeds: Sequence[int] | None,
) -> list["Cell"]:
    """The cells that the options leave; an option that leaves none answers with what there is."""
    wanted = {"system": [system] if system else None, "fold": folds, "seed": seeds}
    for name, values in wanted.items():
        known = sorted({getattr(cell, name) for cell in cells})
        for value in values or ():
            if value not in known:
                listed = did_you_mean(str(value), map(str, known))
                raise UserError(f"--{name} {value} is not in the sweep{listed}", "see `crossfold plan`")
        cells = [cell for cell in cells if not values or getattr(cell, name) in values]
    for key, asked in options.key_values(params, "--params").items():
        known = sorted({name for cell in cells for name in cell.params})
        if key not in known:
            raise UserError(f"--params {key!r}{did_you_mean(key, known)}", "write --params key=value")
        cells = [cell for cell in cells if cell.params.get(key) == asked]
    if not cells:
        raise UserError("no cell of the sweep has all of this", "see `crossfold plan`")
    return list(cells)


def _one_variant(cells: Sequence["Cell"], targets: Sequence[str]) -> list["Cell"]:
    """The cells of the one system that is handed in, for the targets that are."""
    cells = [cell for cell in cells if set(cell.targets) & set(targets)]
    have = sorted({target for cell in cells for target in cell.targets})
    if missing := [target for target in targets if target not in have]:
        raise UserError(f"the sweep has no cell of {missing[0]}", "ABAW's VA track needs both; else --format csv")
    systems = sorted({cell.system for cell in cells})
    if len(systems) > 1:
        raise UserError(f"{len(systems)} systems: {', '.join(systems)}", "a submission is of one: give --system")
    selections = sorted({cell.recipe.selection for cell in cells})
    if len(selections) > 1:
        raise UserError(
            f"cells of {' and '.join(selections)} selection", "a submission is of one: give --set selection=reported"
        )
    encoded = [{key: json.dumps(value) for key, value in cell.params.items()} for cell in cells]
    differ = {key: sorted({params[key] for params in encoded}) for key in encoded[0]}
    differ = {key: values for key, values in differ.items() if len(values) > 1}
    if differ:
        listed = "; ".join(f"{key} is {' or '.join(values)}" for key, values in differ.items())
        raise UserError(f"variants of {systems[0]}: {listed}", "a submission is of one: give --params key=value")
    return cells


def _finished(space: "Workspace", cells: Sequence["Cell"], finished: frozenset[str], sweep: str) -> list["CellRecord"]:
    """The results of all chosen cells; an average over fewer would pass for one over all."""
    if missing := [cell for cell in cells if cell.cell_id not in finished]:
        problem = f"{len(missing)} of {len(cells)} cells have no result, such as {missing[0].label}"
        raise UserError(problem, f"`crossfold run {sweep}`, or choose finished ones with --system, --fold, --seed")
    return [space.read_exactly(cell.cell_id) for cell in cells]
