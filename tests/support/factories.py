"""Recipes, cells, stores, workspaces and sweeps that are small enough for a test.

Nothing heavy is imported before it is needed: processes of Ray import this file too.
"""

import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from crossfold.platform.core.cell import Cell
from crossfold.platform.core.recipe import Recipe
from tests.support.paths import FIXTURES

TINY_RECIPE = {
    "name": "tiny",
    "window": 20,
    "hop": 10,
    "temporal": {"kind": "tcn", "width": 4, "levels": 1, "kernel": 2, "dropout": 0.1},
    "head": {"hidden": 4, "dropout": 0.1, "output": "tanh"},
    "loss": {"kind": "ccc", "scope": "batch"},
    "optimizer": {"lr": 0.01, "warmup_epochs": 1, "plateau_patience": 1, "plateau_factor": 0.5},
    "batch": 8,
    "epochs": 2,
    "stress": "none",
}
TINY_SETTINGS = {
    "window": 20,
    "hop": 10,
    "epochs": 2,
    "batch": 16,
    "temporal.width": 8,
    "temporal.levels": 1,
    "head.hidden": 8,
    "optimizer.warmup_epochs": 0,
}
"""What `set` of a sweep makes of the recipe `demo`, so that a cell trains in a moment."""
TARGETS = ("valence", "arousal")


def tiny_recipe(**changes: Any) -> Recipe:
    """A recipe that trains in a fraction of a second; changes by dotted name with `__`, as in `optimizer__lr=0.1`."""
    data = {key: dict(value) if isinstance(value, dict) else value for key, value in TINY_RECIPE.items()}
    for key, value in changes.items():
        *parents, last = key.split("__")
        inside = data
        for parent in parents:
            inside = inside[parent]
        inside[last] = value
    return Recipe.parse(data, "tiny")


def make_cell(
    system: str = "fake", *, store: Any = None, params: Mapping[str, Any] | None = None, **facts: Any
) -> Cell:
    """A cell of an opened store: its system is known and its parameters are complete.

    Without a store, or with the hash of one, nothing trains it, and system and parameters are taken as they are.
    facts: other fields of `Cell`.
    """
    known: dict[str, Any] = {"params": params or {}, "store": store or "0"}
    if store is not None and not isinstance(store, str):
        from crossfold.fusion_models.catalogue import find_system

        found = find_system(system)
        parsed = found.params.parse(params or {}, system).model_dump(mode="json")
        known = {"corpus": store.corpus, "store": store.content_hash, "params": parsed, "revision": found.revision}
    common = {"corpus": "none", "fold": 0, "targets": ("valence",), "seed": 0, "recipe": Recipe()}
    return Cell(system=system, **(common | known | facts))


def tiny_cell(
    synthetic: Any,
    system: str = "rjca+dca",
    *,
    store: Any = None,
    params: Mapping[str, Any] | None = None,
    targets: tuple[str, ...] = ("valence",),
    fold: int = 0,
    seed: int = 0,
    inner: Any = None,
    **changes: Any,
) -> Cell:
    """A cell that trains in a moment, of `store` or else of `synthetic`; changes: of the tiny recipe."""
    facts = {"targets": targets, "fold": fold, "seed": seed, "inner": inner, "recipe": tiny_recipe(**changes)}
    return make_cell(system, store=store or synthetic, params=params, **facts)


def sweep_label(cell: Cell) -> dict[str, Any]:
    """What the file of a launched sweep says of a cell."""
    return {name: getattr(cell, name) for name in ("system", "params", "fold", "target", "seed", "label")}


def fake_cell(seed: int = 0, **params: Any) -> Cell:
    """A cell of no system; `params` say what a runner of tests.support.trials does with it."""
    return make_cell(seed=seed, params=params)


def make_store(
    folder: Path,
    clips: Iterable[Mapping[str, Any]],
    *,
    corpus: str = "synthetic",
    targets: tuple[str, ...] = TARGETS,
    inputs: Mapping[str, str] | None = None,
    layout: str = "test",
    fold_rule: str = "grouped",
) -> Any:
    """A feature store of given arrays in the folder of stores `folder`, opened for reading.

    A clip: name, labels [F, T], features {m: [F, ...]}; optional video, subject, partition (`train`), fps (25),
    present {m: [F]} and spans. inputs: modalities that are raw input, and of which kind; they keep their type.
    """
    from crossfold.datasets.corpora.clips import ClipArrays, ClipInfo
    from crossfold.datasets.store.feature_store import FeatureStore, StoreSpec, write_store

    by_name = {clip["name"]: clip for clip in clips}

    def arrays(info: ClipInfo) -> ClipArrays:
        clip = by_name[info.name]
        features = {
            m: np.asarray(values) if m in (inputs or {}) else np.asarray(values, np.float32)
            for m, values in clip["features"].items()
        }
        present = clip.get("present") or {m.partition("@")[0]: np.ones(info.frames, bool) for m in features}
        return ClipArrays(features, present, np.asarray(clip["labels"], np.float32), tuple(clip.get("spans", ())))

    infos = [
        ClipInfo(
            name=name,
            video=clip.get("video", name),
            subject=clip.get("subject", name),
            partition=clip.get("partition", "train"),
            fps=clip.get("fps", 25.0),
            frames=len(clip["labels"]),
        )
        for name, clip in by_name.items()
    ]
    spec = StoreSpec(
        corpus=corpus,
        layout=layout,
        targets=targets,
        clips=infos,
        origin={"made": "by a test"},
        inputs=inputs or {},
        fold_rule=fold_rule,
    )
    return FeatureStore(write_store(folder, spec, arrays))


def synthetic_clips(clips: int = 8, frames: int = 90, **widths: int) -> list[dict[str, Any]]:
    """Clips of the corpus `synthetic` for `make_store`; frames that a span says are missing are not present.

    widths: of the modalities; 5 of audio and 6 of visual if left out.
    """
    from crossfold.datasets.corpora.embedded.synthetic import synthetic_clips as draw

    found = []
    for clip in draw(clips=clips, frames=frames, widths={"audio": 5, "visual": 6} | widths):
        present = {m: np.ones(len(clip.labels), bool) for m in clip.features}
        for span in clip.spans:
            if span.kind == "missing":
                present[span.modality][span.start : span.end] = False
        made: dict[str, Any] = {
            "name": clip.name,
            "subject": clip.subject,
            "partition": clip.partition,
            "labels": clip.labels,
            "features": clip.features,
            "present": present,
        }
        found.append(made)
    return found


def synthetic_workspace(folder: Path, frames: int = 120) -> Any:
    """The workspace `folder`/work with a store of the corpus `synthetic`, as `prepare` makes it."""
    from crossfold.datasets.corpora.embedded.synthetic import write_synthetic
    from crossfold.platform.features.prepare import prepare
    from crossfold.platform.workspace.workspace import Workspace

    write_synthetic(folder / "corpus", clips=8, frames=frames, seed=3)
    workspace = Workspace(folder / "work")
    prepare(workspace, "synthetic", folder / "corpus")
    return workspace


def write_sweep(path: Path, **changes: Any) -> Path:
    """A sweep file over `synthetic`, named as the file: concat and jca, both targets, one fold, one seed."""
    sweep = {
        "name": path.stem,
        "corpus": "synthetic",
        "recipe": "demo",
        "set": TINY_SETTINGS,
        "systems": ["concat", "jca"],
        "targets": list(TARGETS),
        "folds": [0],
        "seeds": [0],
    }
    path.write_text(yaml.safe_dump(sweep | changes))
    return path


def commit_untrained(workspace: Any, cell: Cell, curve: Any, *, frames: int = 2, **env: Any) -> None:
    """Commits a cell without training: `curve` as given, predictions of zero over one clip, the same score for all."""
    from crossfold.platform.workspace.predictions import Predictions

    shape = (frames, len(cell.targets))
    score = {"ccc": 0.5, "ccc_video_mean": 0.4, "pcc": 0.6, "rmse": 0.2, "frames": frames}
    best = float(curve[[f"ccc_{target}" for target in cell.targets]].mean(axis=1).max())
    workspace.commit(
        cell,
        result={
            "status": "done",
            "cell_id": cell.cell_id,
            "metrics": dict.fromkeys(cell.targets, score),
            "videos": {},
            "selection": {"best_epoch": len(curve), "epochs": len(curve), "best_ccc": best},
            "model": {"parameters": 1234},
        },
        curve=curve,
        predictions=Predictions(
            clips=("a",),
            offsets=np.array([0, frames]),
            frame=np.arange(frames, dtype=np.int32),
            prediction=np.zeros(shape, np.float32),
            label=np.zeros(shape, np.float32),
            valid=np.ones(shape, bool),
            targets=cell.targets,
        ),
        env=env,
        weights=b"",
    )


def unpack_old_workspace(folder: Path) -> Path:
    """Unpacks the workspace that commit ed74c6d made below `folder` and returns its root.

    It holds three sweeps, one of them interrupted in its only cell. It was made elsewhere, as one that a user moved.
    """
    with tarfile.open(FIXTURES / "workspace-ed74c6d.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "ws"
