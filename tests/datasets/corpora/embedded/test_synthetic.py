"""The corpus of features only: shapes, determinism, planted damage, and that two modalities say more than one."""

import time

import numpy as np
import pytest

from crossfold.datasets.corpora.embedded.synthetic import synthetic_clips, write_synthetic


def test_shapes_partitions_and_speed():
    start = time.perf_counter()
    clips = synthetic_clips(widths={"audio": 5, "visual": 7, "text": 3})
    assert time.perf_counter() - start < 2.0
    assert len(clips) == 12
    assert [c.partition for c in clips].count("validation") == 3
    assert len({c.subject for c in clips}) == 12
    for clip in clips:
        assert {m: x.shape for m, x in clip.features.items()} == {
            "audio": (400, 5),
            "visual": (400, 7),
            "text": (400, 3),
        }
        assert all(x.dtype == np.float32 and np.isfinite(x).all() for x in clip.features.values())
        assert clip.labels.shape == (400, 2)
        assert np.all((clip.labels == -5) | (np.abs(clip.labels) <= 1))


def test_deterministic_and_text_changes_nothing_else():
    a, b = (
        synthetic_clips(clips=2, seed=5),
        synthetic_clips(clips=2, seed=5, widths={"audio": 16, "visual": 24, "text": 4}),
    )
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x.labels, y.labels)
        for modality in ("audio", "visual"):
            np.testing.assert_array_equal(x.features[modality], y.features[modality])
    other = synthetic_clips(clips=2, seed=6)
    assert not np.array_equal(a[0].labels, other[0].labels)


def test_missing_is_zero_and_nothing_else_is():
    clips = synthetic_clips(clips=10)
    seen = set()
    for clip in clips:
        for modality, columns in clip.features.items():
            missing = np.zeros(len(columns), bool)
            for span in clip.spans:
                if (span.kind, span.modality) == ("missing", modality):
                    missing[span.start : span.end] = True
                    seen.add(modality)
            np.testing.assert_array_equal((columns == 0).all(axis=1), missing)
    assert seen == {"audio", "visual"}


def test_words_are_constant_with_zeros_between():
    text = synthetic_clips(clips=1, widths={"text": 4})[0].features["text"]
    changes = (np.diff(text, axis=0) != 0).any(axis=1)
    assert 0.05 < changes.mean() < 0.6
    assert 0.05 < (text == 0).all(axis=1).mean() < 0.8


def ccc(a, b):
    return 2 * np.mean((a - a.mean()) * (b - b.mean())) / (a.var() + b.var() + (a.mean() - b.mean()) ** 2)


@pytest.mark.parametrize("seed", [0, 1])
def test_fusion_is_worth_it(seed):
    clips = synthetic_clips(clips=24, seed=seed)
    kernel = np.hanning(25) / np.hanning(25).sum()

    def score(modalities):
        sets = {"train": ([], []), "validation": ([], [])}
        for clip in clips:
            x = np.concatenate([clip.features[m] for m in modalities] + [np.ones((400, 1))], axis=1)
            x = np.stack([np.convolve(column, kernel, mode="same") for column in x.T], axis=1)
            rated = (clip.labels > -5).all(axis=1)
            rated[:10] = False
            sets[clip.partition][0].append(np.roll(x, 10, axis=0)[rated])  # annotators lag by ten frames
            sets[clip.partition][1].append(clip.labels[rated])
        (x, y), (z, truth) = ((np.concatenate(a), np.concatenate(b)) for a, b in sets.values())
        guess = z @ np.linalg.solve(x.T @ x + 10 * np.eye(x.shape[1]), x.T @ y)
        return np.mean([ccc(guess[:, i], truth[:, i]) for i in range(2)])

    assert score(["audio", "visual"]) > max(score(["audio"]), score(["visual"])) + 0.05


def test_written_whole_and_refused_where_something_is(tmp_path):
    clips = write_synthetic(tmp_path / "out", clips=2, frames=60)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "clips.csv",
        "synthetic-01.npz",
        "synthetic-02.npz",
        "truth",
    ]
    with np.load(tmp_path / "out" / "synthetic-02.npz") as arrays:
        np.testing.assert_array_equal(arrays["visual"], clips[1].features["visual"])
        np.testing.assert_array_equal(arrays["labels"], clips[1].labels)
    with pytest.raises(ValueError, match="not empty"):
        write_synthetic(tmp_path / "out", clips=2, frames=60)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"widths": {"smell": 3}}, "smell"),
        ({"widths": {"audio": 0}}, "at least one"),
        ({"widths": {}}, "empty"),
        ({"frames": 0}, "frames"),
    ],
)
def test_wrong_arguments_say_what_to_do(wrong, message):
    with pytest.raises(ValueError, match=message):
        synthetic_clips(**wrong)
