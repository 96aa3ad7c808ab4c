"""Predictions of a clip that still grows, by cells that see no future frame.

A cell predicts windows that begin every `hop` frames, and a frame gets the mean over the windows that hold it. A
causal model predicts the frames of a window one after the other, so each frame is predicted as soon as its features are
there, by all windows that have begun. When the clip ends, windows that did not get to their end make way for the one
over its last frames, as in the prediction of a finished clip.

N new frames, L frames of a window, T targets.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from crossfold.datasets.media.growing import GrowingRecording
from crossfold.datasets.media.time_axis import TimeAxis
from crossfold.fusion_models.system import Notes
from crossfold.platform.evaluation.predict import first_columns
from crossfold.platform.export.growing_clip import GrowingClip
from crossfold.platform.export.predictor import Predictor, Trace
from crossfold.platform.export.traces import Joined, join
from crossfold.platform.features.fitted_encoders import fitted_of
from crossfold.platform.features.new_clips import Features, ReadingOptions, face_notes, faces_asked, front_ends
from crossfold.platform.modeling.emotion_model import Stream
from crossfold.platform.workspace.attention_maps import ClipMaps

_Gates = dict[tuple[str, str], np.ndarray]


@dataclass
class _Window:
    """One window that is being predicted."""

    begin: int
    stream: Stream
    values: list[np.ndarray] = field(default_factory=list)
    """Of each push, float64 [n, T]."""
    gates: list[_Gates] = field(default_factory=list)
    """Of each push, (gate, modality) -> float64 [n]."""

    def push(self, x: Mapping[str, np.ndarray]) -> tuple[np.ndarray, _Gates]:
        notes: Notes = {}
        new = {m: torch.from_numpy(np.ascontiguousarray(rows))[None] for m, rows in x.items()}
        y_BNT = self.stream.push(new, notes)
        frames = y_BNT.shape[1]
        self.values.append(y_BNT[0].double().numpy())
        columns = first_columns(notes)
        self.gates.append({key: weight[0, -frames:, 0].double().numpy() for key, weight in columns.items()})
        return self.values[-1], self.gates[-1]


class _Mean:
    """Means over windows for each frame, in float64."""

    def __init__(self, targets: int) -> None:
        self._sum, self._count = np.zeros((0, targets)), np.zeros(0, np.int64)

    def grow(self, frames: int) -> None:
        more = max(0, frames - len(self._sum))
        self._sum = np.concatenate([self._sum, np.zeros((more, self._sum.shape[1]))])
        self._count = np.concatenate([self._count, np.zeros(more, np.int64)])

    def add(self, begin: int, values: np.ndarray) -> None:
        self._sum[begin : begin + len(values)] += values
        self._count[begin : begin + len(values)] += 1

    def rows(self, begin: int = 0) -> np.ndarray:
        """float32 [., T] from a frame on."""
        mean: np.ndarray = self._sum[begin:] / np.maximum(self._count[begin:], 1)[:, None]
        return mean.astype(np.float32)


class GrowingPrediction:
    """What one cell says of a clip that grows."""

    def __init__(self, predictor: Predictor) -> None:
        """Raises `UserError` where a prediction of the cell depends on future frames."""
        self.predictor = predictor
        predictor.stream()  # says why, before any work
        recipe = predictor.cell.recipe
        self._length, self._hop = recipe.window, recipe.hop
        self._frames = 0
        self._open: list[_Window] = []
        self._recent: dict[str, np.ndarray] = {}
        self._finished = _Mean(len(predictor.cell.targets))
        self._finished_gates: dict[tuple[str, str], _Mean] = {}

    def push(self, features: Features) -> Trace:
        """The trace of the N frames that follow the earlier ones."""
        x = self.predictor.normalised(features.values, features.present)
        begin, frames = self._frames, len(next(iter(x.values())))
        end = self._frames = begin + frames
        self._recent = {
            m: np.concatenate([self._recent.get(m, rows[:0]), rows])[-self._length :] for m, rows in x.items()
        }
        self._finished.grow(end)
        now, gates = _Mean(len(self.predictor.cell.targets)), dict[tuple[str, str], _Mean]()
        now.grow(frames)
        first = -(-begin // self._hop) * self._hop
        self._open += [_Window(start, self.predictor.stream()) for start in range(first, end, self._hop)]
        for window in self._open:
            low, high = max(begin, window.begin), min(end, window.begin + self._length)
            values, weights = window.push({m: rows[low - begin : high - begin] for m, rows in x.items()})
            now.add(low - begin, values)
            for key, weight in weights.items():
                mean = gates.setdefault(key, _Mean(1))
                mean.grow(frames)
                mean.add(low - begin, weight[:, None])
        for window in (w for w in self._open if end >= w.begin + self._length):
            self._keep(window)
        self._open = [window for window in self._open if end < window.begin + self._length]
        return self._trace(now.rows(), {key: mean.rows() for key, mean in gates.items()})

    def finish(self) -> Trace:
        """The trace of all frames, as `Predictor.trace` gives it of the finished clip, without attention."""
        tail = self._frames - self._length
        if self._frames and (tail < 0 or tail % self._hop):
            last = _Window(max(0, tail), self.predictor.stream())
            last.push(self._recent)
            self._keep(last)
        self._open = []
        for mean in self._finished_gates.values():
            mean.grow(self._frames)
        gates = {key: mean.rows() for key, mean in self._finished_gates.items()}
        return self._trace(self._finished.rows(), gates)

    def _keep(self, window: _Window) -> None:
        self._finished.add(window.begin, np.concatenate(window.values))
        for key in window.gates[0]:
            mean = self._finished_gates.setdefault(key, _Mean(1))
            mean.grow(self._frames)
            mean.add(window.begin, np.concatenate([gates[key] for gates in window.gates])[:, None])

    def _trace(self, mean: np.ndarray, gates: Mapping[tuple[str, str], np.ndarray]) -> Trace:
        weights = {key: values[:, 0] for key, values in sorted(gates.items())}
        return Trace(self.predictor.in_units(mean), weights, ClipMaps(0, len(mean), {}))


class GrowingTrace:
    """What cells of one store say together of a recording that grows."""

    def __init__(self, predictors: Sequence[Predictor], recording: GrowingRecording, options: ReadingOptions) -> None:
        """Raises `UserError` where one of the cells, or the front ends, cannot stream."""
        front_end = predictors[0].front_end
        extractors, weights = front_ends(front_end.origin, options.weights, recording.name)
        faces = faces_asked(front_end.origin, options)
        self._members = [GrowingPrediction(predictor) for predictor in predictors]
        self._clip = GrowingClip(recording, extractors, weights, rate=options.rate_or(front_end.fps), faces=faces)
        self._notes = face_notes(front_end.origin, faces) if "visual" in extractors and recording.fps else ()
        self._frames = 0

    @property
    def delay(self) -> float:
        """Seconds from the begin of a frame until enough is recorded to predict it."""
        return self._clip.delay

    @property
    def notes(self) -> tuple[str, ...]:
        """What is said about the recording, complete at its end."""
        return self._notes + self._clip.notes

    def blocks(self) -> Iterator[tuple[int, Joined]]:
        """The number of the first frame, and the mean of the members, of the frames that can be predicted next."""
        # As `prepare` does: the number of threads decides the last bit of a matrix product.
        with threadpool_limits(1):
            yield from self._blocks()

    def _blocks(self) -> Iterator[tuple[int, Joined]]:
        for block in self._clip.blocks():
            traces = []
            for member in self._members:
                predictor = member.predictor
                fitted = {m: fitted_of(predictor.front_end.fitted, m, predictor.cell.fold) for m in predictor.inputs}
                widths = {m: entry.width for m, entry in predictor.inputs.items()}
                traces.append((predictor, member.push(self._clip.encode(block, fitted, widths))))
            self._frames = block.begin + len(block.times)
            yield block.begin, join(TimeAxis(block.times, self._clip.fps), traces)

    def finish(self) -> Joined | None:
        """All frames so far, as of a finished recording; None where there is none."""
        if not self._frames:
            return None
        axis = TimeAxis(self._clip.times[: self._frames], self._clip.fps)
        return join(axis, [(member.predictor, member.finish()) for member in self._members])
