"""Cutting windows by index, gathering batches, and stitching windows back to frames."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfold.datasets.batches.source import BatchSpec, WindowSource
from crossfold.datasets.batches.windows import Stitcher, Windows, cut, slide
from crossfold.platform.core.errors import UserError
from tests.support.factories import make_store

D = 3


class Lengths:
    """As much of a store as `cut` looks at: clips of given lengths, one after the other."""

    def __init__(self, lengths, valid=None):
        self.starts = np.concatenate([[0], np.cumsum(lengths)]).astype(int)
        self.names = [f"c{i}" for i in range(len(lengths))]
        self.frames = int(self.starts[-1])
        self.valid = np.ones((self.frames, 2), np.bool_) if valid is None else valid

    def rows(self, name):
        index = self.names.index(name)
        return slice(int(self.starts[index]), int(self.starts[index + 1]))


def windows_of(lengths, *, length, hop, invalid="mask", valid=None):
    store = Lengths(lengths, valid)
    return cut(store, store.names, length=length, hop=hop, invalid=invalid), store


def starts(windows):
    return windows.rows[:, 0].tolist()


def test_tail_is_the_last_frames():
    """A3: 25 frames, windows of 10 every 10: the third is the last ten frames, not a short one."""
    windows, _ = windows_of([25], length=10, hop=10)
    assert starts(windows) == [0, 10, 15]
    assert windows.real.all()
    assert windows.rows[-1].tolist() == list(range(15, 25))


@pytest.mark.parametrize(
    ("frames", "expected"), [(10, [0]), (11, [0, 1]), (15, [0, 5]), (20, [0, 5, 10]), (21, [0, 5, 10, 11])]
)
def test_no_tail_where_the_grid_ends_on_the_last_frame(frames, expected):
    windows, _ = windows_of([frames], length=10, hop=5)
    assert starts(windows) == expected


def slid(lengths, *, length, step, **options):
    store = Lengths(lengths, options.pop("valid", None))
    return slide(store, store.names, length=length, step=step, invalid=options.get("invalid", "mask"))


def test_a_window_slides_by_a_frame_as_often_as_a_clip_has_frames_and_then_jumps():
    """G10, by hand: windows of 3 frames that stand 2 apart, over 14 frames."""
    windows = slid([14], length=3, step=2)
    assert windows.rows[:2].tolist() == [[0, 2, 4], [1, 3, 5]]
    assert starts(windows) == [0, 1, 6, 7, 12, 13]
    assert windows.real[:4].all()
    assert windows.real[4:].tolist() == [[True, False, False]] * 2


@given(lengths=st.lists(st.integers(0, 90), min_size=1, max_size=4), length=st.integers(2, 16), step=st.integers(1, 32))
def test_sliding_windows_hold_every_frame_exactly_once(lengths, length, step):
    windows = slid(lengths, length=length, step=step)
    assert sorted(windows.rows[windows.real]) == list(range(sum(lengths)))
    clip = np.repeat(range(len(lengths)), lengths)
    for rows, real in zip(windows.rows, windows.real, strict=True):
        assert len(set(clip[rows])) == 1
        assert set(np.diff(rows[real])) <= {step}
        assert real[: real.sum()].all()


def test_sliding_windows_leave_out_frames_without_labels():
    valid = np.ones((8, 2), np.bool_)
    valid[3, 0] = False
    assert sorted(slid([8], length=2, step=2, invalid="drop", valid=valid).rows.flatten()) == [0, 1, 2, 4, 5, 6, 7, 7]


def test_a_short_clip_is_padded_and_masked():
    windows, _ = windows_of([12, 4], length=6, hop=6)
    assert starts(windows) == [0, 6, 12]
    assert windows.real.sum(1).tolist() == [6, 6, 4]
    assert windows.rows[2].tolist() == [12, 13, 14, 15, 15, 15]  # padding repeats a row of the same clip


def test_windows_never_leave_their_clip():
    windows, store = windows_of([7, 30, 11], length=8, hop=3)
    clip_of = np.repeat(np.arange(3), np.diff(store.starts))
    assert all(len(set(clip_of[row])) == 1 for row in windows.rows)


def test_drop_removes_a_frame_if_either_label_is_missing():
    """D5; 002 sec 4.1: frames with -5 are dropped before windows are cut."""
    valid = np.ones((12, 2), np.bool_)
    valid[3] = [False, True]
    valid[7] = [True, False]
    dropped, _ = windows_of([12], length=5, hop=5, invalid="drop", valid=valid)
    assert dropped.rows.tolist() == [[0, 1, 2, 4, 5], [6, 8, 9, 10, 11]]
    masked, _ = windows_of([12], length=5, hop=5, invalid="mask", valid=valid)
    assert masked.rows.tolist() == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [7, 8, 9, 10, 11]]


def test_a_clip_without_labels_gives_no_window_when_dropped():
    valid = np.zeros((20, 2), np.bool_)
    dropped, _ = windows_of([8, 12], length=5, hop=5, invalid="drop", valid=valid)
    assert len(dropped) == 0
    assert dropped.rows.shape == (0, 5)
    masked, _ = windows_of([8, 12], length=5, hop=5, invalid="mask", valid=valid)
    assert len(masked) == 5


@settings(max_examples=150)
@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=4),
    length=st.integers(2, 25),
    hop=st.data(),
    invalid=st.sampled_from(["drop", "mask"]),
    seed=st.integers(0, 999),
)
def test_every_kept_frame_is_covered(lengths, length, hop, invalid, seed):
    step = hop.draw(st.integers(1, length))
    valid = np.random.default_rng(seed).random((sum(lengths), 2)) < 0.8
    windows, store = windows_of(lengths, length=length, hop=step, invalid=invalid, valid=valid)
    kept = np.flatnonzero(valid.all(1)) if invalid == "drop" else np.arange(store.frames)
    assert sorted(set(windows.rows[windows.real].tolist())) == kept.tolist()
    assert len(windows) == 0 or windows.real[:, 0].all()
    assert len({tuple(row) for row in windows.rows.tolist()}) == len(windows)  # no window twice
    for rows, real in zip(windows.rows, windows.real, strict=True):
        assert (np.diff(rows[real]) > 0).all()
        assert (np.diff(real.astype(int)) <= 0).all()  # padding is at the end


@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=3), length=st.integers(2, 15), seed=st.integers(0, 99))
def test_stitching_gives_a_value_of_the_frame_back(lengths, length, seed):
    """Every window says the same of a frame, so the mean over windows is that, exactly."""
    rng = np.random.default_rng(seed)
    windows, store = windows_of(lengths, length=length, hop=1 + seed % length)
    truth = rng.standard_normal((store.frames, 2)).astype(np.float32)
    stitcher = Stitcher(store.frames, 2)
    poisoned = np.where(windows.real[..., None], truth[windows.rows], np.float32(1e9))
    for part in np.array_split(rng.permutation(len(windows)), 3):
        stitcher.add(windows.rows[part], windows.real[part], poisoned[part])
    mean, reached = stitcher.frames()
    assert reached.all()
    assert mean.dtype == np.float32
    np.testing.assert_array_equal(mean, truth)


def test_overlapping_windows_are_averaged():
    stitcher = Stitcher(7, 1)
    rows = np.array([[0, 1, 2, 3], [2, 3, 4, 5]])
    values = np.array([[1.0, 1, 1, 1], [2, 4, 6, 8]], np.float32)[..., None]
    stitcher.add(rows, np.ones((2, 4), np.bool_), values)
    mean, reached = stitcher.frames()
    assert mean[:, 0].tolist() == [1, 1, 1.5, 2.5, 6, 8, 0]
    assert reached.tolist() == [True] * 6 + [False]


def test_stitching_does_not_depend_on_the_order_of_arrival():
    rng = np.random.default_rng(0)
    windows, store = windows_of([50], length=10, hop=1)
    predictions = rng.standard_normal((len(windows), 10, 1)).astype(np.float32)
    results = []
    for order in (np.arange(len(windows)), rng.permutation(len(windows))):
        stitcher = Stitcher(store.frames, 1)
        for index in order:
            stitcher.add(windows.rows[[index]], windows.real[[index]], predictions[[index]])
        results.append(stitcher.frames()[0])
    np.testing.assert_array_equal(*results)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Three clips; visual absent (and wild) in frames 5-9 of the first, single labels missing in the second."""
    rng = np.random.default_rng(7)

    def clip(name, frames, partition, scale=1.0, shift=0.0):
        features = {
            "audio": rng.standard_normal((frames, D)),
            "visual": scale * rng.standard_normal((frames, 4)) + shift,
        }
        labels = rng.uniform(-1, 1, (frames, 2))
        return {"name": name, "partition": partition, "features": features, "labels": labels}

    clips = [
        clip("a", 30, "train", 3.0, 5.0),
        clip("b", 22, "train", 2.0, -1.0),
        clip("v", 25, "validation", 50.0, 900.0),
    ]
    present = {"audio": np.ones(30, bool), "visual": np.ones(30, bool)}
    present["visual"][5:10] = False
    clips[0]["present"] = present
    clips[0]["features"]["visual"][5:10] = 1e6
    clips[1]["labels"][4, 0] = clips[1]["labels"][9, 1] = -5
    return make_store(tmp_path_factory.mktemp("windows") / "stores", clips)


def source_of(store, clips=("a", "b", "v"), *, targets=("valence", "arousal"), fold=0, invalid="mask", length=10):
    windows = cut(store, clips, length=length, hop=5, invalid=invalid)
    return WindowSource(store, windows, BatchSpec(fold, ("audio", "visual"), targets))


def test_shapes_and_kinds(store):
    source = source_of(store)
    batch = source.batch(np.array([0, 3]))
    assert {m: tuple(x.shape) for m, x in batch.x.items()} == {"audio": (2, 10, D), "visual": (2, 10, 4)}
    assert batch.y.shape == batch.valid.shape == (2, 10, 2)
    assert batch.real.shape == (2, 10)
    assert {x.dtype for x in batch.x.values()} == {torch.float32} == {batch.y.dtype}
    assert batch.valid.dtype == batch.real.dtype == torch.bool


def test_features_are_normalised_by_the_training_frames_of_the_fold(store):
    """D7: the statistics of the present frames of a and b, applied to the validation clip as well."""
    raw = np.asarray(store.features("visual", 0), np.float64)
    seen = np.concatenate([np.r_[0:5, 10:30], np.arange(30, 52)])
    mean, std = raw[seen].mean(0), raw[seen].std(0)
    source = source_of(store)
    for index in range(len(source)):
        batch = source.batch(np.array([index]))
        rows = source.windows.rows[index]
        expected = (raw[rows] - mean) / std
        expected[(rows >= 5) & (rows < 10)] = 0
        expected[~source.windows.real[index]] = 0
        np.testing.assert_allclose(batch.x["visual"][0].numpy(), expected, rtol=2e-4, atol=2e-4)
    in_training = np.concatenate([((raw[seen] - mean) / std)])
    assert abs(in_training.mean()) < 1e-6
    assert abs(in_training.std() - 1) < 1e-6


def test_folds_have_statistics_of_their_own(store):
    fold_of = {f.index: f for f in store.folds}
    assert len(fold_of) == 3
    raw = np.asarray(store.features("audio", 0), np.float64)
    for index, fold in fold_of.items():
        rows = np.concatenate([np.arange(store.rows(name).start, store.rows(name).stop) for name in fold.train])
        np.testing.assert_allclose(store.normalisation("audio", index).mean, raw[rows].mean(0), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(store.normalisation("audio", index).std, raw[rows].std(0), rtol=1e-5)


def test_an_absent_modality_is_zero_whatever_the_file_says(store):
    batch = source_of(store, ("a",)).batch(np.array([0]))
    assert not batch.x["visual"][0, 5:10].any()
    assert batch.x["audio"][0, 5:10].any()


def test_padding_is_zero(store):
    source = source_of(store, ("b",), length=40)
    batch = source.batch(np.array([0]))
    assert batch.real[0].sum() == 22
    for tensor in (*batch.x.values(), batch.y, batch.valid):
        assert not tensor[0, 22:].any()


def test_unlabelled_frames_are_not_valid_and_not_minus_five(store):
    batch = source_of(store, ("b",), invalid="mask").batch(np.array([0]))
    assert batch.valid[0, 4].tolist() == [False, True]
    assert batch.valid[0, 9].tolist() == [True, False]
    assert batch.y.min() >= -1
    dropped = source_of(store, ("b",), invalid="drop")
    everything = dropped.batch(np.arange(len(dropped)))
    assert everything.valid[everything.real].all()


def test_targets_are_columns_by_name(store):
    both = source_of(store).batch(np.array([1]))
    turned = source_of(store, targets=("arousal", "valence")).batch(np.array([1]))
    one = source_of(store, targets=("arousal",)).batch(np.array([1]))
    assert torch.equal(turned.y, both.y.flip(-1))
    assert torch.equal(one.y[..., 0], both.y[..., 1])
    assert torch.equal(one.valid[..., 0], both.valid[..., 1])


def test_a_window_is_the_same_in_any_batch(store):
    source = source_of(store)
    whole = source.batch(np.arange(len(source)))
    order = np.random.default_rng(1).permutation(len(source))
    shuffled = source.batch(order)
    for name in ("y", "valid", "real"):
        assert torch.equal(getattr(shuffled, name), getattr(whole, name)[order])
    for m in whole.x:
        assert torch.equal(shuffled.x[m], whole.x[m][order])


def test_batches_are_copies(store):
    source = source_of(store)
    batch = source.batch(np.array([0]))
    kept = {m: x.clone() for m, x in batch.x.items()}
    for x in (*batch.x.values(), batch.y):
        x.fill_(77.0)
    again = source.batch(np.array([0]))
    assert all(torch.equal(again.x[m], kept[m]) for m in kept)
    assert again.y.abs().max() <= 1


def test_no_window_is_an_empty_source(store):
    empty = Windows(np.zeros((0, 10), np.int64), np.zeros((0, 10), np.bool_))
    source = WindowSource(store, empty, BatchSpec(0, ("audio",), ("valence",)))
    assert len(source) == 0


@pytest.fixture(scope="module")
def raw_store(tmp_path_factory):
    """Two clips of 20 and 12 pictures of 112 x 112, each full of its own number, and decibels as sound."""
    clips = []
    for name, partition, frames, first in (("a", "train", 20, 1), ("v", "validation", 12, 100)):
        numbers = (np.arange(frames) + first).astype(np.uint8)
        features = {
            "audio": np.random.default_rng(frames).normal(-30, 5, (frames, 64, 107)).astype(np.float16),
            "visual": np.broadcast_to(numbers[:, None, None, None], (frames, 112, 112, 3)),
        }
        present = {"audio": np.ones(frames, bool), "visual": np.arange(frames) != 6}
        about = {"name": name, "partition": partition, "labels": np.zeros((frames, 2))}
        clips.append({**about, "features": features, "present": present})
    inputs = {"audio": "mel64x107", "visual": "crops112"}
    return make_store(tmp_path_factory.mktemp("raw"), clips, corpus="raw", inputs=inputs)


def raw_source(store, inputs=None, length=8):
    windows = cut(store, ("a", "v"), length=length, hop=5, invalid="mask")
    return WindowSource(store, windows, BatchSpec(0, ("audio", "visual"), ("valence",), inputs or {}))


def test_raw_input_is_gathered_in_its_own_type_and_shape(raw_store):
    source = raw_source(raw_store)
    batch = source.batch(np.array([1, 0]))
    assert batch.x["visual"].dtype == torch.uint8
    assert batch.x["audio"].dtype == torch.float16
    assert batch.x["visual"].shape == (2, 8, 112, 112, 3)
    rows = source.windows.rows[[1, 0]]
    expected = np.where(rows == 6, 0, np.asarray(raw_store.features("visual", 0))[rows, 0, 0, 0])
    assert (batch.x["visual"] == torch.from_numpy(expected)[..., None, None, None]).all()
    stats = raw_store.normalisation("audio", 0)
    plain = (np.asarray(raw_store.features("audio", 0), np.float64)[rows] - stats.mean) / stats.std
    np.testing.assert_allclose(batch.x["audio"].numpy(), plain, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize(("kind", "length", "step"), [("clips4@112", 4, 1), ("clips3/4@112", 3, 4)])
def test_clips_end_at_their_frame_and_never_leave_their_video(raw_store, kind, length, step):
    source = raw_source(raw_store, {"visual": kind})
    pictures = np.asarray(raw_store.features("visual", 0))[:, 0, 0, 0]
    for index in range(len(source)):
        got = source.batch(np.array([index])).x["visual"][0]
        assert got.shape == (8, length, 112, 112, 3)
        for place, row in enumerate(source.windows.rows[index]):
            first = 0 if row < 20 else 20
            wanted = [pictures[max(row - step * back, first)] for back in reversed(range(length))]
            if row in (6, 26):  # no face there: the clip that would end at it is black
                wanted = [0] * length
            assert got[place, :, 5, 5, 1].tolist() == wanted


def test_raw_input_that_the_store_cannot_serve_is_answered_with_the_command(raw_store, store):
    with pytest.raises(
        UserError, match=r"raw crops112, and the backbone needs clips16@224(?s:.*)--visual raw:crops224"
    ):
        raw_source(raw_store, {"visual": "clips16@224"})
    with pytest.raises(UserError, match=r"extracted features, and the backbone needs crops48"):
        WindowSource(
            store,
            cut(store, ("a",), length=5, hop=5, invalid="mask"),
            BatchSpec(0, ("visual",), ("valence",), {"visual": "crops48"}),
        )
    with pytest.raises(UserError, match="side of 48, 112, 224"):
        raw_source(raw_store, {"visual": "clips16@100"})
