"""Which row of a file belongs to which frame of a clip."""

from dataclasses import dataclass

import numpy as np

TOLERANCE = 5
"""Frames by which rows without time stamps may differ from the frames of the clip, as in Aff-Wild2."""


@dataclass(frozen=True)
class Axis:
    """The frames of a clip, onto which labels are put."""

    times: np.ndarray
    """float64 [frames], seconds after the first."""
    fps: float

    @property
    def frames(self) -> int:
        """How many."""
        return len(self.times)

    @property
    def seconds(self) -> float:
        """From the begin of the first frame to the end of the last."""
        return float(self.times[-1]) + 1 / self.fps
