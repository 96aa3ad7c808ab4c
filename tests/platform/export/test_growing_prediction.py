"""A recording that is followed while it grows is predicted as it is when it is finished."""

from fractions import Fraction
from io import BytesIO

import numpy as np
import pandas as pd
import pytest

from crossfold.datasets.media.growing import GrowingFile, GrowingRecording
from crossfold.datasets.media.sound import read_sound
from crossfold.datasets.media.video import probe
from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.platform.core.errors import DataError, UserError
from crossfold.platform.edge.cli.app import main
from crossfold.platform.edge.cli.predict import grows
from crossfold.platform.execution.run_cell import attempt_cell
from crossfold.platform.export.growing_clip import GrowingClip
from crossfold.platform.export.growing_prediction import GrowingTrace
from crossfold.platform.export.predictor import Predictor
from crossfold.platform.export.traces import join
from crossfold.platform.features.extractors import find_extractor
from crossfold.platform.features.new_clips import ReadingOptions
from crossfold.platform.features.prepare import prepare
from crossfold.platform.features.read_clip import rate_of, sound_chunks
from crossfold.platform.workspace.workspace import Workspace
from tests.support.factories import tiny_cell
from tests.support.media import write_corpus, write_video, write_wav

WHOLE = ReadingOptions(whole_frame=True)
CAUSAL = {"lstm": {}, "concat": {}, "tca+dca": {"causal": True}}


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A workspace with finished cells of systems that stream, and of one that does not; not to be changed."""
    place = tmp_path_factory.mktemp("lab")
    corpus, workspace = write_corpus(place / "data"), Workspace(place / "ws")
    store = FeatureStore(prepare(workspace, "affwild2", corpus, processes=1))
    cells = {}
    for system, params in {**CAUSAL, "rjca": {}}.items():
        cell = tiny_cell(store, system, params=params, targets=("valence", "arousal"), invalid="mask")
        assert attempt_cell(cell, workspace).status == "done"
        cells[system] = cell.cell_id
    return workspace, store, cells


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """The same five seconds in formats that are written from their begin to their end, and the sound alone."""
    folder = tmp_path_factory.mktemp("recordings")
    rng = np.random.default_rng(0)
    shades, sound = rng.integers(20, 200, 125), rng.normal(0, 0.1, 5 * 44_100)
    for suffix, options in (("ts", {}), ("mkv", {}), ("mp4", {"movflags": "frag_keyframe+empty_moov"})):
        # FFmpeg cuts the delay of AAC out of a fragmented mp4 at the first picture, which is then shown for longer.
        heard = None if suffix == "mp4" else sound
        write_video(folder / f"v.{suffix}", shades, Fraction(25), heard, 44_100, **options)
    write_wav(folder / "v.wav", sound, 44_100)
    return folder


def predictors(lab, *systems):
    workspace, store, cells = lab
    return [Predictor.of(workspace.read(cells[system]), store) for system in systems]


def followed(path, members, options=WHOLE, part=0.4):
    """The printed frames, all frames at the end, and how many were printed before the file was whole."""
    content = path.read_bytes()
    cut = int(len(content) * part)
    file, printed, early = BytesIO(content[:cut]), [], []

    def more() -> bool:
        """Called where the file has nothing left; the rest is written once."""
        if early:
            return False
        early.append(sum(len(table) for table in printed))
        place = file.tell()
        file.seek(0, 2)
        file.write(content[cut:])
        file.seek(place)
        return True

    trace = GrowingTrace(members, GrowingRecording(GrowingFile(file, more), path.name), options)
    for begin, joined in trace.blocks():
        assert begin == sum(len(table) for table in printed)
        printed.append(joined.table())
    return pd.concat(printed), trace.finish().table(), early[0], trace


@pytest.mark.parametrize("suffix", ["ts", "mkv", "mp4", "wav"])
def test_what_is_followed_equals_the_prediction_of_the_finished_clip(lab, recordings, suffix):
    members = predictors(lab, *CAUSAL) if suffix == "ts" else predictors(lab, "lstm")
    path = recordings / f"v.{suffix}"
    printed, table, early, trace = followed(path, members)
    read = members[0].read(path, WHOLE)
    expected = join(read.axis, [(member, member.trace_of(read)) for member in members]).table()
    pd.testing.assert_frame_equal(table, expected, rtol=0, atol=1e-6)
    # The last window is that of the last frames, which nothing knows before the end.
    recipe = members[0].cell.recipe
    settled = (len(table) - recipe.window) // recipe.hop * recipe.hop
    assert settled > 60
    columns = ["valence", "arousal"]
    np.testing.assert_allclose(printed[columns].iloc[:settled], table[columns].iloc[:settled], atol=1e-6)
    assert 0 < early < len(table)
    assert 0.2 < trace.delay < 1
    assert len(trace.notes) == (suffix in ("wav", "mp4"))


def test_what_sees_the_future_cannot_follow(lab, recordings):
    with pytest.raises(UserError, match="system rjca sees future frames"):
        followed(recordings / "v.ts", predictors(lab, "rjca"))


def test_a_file_whose_header_is_at_its_end_cannot_be_followed(tmp_path):
    write_video(tmp_path / "v.mp4", range(200), sound=np.random.default_rng(0).normal(0, 0.1, 8 * 48_000))
    file = GrowingFile(BytesIO((tmp_path / "v.mp4").read_bytes()), lambda: False)
    with pytest.raises(DataError) as caught:
        list(GrowingRecording(file, "v.mp4").steps())
    assert "frag_keyframe" in caught.value.remedy


@pytest.mark.parametrize("audio", ["mfcc", "raw:vggish", "raw:spectrogram128", "raw:mel64x107"])
def test_every_front_end_of_sound_hears_as_much_as_it_needs(recordings, audio):
    """VGGish looks a second ahead, decibels five seconds back, and cepstra at neighbours; some resample."""
    path, extractor = recordings / "v.ts", find_extractor("audio", audio)
    file = GrowingFile(path.open("rb", buffering=0), lambda: False)
    clip = GrowingClip(GrowingRecording(file, "v.ts"), {"audio": extractor}, None, rate=25, faces="whole")
    blocks = list(clip.blocks())
    sound = read_sound(path, rate_of(extractor))
    chunks = zip(*sound_chunks(extractor, sound, probe(path).times, clip.fps, 128), strict=True)
    rows, present = (np.concatenate(part) for part in chunks)
    assert len(blocks) > 10
    np.testing.assert_array_equal(np.concatenate([block.present["audio"] for block in blocks]), present)
    np.testing.assert_array_equal(np.concatenate([block.raw["audio"] for block in blocks])[present], rows[present])


@pytest.mark.parametrize(("modality", "name", "why"), [("audio", "hf:wavlm", "stretches"), ("text", "bert", "words")])
def test_front_ends_that_need_the_whole_recording_are_refused(recordings, modality, name, why):
    file = GrowingFile((recordings / "v.wav").open("rb", buffering=0), lambda: False)
    extractors = {"audio": find_extractor("audio", "logmel"), modality: find_extractor(modality, name)}
    with pytest.raises(UserError, match=why):
        GrowingClip(GrowingRecording(file, "v.wav"), extractors, None, rate=25, faces="find")


def test_the_command_prints_frames_and_writes_the_table_of_the_finished_clip(lab, recordings, tmp_path, capsys):
    workspace, path = lab[0], recordings / "v.ts"
    for more in (["--out", str(tmp_path / "off")], ["--out", str(tmp_path / "live"), "--follow", "--idle", "0"]):
        with pytest.raises(SystemExit) as ended:
            main(["predict", "lstm", str(path), "--whole-frame", *more, "-w", str(workspace.root)])
        assert ended.value.code == 0
        printed = capsys.readouterr()
    off, live = (pd.read_csv(tmp_path / folder / "v.csv") for folder in ("off", "live"))
    pd.testing.assert_frame_equal(live, off, rtol=0, atol=1e-6)
    lines = printed.out.splitlines()
    assert lines[0] == "frame,seconds,valence,arousal"
    assert [int(line.partition(",")[0]) for line in lines[1:]] == list(range(125))
    assert "s after its begin" in printed.err
    assert (tmp_path / "live" / "v.html").is_file()


def test_a_file_is_waited_for_until_it_grows_or_rests(tmp_path, monkeypatch):
    path = tmp_path / "growing"
    path.write_bytes(b"ab")
    monkeypatch.setattr("time.sleep", lambda seconds: path.write_bytes(b"abc"))
    assert grows(path, 2, idle=60.0)
    assert not grows(path, 3, idle=0.0)
