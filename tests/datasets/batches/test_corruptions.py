"""Damage on purpose: the same for everybody, nested in strength, and only where it says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfold.datasets.batches.corruptions import GREY, KINDS, NOISE_BLOCK, damage, damaged_frames, noise_of
from crossfold.datasets.batches.source import BatchSpec, WindowSource
from crossfold.datasets.batches.windows import cut
from tests.support.factories import make_store

STRENGTHS = {"missing": (0.2, 0.6), "noisy": (0.5, 2.0), "frozen": (0.4, 2.0), "shifted": (0.3, 1.0)}
kinds = st.sampled_from(sorted(KINDS))


def one(kind, strength, frames=200, fps=25.0, clip="a", modality="audio"):
    return damage(kind, strength, modality=modality, clip=clip, frames=frames, fps=fps)


@given(kind=kinds, frames=st.integers(1, 400), fps=st.sampled_from([7.5, 25.0, 30.0]))
def test_no_strength_is_no_damage(kind, frames, fps):
    hurt = one(kind, 0.0, frames, fps)
    np.testing.assert_array_equal(hurt.shown, np.arange(frames))
    assert not hurt.gone.any()
    assert hurt.noise == 0
    assert not hurt.damaged.any()


@given(kind=kinds, strength=st.floats(0, 1), frames=st.integers(1, 400))
def test_every_frame_shows_one_of_its_clip(kind, strength, frames):
    hurt = one(kind, strength, frames)
    assert hurt.shown.shape == hurt.gone.shape == hurt.damaged.shape == (frames,)
    assert ((hurt.shown >= 0) & (hurt.shown < frames)).all()
    different = (hurt.shown != np.arange(frames)) | hurt.gone | (hurt.noise > 0)
    np.testing.assert_array_equal(hurt.damaged, different)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_damage_depends_on_the_clip_and_the_modality_only(kind):
    strength = STRENGTHS[kind][1]
    again, other = one(kind, strength), one(kind, strength, clip="b")
    for field in ("shown", "gone", "damaged"):
        np.testing.assert_array_equal(getattr(one(kind, strength), field), getattr(again, field))
    if kind in ("missing", "frozen"):
        assert any((getattr(again, f) != getattr(other, f)).any() for f in ("shown", "gone"))
        visual = one(kind, strength, modality="visual")
        assert any((getattr(again, f) != getattr(visual, f)).any() for f in ("shown", "gone"))


@given(weak=st.floats(0, 1), strong=st.floats(0, 1), frames=st.integers(1, 900))
def test_a_stronger_loss_takes_what_a_weaker_one_took(weak, strong, frames):
    weak, strong = sorted((weak, strong))
    assert not (one("missing", weak, frames).gone & ~one("missing", strong, frames).gone).any()
    assert one("missing", 1.0, frames).gone.all()


def test_the_share_that_is_missing_is_the_strength_on_average():
    shares = [one("missing", 0.3, 375, clip=str(n)).gone.mean() for n in range(400)]
    assert np.mean(shares) == pytest.approx(0.3, abs=0.02)


def test_missing_comes_in_blocks_of_two_seconds():
    gone = one("missing", 0.5, 1000).gone
    edges = np.flatnonzero(np.diff(gone.astype(int))) + 1
    assert len(edges)
    assert (edges % 50 == 0).all()


@settings(max_examples=40)
@given(hold=st.integers(1, 60), frames=st.integers(1, 500))
def test_frozen_holds_the_value_at_the_onset_and_no_longer(hold, frames):
    shown = one("frozen", hold / 25, frames).shown
    runs = np.split(shown, np.flatnonzero(np.diff(shown) != 0) + 1)
    assert max(len(run) for run in runs) <= hold
    assert (shown <= np.arange(frames)).all(), "nothing comes from the future"
    if frames >= 4 * hold > 4:
        assert one("frozen", hold / 25, frames).damaged.mean() > 0.2


def test_shifted_lags_and_leads():
    np.testing.assert_array_equal(one("shifted", 0.08, 6).shown, [0, 0, 0, 1, 2, 3])
    np.testing.assert_array_equal(one("shifted", -0.08, 6).shown, [2, 3, 4, 5, 5, 5])


def test_noise_is_the_same_however_it_is_asked_for():
    whole = noise_of("audio", "a", np.arange(3 * NOISE_BLOCK), (4,))
    some = np.array([0, 5, NOISE_BLOCK - 1, NOISE_BLOCK, 2 * NOISE_BLOCK + 7])
    np.testing.assert_array_equal(noise_of("audio", "a", some, (4,)), whole[some])
    assert (whole != noise_of("visual", "a", np.arange(3 * NOISE_BLOCK), (4,))).any()
    assert whole.std() == pytest.approx(1, abs=0.1)


@pytest.fixture
def store(tmp_path):
    rng = np.random.default_rng(0)
    clips = [
        {
            "name": name,
            "partition": partition,
            "labels": rng.uniform(-1, 1, (70, 2)),
            "features": {"audio": rng.normal(3, 2, (70, 3)), "visual": rng.normal(size=(70, 4))},
            "present": {"audio": np.arange(70) > 4, "visual": np.ones(70, bool)},
        }
        for name, partition in (("a", "train"), ("b", "train"), ("c", "validation"), ("d", "validation"))
    ]
    return make_store(tmp_path / "stores", clips)


def source_of(store, clips):
    windows = cut(store, clips, length=20, hop=10, invalid="drop")
    return WindowSource(store, windows, BatchSpec(0, ("audio", "visual"), ("valence",)))


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_other_modality_the_labels_and_other_clips_stay(store, kind):
    clean = source_of(store, ("a", "c"))
    frames = damaged_frames(store, kind, STRENGTHS[kind][1], modality="audio", fold=0, clips=("c",))
    hurt = clean.with_frames("audio", frames, frames.present)
    every = np.arange(len(clean))
    before, after = clean.batch(every), hurt.batch(every)
    for name in ("y", "valid", "real"):
        assert (getattr(before, name) == getattr(after, name)).all()
    assert (before.x["visual"] == after.x["visual"]).all()
    of_a = np.isin(clean.windows.rows, np.r_[store.rows("a")])
    assert (before.x["audio"][of_a] == after.x["audio"][of_a]).all()
    changed = (before.x["audio"] != after.x["audio"]).any(dim=-1).numpy()
    assert changed.any()
    assert not (changed & ~frames.damaged[clean.windows.rows]).any()


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_strength_zero_gives_the_very_same_batches(store, kind):
    clean = source_of(store, ("c", "d"))
    frames = damaged_frames(store, kind, 0.0, modality="audio", fold=0, clips=("c", "d"))
    hurt = clean.with_frames("audio", frames, frames.present)
    every = np.arange(len(clean))
    assert (clean.batch(every).x["audio"] == hurt.batch(every).x["audio"]).all()


def test_what_is_missing_looks_like_an_absent_modality(store):
    clean = source_of(store, ("c",))
    frames = damaged_frames(store, "missing", 1.0, modality="audio", fold=0, clips=("c",))
    assert (clean.with_frames("audio", frames, frames.present).batch(np.arange(len(clean))).x["audio"] == 0).all()


def test_noise_is_in_standard_deviations_of_training_and_spares_absent_frames(store):
    clean = source_of(store, ("c",))
    frames = damaged_frames(store, "noisy", 0.5, modality="audio", fold=0, clips=("c",))
    every = np.arange(len(clean))
    before = clean.batch(every).x["audio"]
    added = (clean.with_frames("audio", frames, frames.present).batch(every).x["audio"] - before).numpy()
    absent = ~store.present("audio")[clean.windows.rows]
    assert (added[absent] == 0).all()
    assert added[~absent].std() == pytest.approx(0.5, rel=0.1)


def test_overlapping_windows_see_the_same_noise(store):
    clean = source_of(store, ("c",))
    frames = damaged_frames(store, "noisy", 1.0, modality="visual", fold=0, clips=("c",))
    hurt = clean.with_frames("visual", frames, frames.present)
    first, second = (hurt.batch(np.array([w])).x["visual"][0] for w in (0, 1))
    assert (first[10:] == second[:10]).all()


def test_raw_pixels_stay_pixels(tmp_path):
    rng = np.random.default_rng(1)
    pixels = {name: rng.integers(100, 150, (40, 48, 48, 3), dtype=np.uint8) for name in "ac"}
    clips = [
        {"name": name, "partition": partition, "labels": np.zeros((40, 1)), "features": {"visual": pixels[name]}}
        for name, partition in (("a", "train"), ("c", "validation"))
    ]
    store = make_store(tmp_path / "stores", clips, targets=("valence",), inputs={"visual": "crops48"})
    frames = damaged_frames(store, "noisy", 0.1, modality="visual", fold=0, clips=("c",))
    rows = np.r_[store.rows("c")]
    hurt = frames.take(rows)
    assert hurt.dtype == np.uint8
    difference = hurt.astype(float) - pixels["c"]
    assert difference.std() == pytest.approx(0.1 * GREY, rel=0.05)
    gone = damaged_frames(store, "missing", 1.0, modality="visual", fold=0, clips=("c",))
    assert (gone.take(rows) == 0).all()
