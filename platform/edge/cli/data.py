"""Commands about data: make an embedded corpus, check a folder, build the feature store, write folds."""

import contextlib
import shlex
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crossfold.platform.edge.cli import options
from crossfold.platform.edge.terminal.console import counted, emit, err, say

if TYPE_CHECKING:
    from crossfold.platform.core.process_pool import Workers
    from crossfold.platform.features.feature_settings import Preparation
    from crossfold.platform.workspace.workspace import Workspace

GPU_SHARE = 0.5
"""Of a GPU, for each Ray task: while one decodes, the other computes."""

RootOption = Annotated[Path, typer.Option(help="Folder of the corpus, in its own layout.")]
CorpusSetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="option=value of the corpus, such as label_shift=2.4 of recola.", show_default=False),
]
FoldRule = Annotated[
    str | None,
    typer.Option(
        "--fold-rule",
        help="grouped: whole videos and subjects on one side. as_released: the cuts of the papers' code.",
        show_default="the corpus's own, else grouped",
    ),
]
OutArgument = Annotated[Path, typer.Argument(metavar="OUT", help="Folder to make; it appears complete or not at all.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Another seed makes other clips.")]


@contextlib.contextmanager
def progress_bars() -> Iterator[Callable[[str, int, int], None]]:
    """Draws a bar for each stage on standard error, where they do not disturb what is piped.

    Yields `show(stage, done, total)`.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<22}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err) as progress:
        tasks = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=total)
            progress.update(tasks[stage], completed=done, total=total)

        yield show


def puppets(
    folder: OutArgument,
    clips: Annotated[int, typer.Option(min=4, max=100_000, help="Number of annotated clips.")] = 24,
    seconds: Annotated[float, typer.Option(min=2.0, max=36_000.0, help="Length of each clip.")] = 20.0,
    seed: SeedOption = 0,
    layout: Annotated[str, typer.Option(help="The layout of the files: affwild2, recola or manifest.")] = "affwild2",
    dose: Annotated[
        list[str] | None,
        typer.Option("--dose", help="name=value of what is planted, such as conflict=0.2.", show_default=False),
    ] = None,
) -> None:
    """Render faces and synthesise speech with known valence and arousal, in the layout of a real corpus."""
    from crossfold.datasets.corpora.embedded.puppets import layout_or_dose, write_puppets

    chosen = layout_or_dose(layout, options.key_values(dose, "--dose"))
    with progress_bars() as show:
        counted = partial(show, "clips")
        write_puppets(folder, clips=clips, seconds=seconds, seed=seed, layout=chosen, progress=counted)
    say(f"puppets: {clips} clips of {seconds:g} s in {folder}", _next("puppets", folder))


def synthetic(
    folder: OutArgument,
    clips: Annotated[int, typer.Option(min=4, max=100_000, help="Number of clips.")] = 12,
    frames: Annotated[int, typer.Option(min=50, max=1_000_000, help="Frames of each clip.")] = 400,
    seed: SeedOption = 0,
) -> None:
    """Make features without media, with the same planted spans as puppets; for tests and first steps."""
    from crossfold.datasets.corpora.embedded.synthetic import write_synthetic

    write_synthetic(folder, clips=clips, frames=frames, seed=seed)
    say(f"synthetic: {clips} clips of {frames} frames in {folder}", _next("synthetic", folder))


def _next(corpus: str, folder: Path) -> str:
    return f"next: crossfold prepare {corpus} --root {shlex.quote(str(folder))}"


def validate(
    corpus: options.Layout,
    root: RootOption,
    set_: CorpusSetOption = None,
    plugin: options.Plugin = None,
    as_json: options.Json = False,
) -> None:
    """Say what is wrong with a data folder, before any work. It exits with 2 if anything must be fixed."""
    from crossfold.datasets.corpora.findings import Finding, findings_table
    from crossfold.datasets.corpora.registry import find_reader

    reader = find_reader(corpus, root)
    options.check_folder(root, corpus)
    inspection = reader.read(root.resolve(), deep=True, options=options.key_values(set_, "--set"))
    findings = list(inspection.findings)
    if not inspection.clips and not any(finding.severity == "error" for finding in findings):
        problem, remedy = f"holds no clip that {corpus} reads", "give another folder, or fix the reader"
        findings.append(Finding(str(root), "clips", problem, remedy))
    # Without a clip the reader cannot say what the folder holds.
    name = inspection.corpus if inspection.clips else corpus
    rows = [{str(key): value for key, value in row.items()} for row in findings_table(findings).to_dict("records")]
    errors, warnings = (sum(finding.severity == kind for finding in findings) for kind in ("error", "warning"))
    if as_json:
        emit({"corpus": name, "clips": len(inspection.clips), "findings": rows}, True)
    else:
        if rows:
            emit(_counted(rows), False, "Findings")
        say(
            f"{name}: {counted(len(inspection.clips), 'usable clip')}, {counted(errors, 'error')}, "
            f"{counted(warnings, 'warning')}"
        )
    if errors:
        raise typer.Exit(2)


def _counted(rows: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """Findings with the same words as one row that names the first file and counts the others."""
    alike: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in rows:
        alike.setdefault(tuple(value for key, value in row.items() if key != "file"), []).append(row)
    return [
        first | {"file": first["file"] + (f" and {len(others)} more" if others else "")}
        for first, *others in alike.values()
    ]


def prepare(
    corpus: options.Layout,
    root: RootOption,
    workspace: options.Workspace = None,
    audio: Annotated[str, typer.Option(help="Extractor of the sound, or none.")] = "logmel",
    visual: Annotated[str, typer.Option(help="Extractor of the face, or none.")] = "light",
    text: Annotated[str, typer.Option(help="Extractor of the words, or none.")] = "none",
    weights: options.Weights = None,
    random_weights: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="SEED",
            help="Random weights instead of pretrained ones, to test the pipeline; the name of the corpus says so.",
            show_default=False,
        ),
    ] = None,
    faces: Annotated[
        bool,
        typer.Option("--faces/--no-faces", help="For clips without crops: cut faces out of their videos, or do not."),
    ] = True,
    whole_frame: Annotated[
        bool,
        typer.Option(
            "--whole-frame", help="For clips without crops: the pictures of their videos are crops of a face."
        ),
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    processes: Annotated[
        int | None, typer.Option(min=1, help="How many clips are read at a time; the store does not depend on it.")
    ] = None,
    address: options.Helpers = None,
    folds: Annotated[
        Path | None,
        typer.Option(help="A file of folds to use (`crossfold folds`).", show_default="the corpus's own"),
    ] = None,
    fold_rule: FoldRule = None,
    set_: CorpusSetOption = None,
    plugin: options.Plugin = None,
) -> None:
    """Build the feature store of a corpus. If it is interrupted, the same command continues.

    `crossfold list extractors` shows what --audio, --visual and --text may name.
    """
    from crossfold.platform.features.extractors import FeaturePlan
    from crossfold.platform.features.feature_settings import Preparation

    audio_, visual_, text_ = (None if name == "none" else name for name in (audio, visual, text))
    how = options.how_faces_are_cut(faces=faces, whole_frame=whole_frame)
    plan = FeaturePlan(audio=audio_, visual=visual_, text=text_, faces=how, random_weights=random_weights)
    space = options.open_workspace(workspace)
    asked = Preparation(plan, weights, device, tuple(plugin or ()), folds, options.key_values(set_, "--set"), fold_rule)
    store = build_store(space, corpus, root, asked, address=address, processes=processes)
    say(f"store: {store}", *_notes(store), _next_run(store, workspace, plugin))


def _next_run(path: Path, workspace: str | None, plugins: Sequence[Path] | None) -> str:
    """The command that trains on a store."""
    from crossfold.datasets.store.feature_store import FeatureStore

    store = FeatureStore(path)
    words = ["run", "demo"]
    if store.corpus != "puppets":
        words += ["--set", f"corpus={store.corpus}"]
    if (names := list(store.targets)) != ["valence", "arousal"]:
        words += ["--set", f"targets=[{', '.join(names)}]"]
    return f"next: {options.command_line(words, plugins, workspace)}"


def _notes(path: Path) -> Iterator[str]:
    """What a reader of results should know of how a store was made."""
    from crossfold.datasets.store.feature_store import FeatureStore
    from crossfold.platform.core.cell import FOLD_RULES
    from crossfold.platform.features.prepare import RANDOM

    store = FeatureStore(path)
    yield f"folds: {len(store.folds)}, {store.fold_rule}: {FOLD_RULES[store.fold_rule]}"
    how = store.manifest["origin"].get("visual", {}).get("faces")
    if how is not None and "dlib" not in how:
        yield "note: for clips without crops, the whole pictures of their videos are the crops"
    elif how is not None:
        share = float(store.present("visual").mean())
        yield f"note: clips without crops had their faces cut out of the video; {share:.0%} of frames show one"
    if store.corpus.endswith(RANDOM):
        yield f"note: encoders have random weights; sweeps call this corpus {store.corpus}"


def build_store(
    workspace: "Workspace",
    corpus: str,
    root: Path,
    asked: "Preparation | None" = None,
    *,
    address: str | None = None,
    processes: int | None = None,
) -> Path:
    """Prepares a corpus under progress bars and returns the folder of its store."""
    from crossfold.platform.features.prepare import prepare as prepare_store

    if workspace.mirror is not None:
        workspace.mirror.files.check(write=True)
    with progress_bars() as show, contextlib.ExitStack() as opened:

        def ray_workers(paths: Sequence[Path], device: str) -> "Workers":
            from crossfold.platform.edge.fleet.task_pool import RayWorkers

            assert address is not None
            gpus = GPU_SHARE if device == "cuda" else 0.0
            return opened.enter_context(RayWorkers(address, paths, gpus=gpus, processes=processes))

        workers = ray_workers if address is not None else None
        return prepare_store(workspace, corpus, root, asked, processes=processes, open_workers=workers, progress=show)


def folds(
    corpus: options.CorpusName,
    root: Annotated[Path | None, typer.Option(help="Its folder; else its store in the workspace.")] = None,
    store: Annotated[str | None, typer.Option(help="Hash of the store, where there are several.")] = None,
    out_: Annotated[Path | None, typer.Option("--out", help="File to write.", show_default="standard output")] = None,
    check: Annotated[Path | None, typer.Option(help="A file of folds to check against the corpus.")] = None,
    rule: FoldRule = None,
    workspace: options.Workspace = None,
    plugin: options.Plugin = None,
) -> None:
    """Write the folds of a corpus as a file, or check one. `crossfold prepare --folds FILE` trains on the same."""
    from crossfold.datasets.corpora.findings import refuse_errors
    from crossfold.datasets.corpora.partitions import FoldTable, choose_folds, fold_file, read_fold_file
    from crossfold.datasets.corpora.registry import find_reader
    from crossfold.datasets.store.feature_store import FeatureStore
    from crossfold.platform.core.cell import AS_RELEASED, FOLD_RULES
    from crossfold.platform.core.files import write_bytes

    if root is not None:
        options.check_folder(root, corpus)
        inspection = find_reader(corpus, root).inspect(root.resolve(), deep=False)
        refuse_errors(inspection.findings, root)
        name, clips = inspection.corpus, [clip.info for clip in inspection.clips]
        found = choose_folds(clips, inspection.folds, rule)
    else:
        opened = FeatureStore(options.open_workspace(workspace).find_store(corpus, store))
        name, clips, found = opened.corpus, list(opened.clips), FoldTable(opened.folds, opened.fold_rule)
        if rule is not None:
            found = choose_folds(clips, None, rule)
    if check is not None:
        given = read_fold_file(check, clips)
        same = "the same as" if given.folds == found.folds else "other than"
        leak = "" if given.rule == AS_RELEASED else ", no leak"
        say(f"{check}: {counted(len(given.folds), 'fold')} of {name} ({given.rule}){leak}; {same} its own")
        return
    named = {clip for fold in found.folds for clip in (*fold.train, *fold.validation)}
    text = fold_file(name, found, [clip.name for clip in clips if clip.name not in named])
    if out_ is None:
        typer.echo(text, nl=False)
        return
    write_bytes(out_, text.encode())
    say(
        f"{out_}: {counted(len(found.folds), 'fold')} of {counted(len(clips), 'clip')} "
        f"({found.rule}: {FOLD_RULES[found.rule]})"
    )
    say(f"next: crossfold prepare {corpus} --root DIR --folds {out_}")
