"""Folds: whole videos and subjects on one side, every training clip reported once."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfold.datasets.corpora import partitions
from crossfold.datasets.corpora.clips import ClipInfo
from crossfold.datasets.corpora.embedded.puppets import _plan
from crossfold.datasets.corpora.partitions import (
    Fold,
    check_leakage,
    fold_file,
    hold_out,
    inner_fold,
    make_folds,
    read_fold_file,
)
from crossfold.platform.core.errors import DataError, UserError


def clip(name: str, partition: str = "train", *, video: str = "", subject: str = "") -> ClipInfo:
    video = video or name
    return ClipInfo(name=name, video=video, subject=subject or video, partition=partition, fps=25.0, frames=10)


def corpus(train: int = 12, validation: int = 3) -> list[ClipInfo]:
    return [clip(f"t{i:02d}") for i in range(train)] + [clip(f"v{i:02d}", "validation") for i in range(validation)]


def test_official_split_and_five_rolling_chunks():
    folds = make_folds(corpus())
    assert [fold.index for fold in folds] == [0, 1, 2, 3, 4, 5]
    assert folds[0].validation == ("v00", "v01", "v02")
    reported = [name for fold in folds[1:] for name in fold.validation]
    assert reported == [f"t{i:02d}" for i in range(12)]
    for fold in folds[1:]:
        assert set(fold.train) == {c.name for c in corpus()} - set(fold.validation)


def test_sizes_are_those_of_the_release():
    sizes = [len(fold.validation) for fold in make_folds(corpus(train=356, validation=76))]
    assert sizes == [76, 71, 71, 71, 71, 72]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 6)), min_size=2, max_size=30), st.integers(2, 7))
def test_no_fold_splits_a_video_or_a_subject(people, count):
    train = [clip(f"t{i:02d}", video=f"video{v}", subject=f"s{s}") for i, (v, s) in enumerate(people)]
    clips = [*train, clip("v00", "validation")]
    folds = make_folds(clips, count)
    for fold in folds:
        check_leakage(clips, fold)
        assert fold.train
        assert fold.validation
        assert not set(fold.train) & set(fold.validation)
    if len(folds) > 1:
        assert sorted(name for fold in folds[1:] for name in fold.validation) == [c.name for c in train]


def test_order_of_clips_does_not_matter():
    assert make_folds(corpus()) == make_folds(corpus()[::-1])


@pytest.mark.parametrize("what", ["video", "subject"])
def test_a_leak_in_the_official_split_is_refused(what):
    clips = [*corpus(), clip("x", "validation", video="t03" if what == "video" else "", subject="t03")]
    with pytest.raises(DataError, match=r"'t03' is in training \(t03\) and in validation \(x\)"):
        make_folds(clips)


def test_both_partitions_are_needed():
    with pytest.raises(DataError, match="0 training and 1 validation"):
        make_folds([clip("v", "validation")])


def test_inner_folds_stay_inside_the_training_part():
    clips = corpus()
    outer = make_folds(clips)[1]
    inner = [inner_fold(clips, outer, index, 5) for index in range(5)]
    assert sorted(name for fold in inner for name in fold.validation) == sorted(outer.train)
    for fold in inner:
        assert not (set(fold.train) | set(fold.validation)) & set(outer.validation)
    with pytest.raises(UserError, match="13 independent videos"):
        inner_fold(clips, outer, 0, 50)


def test_held_out_clips_come_from_training_in_whole_groups():
    clips = [clip(f"t{i:02d}", video=f"video{i // 2}") for i in range(20)] + [clip("v", "validation")]
    fold, held = hold_out(clips, make_folds(clips)[0], 0.2)
    assert fold.validation == ("v",)
    assert set(fold.train) | set(held) == {f"t{i:02d}" for i in range(20)}
    assert len(held) == 4
    check_leakage(clips, Fold(0, fold.train, held))
    with pytest.raises(UserError, match="at least two"):
        hold_out(clips, Fold(0, ("t00", "t01"), ("v",)), 0.5)


def fold_file_of(path, folds, **changes):
    path.write_text(json.dumps({"folds": folds, "left_out": [], **changes}))
    return path


def test_published_folds_are_those_of_the_rule():
    """From who is in which of the default puppets, none of them made."""
    published = Path(partitions.__file__).parent / "published_folds" / "puppets-24.json"
    roles = [role for job in _plan(Path(), 24, 500, 25.0, 0, "affwild2") for role in job.roles]
    clips = [clip(role.clip, role.partition, video=role.video, subject=role.subject) for role in roles]
    assert (len(clips), len(make_folds(clips))) == (24, 6)
    assert published.read_text(encoding="utf-8") == fold_file("puppets", make_folds(clips))
    assert read_fold_file(published, clips) == make_folds(clips)


@pytest.mark.parametrize(
    ("folds", "says"),
    [
        ([{"index": 0, "train": ["a"], "validation": ["b"]}], "in no fold, such as 'c'"),
        ([{"index": 0, "train": ["a", "x"], "validation": ["b", "c"]}], "does not have, such as 'x'"),
        ([{"index": 0, "train": ["a", "b"], "validation": ["b", "c"]}], "none|on both"),
        ([{"index": 0, "train": ["a", "b", "c"], "validation": []}], "0 validation clips"),
        ([{"index": 1, "train": ["a"], "validation": ["b", "c"]}], "number them from 0"),
        ([{"index": 0, "train": ["a", "b"], "validation": ["c"]}], "subject 's' is in training"),
        ([], "number them from 0"),
        ("abc", "not a file of folds"),
        ([{"index": 0, "train": ["a"]}], "not a file of folds"),
    ],
)
def test_wrong_fold_files_are_refused(tmp_path, folds, says):
    clips = [clip("a"), clip("b", subject="s"), clip("c", subject="s")]
    with pytest.raises(UserError, match=says):
        read_fold_file(fold_file_of(tmp_path / "f.json", folds), clips)


def test_a_fold_file_that_is_no_json_is_refused(tmp_path):
    (tmp_path / "f.json").write_bytes(b"\xff{")
    with pytest.raises(UserError, match="not a file of folds"):
        read_fold_file(tmp_path / "f.json", [clip("a")])
