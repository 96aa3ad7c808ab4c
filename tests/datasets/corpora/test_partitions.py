"""Folds: whole videos and subjects on one side, every training clip reported once."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfold.datasets.corpora import partitions
from crossfold.datasets.corpora.clips import ClipInfo
from crossfold.datasets.corpora.embedded.puppets import _plan
from crossfold.datasets.corpora.partitions import (
    Fold,
    FoldTable,
    check_leakage,
    choose_folds,
    fold_file,
    hold_out,
    inner_fold,
    make_folds,
    read_fold_file,
    recognise_folds,
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
    assert sorted(reported) == [f"t{i:02d}" for i in range(12)]
    assert [fold.validation[0] for fold in folds[1:]] == ["t09", "t06", "t04", "t02", "t00"]
    for fold in folds[1:]:
        assert set(fold.train) == {c.name for c in corpus()} - set(fold.validation)


def as_in_the_release(train, official):
    """Reported names of folds 0-5, composed from the facts of E13: cuts of the sorted names, rolled by one a fold."""
    parts = [sorted(train)[a:b] for a, b in zip((0, 71, 142, 213, 284), (71, 142, 213, 284, 356), strict=True)]
    parts.append(sorted(official))
    return [tuple(np.roll(np.array(parts, dtype=object), k)[-1]) for k in range(6)]


def affwild2(leaking: bool = False) -> list[ClipInfo]:
    """356 and 76 clips; `leaking`: two of one video on both sides of the first cut, among others."""
    names = [f"{i:03d}" for i in range(356)]
    train = [clip(name, video=f"v{int(name) // 2}" if leaking else "") for name in names]
    return train[::-1] + [clip(f"x{i:02d}", "validation") for i in range(76)]


@pytest.mark.parametrize(("rule", "leaking"), [("grouped", False), ("as_released", False), ("as_released", True)])
def test_fold_k_reports_what_fold_k_of_the_papers_reports(rule, leaking):
    clips = affwild2(leaking)
    expected = as_in_the_release([c.name for c in clips[:356]], [c.name for c in clips[356:]])
    folds = make_folds(clips, rule=rule)
    assert [fold.validation for fold in folds] == expected
    assert folds[1].validation[0] == "284"
    assert len(folds[1].validation) == 72
    for fold in folds[1:]:
        assert set(fold.train) == {c.name for c in clips} - set(fold.validation)


def test_grouped_folds_report_the_corresponding_trials_with_whole_videos():
    clips = affwild2(leaking=True)
    released = make_folds(clips, rule="as_released")
    with pytest.raises(DataError, match="video 'v35' is in training"):
        check_leakage(clips, released[5])
    for ours, theirs in zip(make_folds(clips), released, strict=True):
        check_leakage(clips, ours)
        assert len(set(ours.validation) & set(theirs.validation)) >= len(theirs.validation) - 2


def test_folds_of_earlier_versions_are_recognised_by_their_members():
    clips = affwild2()
    today = make_folds(clips)
    earlier = (today[0], *(Fold(k, today[6 - k].train, today[6 - k].validation) for k in range(1, 6)))
    assert recognise_folds(clips, earlier) == "grouped_upwards"
    assert recognise_folds(clips, today) == "grouped"
    assert (
        recognise_folds(clips, (Fold(0, *[tuple(c.name for c in part) for part in (clips[1:], clips[:1])]),)) == "given"
    )


def test_a_rule_is_refused_where_it_is_unknown_or_the_corpus_lists_folds():
    with pytest.raises(UserError, match="fold rule 'grupped'"):
        make_folds(corpus(), rule="grupped")
    with pytest.raises(UserError, match="lists its own folds"):
        choose_folds(corpus(), make_folds(corpus()), "grouped")


def test_a_fold_file_says_its_rule_and_may_not_claim_another(tmp_path):
    clips, file = affwild2(leaking=True), tmp_path / "f.json"
    released = FoldTable(make_folds(clips, rule="as_released"), "as_released")
    file.write_text(fold_file("affwild2", released))
    assert json.loads(file.read_text())["rule"] == "as_released"
    assert read_fold_file(file, clips) == released
    file.write_text(fold_file("affwild2", released._replace(rule="grouped")))
    with pytest.raises(UserError, match="not those of its rule 'grouped'"):
        read_fold_file(file, clips)
    file.write_text(fold_file("affwild2", released._replace(rule="given")))
    with pytest.raises(DataError, match="is in training"):
        read_fold_file(file, clips)


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
    with pytest.raises(UserError, match="12 independent videos"):
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
    table = choose_folds(clips, None, None)
    assert (len(clips), len(table.folds), table.rule) == (24, 6, "grouped")
    if os.environ.get("CROSSFOLD_REGENERATE"):
        published.write_text(fold_file("puppets", table), encoding="utf-8")
    assert published.read_text(encoding="utf-8") == fold_file("puppets", table)
    assert read_fold_file(published, clips) == table


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
