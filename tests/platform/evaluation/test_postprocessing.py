"""Post-processing: each step against a naive reference, and what fitting may and may not look at."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import signal

from crossfold.platform.core.errors import UserError
from crossfold.platform.core.evaluation_config import CHAINS, Chain, Evaluation, Smooth
from crossfold.platform.core.metrics import ccc
from crossfold.platform.evaluation.postprocessing import delayed, fit_all, median, moving_mean, post_part, processed
from crossfold.platform.evaluation.scoring import pooled_ccc, score
from crossfold.platform.workspace.predictions import Predictions

values = hnp.arrays(np.float64, st.integers(1, 60), elements=st.floats(-1, 1, width=32))


def chain(*steps, **fields):
    return Chain.parse({"steps": list(steps), **fields}, "a test")


def held(x, at):
    return x[min(max(at, 0), len(x) - 1)]


@given(x=values, frames=st.integers(1, 25))
def test_median_against_its_definition(x, frames):
    half = frames // 2
    odd = 2 * half + 1
    expected = [np.median([held(x, i + k) for k in range(-half, half + 1)]) for i in range(len(x))]
    assert odd >= frames
    np.testing.assert_array_equal(median(x, frames), expected)


def test_median_against_scipy_signal():
    x = np.random.default_rng(0).normal(size=300)
    np.testing.assert_array_equal(median(x, 21)[10:-10], signal.medfilt(x, 21)[10:-10])


@given(x=values, frames=st.integers(1, 25))
def test_moving_mean_against_its_definition(x, frames):
    back = frames // 2
    expected = [np.mean([held(x, i + k) for k in range(-back, frames - back)]) for i in range(len(x))]
    np.testing.assert_allclose(moving_mean(x, frames), expected, atol=1e-9)


@given(x=values, frames=st.integers(2, 25))
def test_moving_mean_with_zeros_beyond_the_ends(x, frames):
    """F2, as released with 000: a frame near an end is drawn towards zero."""
    back = frames // 2
    padded = np.concatenate([np.zeros(frames), x, np.zeros(frames)])
    expected = [padded[frames + i - back : 2 * frames + i - back].mean() for i in range(len(x))]
    np.testing.assert_allclose(moving_mean(x, frames, "zero"), expected, atol=1e-9)


def test_the_released_smoothing_clips_first():
    """F2: with the same numbers the other way round, a prediction of 3 would count as 3 in the mean."""
    steps = CHAINS["dca2024"].steps
    assert [step.kind for step in steps] == ["clip", "smooth"]
    split = split_of([3.0, 0.5, -0.5], [0, 0, 0])
    found = processed(split, fit_all(CHAINS["dca2024"], split, STORE), STORE).prediction
    np.testing.assert_allclose(found[:, 0], [1 / 20, 1 / 20, 1 / 20])


def test_evaluations_from_before_there_was_a_choice_keep_their_key():
    assert Smooth(frames=3).model_dump() == {"kind": "smooth", "frames": 3}
    assert Smooth(frames=3, ends="zero").model_dump() == {"kind": "smooth", "frames": 3, "ends": "zero"}


@given(x=values, frames=st.integers(0, 80))
def test_delay_against_its_definition(x, frames):
    np.testing.assert_array_equal(delayed(x, frames), [held(x, i - frames) for i in range(len(x))])


class Clips:
    """What post-processing asks of a store."""

    def __init__(self, fps=25.0):
        self.fps = fps

    def clip(self, name):
        from types import SimpleNamespace

        return SimpleNamespace(fps=self.fps, video=name)


STORE = Clips()


def split_of(prediction, label, valid=None, clips=1, targets=("valence",)):
    prediction, label = (np.asarray(x, np.float32).reshape(-1, len(targets)) for x in (prediction, label))
    frames = len(prediction)
    offsets = np.linspace(0, frames, clips + 1).astype(np.int64)
    return Predictions(
        clips=tuple(f"clip-{n}" for n in range(clips)),
        offsets=offsets,
        frame=np.concatenate([np.arange(n, dtype=np.int32) for n in np.diff(offsets)]),
        prediction=prediction,
        label=label,
        valid=np.ones_like(prediction, bool) if valid is None else np.asarray(valid).reshape(-1, len(targets)),
        targets=targets,
    )


def wave(frames=500, seed=0, smooth=40):
    rng = np.random.default_rng(seed)
    slow = np.convolve(rng.normal(size=frames + smooth - 1), np.ones(smooth) / smooth, mode="valid")
    return slow / slow.std() * 0.4


def test_no_chain_no_part():
    split = split_of(wave(), wave(seed=1))
    assert post_part(Chain(), split, lambda: pytest.fail("nothing to fit"), STORE) is None


@pytest.mark.parametrize(
    "steps",
    [
        [{"kind": "median", "seconds": 0}],
        [{"kind": "shift", "seconds": 0}],
        [{"kind": "smooth", "frames": 1}],
        [{"kind": "smooth", "frames": {"arousal": 9}}],
        [{"kind": "clip", "low": -9, "high": 9}],
    ],
    ids=str,
)
def test_the_identity_changes_nothing(steps):
    split = split_of(wave(), wave(seed=1))
    part = post_part(chain(*steps), split, lambda: pytest.fail("nothing to fit"), STORE)
    (column,) = part["columns"].values()
    assert column["metrics"] == score(split, STORE)["metrics"]
    assert column["videos"] == score(split, STORE)["videos"]
    assert list(part["columns"]) == ["fixed"]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_fitting_on_training_never_looks_at_reported_labels(seed):
    rng = np.random.default_rng(seed)
    training, reported = split_of(wave(seed=1) * 0.3, wave(seed=2)), split_of(wave(seed=3), wave(seed=4))
    shuffled = replace(reported, label=rng.permutation(reported.label))
    whole = CHAINS["ca2021"]
    parts = [post_part(whole, split, lambda: training, STORE)["columns"] for split in (reported, shuffled)]
    assert parts[0]["train"]["fitted"] == parts[1]["train"]["fitted"] == fit_all(whole, training, STORE)
    assert parts[0]["oracle"]["fitted"] != parts[1]["oracle"]["fitted"]
    assert not parts[0]["train"]["labels"]


@given(gain=st.floats(0.1, 5), offset=st.floats(-1, 1), seed=st.integers(0, 100))
def test_centring_and_scaling_by_the_oracle_turn_ccc_into_correlation(gain, offset, seed):
    label = wave(200, seed)
    noisy = label + 0.3 * wave(200, seed + 1000)
    split = split_of(noisy * gain + offset, label)
    fitted = fit_all(chain({"kind": "centre"}, {"kind": "scale"}), split, STORE)
    after = score(processed(split, fitted, STORE), STORE)["metrics"]["valence"]
    before = score(split, STORE)["metrics"]["valence"]
    assert after["ccc"] == pytest.approx(before["pcc"], abs=1e-4)
    assert after["pcc"] == pytest.approx(before["pcc"], abs=1e-4)
    if before["pcc"] > 0:
        assert after["ccc"] >= before["ccc"] - 1e-6


def test_a_constant_prediction_is_not_stretched():
    split = split_of(np.zeros(50), wave(50))
    fitted = fit_all(chain({"kind": "scale"}), split, STORE)
    assert fitted["valence"][0]["factor"] == 1
    assert np.isfinite(processed(split, fitted, STORE).prediction).all()


@pytest.mark.parametrize("lag", [1, 3, 17, 60, 149, 250])
def test_the_shift_finds_a_planted_lag(lag):
    early = wave(2000, smooth=15)
    split = split_of(early, delayed(early, lag))
    fitted = fit_all(chain({"kind": "shift", "seconds": [0.04, 10]}), split, STORE)
    assert round(fitted["valence"][0]["seconds"] * 25) == lag


def test_no_shift_where_none_helps():
    late = wave(2000, smooth=15)
    split = split_of(delayed(late, 20), late)
    fitted = fit_all(chain({"kind": "shift", "seconds": [0.04, 10]}), split, STORE)
    assert fitted["valence"] == [{"kind": "shift", "seconds": 0.0}]


def test_the_median_removes_planted_spikes():
    label = wave(1000, smooth=80)
    spiked = label.copy()
    spiked[np.random.default_rng(0).choice(1000, 120, replace=False)] = 3
    split = split_of(spiked, label)
    fitted = fit_all(chain({"kind": "median", "seconds": [0.1, 4]}), split, STORE)
    assert fitted["valence"][0]["seconds"] > 0
    assert pooled_ccc(processed(split, fitted, STORE))["valence"] > 0.9 > pooled_ccc(split)["valence"]


def test_nothing_is_smoothed_across_a_gap_or_a_clip():
    x = np.concatenate([np.zeros(30), np.ones(10), np.ones(20), np.full(40, 5.0)])
    valid = np.ones(100, bool)
    valid[30:40] = False
    split = split_of(x, x, valid, clips=2)  # clips of 50 frames: 0-49 and 50-99
    fitted = {"valence": [{"kind": "smooth", "frames": 9}, {"kind": "shift", "seconds": 0.2}]}
    after = processed(split, fitted, STORE).prediction[:, 0]
    np.testing.assert_array_equal(after[:30], 0)
    np.testing.assert_array_equal(after[30:40], 1)  # not valid: as it was
    np.testing.assert_array_equal(after[40:50], 1)
    assert after[50] == 1
    assert after[-1] == 5


def test_seconds_are_of_the_clip():
    x = np.arange(60.0)
    fitted = {"valence": [{"kind": "shift", "seconds": 0.2}]}
    for fps, frames in ((25.0, 5), (50.0, 10)):
        np.testing.assert_array_equal(
            processed(split_of(x, x), fitted, Clips(fps)).prediction[:, 0], np.maximum(x - frames, 0)
        )


def test_labels_are_filtered_for_the_oracle_alone():
    split = split_of(wave(400), wave(400, 1) + 0.2 * np.random.default_rng(0).normal(size=400))
    part = post_part(chain({"kind": "median", "seconds": [0.4, 2]}, labels=True), split, lambda: split, STORE)
    oracle, train = part["columns"]["oracle"], part["columns"]["train"]
    assert (oracle["labels"], train["labels"]) == (True, False)
    again = processed(split, oracle["fitted"], STORE, labels=True)
    assert (again.label != split.label).any() == (oracle["fitted"]["valence"][0]["seconds"] > 0)
    assert oracle["metrics"]["valence"]["ccc"] == pooled_ccc(again)["valence"]
    np.testing.assert_array_equal(processed(split, train["fitted"], STORE).label, split.label)


def test_a_fitted_chain_applies_again_without_fitting():
    """What `result.json` keeps is enough: the same predictions give the same score."""
    reported, training = split_of(wave(seed=5), wave(seed=6)), split_of(wave(seed=7), wave(seed=8))
    part = post_part(CHAINS["ca2021"], reported, lambda: training, STORE)
    for column in part["columns"].values():
        again = processed(reported, column["fitted"], STORE, labels=column["labels"])
        assert score(again, STORE) == {key: column[key] for key in ("metrics", "videos")}


def test_each_target_has_its_own_numbers():
    label = np.stack([wave(seed=1), wave(seed=2)], axis=1)
    split = split_of(label * [0.5, 2] + [0.3, -0.3], label, targets=("valence", "arousal"))
    fitted = fit_all(chain({"kind": "centre"}, {"kind": "scale"}), split, STORE)
    assert fitted["valence"][1]["factor"] == pytest.approx(2, rel=1e-3)
    assert fitted["arousal"][1]["factor"] == pytest.approx(0.5, rel=1e-3)
    after = processed(split, fitted, STORE)
    for t in range(2):
        assert float(ccc(after.prediction[:, t], after.label[:, t], after.valid[:, t])) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"post": "ca2022"}, "ca2021"),
        ({"post": {"steps": [{"kind": "mean"}]}}, "median"),
        ({"post": {"steps": [{"kind": "median", "seconds": [3, 1]}]}}, "low < high"),
        ({"post": {"steps": [{"kind": "clip", "low": 1, "high": 0}]}}, "not below"),
        ({"post": {"steps": [{"kind": "smooth", "frames": 0}]}}, "frames"),
        ({"stress": "ful"}, "full"),
        ({"stress": [{"kind": "missing", "strengths": [1.5]}]}, "0-1"),
        ({"stress": [{"kind": "noisy", "strengths": [-1]}]}, "at least 0"),
        ({"stress": [{"kind": "noisy", "strengths": []}]}, "strengths"),
    ],
)
def test_wrong_chains_and_batteries_are_answered(given, word):
    with pytest.raises(UserError, match=word):
        Evaluation.parse(given, "a recipe")


def test_names_stand_for_chains():
    assert Evaluation.parse({"post": "none", "stress": "none"}, "x") == Evaluation()
    assert Evaluation.parse({"post": None, "stress": None}, "x") == Evaluation()
    assert Evaluation.parse({"post": "dca2024"}, "x").post == CHAINS["dca2024"]
    assert len({Evaluation.parse({"post": name}, "x").key for name in CHAINS}) == len(CHAINS)
