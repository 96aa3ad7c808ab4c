"""What one cell, or several together, say of a new clip over time: a table, and the parts of a page.

N frames, T targets, M members.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from crossfold.datasets.corpora.clips import Target
from crossfold.datasets.media.time_axis import TimeAxis
from crossfold.platform.core.errors import UserError
from crossfold.platform.export.predictor import Predictor, Trace
from crossfold.platform.workspace.attention_maps import ClipMaps

AHEAD = ("frame", "seconds")
"""Columns before those of the targets."""


@dataclass(frozen=True)
class Joined:
    """The mean over members for each target, and how far they are apart."""

    axis: TimeAxis
    targets: tuple[Target, ...]
    members: tuple[int, ...]
    """M of each target."""
    mean: np.ndarray
    """float32 [N, T], in the units of the labels."""
    spread: np.ndarray
    """float32 [N, T], the standard deviation over members (n - 1); not a number for a single one."""
    gates: Mapping[tuple[str, str], np.ndarray]
    """(gate, modality) -> float32 [N], the mean weight of the unattended features over the members with that gate."""
    maps: ClipMaps
    """Attention of the first member."""

    def table(self) -> pd.DataFrame:
        """One row per frame: `frame`, `seconds`, a column per target, `<target>_spread` where M > 1, and
        `<gate>:<modality>`.
        """
        columns: dict[str, np.ndarray] = {"frame": np.arange(self.axis.frames), "seconds": self.axis.times}
        for t, target in enumerate(self.targets):
            columns[target.name] = self.mean[:, t]
            if self.members[t] > 1:
                columns[f"{target.name}_spread"] = self.spread[:, t]
        return pd.DataFrame(columns | {":".join(key): weight for key, weight in self.gates.items()})


def join(axis: TimeAxis, members: Sequence[tuple[Predictor, Trace]]) -> Joined:
    """The mean of members that predict the same or different targets. Raises `UserError` where their ranges differ."""
    said: dict[str, list[np.ndarray]] = {}
    targets: dict[str, Target] = {}
    gates: dict[tuple[str, str], list[np.ndarray]] = {}
    for predictor, trace in members:
        for t, (name, target) in enumerate((name, predictor.targets[name]) for name in predictor.cell.targets):
            if targets.setdefault(name, target) != target:
                raise UserError(f"cells have {name} on different ranges", "predict with cells of one corpus")
            said.setdefault(name, []).append(trace.values[:, t])
        for key, weight in trace.gates.items():
            gates.setdefault(key, []).append(weight)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the spread of one member is not a number
        spread = np.stack([np.std(each, axis=0, ddof=1) for each in said.values()], axis=1)
    return Joined(
        axis=axis,
        targets=tuple(targets.values()),
        members=tuple(len(each) for each in said.values()),
        # The mean of one is the value itself, to the last bit.
        mean=np.stack([np.mean(each, axis=0, dtype=np.float64) for each in said.values()], axis=1).astype(np.float32),
        spread=spread.astype(np.float32),
        gates={key: np.mean(each, axis=0).astype(np.float32) for key, each in gates.items()},
        maps=members[0][1].maps,
    )
