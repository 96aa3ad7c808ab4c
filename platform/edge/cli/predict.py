"""`crossfold predict`: from a video to a trace of each target, with a finished cell, a system or an exported model."""

import json
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crossfold.platform.core.errors import UserError, did_you_mean
from crossfold.platform.edge.cli import options
from crossfold.platform.edge.terminal import completion
from crossfold.platform.edge.terminal.console import counted, emit, err, say

if TYPE_CHECKING:
    from crossfold.platform.export.predictor import Predictor
    from crossfold.platform.export.traces import Joined
    from crossfold.platform.features.new_clips import NewClip, ReadingOptions

FORMATS = ("csv", "parquet")
STANDARD_INPUT = Path("-")
POLL_SECONDS = 0.05
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+")


def predict(
    model: Annotated[
        str,
        typer.Argument(
            metavar="CELL|SYSTEM|FOLDER",
            help="A cell id, or its first digits; a system, whose cells of all folds and seeds are averaged; or a "
            "folder written by `export --format predictor`.",
            autocompletion=completion.predictors,
        ),
    ],
    clips: Annotated[
        list[Path],
        typer.Argument(
            metavar="CLIP...", help="Videos, wav files, folders of face crops (with the sound, if any), or features."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The folder for the tables and pages.")] = Path("predictions"),
    format_: Annotated[str, typer.Option("--format", help="The kind of table: csv or parquet.")] = "csv",
    page: Annotated[bool, typer.Option(help="Also write an HTML page with film, traces, gates and attention.")] = True,
    whole_frame: Annotated[
        bool, typer.Option("--whole-frame", help="The pictures are crops of a face already: look for none.")
    ] = False,
    follow: Annotated[
        bool,
        typer.Option(
            "--follow",
            help="Print each frame while CLIP grows: a file that is being written, a pipe, or - for standard input.",
        ),
    ] = False,
    idle: Annotated[
        float, typer.Option(min=0.0, help="Seconds without growth after which a file that is followed is complete.")
    ] = 10.0,
    rate: Annotated[
        float | None,
        typer.Option(help="Frames per second of clips without video.", show_default="the corpus's"),
    ] = None,
    corpus: Annotated[
        str | None, typer.Option(help="Take the cells of SYSTEM on this corpus.", autocompletion=completion.corpora)
    ] = None,
    weights: options.Weights = None,
    workspace: options.Workspace = None,
    plugin: options.Plugin = None,
    as_json: options.Json = False,
) -> None:
    """Predict valence, arousal or other targets frame by frame for clips that no corpus holds.

    With --follow, systems that see no future frame predict a camera or a microphone while it is recorded.
    """
    if format_ not in FORMATS:
        raise UserError(f"--format {format_}{did_you_mean(format_, FORMATS)}", f"give one of {', '.join(FORMATS)}")
    _check_model(model, clips)
    _check(clips, follow=follow)
    from crossfold.platform.features.new_clips import ReadingOptions

    predictors, by = _predictors(model, corpus, workspace)
    options_ = ReadingOptions(weights, whole_frame, rate)
    if follow:
        _follow(
            predictors, clips[0], options_, idle=idle, as_json=as_json, end=_End(out, format_, by if page else None)
        )
        return
    written = []
    for clip in clips:
        # One after the other, and written at once: what a later clip raises loses no earlier one.
        joined, notes = _joined(predictors, clip, options_)
        written.append(_write(joined, clip, out, format_, by if page else None) | {"notes": notes})
        if not as_json:
            say(*notes, ", ".join(written[-1]["files"]))
    if as_json:
        emit({"by": by, "cells": len(predictors), "clips": written}, True)
        return
    say(f"predicted by {by}")


def _check_model(model: str, clips: Sequence[Path]) -> None:
    """What predicts is no file: not a clip that stands in its place, nor the weights of a cell."""
    path = Path(model)
    if not path.is_file() or not path.suffix:  # a file may have the name of a system
        return
    if path.suffix == ".safetensors":
        cell = path.absolute().parent
        remedy = f"crossfold predict {cell.name if cell.parent.name == 'cells' else cell} {clips[0]}"
        raise UserError(f"{model} holds the weights of a model alone", f"give its cell, or its folder: {remedy}")
    raise UserError(
        f"{model} is a file in the place of what predicts",
        "a cell, a system or an exported folder comes first, and clips follow: "
        f"crossfold predict {'CELL' if clips[0].exists() else clips[0]} {model}",
    )


def _check(clips: Sequence[Path], *, follow: bool) -> None:
    """Every clip is there and has a name of its own, before any of them is read."""
    names: dict[str, Path] = {}
    if follow and len(clips) > 1:
        raise UserError(f"--follow with {len(clips)} clips", "follow one in each terminal")
    for clip in clips:
        if clip == STANDARD_INPUT and follow:
            continue
        if (address := _ADDRESS.match(str(clip))) is not None:
            # A path has lost the second of the two slashes.
            shown = f"{address[1]}://{str(clip)[address.end() :]}"
            pipe = f"ffmpeg -i {shown} -f mpegts - | crossfold predict MODEL - --follow"
            raise UserError(
                f"{shown} is an address, and only files are read", f"download it, or follow what it sends: {pipe}"
            )
        if follow and clip.is_dir():
            raise UserError(f"--follow with the folder {clip}", "give the file that is being written, or a pipe")
        if not clip.exists():
            raise UserError(f"there is no {clip}", "give a video, a wav file, a folder of crops, or features")
        if (other := names.setdefault(clip.absolute().stem, clip)) != clip:
            raise UserError(f"{other} and {clip} would write the same files", "predict them into folders of their own")


@dataclass(frozen=True)
class _End:
    """What is written of a recording that was followed, when it ends."""

    out: Path
    format_: str
    by: str | None
    """What predicted, for the page; None where none is written."""


def _follow(
    predictors: Sequence["Predictor"], clip: Path, asked: "ReadingOptions", *, idle: float, as_json: bool, end: _End
) -> None:
    """Prints frames of a growing recording as csv or JSON lines, and writes table and page at its end."""
    from crossfold.datasets.media.growing import GrowingFile, GrowingRecording
    from crossfold.platform.export.growing_prediction import GrowingTrace

    for predictor in predictors:
        predictor.stream()  # says why not, before anything is waited for
    name = "standard input" if clip == STANDARD_INPUT else str(clip)
    ends_by_itself = clip == STANDARD_INPUT or clip.is_fifo()
    with open(0 if clip == STANDARD_INPUT else clip, "rb", buffering=0, closefd=clip != STANDARD_INPUT) as file:
        growing = GrowingFile(file, lambda: not ends_by_itself and grows(clip, file.tell(), idle))
        trace = GrowingTrace(predictors, GrowingRecording(growing, name), asked)
        err.print(f"delay: a frame is printed {trace.delay:.2f} s after its begin, and what computing takes")
        stopped = False
        try:
            for begin, joined in trace.blocks():
                table = joined.table()
                table["frame"] += begin
                lines = {"orient": "records", "lines": True} if as_json else {"index": False, "header": begin == 0}
                typer.echo((table.to_json if as_json else table.to_csv)(**lines), nl=False)
                sys.stdout.flush()
        except KeyboardInterrupt:
            stopped = True  # what was predicted is kept
    joined_all = trace.finish()
    if joined_all is None:
        raise UserError(f"{name} ended before its first frame", "see that something writes it; --idle waits for longer")
    shown = Path("stdin") if clip == STANDARD_INPUT else clip
    written = _write(joined_all, shown, end.out, end.format_, end.by)
    for line in (*trace.notes, ", ".join(written["files"])):
        err.print(line, soft_wrap=True)
    if stopped:
        raise typer.Exit(options.INTERRUPTED)


def grows(path: Path, read: int, idle: float) -> bool:
    """Waits until a file is longer than `read` bytes; false where it did not grow for `idle` seconds."""
    last = time.monotonic() + idle
    while path.stat().st_size <= read:
        if time.monotonic() >= last:
            return False
        time.sleep(POLL_SECONDS)
    return True


def _predictors(model: str, corpus: str | None, workspace: str | None) -> tuple[list["Predictor"], str]:
    """The members that predict, and what they are in words."""
    from crossfold.datasets.store.feature_store import FeatureStore
    from crossfold.fusion_models.catalogue import system_names
    from crossfold.platform.export.choose_cells import best_variant
    from crossfold.platform.export.predictor import Predictor

    if (Path(model) / "cell.json").is_file():
        predictor = Predictor.load(Path(model))
        return [predictor], predictor.cell.label
    space = options.open_workspace(workspace)
    if any(name.startswith(model) for name in space.finished()):
        records = [space.read(model)]
    elif model in (names := system_names()):
        records = best_variant(space.records(), model, corpus)
    else:
        options.check_is_no_sweep(space, model)
        near = did_you_mean(model, names)
        raise UserError(
            f"{model!r} is no finished cell of {space}, no system, and no exported folder{near}",
            "see `crossfold status` and `crossfold list systems`; a system in a file of yours needs --plugin FILE",
        )
    predictors = [
        Predictor.of(record, FeatureStore(space.find_store(record.cell.corpus, record.cell.store)))
        for record in records
    ]
    if len(records) == 1:
        return predictors, records[0].cell.label
    folds, seeds = ({getattr(record.cell, name) for record in records} for name in ("fold", "seed"))
    of = f"{counted(len(folds), 'fold')}, {counted(len(seeds), 'seed')}"
    by = f"{len(records)} cells of {model} on {records[0].cell.corpus}: {of}"
    return predictors, by


def _joined(predictors: Sequence["Predictor"], path: Path, asked: "ReadingOptions") -> tuple["Joined", list[str]]:
    """The members' mean for one clip; those with the same front ends share what was read of it."""
    from crossfold.platform.export.traces import join

    read: dict[str, NewClip] = {}
    members = []
    for predictor in predictors:
        key = json.dumps([predictor.front_end.origin, predictor.front_end.fps], sort_keys=True)
        if key not in read:
            read[key] = predictor.read(path, asked)
        members.append((predictor, predictor.trace_of(read[key])))
    notes = list(dict.fromkeys(note for clip in read.values() for note in clip.notes))
    return join(next(iter(read.values())).axis, members), notes


def _write(joined: "Joined", clip: Path, out: Path, format_: str, by: str | None) -> dict[str, Any]:
    from crossfold.platform.export.predictions_table import write_table
    from crossfold.platform.export.trace_page import write_page

    out.mkdir(parents=True, exist_ok=True)
    name = clip.absolute().stem
    files = [out / f"{name}.{format_}"]
    write_table(files[0], joined.table())
    if by is not None:
        files.append(out / f"{name}.html")
        write_page(files[1], joined, name, by, clip)
    return {"clip": str(clip), "frames": joined.axis.frames, "files": [str(path) for path in files]}
