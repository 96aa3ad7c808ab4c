"""Media readers: alignment to the frame at odd rates, and refusal of files that are not whole."""

from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from crossfold.datasets.media.crops import crop_chunks, read_crop
from crossfold.datasets.media.sound import RATE, log_mel, read_sound
from crossfold.datasets.media.video import probe, read_pictures
from crossfold.platform.core.errors import DataError
from tests.support.media import write_video, write_wav

NTSC = Fraction(30000, 1001)


def beep_at(seconds: float, length: float, rate: int) -> np.ndarray:
    sound = 1e-3 * np.random.default_rng(0).standard_normal(round(length * rate))
    start = round(seconds * rate)
    sound[start:] += 0.6 * np.sin(2 * np.pi * 1000 / rate * np.arange(len(sound) - start))
    return sound


def loudest_step(columns: np.ndarray) -> int:
    return int(np.diff(columns.max(1)).argmax()) + 1


@pytest.mark.parametrize("rate", [Fraction(25), NTSC, Fraction(24000, 1001), Fraction(60)])
@pytest.mark.parametrize("event", [1, 777, 1795])
def test_a_beep_is_heard_in_the_frame_in_which_it_begins(rate, event):
    frames = 1800
    sound = beep_at(float(event / rate), float(frames / rate), RATE).astype(np.float32)
    columns, present = log_mel(sound, np.arange(frames) / float(rate), float(rate))
    assert columns.shape == (frames, 64)
    assert columns.dtype == np.float32
    assert present.all()
    assert loudest_step(columns) == event


@pytest.mark.parametrize("container", ["mp4", "mkv", "mov", "avi"])
def test_probe_counts_frames_and_times_without_decoding(tmp_path, container):
    path = tmp_path / f"v.{container}"
    write_video(path, np.full(301, 90), NTSC)
    facts = probe(path)
    assert facts.frames == 301
    assert facts.fps == pytest.approx(float(NTSC), abs=1e-3)
    # Matroska rounds its time stamps to milliseconds.
    np.testing.assert_allclose(facts.times, np.arange(301) / float(NTSC), atol=1.1e-3)
    assert not facts.has_sound
    assert read_sound(path) is None


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
@pytest.mark.parametrize("container", ["wav", "mp4", "mkv"])
def test_sound_keeps_its_place_through_containers_and_resampling(tmp_path, container, rate):
    event, frames = 250, 300
    sound = beep_at(event / 25, frames / 25, rate)
    path = tmp_path / f"s.{container}"
    if container == "wav":
        write_wav(path, sound, rate)
    else:
        write_video(path, np.full(frames, 90), Fraction(25), sound, rate)
    heard = read_sound(path)
    assert heard.dtype == np.float32
    begin = int(np.argmax(np.abs(heard) > 0.3)) / RATE
    assert begin == pytest.approx(event / 25, abs=2e-3)
    assert loudest_step(log_mel(heard, np.arange(frames) / 25, 25.0)[0]) == event


def test_silence_is_sound_but_the_end_of_the_file_is_not():
    times = np.arange(50) / 25
    _, present = log_mel(np.zeros(RATE, np.float32), times, 25.0)
    assert present.tolist() == [True] * 25 + [False] * 25
    columns, present = log_mel(None, times, 25.0)
    assert not present.any()
    assert not columns.any()


def test_a_mel_band_follows_its_tone():
    tones = [float(200 * 2**k) for k in range(6)]
    time = np.arange(RATE) / RATE
    loudest = [
        int(log_mel(np.sin(2 * np.pi * tone * time).astype(np.float32), np.arange(20) / 25, 25.0)[0][10].argmax())
        for tone in tones
    ]
    assert loudest == sorted(set(loudest))


@pytest.mark.parametrize("options", [{}, {"movflags": "faststart"}], ids=["index-last", "index-first"])
@pytest.mark.parametrize("share", [0.5, 0.97])
def test_a_cut_mp4_is_refused(tmp_path, options, share):
    path = tmp_path / "v.mp4"
    write_video(path, np.tile([20, 90, 200], 100), Fraction(25), **options)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(DataError, match=r"v\.mp4: c(ut short|annot be read)"):
        probe(path)


def test_files_that_are_something_else_are_refused(tmp_path):
    for name, content in (("v.mp4", b"not a video"), ("v.wav", b"RIFF and no more")):
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match="cannot be read as video"):
        probe(tmp_path / "v.mp4")
    (tmp_path / "nothing.mp4").touch()
    with pytest.raises(DataError, match=r"nothing\.mp4 is empty"):
        probe(tmp_path / "nothing.mp4")
    with pytest.raises(DataError, match="not a wav file"):
        read_sound(tmp_path / "v.wav")
    write_wav(tmp_path / "sound.wav", np.zeros(100), RATE)
    with pytest.raises(DataError, match="no video stream"):
        probe(tmp_path / "sound.wav")


def test_a_cut_wav_is_refused_and_an_empty_one_is_no_sound(tmp_path):
    path = tmp_path / "s.wav"
    write_wav(path, np.zeros(RATE), RATE)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DataError, match="cut short, 30000 of 32000 bytes"):
        read_sound(path)
    write_wav(path, np.zeros(0), RATE)
    assert not log_mel(read_sound(path), np.arange(5) / 25, 25.0)[1].any()


def test_crops_are_counted_from_one_and_missing_ones_are_black(tmp_path):
    for number in (1, 3, 9):
        Image.fromarray(np.full((112, 112, 3), 40 * number % 256, np.uint8)).save(tmp_path / f"{number:05d}.jpg")
    (tmp_path / "notes.txt").write_text("not a crop")
    crops, present = next(crop_chunks(tmp_path, 4, "L", 48, 4))
    assert crops.shape == (4, 48, 48)
    assert present.tolist() == [True, False, True, False]
    assert crops.mean((1, 2)).tolist() == [40, 0, 120, 0]
    assert next(crop_chunks(tmp_path, 2, "RGB", 48, 2))[0].shape == (2, 48, 48, 3)


def test_a_cut_jpeg_is_refused(tmp_path):
    path = tmp_path / "00001.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (112, 112, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(DataError, match=r"00001\.jpg: not a readable picture"):
        read_crop(path)


def test_chunks_of_crops_are_the_crops(tmp_path):
    for number in (1, 3, 4, 9):
        Image.fromarray(np.full((20, 20, 3), number * 20, np.uint8)).save(tmp_path / f"{number:05d}.png")
    whole, there = next(crop_chunks(tmp_path, 8, "RGB", 112, 8))
    chunks = list(crop_chunks(tmp_path, 8, "RGB", 112, 3))
    assert [len(crops) for crops, _ in chunks] == [3, 3, 2]
    np.testing.assert_array_equal(whole, np.concatenate([crops for crops, _ in chunks]))
    np.testing.assert_array_equal(there, np.concatenate([present for _, present in chunks]))
    assert there.tolist() == [True, False, True, True] + [False] * 4
    assert whole[2, 50, 50].tolist() == [60] * 3


def test_pictures_come_in_order_with_their_numbers(tmp_path):
    write_video(tmp_path / "a.mp4", np.arange(30, 220, 10), Fraction(30000, 1001))
    found = list(read_pictures(tmp_path / "a.mp4"))
    assert [number for number, _ in found] == list(range(19))
    assert found[0][1].shape == (32, 32, 3)
    shades = [picture.mean() for _, picture in found]
    np.testing.assert_allclose(shades, np.arange(30, 220, 10) + 4, atol=4)


def test_sound_at_another_rate_lasts_as_long(tmp_path):
    write_wav(tmp_path / "a.wav", np.sin(np.arange(48_000) / 9), 48_000)
    for rate in (16_000, 44_100):
        sound = read_sound(tmp_path / "a.wav", rate)
        assert len(sound) == rate
        assert np.abs(np.fft.rfft(sound)).argmax() == pytest.approx(48_000 / 9 / (2 * np.pi), abs=1)
