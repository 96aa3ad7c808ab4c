"""What `validate` costs on 1,000 clips, against a loop that reads every packet of the same files with PyAV."""

import shutil
import time

import pytest

from crossfold.datasets.corpora.manifest.reader import inspect_manifest
from tests.support.recordings import record

CLIPS = 1000


@pytest.mark.benchmark
def test_validate_takes_at_most_twice_the_time_of_reading_every_packet(tmp_path, compared, in_turns):
    av = pytest.importorskip("av")
    made = record(tmp_path / "source.mp4", "mpeg4", "aac")
    (tmp_path / "videos").mkdir()
    lines = ["clip,subject,partition,video,label:valence"]
    for number in range(CLIPS):
        shutil.copy(made.path, tmp_path / "videos" / f"{number}.mp4")
        part = "train" if number % 2 else "validation"
        lines.append(f"{number},s{number},{part},videos/{number}.mp4,{number / CLIPS}")
    (tmp_path / "manifest.csv").write_text("\n".join(lines) + "\n")

    def read_packets():
        for number in range(CLIPS):
            with av.open(str(tmp_path / "videos" / f"{number}.mp4")) as container:
                assert sum(1 for _ in container.demux()) > made.pictures

    def validate():
        assert len(inspect_manifest(tmp_path, deep=True).clips) == CLIPS

    taken = in_turns({"validate": validate, "packets": read_packets}, 3, time.perf_counter)
    ratio = compared("validate 1,000 clips", "reading every packet", ours=taken["validate"], theirs=taken["packets"])
    assert ratio >= 0.5
