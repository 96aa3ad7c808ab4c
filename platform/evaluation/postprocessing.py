"""Chains of post-processing: fitted on one split, applied to another, and stored with the cell (F1, F2).

A step is a pure function on one run of values [n]: contiguous valid frames of one clip, so that nothing is smoothed
across a gap. Its ends are held: what lies before the first frame is taken to equal it, and likewise after the last.
Only a moving mean with `ends: zero` takes zeros there.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.platform.core.evaluation_config import Chain, Limit, Median, Shift, Smooth, Step
from crossfold.platform.core.metrics import Moments, ccc_of, moments
from crossfold.platform.evaluation.scoring import score
from crossfold.platform.workspace.predictions import Predictions

Fitted = dict[str, Any]
"""One step with its numbers, as it stands in `result.json`: `{"kind": "shift", "seconds": 0.8}`."""

COARSE, FINE, ROUNDS = 33, 17, 2
"""A search tries this many values of its range, spaced by ratio, then twice more closely about the best."""


def median(x: np.ndarray, frames: int) -> np.ndarray:
    """Centred median over an odd window; an even one is widened by a frame. float64 [n] -> [n]."""
    from scipy import ndimage

    # An even window has no centre, and would shift the values by half a frame.
    odd = frames + 1 - frames % 2
    filtered: np.ndarray = ndimage.median_filter(x, size=odd, mode="nearest") if odd > 1 else x
    return filtered


def moving_mean(x: np.ndarray, frames: int, ends: str = "held") -> np.ndarray:
    """Centred mean over a window; an even one reaches a frame further back. float64 [n] -> [n].

    ends: `held`, or `zero` for zeros beyond both ends, which draw the first and last values towards 0.
    """
    from scipy import ndimage

    mode = {"held": "nearest", "zero": "constant"}[ends]
    filtered: np.ndarray = ndimage.uniform_filter1d(x, size=frames, mode=mode) if frames > 1 else x
    return filtered


def delayed(x: np.ndarray, frames: int) -> np.ndarray:
    """y[i] = x[i - frames]; the first value is held. float64 [n] -> [n]."""
    return x[np.maximum(np.arange(len(x)) - frames, 0)]


@dataclass(frozen=True)
class Track:
    """One target of a split: float64 [N] prediction and label, and the runs that filters stay within.

    runs: (first, end, fps) of contiguous valid frames; frames outside are left as they are and never scored.
    """

    prediction: np.ndarray
    label: np.ndarray
    runs: tuple[tuple[int, int, float], ...]

    @property
    def moments(self) -> Moments:
        """Moments of the frames of all runs."""
        inside = np.zeros(len(self.prediction), np.bool_)
        for first, end, _ in self.runs:
            inside[first:end] = True
        return moments(self.prediction, self.label, inside)

    def on_runs(self, values: np.ndarray, change: Callable[[np.ndarray, float], np.ndarray]) -> np.ndarray:
        """`values` with `change(run, fps)` in place of each run."""
        changed = values.copy()
        for first, end, fps in self.runs:
            changed[first:end] = change(values[first:end], fps)
        return changed


def track_of(predictions: Predictions, target: int, store: FeatureStore) -> Track:
    """One target, cut into its runs."""
    runs: list[tuple[int, int, float]] = []
    for clip in predictions.clips:
        rows = predictions.clip(clip)
        # Padded with invalid frames, so that each run has an edge on either side.
        valid = np.pad(predictions.valid[rows, target], 1).astype(np.int8)
        for start, stop in np.flatnonzero(np.diff(valid)).reshape(-1, 2):
            runs.append((int(rows.start + start), int(rows.start + stop), store.clip(clip).fps))
    x, y = (values[:, target].astype(np.float64) for values in (predictions.prediction, predictions.label))
    return Track(x, y, tuple(runs))


def applied(track: Track, step: Mapping[str, Any], *, labels: bool = False) -> Track:
    """The track after one fitted step; with `labels`, its filters go over the labels too."""
    change = _change(step)
    label = track.label
    if labels and step["kind"] in ("median", "smooth"):
        label = track.on_runs(track.label, change)
    return replace(track, prediction=track.on_runs(track.prediction, change), label=label)


def _change(step: Mapping[str, Any]) -> Callable[[np.ndarray, float], np.ndarray]:
    match step["kind"]:
        case "median":
            return lambda x, fps: median(x, round(step["seconds"] * fps))
        case "shift":
            return lambda x, fps: delayed(x, round(step["seconds"] * fps))
        case "smooth":
            return lambda x, fps: moving_mean(x, step["frames"], step.get("ends", "held"))
        case "centre":
            return lambda x, fps: x + step["offset"]
        case "scale":
            return lambda x, fps: (x - step["about"]) * step["factor"] + step["about"]
        case "clip":
            return lambda x, fps: np.clip(x, step["low"], step["high"])
    raise AssertionError(step)


def fit(chain: Chain, track: Track, target: str, *, labels: bool = False) -> list[Fitted]:
    """The chain with numbers from this track, each step fitted on the output of those before it."""
    fitted = []
    for step in chain.steps:
        found = _fit_step(step, track, target, labels)
        track = applied(track, found, labels=labels)
        fitted.append(found)
    return fitted


def _fit_step(step: Step, track: Track, target: str, labels: bool) -> Fitted:
    match step:
        case Median() | Shift():
            seconds = step.seconds
            if isinstance(seconds, tuple):
                seconds = _search(step.kind, seconds, track, labels)
            return {"kind": step.kind, "seconds": seconds}
        case Smooth():
            frames = step.frames if isinstance(step.frames, int) else step.frames.get(target, 1)
            return {**step.model_dump(mode="json"), "frames": frames}
        case Limit():
            return {"kind": "clip", "low": step.low, "high": step.high}
    m = track.moments
    if step.kind == "centre":
        return {"kind": "centre", "offset": float(m.mean_y - m.mean_x)}
    # A constant prediction has no spread to stretch.
    factor = float(np.sqrt(m.syy / m.sxx)) if m.sxx > 0 else 1.0
    return {"kind": "scale", "factor": factor, "about": float(m.mean_x)}


def _search(kind: str, bounds: tuple[float, float], track: Track, labels: bool) -> float:
    """The seconds with the highest CCC; 0, which does nothing, if none is better. Ties go to the smaller value."""
    tried: dict[float, float] = {}

    def value(seconds: float) -> float:
        if seconds not in tried:
            tried[seconds] = float(ccc_of(applied(track, {"kind": kind, "seconds": seconds}, labels=labels).moments))
        return tried[seconds]

    low, high = bounds
    grid: Sequence[float] = [0.0, *(round(float(s), 6) for s in np.geomspace(low, high, COARSE))]
    for _ in range(1 + ROUNDS):
        for seconds in grid:
            value(seconds)
        best = max(sorted(tried), key=tried.__getitem__)
        if best == 0:
            return 0.0
        # Without the 0, which lies outside the range and is no neighbour of its values.
        about = [s for s in sorted(tried) if s >= low]
        at = about.index(best)
        ends = about[max(at - 1, 0)], about[min(at + 1, len(about) - 1)]
        grid = [round(float(s), 6) for s in np.linspace(*ends, FINE)]
    return max(sorted(tried), key=tried.__getitem__)


def processed(
    predictions: Predictions, fitted: Mapping[str, Sequence[Fitted]], store: FeatureStore, *, labels: bool = False
) -> Predictions:
    """The predictions after the fitted steps of each target; with `labels`, filters go over the labels too."""
    prediction, label = predictions.prediction.copy(), predictions.label.copy()
    for t, target in enumerate(predictions.targets):
        track = track_of(predictions, t, store)
        for step in fitted[target]:
            track = applied(track, step, labels=labels)
        prediction[:, t], label[:, t] = track.prediction, track.label
    return replace(predictions, prediction=prediction, label=label)


def fit_all(
    chain: Chain, predictions: Predictions, store: FeatureStore, *, labels: bool = False
) -> dict[str, list[Fitted]]:
    """The fitted steps of each target."""
    return {
        target: fit(chain, track_of(predictions, t, store), target, labels=labels)
        for t, target in enumerate(predictions.targets)
    }


def post_part(
    chain: Chain, reported: Predictions, training: Callable[[], Predictions], store: FeatureStore
) -> dict[str, Any] | None:
    """`post` of `result.json` (docs/results.md); None for a chain without steps.

    training: gives the predictions of the training clips; called only where the chain has something to fit.
    """
    if not chain.steps:
        return None

    def column(fitted: Mapping[str, list[Fitted]], *, labels: bool) -> dict[str, Any]:
        scored = score(processed(reported, fitted, store, labels=labels), store)
        return {"labels": labels, "fitted": dict(fitted), **scored}

    if not chain.fitted:
        columns = {"fixed": column(fit_all(chain, reported, store), labels=False)}
    else:
        columns = {
            "train": column(fit_all(chain, training(), store), labels=False),
            # What the chain could gain at most: fitted on the reported labels themselves.
            "oracle": column(fit_all(chain, reported, store, labels=chain.labels), labels=chain.labels),
        }
    return {"chain": chain.model_dump(mode="json"), "columns": columns}
