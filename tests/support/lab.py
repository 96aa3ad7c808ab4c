"""Finished cells that nothing trained, for reports: their predictions are the labels plus noise of a planted size."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from crossfold.datasets.corpora.clips import UNLABELLED, Span
from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.platform.core.cell import PROTOCOL, Cell
from crossfold.platform.core.files import write_json
from crossfold.platform.core.metrics import Moments, ccc_of, ccc_without_each, moments, pcc_of, rmse_of
from crossfold.platform.core.recipe import Recipe
from crossfold.platform.workspace.attention_maps import ClipMaps, shown_clips
from crossfold.platform.workspace.predictions import Predictions
from crossfold.platform.workspace.workspace import Workspace
from tests.support import factories

TARGETS = ("valence", "arousal")
FRAMES, FPS = 500, 25.0
SPANS = (
    Span(20, 80, "conflict", "visual", "opposite"),
    Span(120, 190, "missing", "audio", "silence"),
    Span(200, 290, "complementary", "both", "sum"),
    Span(360, 420, "corrupted", "visual", "blur"),
)


@dataclass(frozen=True)
class Fake:
    """One variant and the noise its predictions carry: less is better."""

    system: str
    params: dict[str, Any]
    noise: float


DCA = {"temperature": 0.1}
VARIANTS = (
    Fake("unimodal_audio", {}, 0.70),
    Fake("unimodal_visual", {}, 0.52),
    Fake("concat", {}, 0.42),
    Fake("ca", {"residual": "tanh", "attention_temperature": 1.0}, 0.44),
    Fake("ca", {"residual": "sum", "attention_temperature": 1.0}, 0.45),
    Fake("ca+dca", {"residual": "sum", "attention_temperature": 1.0, **DCA}, 0.28),
    Fake("jca", {"axis": "time"}, 0.40),
    Fake("jca+dca", {"axis": "time", **DCA}, 0.27),
    Fake("rjca", {"axis": "time", "iterations": 3}, 0.36),
    Fake("rjca+dca", {"axis": "time", "iterations": 3, **DCA}, 0.37),
)


def make_store(
    root: Path, corpus: str = "puppets", first_clip: str = "clip_00", fold_rule: str = "grouped"
) -> FeatureStore:
    """A small store with planted spans: 16 training and 8 validation clips, a video each."""
    names = [first_clip] + [f"clip_{index:02d}" for index in range(1, 24)]
    clips = []
    for index, name in enumerate(names):
        rng = np.random.default_rng(index)
        time = np.arange(FRAMES)[:, None] / FPS
        labels = 0.6 * np.sin(time * [0.7, 0.45] + rng.uniform(0, 6, 2)) + rng.uniform(-0.25, 0.25, 2)
        labels[450:470] = UNLABELLED
        clip = {"name": name, "partition": "validation" if index % 3 == 0 else "train", "labels": labels}
        features = {modality: rng.standard_normal((FRAMES, 3)) for modality in ("audio", "visual")}
        clips.append({**clip, "features": features, "spans": SPANS if index == 0 else SPANS[:2]})
    return factories.make_store(root / "stores", clips, corpus=corpus, layout="affwild2", fold_rule=fold_rule)


def finish(
    workspace: Workspace, store: FeatureStore, cell: Cell, noise: float, post: str = "", *, stressed: bool = False
) -> None:
    """Commits a cell whose predictions are the labels plus slow and fast noise.

    post: a post-processing that the cell is scored with too, which makes each CCC larger by a tenth of what it lacks.
    stressed: with a stress suite, in which strength takes a tenth of the CCC, for gated systems with gates, and with
    attention maps.
    """
    clips = store.fold(cell.fold).validation
    rows = np.concatenate([np.arange(store.rows(name).start, store.rows(name).stop) for name in clips])
    columns = [store.targets.index(target) for target in cell.targets]
    label, valid = np.asarray(store.labels[rows])[:, columns], np.asarray(store.valid[rows])[:, columns]
    seed = [cell.seed, cell.fold, columns[0], len(cell.system), round(noise * 1000)]
    rng = np.random.default_rng(seed)
    # Equal for all systems of a fold and seed, as hard clips are hard for all systems.
    common = np.random.default_rng([cell.seed, cell.fold, columns[0]]).standard_normal((len(clips), len(columns)))
    drift = rng.standard_normal((len(rows), len(columns)))
    kernel = np.hanning(25) / np.linalg.norm(np.hanning(25))
    slow = np.stack([np.convolve(column, kernel, mode="same") for column in drift.T], axis=1)
    prediction = np.where(valid, 0.85 * label, 0) + noise * 0.6 * slow + 0.12 * np.repeat(common, FRAMES, axis=0)
    predictions = Predictions(
        clips=clips,
        offsets=np.arange(len(clips) + 1, dtype=np.int64) * FRAMES,
        frame=np.tile(np.arange(FRAMES, dtype=np.int32), len(clips)),
        prediction=prediction.astype(np.float32),
        label=label,
        valid=valid,
        targets=cell.targets,
        gates=_gates(store, clips) if stressed and cell.system.endswith("+dca") else {},
        maps={c: ClipMaps(0, FRAMES, _maps(cell.system)) for c in shown_clips(store, clips)} if stressed else None,
    )
    metrics, videos = {}, {}
    for t, target in enumerate(cell.targets):
        per_video = {
            name: moments(*(array[predictions.clip(name), t] for array in (prediction, label, valid))) for name in clips
        }
        pooled = moments(prediction[:, t], label[:, t], valid[:, t])
        metrics[target] = {
            "ccc": float(ccc_of(pooled)),
            "ccc_video_mean": float(np.mean([ccc_of(m) for m in per_video.values()])),
            "pcc": float(pcc_of(pooled)),
            "rmse": float(rmse_of(pooled)),
            "frames": int(pooled.n),
        }
        videos[target] = {
            name: [float(v) for v in (m.n, m.mean_x, m.mean_y, m.sxx, m.syy, m.sxy)] for name, m in per_video.items()
        }
    epochs = 18 + int(rng.integers(0, 12))
    rise = 1 - np.exp(-np.arange(1, epochs + 1) / 5)
    curve = pd.DataFrame({"epoch": np.arange(epochs), "learning_rate": 1e-3, "train_loss": 1 - 0.7 * rise})
    for target in cell.targets:
        curve[f"ccc_{target}"] = metrics[target]["ccc"] * rise + 0.015 * rng.standard_normal(epochs)
    workspace.commit(
        cell,
        result={
            "status": "done",
            "cell_id": cell.cell_id,
            "metrics": metrics,
            "videos": videos,
            "selection": {"best_epoch": epochs - 6, "epochs": epochs, "best_ccc": 0.5},
            "model": {"parameters": 12000 + 9000 * len(cell.params)},
            **(_evaluation(post, metrics, videos) if post else {}),
            **(_stressed(cell, metrics, videos) if stressed else {}),
        },
        curve=curve,
        predictions=predictions,
        env={"train_seconds": 12.5 + cell.seed, "versions": {"crossfold": "0.1.0", "torch": "2.13.0"}},
        weights=b"",
    )


def _evaluation(post: str, metrics: dict[str, Any], videos: dict[str, Any]) -> dict[str, Any]:
    """The further evaluations in `result.json`, as in docs/results.md."""
    better = {target: found | {"ccc": found["ccc"] + 0.1 * (1 - found["ccc"])} for target, found in metrics.items()}
    column = {"labels": post == "oracle", "fitted": {}, "metrics": better, "videos": videos}
    return {"post": {"chain": {}, "columns": {post: column}}, "stress": None, "spans": None, "gates": None}


def _stressed(cell: Cell, metrics: dict[str, Any], videos: dict[str, Any]) -> dict[str, Any]:
    """A stress suite and gates, as docs/results.md says; the gate of `+dca` knows missing sound a little."""
    stress = []
    without = {
        target: ccc_without_each(Moments(*np.array([of[name] for name in sorted(of)]).T))[1].tolist()
        for target, of in videos.items()
    }
    for modality in ("audio", "visual"):
        used = not cell.system.startswith("unimodal_") or cell.system.endswith(modality)
        for kind, strength in (("missing", 0.5), ("missing", 1.0), ("noisy", 3.0)):
            kept = 1 - 0.1 * strength * used
            damaged = {target: found | {"ccc": found["ccc"] * kept} for target, found in metrics.items()}
            entry = {"kind": kind, "modality": modality, "strength": strength, "used": used, "metrics": damaged}
            left_out = {target: [kept * ccc for ccc in without[target]] for target in metrics}
            stress.append(entry | ({"left_out": left_out} if kind == "missing" else {}))
    entry = {
        "gate": "gate",
        "frames": 900,
        "damaged": 90,
        "ece": 0.2,
        "mean_damaged": 0.6,
        "mean_clean": 0.4,
        "bins": [],
    }
    known = (("spans", "any", 0.6), ("spans", "missing:audio", 0.7), ("spans", "conflict", None))
    gates = [
        entry | {"modality": modality, "truth": truth, "damage": damage, "auroc": auroc}
        for modality in ("audio", "visual")
        for truth, damage, auroc in (*known, ("stress", "missing:audio:0.5", 0.8))
    ]
    return {"post": None, "stress": stress, "spans": None, "gates": gates if cell.system.endswith("+dca") else None}


def _gates(store: FeatureStore, clips: tuple[str, ...]) -> dict[tuple[str, str], np.ndarray]:
    return {("gate", m): np.full(len(clips) * FRAMES, 0.25 + 0.5 * i) for i, m in enumerate(store.modalities)}


def _maps(system: str) -> dict[tuple[str, str, str], np.ndarray]:
    """A band of ten cells; of CA, sound that is missing (frames 120 to 190) is read twice as much as the rest."""
    if not system.startswith(("ca", "rjca")):
        return {}
    time = np.arange(50)
    weights = np.where(np.abs(time[:, None] - time) <= 10, 0.01, np.nan)
    if system.startswith("rjca"):
        return {("joint_correlation", "joint", m): 60 * weights * np.cos(time) for m in ("audio", "visual")}
    missing = np.where((time >= 12) & (time < 19), 2.0, 1.0)
    return {("cross_attention", "visual", "audio"): weights * missing, ("cross_attention", "audio", "visual"): weights}


def cells_of(
    store: FeatureStore,
    variants: tuple[Fake, ...] = VARIANTS,
    *,
    folds: tuple[int, ...] = (0, 1),
    seeds: tuple[int, ...] = (0, 1, 2),
    targets: tuple[tuple[str, ...], ...] = (("valence",), ("arousal",)),
    **other: Any,
) -> list[tuple[Cell, float]]:
    """Every combination as a cell, with the noise of its variant."""
    recipe = other.pop("recipe", Recipe(name="demo", epochs=30))
    common = {"corpus": store.corpus, "store": store.content_hash, "recipe": recipe, **other}
    return [
        (
            factories.make_cell(fake.system, params=fake.params, fold=fold, targets=target, seed=seed, **common),
            fake.noise,
        )
        for fake in variants
        for fold in folds
        for seed in seeds
        for target in targets
    ]


def launch(
    workspace: Workspace,
    store: FeatureStore,
    cells: list[Cell],
    name: str = "demo",
    recipe: Recipe | dict[str, Any] | None = None,
) -> None:
    """Writes what a launched sweep leaves in the workspace; without a recipe, as versions before 0.1 did."""
    labels = {
        cell.cell_id: {
            "system": cell.system,
            "params": cell.params,
            "fold": cell.fold,
            "target": cell.target,
            "seed": cell.seed,
        }
        for cell in cells
    }
    sweep = {
        "name": name,
        "corpus": store.corpus,
        "store": store.content_hash,
        "cells": [cell.cell_id for cell in cells],
        "labels": labels,
    }
    if recipe is not None:
        sweep |= {"recipe": recipe.model_dump(mode="json") if isinstance(recipe, Recipe) else recipe}
        sweep |= {"protocol": PROTOCOL}
    write_json(workspace.paths.sweeps / f"{name}.json", sweep)
