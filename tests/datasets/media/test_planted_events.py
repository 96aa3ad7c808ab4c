"""No misalignment: one flash, beep and step of the labels, found at one frame in everything, in each layout."""

import numpy as np
import pytest

from crossfold.datasets.corpora.clips import UNLABELLED
from crossfold.datasets.corpora.registry import CORPORA
from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.platform.features.prepare import prepare
from crossfold.platform.workspace.workspace import Workspace
from tests.support.media import TIMINGS, find_in_clip, find_in_store, picture_times, plant

pytest.importorskip("av", reason="needs crossfold[media]")

LAYOUTS = ("affwild2", "recola", "manifest")
PICTURES = 72
# Each timing meets each way of cutting and of carrying sound in some layout.
CUTS = ("", "video", "labels", "sound")


def inspect(root, layout):
    inspection = CORPORA.get(layout).inspect(root, deep=True)
    assert [finding for finding in inspection.findings if finding.severity == "error"] == []
    return {clip.info.name: clip for clip in inspection.clips}


@pytest.mark.parametrize("timing", TIMINGS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_everything_happens_in_the_same_frame(tmp_path, layout, timing):
    turn = LAYOUTS.index(layout) + TIMINGS.index(timing)
    cut, sound = CUTS[turn % 4], ("wav", "video")[turn % 2]
    planted = plant(tmp_path, layout, timing=timing, pictures=PICTURES, sound=sound, gap=True, cut=cut)
    clips = inspect(tmp_path, layout)
    assert len(clips) == len(planted) == 2
    for there in planted:
        clip = clips[there.name]
        assert find_in_clip(clip) == dict.fromkeys(("video", "crops", "audio", "labels"), there.event), (cut, sound)
        frames = min(len(clip.times), len(there.times))
        np.testing.assert_allclose(clip.times[:frames], there.times[:frames], atol=1e-4)
        without = np.flatnonzero(((clip.labels == UNLABELLED) | np.isnan(clip.labels)).any(1))
        begin, end = there.gap
        assert without[without < there.event].tolist() == list(range(begin, end))
        # A tail without labels, or with labels but no pictures, is as long as what was cut.
        assert (without >= there.event).sum() <= 3


def test_labels_of_a_constant_rate_do_not_fit_pictures_of_a_variable_one(tmp_path):
    planted = plant(tmp_path, "affwild2", timing="variable", pictures=2 * PICTURES)[0]
    path = next(tmp_path.rglob(f"{planted.name}.txt"))
    seconds = planted.times[-1] + 0.04
    for rate, remedy in ((30, "-r 30 NEW"), (25, "-r 25 NEW"), (50, "-r 50 NEW"), (37, "not of the same cut")):
        path.write_text("valence,arousal\n" + "0.1,0.2\n" * round(seconds * rate))
        errors = [f for f in CORPORA.get("affwild2").inspect(tmp_path, deep=False).findings if f.severity == "error"]
        assert [f.rule for f in errors if remedy in f.remedy] == ["label-length"]


@pytest.mark.parametrize("timing", ["29.97", "variable", "dropped"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_store_has_it_there_too(tmp_path, layout, timing):
    planted = plant(tmp_path / "data", layout, timing=timing, pictures=PICTURES)
    store = FeatureStore(prepare(Workspace(tmp_path / "ws"), layout, tmp_path / "data", processes=1))
    for there in planted:
        assert find_in_store(store, there.name) == dict.fromkeys(("visual", "audio", "labels"), there.event)


def test_the_tool_sees_a_shift_of_one_frame(tmp_path):
    """A check that cannot fail would be none: crops, sound and labels are each moved by one frame."""
    planted = plant(tmp_path, "affwild2", pictures=PICTURES)[0]
    clip = inspect(tmp_path, "affwild2")[planted.name]
    clip.labels[1:] = clip.labels[:-1].copy()
    for number in range(PICTURES, 0, -1):
        (clip.crops / f"{number:05d}.jpg").rename(clip.crops / f"{number + 1:05d}.jpg")
    clip.times[:] -= 1 / 25
    found = find_in_clip(clip)
    event = planted.event
    assert found == {"video": event, "crops": event + 1, "audio": event + 1, "labels": event + 1}


def test_timings_are_what_they_say():
    steps = {timing: set(np.diff([float(t) for t in picture_times(timing, 60)]).round(6)) for timing in TIMINGS}
    assert steps["23.976"] == {0.041708}
    assert steps["29.97"] == {0.033367}
    assert min(steps["variable"]) == 0.02
    assert max(steps["variable"]) == 0.066
    assert steps["dropped"] == {0.04, 0.08, 0.12, 0.16}
