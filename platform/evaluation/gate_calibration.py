"""Does a gate choose "unattended" where a modality is damaged? AUROC and calibration of its weight (000, 001).

Legend: N frames of the reported clips.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

BINS = 10
"""Equal bins of the weight for calibration."""

Gates = Mapping[tuple[str, str], np.ndarray]
"""(gate, modality) -> float [N]: the weight of column 0, unattended or the iteration before (B2)."""


def gate_entries(gates: Gates, reached: np.ndarray, truth: str, damaged: Mapping[str, np.ndarray]) -> list[Any]:
    """Entries of `gates` in `result.json` (docs/results.md): each gate and modality against each kind of damage.

    reached: bool [N], frames with a weight; damaged: name -> bool [N]. `any` is the union, and every other name is
    compared with the frames that nothing damages.
    """
    if not damaged:
        return []
    clean = ~np.logical_or.reduce(list(damaged.values()))
    return [
        {"gate": gate, "modality": modality, "truth": truth, "damage": name}
        | _separation(weight, reached & mask, reached & clean, binned=truth == "stress" or name == "any")
        for (gate, modality), weight in gates.items()
        for name, mask in damaged.items()
    ]


def _separation(weight: np.ndarray, damaged: np.ndarray, clean: np.ndarray, *, binned: bool) -> dict[str, Any]:
    used = damaged | clean
    score, truth = weight[used].astype(np.float64), damaged[used]
    bins = _reliability(score, truth)
    return {
        "frames": len(truth),
        "damaged": int(truth.sum()),
        "auroc": _auroc(score, truth),
        "ece": sum(n * abs(p - share) for p, share, n in bins) / len(truth) if len(truth) else None,
        "mean_damaged": _mean(score[truth]),
        "mean_clean": _mean(score[~truth]),
        # Most of a result would be bins; those of single kinds of spans hold few frames anyway.
        "bins": bins if binned else [],
    }


def _auroc(score: np.ndarray, truth: np.ndarray) -> float | None:
    """Share of the (damaged, clean) pairs of frames whose damaged one has the larger weight; ties count half.

    It follows from the ranks of the damaged frames (Mann and Whitney 1947). None where either kind is missing.
    """
    damaged = int(truth.sum())
    pairs = damaged * (len(truth) - damaged)
    if not pairs:
        return None
    # pandas is there anyway; scikit-learn would cost every worker most of a second and its memory.
    ranks = pd.Series(score).rank().to_numpy()
    return float(ranks[truth].sum() - damaged * (damaged + 1) / 2) / pairs


def _reliability(score: np.ndarray, truth: np.ndarray) -> list[tuple[float, float, int]]:
    """(mean weight, share damaged, frames) of each bin that is not empty."""
    index = np.minimum((score * BINS).astype(np.int64), BINS - 1)
    return [
        (float(score[index == b].mean()), float(truth[index == b].mean()), int((index == b).sum()))
        for b in np.unique(index)
    ]


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None
