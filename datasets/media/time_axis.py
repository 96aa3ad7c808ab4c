"""The frames of a clip in time, onto which pictures, sound, words and labels are all put."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class TimeAxis:
    """When each frame of a clip is shown."""

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
