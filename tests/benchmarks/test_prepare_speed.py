"""How long `prepare` takes, against a loop that decodes the same crops and sound with PyAV on the same core."""

import time
from itertools import count

import numpy as np
import pytest

from crossfold.datasets.corpora.embedded.puppets import write_puppets
from crossfold.platform.features.prepare import prepare
from crossfold.platform.workspace.workspace import Workspace

TURNS = 5


@pytest.mark.benchmark
def test_prepare_against_decoding_the_same_files(one_core, tmp_path, compared, in_turns):
    av = pytest.importorskip("av")
    root, numbers = tmp_path / "puppets", count()
    write_puppets(root, clips=6, seconds=10.0)
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

    taken = in_turns({"prepare": ours, "decode": decode}, TURNS, time.process_time)
    # Decoding is the limit: no features are had without it.
    share = np.median(taken["decode"]) / np.median(taken["prepare"])
    assert compared("prepare puppets", "PyAV decoding", ours=taken["prepare"], theirs=taken["decode"], share=share) > 0
