"""How long `prepare` takes, against a loop that decodes the same crops and sound with PyAV on the same core."""

import time
from itertools import count

import numpy as np
import pytest

from crossfold.datasets.corpora.embedded.puppets import write_puppets
from crossfold.platform.features.prepare import prepare
from crossfold.platform.workspace.workspace import Workspace

MOST = 1.5
"""Times the processor time of decoding that `prepare` should take at most."""


@pytest.mark.benchmark
@pytest.mark.parametrize(("clips", "seconds", "turns"), [(6, 10.0, 5), (12, 40.0, 3)], ids=["small", "long"])
def test_prepare_against_decoding_the_same_files(one_core, tmp_path, compared, in_turns, clips, seconds, turns):
    """Small, where what takes the same time for any corpus weighs most, and of a length that is still made quickly."""
    av = pytest.importorskip("av")
    root, numbers = tmp_path / "puppets", count()
    write_puppets(root, clips=clips, seconds=seconds)
    # Where crops and sound lie next to a video, `prepare` decodes neither of the video's streams.
    read = [path for path in root.rglob("*") if path.suffix in (".wav", ".jpg")]
    assert {path.suffix for path in read} == {".wav", ".jpg"}

    def decode():
        for path in read:
            with av.open(str(path)) as container:
                for frame in container.decode():
                    frame.to_ndarray()

    def ours():
        prepare(Workspace(tmp_path / f"workspace-{next(numbers)}"), "puppets", root, processes=1)

    taken = in_turns({"prepare": ours, "decode": decode}, turns, time.process_time)
    # Decoding is the limit: no features are had without it.
    share = np.median(taken["decode"]) / np.median(taken["prepare"])
    name, goal = f"prepare {clips} puppets of {seconds:g} s", 1 / MOST
    ours, theirs = taken["prepare"], taken["decode"]
    assert compared(name, "PyAV decoding", ours=ours, theirs=theirs, share=share, goal=goal) > 0
