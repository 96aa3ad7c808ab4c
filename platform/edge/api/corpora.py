"""Feature stores from Python."""

from pathlib import Path
from typing import Any

from rich.progress import Progress, TaskID

from crossfold.platform.core.errors import UserError
from crossfold.platform.features.extractors import FeaturePlan
from crossfold.platform.features.feature_settings import Preparation
from crossfold.platform.features.prepare import prepare as prepare_store
from crossfold.platform.workspace.workspace import Workspace

CLIPS = {"puppets": 24, "synthetic": 12}
"""Clips of a corpus that Crossfold makes itself."""


def prepare(
    corpus: str,
    root: str | Path | None = None,
    *,
    audio: str | None = "logmel",
    visual: str | None = "light",
    text: str | None = None,
    workspace: str | Path | None = None,
    fold_rule: str | None = None,
    **options: Any,
) -> Path:
    """Builds the feature store of a corpus and returns its folder; at once where it is there already.

    root: folder of the corpus, in its own layout. Without one, `synthetic` and `puppets` are made in the workspace.
    audio, visual, text: extractors as `crossfold list extractors` shows them, None for no such modality.
    fold_rule: `grouped` (default) or `as_released`, the cuts of the papers' code.
    options: settings of the corpus's reader, such as `label_shift=2.4` of `recola`.
    Raises `UserError` for what cannot be read, before any work.
    """
    space = Workspace.locate(workspace)
    folder = Path(root) if root is not None else _made(corpus, space)
    asked = Preparation(FeaturePlan(audio=audio, visual=visual, text=text), options=options, fold_rule=fold_rule)
    with Progress(transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def moved(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        return prepare_store(space, corpus, folder, asked, progress=moved)


def _made(corpus: str, space: Workspace) -> Path:
    """The folder of a corpus that Crossfold makes itself, made if it must be."""
    if corpus not in CLIPS:
        raise UserError(f"corpus {corpus!r} needs its folder", f'write cf.prepare("{corpus}", root="DIR")')
    folder = space.paths.corpora / f"{corpus}-{CLIPS[corpus]}"
    if corpus == "puppets":
        from crossfold.datasets.corpora.embedded.puppets import write_puppets

        write_puppets(folder, clips=CLIPS[corpus])
    elif not folder.is_dir():
        from crossfold.datasets.corpora.embedded.synthetic import write_synthetic

        write_synthetic(folder, clips=CLIPS[corpus])
    return folder
