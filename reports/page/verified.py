"""Whether the score of a cell follows from its predictions or, without them, from the moments of its videos."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np

from crossfold.platform.core.errors import DataError
from crossfold.platform.core.layout import PREDICTIONS_SHA256
from crossfold.platform.core.metrics import Moments, ccc_of, moments
from crossfold.reports.results.model import Results
from crossfold.reports.stats.runs import FIELDS, Run

CLOSE = 1e-5
"""A stored score agrees with its predictions within this, the rounding of float32."""


@dataclass(frozen=True)
class Verified:
    """What was computed again of some cells."""

    words: str
    """How many scores agreed, and the beginning of the hash."""
    digest: str
    """Of the predictions of all cells; empty where it is not known of every one."""
    stated: bool
    """Whether the digest is what another group says, without its predictions."""


def verified_of(results: Results, cell_ids: Sequence[str]) -> Verified:
    """Computes the scores of some finished cells again."""
    records = [results.records[cell_id] for cell_id in cell_ids]
    hashes: list[str] = []
    good, stated, missing = 0, 0, 0
    for record in records:
        try:
            predictions = record.predictions
        except (OSError, DataError, ValueError, KeyError):
            sha256 = record.env.get(PREDICTIONS_SHA256)
            if sha256 is None:
                missing += 1
                continue
            stated += 1
            hashes.append(str(sha256))
            scores = {target: _of_videos(results.runs[record.cell_id, target]) for target in record.cell.targets}
        else:
            hashes.append(predictions.sha256)
            columns = (predictions.prediction.T, predictions.label.T, predictions.valid.T)
            scores = {
                target: float(ccc_of(moments(*each)))
                for target, *each in zip(predictions.targets, *columns, strict=True)
            }
        stored = [record.result["metrics"][target]["ccc"] for target in scores]
        good += bool(np.allclose(list(scores.values()), stored, atol=CLOSE, rtol=0))
    bad = len(records) - good - missing
    words = f"{good} of {len(records)} cells" + ", by their videos" * bool(stated)
    words += f", {bad} do not agree" * bool(bad) + f", {missing} without predictions" * bool(missing)
    if missing or not records:
        return Verified(words, "", bool(stated))
    name = hashlib.sha256("".join(hashes).encode()).hexdigest()[:12]
    return Verified(f"{words}, {name}" + " (stated)" * bool(stated), name, bool(stated))


def _of_videos(run: Run) -> float:
    """CCC over the concatenated frames, from the moments of each video."""
    each = (Moments(*(getattr(run.moments, name)[at] for name in FIELDS)) for at in range(len(run.videos)))
    return float(ccc_of(reduce(add, each)))
