"""A flash, a beep, a step of the labels and a word stay together through containers, codecs, cuts and rates."""

import itertools
from fractions import Fraction

import numpy as np
import pytest

from crossfold.datasets.corpora.clips import Target
from crossfold.datasets.corpora.manifest.labels import Labels
from crossfold.datasets.corpora.manifest.placing import place_labels
from crossfold.datasets.corpora.table_places import Places
from crossfold.datasets.media.sound import RATE, log_mel, read_sound, sound_seconds
from crossfold.datasets.media.transcripts import Word
from crossfold.datasets.media.video import probe, read_pictures
from crossfold.datasets.media.word_features import words_on_frames
from crossfold.platform.core.errors import DataError
from tests.support.recordings import CUTS, GROUP, RATES, record, write_pictures

KINDS = (
    ("mp4", "libx264", "aac"),
    ("mp4", "mpeg4", "libmp3lame"),
    ("mp4", "libvpx-vp9", "libopus"),
    ("mp4", "libsvtav1", "flac"),
    ("mov", "libx264", "pcm_s16le"),
    ("mov", "mpeg4", "aac"),
    ("mkv", "libx264", "flac"),
    ("mkv", "mpeg4", "pcm_s16le"),
    ("mkv", "libsvtav1", "aac"),
    ("webm", "libvpx", "libopus"),
    ("webm", "libvpx-vp9", "libopus"),
    ("avi", "mpeg4", "libmp3lame"),
    ("avi", "mpeg4", "pcm_s16le"),
    ("avi", "libx264", "pcm_s16le"),
    ("ts", "libx264", "aac"),
    ("ts", "mpeg4", "libmp3lame"),
)


def refused(kind, cut, rate):
    """What is said of a recording that its container cannot say; nothing where it can.

    An avi has numbered chunks in place of stamps, so both of its streams begin at 0, whatever was cut off.
    """
    container, pictures, sound = kind
    empty_chunks = rate == "variable" or cut in ("inside a group", "sound first")
    if container != "avi":
        return None
    if pictures == "libx264" and empty_chunks:
        return "B-frames and empty chunks"
    if cut == "sound first":
        return "no picture for 0.4"
    if rate == "variable":
        return "a variable rate on a grid of 100 a second"
    if cut == "sound joined late":
        return "its sound 0.4"
    if sound == "libmp3lame" and (cut, rate) in (("inside a group", "25"), ("edit list", "23.976")):
        return "its sound 0.0"  # the place of its first packet of 24 ms is lost
    return None


def found_in(path):
    """When each modality shows the event, in seconds after the first picture."""
    facts = probe(path)
    shown = {number: picture.mean() for number, picture in read_pictures(path)}
    sound = read_sound(path)
    columns, _ = log_mel(sound, facts.times, facts.fps)
    return facts, {
        "picture": facts.times[min(number for number, shade in shown.items() if shade > 125)],
        "sound": int(np.argmax(np.abs(sound) > 0.25)) / RATE,
        "spectrum": facts.times[int(np.argmax(columns.max(1) > columns.max() - 0.34))],  # half of the power
    }


def steps_of(facts, event):
    """When labels that step at `event` and a word that is said from then on do so on the frames of the video."""
    steps = np.arange(-int(event / 0.004), int((facts.seconds - event) / 0.004))
    places = Places("time", event + 0.004 * steps, unit=1.0, column="time")
    table = Labels("l.csv", {"valence": (steps >= 0).astype(float)}, places, {})
    labels = place_labels(table, facts.axis, [Target("valence", 0, 1)], [])
    words = words_on_frames([Word("now", event, event + 0.3)], facts.times)
    return {"labels": facts.times[np.argmax(labels[:, 0] == 1)], "word": facts.times[np.argmax(words == 0)]}


@pytest.mark.parametrize("kind", KINDS, ids="-".join)
def test_everything_happens_within_half_a_frame_or_is_refused(tmp_path, kind):
    container, pictures, sound = kind
    wrong = []
    for cut, rate in itertools.product(CUTS, RATES):
        made = record(tmp_path / f"{cut}-{rate}.{container}", pictures, sound, cut=cut, rate=rate)
        if problem := refused(kind, cut, rate):
            with pytest.raises(DataError, match=problem) as error:
                probe(made.path)
            assert error.value.remedy.startswith("make it again from the original as mp4 or mkv")
            continue
        facts, found = found_in(made.path)
        found |= steps_of(facts, made.event)
        off = {name: round(1000 * (moment - made.event), 1) for name, moment in found.items()}
        if facts.frames != made.pictures or max(map(abs, off.values())) > 1000 * made.step / 2:
            wrong.append((cut, rate, off, facts.frames, made.pictures))
    assert wrong == []


def test_a_shift_by_a_frame_is_seen(tmp_path):
    """A check that cannot fail would be none: the sound is one frame late."""
    made = record(tmp_path / "a.mkv", "mpeg4", "pcm_s16le", delay=1 / 25)
    _, found = found_in(made.path)
    assert found["picture"] == pytest.approx(made.event, abs=0.002)
    assert found["sound"] - made.event > made.step / 2
    assert found["spectrum"] - made.event > made.step / 2


@pytest.mark.parametrize("sound", ["aac", "libmp3lame", "libopus", "flac", "pcm_s16le"])
def test_the_length_of_a_sound_is_that_of_what_is_decoded(tmp_path, sound):
    made = record(tmp_path / "a.mkv", "mpeg4", sound)
    assert sound_seconds(made.path) == pytest.approx(len(read_sound(made.path)) / RATE, abs=0.03)


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [("avi", "mpeg4"), ("avi", "mjpeg"), ("mkv", "mpeg2video"), ("mkv", "libsvtav1"), ("mp4", "mpeg4")],
)
def test_a_damaged_first_picture_moves_no_other(tmp_path, suffix, codec):
    path = tmp_path / f"a.{suffix}"
    write_pictures(path, codec, tick=Fraction(1, 25))
    whole = {number: picture.mean() for number, picture in read_pictures(path)}
    with pytest.importorskip("av").open(str(path)) as container:
        damaged = bytes(next(iter(container.demux(video=0))))[20:420]
    data = path.read_bytes()
    assert data.count(damaged) == 1
    path.write_bytes(data.replace(damaged, bytes(len(damaged))))
    shown = {number: picture.mean() for number, picture in read_pictures(path)}
    late = [number for number in whole if number >= GROUP]  # what refers to the damaged one ends with its group
    assert [shown[number] for number in late] == pytest.approx([whole[number] for number in late], abs=1)
