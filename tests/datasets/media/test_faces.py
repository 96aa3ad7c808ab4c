"""Faces in videos: the detector on rendered faces, and tracking with detections that are made up."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfold.datasets.corpora.embedded.puppets import write_puppets
from crossfold.datasets.media import face_tracking as faces
from crossfold.datasets.media.face_tracking import (
    Box,
    crop_face,
    detections,
    dlib_detector,
    face_chunks,
    find_track,
    follow,
    growing_face_chunks,
    looks_ahead,
    side_of_clip,
    smooth,
)
from crossfold.platform.core.errors import UserError

FPS = 25.0


def lost(track: np.ndarray) -> list[int]:
    """Pictures without a face."""
    return np.flatnonzero(np.isnan(track[:, 0])).tolist()


def box(x: float, y: float = 100.0, side: float = 60.0) -> Box:
    return Box(x - side / 2, y - side / 2, x + side / 2, y + side / 2)


def test_a_face_that_is_lost_is_lost_and_not_guessed():
    found = [[box(100.0)]] * 10 + [[]] * 3 + [[box(100.0)]] * 10
    track = smooth(follow(found, FPS), FPS)
    assert lost(track) == [10, 11, 12]
    assert (track[:10, 0] == 100).all()


def test_one_wild_detection_does_not_move_the_track():
    found = [[box(100.0 + t)] for t in range(40)]
    found[20] = [box(100.0 + 20, side=75.0)]
    track = smooth(follow(found, FPS), FPS)
    assert np.abs(np.diff(track[:, 2])).max() < 1
    np.testing.assert_allclose(track[6:-6, 0], 100.0 + np.arange(6, 34), atol=1e-9)


def test_the_subject_is_the_face_that_is_largest_and_longest():
    found = [[box(300.0, side=40.0), box(100.0)] for _ in range(30)]
    found[10:14] = [[box(300.0, side=40.0)]] * 4
    track = follow(found, FPS)
    assert lost(track) == [10, 11, 12, 13]
    assert set(track[~np.isnan(track[:, 0]), 0]) == {100.0}


def test_a_face_that_comes_back_elsewhere_is_followed_again():
    found = [[box(100.0)]] * 20 + [[]] * 30 + [[box(400.0)]] * 10
    track = smooth(follow(found, FPS), FPS)
    assert lost(track) == list(range(20, 50))
    assert set(track[50:, 0]) == {400.0}


def test_a_flicker_and_a_thing_the_detector_is_never_sure_of_are_no_faces():
    flicker = [[box(300.0)] if index in (5, 6, 30) else [] for index in range(60)]
    assert np.isnan(follow(flicker, FPS)).all()
    unsure = [[Box(0, 0, 50, 50, -0.1)] for _ in range(60)]
    assert np.isnan(follow(unsure, FPS)).all()
    unsure[40] = [Box(0, 0, 50, 50, 0.1)]
    assert not np.isnan(follow(unsure, FPS)).any()


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.lists(st.tuples(st.floats(0, 300), st.floats(0, 300), st.floats(60, 200)), max_size=3),
        min_size=1,
        max_size=40,
    )
)
def test_a_track_stands_only_where_something_was_found(places):
    found = [[box(x, y, side) for x, y, side in picture] for picture in places]
    raw = follow(found, FPS)
    track = smooth(raw, FPS)
    there = ~np.isnan(track[:, 0])
    assert track.shape == (len(found), 3)
    assert not there[[index for index, boxes in enumerate(found) if not boxes]].any()
    np.testing.assert_array_equal(there, ~np.isnan(raw[:, 0]))
    for index in np.flatnonzero(there):
        assert any(tuple(raw[index]) == pytest.approx((x, y, side)) for x, y, side in places[index])


def test_crops_are_black_outside_the_picture():
    picture = np.full((100, 100, 3), 200, np.uint8)
    crop = crop_face(picture, np.array([0.0, 50.0, 40.0]), "RGB", 48)
    assert crop.shape == (48, 48, 3)
    assert (crop[:, :20] == 0).all()
    assert (crop[:, 28:] == 200).all()
    assert crop_face(picture, np.array([50.0, 50.0, 40.0]), "L", 48).tolist() == [[200] * 48] * 48


@pytest.fixture(scope="module")
def puppets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faces") / "puppets"
    write_puppets(folder, clips=4, seconds=2.0)
    return folder


def test_dlib_finds_the_rendered_faces_where_they_are(puppets):
    video = puppets / "videos" / "puppet-01.mp4"
    track = find_track(video, 24, FPS, dlib_detector())
    there = ~np.isnan(track[:, 0])
    assert there.mean() > 0.8
    assert (np.abs(track[there, :2] - 96) < 30).all()
    assert ((track[there, 2] > 50) & (track[there, 2] < 140)).all()
    chunks = list(face_chunks(video, track, "RGB", 48, 10))
    assert [len(crops) for crops, _ in chunks] == [10, 10, 4]
    crops, present = (np.concatenate(part) for part in zip(*chunks, strict=True))
    np.testing.assert_array_equal(present, there)
    assert crops[present].std((1, 2, 3)).min() > 20
    assert not crops[~present].any()


def test_between_two_looks_a_face_moves_straight_and_comes_and_goes_at_its_own_picture():
    looked: list[int] = []

    def there(index: int) -> list[Box]:
        looked.append(index)
        return [box(100.0 + index)] if index < 11 else []

    found = dict(detections(((index, index) for index in range(30)), there, 3))
    assert list(found) == list(range(30))
    for index, boxes in found.items():
        expected = [box(100.0 + index)] if index < 11 else []
        assert [(b.left, b.top, b.right, b.bottom) for b in boxes] == pytest.approx(
            [(b.left, b.top, b.right, b.bottom) for b in expected]
        )
    # The face goes between pictures 9 and 12, so both of those between are looked at; at the end, the last is.
    assert looked == [0, 3, 6, 9, 12, 10, 11, 15, 18, 21, 24, 27, 29]


def test_looking_at_a_third_of_the_pictures_finds_the_face_where_looking_at_each_does(puppets):
    video = puppets / "videos" / "puppet-02.mp4"
    each, some = (find_track(video, 48, FPS, dlib_detector(), every=every) for every in (1, None))
    there = ~np.isnan(each[:, 0])
    assert (there == ~np.isnan(some[:, 0])).mean() > 0.95
    both = there & ~np.isnan(some[:, 0])
    assert (np.abs(each - some)[both] < 0.15 * each[both][:, 2:]).all()


def test_chunks_do_not_change_a_crop(puppets):
    video = puppets / "videos" / "puppet-02.mp4"
    track = np.tile([96.0, 100.0, 80.0], (12, 1))
    track[4:6] = np.nan
    whole = next(face_chunks(video, track, "L", 112, 12))
    parts = list(face_chunks(video, track, "L", 112, 5))
    np.testing.assert_array_equal(whole[0], np.concatenate([crops for crops, _ in parts]))
    assert whole[1].tolist() == [index not in (4, 5) for index in range(12)]


@pytest.mark.parametrize("every", [1, 3])
def test_faces_are_followed_with_a_delay_as_they_are_in_a_finished_video(every):
    rng = np.random.default_rng(every)
    pictures = [(index, rng.integers(0, 255, (120, 160, 3), np.uint8)) for index in range(90)]
    places = {id(picture): box(60 + 0.3 * index, 60, 40 + index % 7) for index, picture in pictures}
    gone = {id(picture) for index, picture in pictures if 30 <= index < 34 or 50 <= index < 70}

    def detect(picture: np.ndarray) -> list[Box]:
        return [] if id(picture) in gone else [places[id(picture)]]

    seen = 0

    def coming():
        nonlocal seen
        for index, picture in pictures:
            seen = index
            yield index, picture

    found = dict(detections(pictures, detect, every))
    track = smooth(follow([found[index] for index, _ in pictures], FPS), FPS)
    made = 0
    for crops, present in growing_face_chunks(coming(), FPS, detect, every, "L", 32):
        for crop, there in zip(crops, present, strict=True):
            assert there == (not np.isnan(track[made, 0]))
            if there:
                np.testing.assert_array_equal(crop, crop_face(pictures[made][1], track[made], "L", 32))
            made += 1
        assert made > seen - looks_ahead(FPS, every) - 1 or seen == 89
    assert made == 90


def test_two_subjects_of_a_video_are_told_apart_by_their_half(puppets):
    video = puppets / "videos" / "puppet-03.mp4"

    def both(picture: np.ndarray) -> list[Box]:
        assert picture.shape[1] == 384
        return [box(280.0, side=90.0), box(90.0)]

    tracks = {side: find_track(video, 20, FPS, both, side) for side in ("", "left", "right")}
    assert {side: set(track[:, 0]) for side, track in tracks.items()} == {"": {280.0}, "left": {90.0}, "right": {280.0}}
    assert side_of_clip("puppet-03_left", "puppet-03") == "left"
    assert side_of_clip("cooks_left", "cooks_left") == ""


def test_without_the_extra_the_answer_is_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "dlib", None)
    assert faces.available() is None
    with pytest.raises(UserError, match=r"crossfold\[faces\]"):
        dlib_detector()
