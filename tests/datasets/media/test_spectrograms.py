"""Spectrogram front ends against torchaudio's transforms, and where in time an example listens."""

import numpy as np
import pytest
import torch
import torchaudio

from crossfold.datasets.media.sound import covered_frames
from crossfold.datasets.media.spectrograms import DECIBELS, VggishSpectrum, decibels, differences, mfcc


def noise(seconds: float, rate: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * rate)) / rate
    tones = 0.3 * np.sin(2 * np.pi * 440 * time) + 0.1 * np.sin(2 * np.pi * 3000 * time * (1 + time / 9))
    return (tones + 0.01 * rng.standard_normal(len(time))).astype(np.float32)


@pytest.mark.parametrize("name", DECIBELS)
def test_decibels_are_torchaudios(name):
    kind, fps = DECIBELS[name], 25.0
    sound = noise(7.0, kind.rate)
    times = np.arange(140, 150) / fps
    got = decibels(sound, times + 1 / fps, kind)
    assert got.shape == (10, kind.mels, kind.columns)
    transform = torchaudio.transforms.MelSpectrogram(
        kind.rate, n_fft=kind.fft, win_length=kind.window, hop_length=kind.hop, n_mels=kind.mels, center=True
    )
    to_db = torchaudio.transforms.AmplitudeToDB("power")
    for index, time in enumerate(times):
        end = round((time + 1 / fps) * kind.rate)
        expected = to_db(transform(torch.from_numpy(sound[end - kind.samples : end])))
        assert expected.shape == got[index].shape
        # float16 keeps three digits; bands without a bin sit on the floor of both.
        np.testing.assert_allclose(got[index], expected.numpy(), atol=0.06)


def test_sizes_are_those_of_the_papers():
    assert {name: (kind.mels, kind.columns) for name, kind in DECIBELS.items()} == {
        "spectrogram128": (128, 129),
        "spectrogram128x65": (128, 65),
        "mel64x107": (64, 107),
    }
    seconds = {name: kind.samples / kind.rate for name, kind in DECIBELS.items()}
    assert seconds == pytest.approx({"spectrogram128": 5.12, "spectrogram128x65": 0.64, "mel64x107": 1.06})


def vggish_reference(sound: np.ndarray) -> np.ndarray:
    """AudioSet's log-mel in float64, window by window and band by band."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)

    def mel(hertz: float) -> float:
        return 1127 * np.log(1 + hertz / 700)

    corners = np.linspace(mel(125.0), mel(7500.0), 66)
    columns = []
    for start in range(0, len(sound) - 399, 160):
        magnitude = np.abs(np.fft.rfft(sound[start : start + 400].astype(np.float64) * window, 512))
        bands = []
        for low, middle, high in zip(corners, corners[1:], corners[2:], strict=False):
            total = 0.0
            for index, value in enumerate(magnitude):
                place = mel(index * 16_000 / 512)
                weight = min((place - low) / (middle - low), (high - place) / (high - middle))
                total += max(0.0, weight) * value if index > 0 else 0.0
            bands.append(np.log(total + 0.01))
        columns.append(bands)
    return np.array(columns)


def test_vggish_columns_are_audiosets():
    sound = noise(0.4, 16_000)
    np.testing.assert_allclose(VggishSpectrum(sound).columns, vggish_reference(sound), atol=2e-4)


@pytest.mark.parametrize("fps", [25.0, 30000 / 1001, 23.976, 12.5])
def test_vggish_examples_begin_at_their_frame_at_any_rate(fps):
    """A hop of round(100 / fps) columns would be a second early or late after ten minutes; ours never drifts."""
    sound = np.zeros(16_000 * 40, np.float32)
    click = 30.0
    sound[round(click * 16_000) :] = noise(10.0, 16_000)
    times = np.arange(int(35 * fps)) / fps
    examples = VggishSpectrum(sound).examples(times)
    assert examples.dtype == np.float16
    assert examples.shape == (len(times), 96, 64)
    loud = examples.max(2).astype(np.float64) > -2
    for index in np.flatnonzero(loud.any(1) & ~loud.all(1)):
        assert times[index] + loud[index].argmax() / 100 == pytest.approx(click, abs=0.03)


def test_examples_beyond_the_sound_are_silent():
    examples = VggishSpectrum(noise(1.0, 16_000)).examples(np.array([0.5, 5.0]))
    silence = np.float16(np.log(0.01))
    assert (examples[0, 60:] == silence).all()
    assert (examples[0, :40] > silence).any()
    assert (examples[1] == silence).all()
    assert VggishSpectrum(np.zeros(0, np.float32)).examples(np.zeros(2)).shape == (2, 96, 64)


def test_a_segment_ends_with_its_frame_and_hears_nothing_of_the_next():
    kind, fps = DECIBELS["spectrogram128x65"], 25.0
    sound = noise(3.0, 16_000)
    later = sound.copy()
    later[32_000:] = 0.7
    ends = np.arange(1, 76) / fps
    before, after = decibels(sound, ends, kind), decibels(later, ends, kind)
    changed = (before != after).any((1, 2))
    assert int(changed.argmax()) == 50  # the frame that begins at 2.0 s
    assert (decibels(sound, ends[:1], kind)[0, :, :50] == -100).all()


def test_mfcc_are_torchaudios_where_a_frame_is_a_hop():
    sound, fps = noise(0.5, 16_000), 100.0
    transform = torchaudio.transforms.MFCC(
        16_000,
        n_mfcc=13,
        log_mels=True,
        melkwargs={"n_fft": 512, "win_length": 400, "hop_length": 160, "n_mels": 40, "center": False},
    )
    # torch's stft centres the window in its 512 points; ours begins at the frame.
    expected = transform(torch.nn.functional.pad(torch.from_numpy(sound), (56, 56)))
    times = np.arange(expected.shape[1]) / fps
    got = mfcc(sound, times, fps)
    assert got.shape == (len(times), 39)
    np.testing.assert_allclose(got[:, :13], expected.T.numpy(), atol=2e-3)
    slopes = torchaudio.functional.compute_deltas(torch.from_numpy(got[:, :13].T.copy()), win_length=5)
    np.testing.assert_allclose(got[:, 13:26], slopes.T.numpy(), atol=1e-4)


def test_mfcc_of_a_slower_video_average_the_windows_of_the_frame():
    sound = noise(2.0, 16_000)
    quick = mfcc(sound, np.arange(150) / 100, 100.0)[:, :13]
    slow = mfcc(sound, np.arange(36) / 25, 25.0)[:, :13]
    np.testing.assert_allclose(slow[10], quick[40:44].mean(0), atol=1e-3)
    assert mfcc(sound, np.zeros(0), 25.0).shape == (0, 39)
    assert differences(np.arange(12.0).reshape(6, 2))[2:4].tolist() == [[2.0, 2.0], [2.0, 2.0]]


def test_half_a_frame_of_sound_is_sound():
    times = np.arange(4) / 25
    assert covered_frames(1600, times, 25.0).tolist() == [True, True, True, False]
    assert covered_frames(1599, times, 25.0).tolist() == [True, True, False, False]
