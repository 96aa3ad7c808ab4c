"""Commands about data: make an embedded corpus, check a folder, build the feature store."""

import contextlib
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from crossfold.platform.core.errors import UserError
from crossfold.platform.core.files import write_bytes
from crossfold.platform.edge.cli.options import JsonOption, PluginOption, WeightsOption, WorkspaceOption
from crossfold.platform.edge.terminal.console import emit, err, out
from crossfold.platform.workspace.workspace import Workspace

if TYPE_CHECKING:
    from crossfold.platform.core.process_pool import Workers
    from crossfold.platform.features.feature_settings import Preparation

FEATURES, WORK = "Features", "Work"
GPU_SHARE = 0.5
"""Of a GPU, for each Ray task: while one decodes, the other computes."""

CorpusSetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="option=value of the corpus, such as label_shift=2.4 of recola.", show_default=False),
]
RootOption = Annotated[Path, typer.Option("--root", help="Folder of the corpus, in its own layout.")]


class Bars:
    """One progress bar a stage, on standard error, where they do not disturb what is piped."""

    def __init__(self) -> None:
        self.progress = Progress(
            TextColumn("{task.description:<22}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=err
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "Bars":
        self.progress.start()
        return self

    def __exit__(self, *problem: object) -> None:
        self.progress.stop()

    def stage(self, name: str, done: int, total: int) -> None:
        """Moves the bar of a stage."""
        if name not in self._tasks:
            self._tasks[name] = self.progress.add_task(name, total=total)
        self.progress.update(self._tasks[name], completed=done, total=total)

    def clips(self, done: int, total: int) -> None:
        """Moves the bar that counts clips."""
        self.stage("clips", done, total)


def corpus_puppets(
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to make; it appears whole or not at all.")],
    clips: Annotated[int, typer.Option(min=4, help="Annotated clips.")] = 24,
    seconds: Annotated[float, typer.Option(min=2.0, help="Length of each clip.")] = 20.0,
    seed: Annotated[int, typer.Option(help="Another seed makes other clips.")] = 0,
    layout: Annotated[str, typer.Option(help="How files lie: affwild2, recola or manifest.")] = "affwild2",
) -> None:
    """Rendered faces and synthesised speech with known valence and arousal, in the layout of a real corpus."""
    from crossfold.datasets.corpora.embedded.puppets import write_puppets

    with Bars() as bars:
        write_puppets(folder, clips=clips, seconds=seconds, seed=seed, layout=layout, progress=bars.clips)
    out.print(f"puppets: {clips} clips of {seconds:g} s in {folder}", soft_wrap=True)
    out.print(f"next: crossfold prepare puppets --root {shlex.quote(str(folder))}", soft_wrap=True)


def corpus_synthetic(
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to make; it appears whole or not at all.")],
    clips: Annotated[int, typer.Option(min=4, help="Clips.")] = 12,
    frames: Annotated[int, typer.Option(min=50, help="Frames of each clip.")] = 400,
    seed: Annotated[int, typer.Option(help="Another seed makes other clips.")] = 0,
) -> None:
    """Features without media, with the same planted spans as puppets; for tests and first steps."""
    from crossfold.datasets.corpora.embedded.synthetic import write_synthetic

    write_synthetic(folder, clips=clips, frames=frames, seed=seed)
    out.print(f"synthetic: {clips} clips of {frames} frames in {folder}", soft_wrap=True)
    out.print(f"next: crossfold prepare synthetic --root {shlex.quote(str(folder))}", soft_wrap=True)


def validate(
    corpus: Annotated[str, typer.Argument(help="Layout of the folder; `crossfold list corpora` shows them.")],
    root: RootOption,
    set_: CorpusSetOption = None,
    plugin: PluginOption = None,
    as_json: JsonOption = False,
) -> None:
    """What is wrong with a data folder, in plain words, before any work. Exits with 2 if anything must be mended."""
    from crossfold.datasets.corpora.findings import Finding, findings_table
    from crossfold.datasets.corpora.registry import find_reader
    from crossfold.platform.core.errors import UserError
    from crossfold.platform.core.registry import load_plugin

    for path in plugin or ():
        load_plugin(path)
    entry = find_reader(corpus, root)
    if not root.is_dir():
        raise UserError(f"{root} is not a folder", f"give the folder of {corpus} as --root")
    inspection = entry.read(root.resolve(), deep=True, options=_options(set_))
    errors = sum(finding.severity == "error" for finding in inspection.findings)
    findings = list(inspection.findings)
    if not inspection.clips and not errors:
        errors = 1
        findings.append(
            Finding(str(root), "clips", f"holds no clip that {corpus} reads", "give another folder, or mend the reader")
        )
    # Without a clip nobody knows what the folder holds.
    name = inspection.corpus if inspection.clips else corpus
    rows = findings_table(findings).to_dict("records")
    if as_json:
        emit({"corpus": name, "clips": len(inspection.clips), "findings": rows}, True)
    else:
        if rows:
            emit([{str(key): value for key, value in row.items()} for row in rows], False, "Findings")
        warnings = sum(finding.severity == "warning" for finding in findings)
        out.print(f"{name}: {len(inspection.clips)} usable clips, {errors} errors, {warnings} warnings")
    if errors:
        raise typer.Exit(2)


def prepare(
    corpus: Annotated[str, typer.Argument(help="Layout of the folder; `crossfold list corpora` shows them.")],
    root: RootOption,
    workspace: WorkspaceOption = None,
    audio: Annotated[str, typer.Option(help="Extractor of the sound, or none.", rich_help_panel=FEATURES)] = "logmel",
    visual: Annotated[str, typer.Option(help="Extractor of the face, or none.", rich_help_panel=FEATURES)] = "light",
    text: Annotated[str, typer.Option(help="Extractor of the words, or none.", rich_help_panel=FEATURES)] = "none",
    weights: WeightsOption = None,
    random_weights: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="SEED",
            help="Random weights instead of pretrained ones, to try the plumbing; the corpus is named so.",
            rich_help_panel=FEATURES,
            show_default=False,
        ),
    ] = None,
    faces: Annotated[
        bool,
        typer.Option(
            "--faces/--no-faces",
            help="Clips without crops: cut faces out of their videos, or do without.",
            rich_help_panel=FEATURES,
        ),
    ] = True,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.", rich_help_panel=WORK)] = "auto",
    processes: Annotated[
        int | None, typer.Option(min=1, help="Clips read at a time; the store is the same.", rich_help_panel=WORK)
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(help="A Ray cluster, as auto, ray://head:10001, or local.", rich_help_panel=WORK),
    ] = None,
    folds: Annotated[
        Path | None,
        typer.Option(help="A file of folds to use (`crossfold folds`).", show_default="the corpus's own"),
    ] = None,
    set_: CorpusSetOption = None,
    plugin: PluginOption = None,
) -> None:
    """Build the feature store of a corpus. Interrupted, the same command continues.

    `crossfold list extractors` shows what --audio, --visual and --text may name.
    """
    from crossfold.platform.core.registry import load_plugin
    from crossfold.platform.features.extractors import FeaturePlan
    from crossfold.platform.features.feature_settings import Preparation

    for path in plugin or ():
        load_plugin(path)
    named = {"audio": audio, "visual": visual, "text": text}
    plan = FeaturePlan(
        **{modality: None if name == "none" else name for modality, name in named.items()},
        faces="find" if faces else "given",
        random_weights=random_weights,
    )
    space = Workspace.locate(workspace)
    asked = Preparation(plan, weights, device, tuple(plugin or ()), folds, _options(set_))
    store = build_store(space, corpus, root, asked, address=address, processes=processes)
    out.print(f"store: {store}", soft_wrap=True)
    for note in _notes(store):
        out.print(note, soft_wrap=True)


def _notes(path: Path) -> list[str]:
    """What a reader of results should know of how a store was made."""
    from crossfold.datasets.store.feature_store import FeatureStore
    from crossfold.platform.features.prepare import RANDOM

    store = FeatureStore(path)
    notes = []
    if "faces" in store.manifest["origin"].get("visual", {}):
        share = float(store.present("visual").mean())
        notes.append(f"note: clips without crops had their faces cut out of the video; {share:.0%} of frames show one")
    if store.corpus.endswith(RANDOM):
        notes.append(f"note: encoders have random weights; sweeps call this corpus {store.corpus}")
    return notes


def build_store(
    workspace: Workspace,
    corpus: str,
    root: Path,
    asked: "Preparation | None" = None,
    *,
    address: str | None = None,
    processes: int | None = None,
) -> Path:
    """Prepares a corpus under progress bars and returns the folder of its store."""
    from crossfold.platform.features import prepare as preparing

    if workspace.mirror is not None:
        workspace.mirror.files.check(write=True)
    with Bars() as bars, contextlib.ExitStack() as opened:

        def ray_workers(paths: Sequence[Path], device: str) -> "Workers":
            from crossfold.platform.edge.fleet.task_pool import RayWorkers

            assert address is not None
            gpus = GPU_SHARE if device == "cuda" else 0.0
            return opened.enter_context(RayWorkers(address, paths, gpus=gpus, processes=processes))

        workers = ray_workers if address is not None else None
        return preparing.prepare(
            workspace, corpus, root, asked, processes=processes, open_workers=workers, progress=bars.stage
        )


def _options(given: list[str] | None) -> dict[str, Any]:
    """The options of `--set`, as the corpus's reader takes them."""
    import yaml

    from crossfold.platform.core.errors import UserError

    options: dict[str, Any] = {}
    for text in given or ():
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UserError(f"--set {text!r} is not option=value", "such as --set label_shift=2.4")
        try:
            options[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise UserError(f"--set {text!r}: {value!r} is no value", "such as --set label_shift=2.4") from None
    return options


def folds(
    corpus: Annotated[str, typer.Argument(help="A corpus; `crossfold list corpora` shows them.")],
    root: Annotated[Path | None, typer.Option(help="Its folder; else its store in the workspace.")] = None,
    store: Annotated[str | None, typer.Option(help="Hash of the store, where there are several.")] = None,
    out_: Annotated[Path | None, typer.Option("--out", help="File to write.", show_default="standard output")] = None,
    check: Annotated[Path | None, typer.Option(help="A file of folds to check against the corpus.")] = None,
    workspace: WorkspaceOption = None,
    plugin: PluginOption = None,
) -> None:
    """Write the folds of a corpus as a file, or check one. `crossfold prepare --folds FILE` trains on the same."""
    from crossfold.datasets.corpora.findings import refuse_errors
    from crossfold.datasets.corpora.partitions import fold_file, make_folds, read_fold_file
    from crossfold.datasets.corpora.registry import find_reader
    from crossfold.datasets.store.feature_store import FeatureStore
    from crossfold.platform.core.registry import load_plugin

    for path in plugin or ():
        load_plugin(path)
    if root is not None:
        if not root.is_dir():
            raise UserError(f"{root} is not a folder", f"give the folder of {corpus} as --root")
        inspection = find_reader(corpus, root).inspect(root.resolve(), deep=False)
        refuse_errors(inspection.findings, root)
        name, clips = inspection.corpus, [clip.info for clip in inspection.clips]
        found = inspection.folds or make_folds(clips)
    else:
        opened = FeatureStore(Workspace.locate(workspace).find_store(corpus, store))
        name, clips, found = opened.corpus, list(opened.clips), opened.folds
    if check is not None:
        given = read_fold_file(check, clips)
        same = "the same as" if given == found else "other than"
        out.print(f"{check}: {len(given)} folds of {name}, no leak; {same} its own", soft_wrap=True)
        return
    named = {clip for fold in found for clip in (*fold.train, *fold.validation)}
    text = fold_file(name, found, [clip.name for clip in clips if clip.name not in named])
    if out_ is None:
        typer.echo(text, nl=False)
        return
    write_bytes(out_, text.encode())
    out.print(f"{out_}: {len(found)} folds of {len(clips)} clips", soft_wrap=True)
    out.print(f"next: crossfold prepare {corpus} --root DIR --folds {out_}", soft_wrap=True)
