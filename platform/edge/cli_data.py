"""Commands about data: make an embedded corpus, check a folder, build the feature store."""

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from crossfold.platform.edge.console import JsonOption, WorkspaceOption, emit, err, out
from crossfold.platform.results import Workspace

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
    seed: int = 0,
) -> None:
    """Rendered faces and synthesised speech with known valence and arousal, in the layout of Aff-Wild2."""
    from crossfold.datasets.puppets import write_puppets

    with Bars() as bars:
        write_puppets(folder, clips=clips, seconds=seconds, seed=seed, progress=bars.clips)
    out.print(f"puppets: {clips} clips of {seconds:g} s in {folder}", soft_wrap=True)
    out.print(f"next: crossfold prepare puppets --root {folder}", soft_wrap=True)


def corpus_synthetic(
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to make; it appears whole or not at all.")],
    clips: Annotated[int, typer.Option(min=4, help="Clips.")] = 12,
    frames: Annotated[int, typer.Option(min=50, help="Frames of each clip.")] = 400,
    seed: int = 0,
) -> None:
    """Features without media, with the same planted spans as puppets; for tests and first steps."""
    from crossfold.datasets.synthetic import write_synthetic

    write_synthetic(folder, clips=clips, frames=frames, seed=seed)
    out.print(f"synthetic: {clips} clips of {frames} frames in {folder}", soft_wrap=True)
    out.print(f"next: crossfold prepare synthetic --root {folder}", soft_wrap=True)


def validate(
    corpus: Annotated[str, typer.Argument(help="Layout of the folder; `crossfold list corpora` shows them.")],
    root: RootOption,
    as_json: JsonOption = False,
) -> None:
    """What is wrong with a data folder, in plain words, before any work. Exits with 2 if anything must be mended."""
    from crossfold.datasets.corpora import CORPORA
    from crossfold.datasets.validation import findings_table
    from crossfold.platform.errors import UserError

    entry = CORPORA.get(corpus)
    if not root.is_dir():
        raise UserError(f"{root} is not a folder", f"give the folder of {corpus} as --root")
    inspection = entry.inspect(root.resolve(), deep=True)
    errors = sum(finding.severity == "error" for finding in inspection.findings)
    rows = findings_table(inspection.findings).to_dict("records")
    if as_json:
        emit({"corpus": inspection.corpus, "clips": len(inspection.clips), "findings": rows}, True)
    else:
        if rows:
            emit([{str(key): value for key, value in row.items()} for row in rows], False, "Findings")
        warnings = len(inspection.findings) - errors
        out.print(f"{inspection.corpus}: {len(inspection.clips)} usable clips, {errors} errors, {warnings} warnings")
    if errors:
        raise typer.Exit(2)


def prepare(
    corpus: Annotated[str, typer.Argument(help="Layout of the folder; `crossfold list corpora` shows them.")],
    root: RootOption,
    workspace: WorkspaceOption = None,
    processes: Annotated[int | None, typer.Option(min=1, help="Clips read at a time; the store is the same.")] = None,
) -> None:
    """Build the feature store of a corpus. Interrupted, the same command continues."""
    path = build_store(Workspace.locate(workspace), corpus, root, processes)
    out.print(f"store: {path}", soft_wrap=True)


def build_store(workspace: Workspace, corpus: str, root: Path, processes: int | None = None) -> Path:
    """Prepares a corpus under progress bars and returns the folder of its store."""
    from crossfold.platform import prepare as preparing

    with Bars() as bars:
        return preparing.prepare(workspace, corpus, root, processes=processes, progress=bars.stage)
