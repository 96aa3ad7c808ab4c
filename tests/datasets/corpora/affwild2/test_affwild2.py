"""The Aff-Wild2 reader: what it takes, and what it says about damaged folders."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from crossfold.datasets.corpora.affwild2.files import Listing, check_split, find_split, list_files
from crossfold.datasets.corpora.affwild2.reader import inspect_affwild2
from crossfold.datasets.corpora.clips import UNLABELLED, MediaClip
from crossfold.datasets.corpora.findings import Finding, findings_table, refuse_errors
from crossfold.datasets.corpora.media_checks import TOLERANCE
from crossfold.datasets.corpora.registry import CORPORA
from crossfold.platform.core.errors import DataError
from tests.support.media import assert_readable, put, rewrite, truncate, write_corpus

ANNOTATIONS = Path("annotations") / "VA_Estimation_Challenge"
FRAMES = 40


@pytest.fixture(scope="module")
def sound_corpus(tmp_path_factory):
    """Nothing is wrong with it; not to be written to."""
    return write_corpus(tmp_path_factory.mktemp("corpus") / "data", frames=FRAMES)


@pytest.fixture
def root(tmp_path, sound_corpus):
    """A copy to damage."""
    return Path(shutil.copytree(sound_corpus, tmp_path / "data"))


def load(root: Path) -> list[MediaClip]:
    """The clips of a folder in which nothing is wrong but, perhaps, pictures."""
    inspection = inspect_affwild2(root, deep=False)
    refuse_errors(inspection.findings, root)
    return list(inspection.clips)


def validate(root: Path) -> list[Finding]:
    """Everything that is wrong with a folder, pictures included."""
    return list(inspect_affwild2(root, deep=True).findings)


def label_file(root: Path, clip: str = "alma") -> Path:
    return next((root / ANNOTATIONS).glob(f"*/{clip}.txt"))


def test_a_sound_folder_has_no_findings(sound_corpus):
    assert validate(sound_corpus) == []
    clips = load(sound_corpus)
    assert [(clip.info.name, clip.info.partition) for clip in clips] == [
        ("alma", "train"),
        ("bert", "train"),
        ("cleo", "train"),
        ("dora", "validation"),
    ]
    assert {clip.info.subject for clip in clips} == {"alma", "bert", "cleo", "dora"}
    for clip in clips:
        assert (clip.info.frames, clip.info.fps, clip.labels.shape) == (FRAMES, 25.0, (FRAMES, 2))
        np.testing.assert_allclose(clip.times, np.arange(FRAMES) / 25, atol=1e-9)
        np.testing.assert_allclose(clip.labels[:, 0], np.linspace(-0.5, 0.5, FRAMES), atol=1e-6)


DAMAGE = {
    "no annotations": (lambda r: shutil.rmtree(r / "annotations"), ".", "annotations-there"),
    "annotations twice": (
        lambda r: shutil.copytree(r / ANNOTATIONS, r / "older" / "VA_Estimation_Challenge"),
        ".",
        "annotations-once",
    ),
    "no validation part": (
        lambda r: shutil.rmtree(r / ANNOTATIONS / "Validation_Set"),
        "annotations/VA_Estimation_Challenge",
        "partition-there",
    ),
    "no crops": (lambda r: shutil.rmtree(r / "cropped_aligned"), ".", "crops-there"),
    "no crop folder": (lambda r: shutil.rmtree(r / "cropped_aligned" / "alma"), "alma.txt", "crops-there"),
    "empty crop folder": (
        lambda r: [p.unlink() for p in (r / "cropped_aligned" / "alma").iterdir()],
        "cropped_aligned/alma",
        "crops-there",
    ),
    "crops beyond labels": (
        lambda r: shutil.copy(r / "cropped_aligned/alma/00001.jpg", r / "cropped_aligned/alma/00099.jpg"),
        "cropped_aligned/alma",
        "crops-within-clip",
    ),
    "crops from zero": (
        lambda r: shutil.copy(r / "cropped_aligned/alma/00001.jpg", r / "cropped_aligned/alma/00000.jpg"),
        "cropped_aligned/alma",
        "crops-from-1",
    ),
    "cut jpg": (lambda r: truncate(r / "cropped_aligned/alma/00007.jpg"), "alma/00007.jpg", "crop-readable"),
    "empty jpg": (lambda r: truncate(r / "cropped_aligned/alma/00007.jpg", 0), "alma/00007.jpg", "crop-readable"),
    "no video": (lambda r: (r / "videos/alma.mp4").unlink(), "alma.txt", "video-there"),
    "no videos": (lambda r: shutil.rmtree(r / "videos"), ".", "video-there"),
    "cut mp4": (lambda r: truncate(r / "videos/alma.mp4"), "videos/alma.mp4", "video-readable"),
    "two videos": (
        lambda r: (r / "batch1").mkdir() or (r / "batch1/alma.mp4").write_bytes(b"another"),
        "alma.txt",
        "video-once",
    ),
    "no wav": (lambda r: (r / "audio/alma.wav").unlink(), "videos/alma.mp4", "sound-there"),
    "cut wav": (lambda r: truncate(r / "audio/alma.wav"), "audio/alma.wav", "sound-readable"),
    "labels too few": (lambda r: rewrite(label_file(r), lambda ls: ls[:-9]), "alma.txt", "label-length"),
    "labels too many": (lambda r: rewrite(label_file(r), lambda ls: ls + ["0,0"] * 9), "alma.txt", "label-length"),
    "label out of range": (lambda r: rewrite(label_file(r), put(5, "1.2,0")), "alma.txt", "label-range"),
    "label -4": (lambda r: rewrite(label_file(r), put(5, "-4,0")), "alma.txt", "label-range"),
    "label not a number": (lambda r: rewrite(label_file(r), put(5, "0.1,high")), "alma.txt", "label-number"),
    "label nan": (lambda r: rewrite(label_file(r), put(5, "0.1,nan")), "alma.txt", "label-number"),
    "one value a line": (lambda r: rewrite(label_file(r), put(5, "0.1")), "alma.txt", "label-number"),
    "blank line inside": (lambda r: rewrite(label_file(r), put(5, "")), "alma.txt", "label-number"),
    "columns swapped": (lambda r: rewrite(label_file(r), put(0, "arousal,valence")), "alma.txt", "label-header"),
    "labels empty": (lambda r: label_file(r).write_text(""), "alma.txt", "label-empty"),
    "header only": (lambda r: label_file(r).write_text("valence,arousal\n"), "alma.txt", "label-empty"),
    "both partitions": (
        lambda r: shutil.copy(label_file(r), r / ANNOTATIONS / "Validation_Set"),
        "alma.txt",
        "partitions-apart",
    ),
    "spans damaged": (
        lambda r: (r / "truth").mkdir() or (r / "truth/spans.csv").write_text("clip,start\nalma,x\n"),
        "truth/spans.csv",
        "truth-readable",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_each_damage_is_named_with_file_rule_and_remedy(root, name):
    damage, file, rule = DAMAGE[name]
    damage(root)
    found = [finding for finding in validate(root) if finding.severity == "error"]
    assert [(f.file.endswith(file), f.rule) for f in found] == [(True, rule)], found
    assert_readable(found, root)


def test_everything_is_reported_at_once_and_the_list_is_capped(root):
    truncate(root / "videos/alma.mp4")
    (root / "audio/bert.wav").unlink()
    rewrite(label_file(root, "cleo"), lambda lines: lines[:-9])
    for number in range(1, 15):
        truncate(root / f"cropped_aligned/dora/{number:05d}.jpg", 0.3)
    table = findings_table(validate(root))
    assert table["rule"].value_counts().to_dict() == {
        "crop-readable": 14,
        "video-readable": 1,
        "sound-there": 1,
        "label-length": 1,
    }
    with pytest.raises(DataError) as error:
        load(root)
    assert all(name in str(error.value) for name in ("videos/alma.mp4", "videos/bert.mp4", "cleo.txt"))


@pytest.mark.parametrize("by", [1, TOLERANCE])
def test_a_short_tail_is_left_out_and_nothing_moves(root, by):
    before = {clip.info.name: clip for clip in load(root)}
    rewrite(label_file(root, "alma"), lambda lines: lines[:-by])
    rewrite(label_file(root, "bert"), lambda lines: lines + ["0.5,0.5"] * by)
    findings = validate(root)
    assert [(f.rule, f.severity) for f in findings] == [("label-length", "warning")] * 2
    clips = {clip.info.name: clip for clip in load(root)}
    np.testing.assert_array_equal(clips["alma"].labels, before["alma"].labels[:-by])
    assert clips["bert"].info.frames == FRAMES + by == len(clips["bert"].times)
    np.testing.assert_array_equal(clips["bert"].labels[:FRAMES], before["bert"].labels)
    assert (clips["bert"].labels[FRAMES:] == UNLABELLED).all()


def test_one_more_than_the_tolerance_is_an_error(root):
    rewrite(label_file(root), lambda lines: lines + ["0.5,0.5"] * (TOLERANCE + 1))
    assert [f.rule for f in validate(root)] == ["label-length"]


def test_unlabelled_frames_stay_where_they_are(root):
    rewrite(label_file(root), lambda lines: [*lines[:11], "-5,-5", "-5,0.2", "0.1,-5.0", *lines[14:]])
    labels = load(root)[0].labels
    assert np.flatnonzero((labels == UNLABELLED).any(1)).tolist() == [10, 11, 12]
    assert labels[11, 1] == np.float32(0.2)


def test_missing_header_is_taken_as_frame_one_and_said(root):
    expected = load(root)[0].labels
    rewrite(label_file(root), lambda lines: lines[1:])
    assert [(f.rule, f.severity) for f in validate(root)] == [("label-header", "warning")]
    np.testing.assert_array_equal(load(root)[0].labels, expected)


@pytest.mark.parametrize(
    ("encoding", "part", "point"),
    [("utf-16", "\t", ","), ("utf-16", "\t", "."), ("utf-8-sig", ";", ","), ("utf-8", "|", ".")],
)
def test_labels_that_went_through_a_spreadsheet_are_the_same(root, encoding, part, point):
    expected = load(root)[0].labels
    text = label_file(root).read_text().replace(",", part).replace(".", point)
    label_file(root).write_text(text, encoding=encoding)
    assert validate(root) == []
    np.testing.assert_array_equal(load(root)[0].labels, expected)


def test_two_people_of_one_video_share_it_and_its_sound(tmp_path):
    clips = {"duo_left": "Train_Set", "solo": "Train_Set", "other": "Validation_Set"}
    root = write_corpus(tmp_path / "data", clips=clips, frames=20)
    shutil.copytree(root / "cropped_aligned/duo_left", root / "cropped_aligned/duo_right_2")
    shutil.copy(label_file(root, "duo_left"), label_file(root, "duo_left").with_name("duo_right_2.txt"))
    left, right = (clip for clip in load(root) if clip.info.video == "duo")
    assert (left.info.name, right.info.name) == ("duo_left", "duo_right_2")
    assert left.info.subject == right.info.subject == "duo"
    assert left.audio == right.audio == root.resolve() / "audio" / "duo.wav"
    shutil.move(label_file(root, "duo_right_2"), root / ANNOTATIONS / "Validation_Set")
    assert [f.rule for f in validate(root)] == ["partitions-apart"]


def test_the_owners_folder_names_are_found_wherever_they_are(tmp_path, sound_corpus):
    root = tmp_path / "AffWild2"
    shutil.copytree(sound_corpus / ANNOTATIONS, root / "Third ABAW Annotations" / "VA_Estimation_Challenge")
    (root / "Third ABAW Annotations/VA_Estimation_Challenge/Train_Set").rename(
        root / "Third ABAW Annotations/VA_Estimation_Challenge/Training_Set"
    )
    shutil.copytree(sound_corpus / "cropped_aligned", root / "cropped_aligned/cropped_aligned")
    (root / "cropped_aligned_new_50_vids").mkdir()
    (root / "cropped_aligned/cropped_aligned/dora").rename(root / "cropped_aligned_new_50_vids/dora")
    shutil.copytree(sound_corpus / "videos", root / "batch1")
    (root / "batch2").symlink_to(sound_corpus / "videos")
    shutil.copytree(sound_corpus / "audio", root / "audio")
    (root / "loop").symlink_to(root)
    assert validate(root) == []
    assert len(load(root)) == 4


def test_sound_of_the_video_is_taken_where_there_is_no_wav(tmp_path):
    root = write_corpus(tmp_path / "data", frames=20, sound="video", sound_rate=48_000)
    assert validate(root) == []
    assert {clip.audio.suffix for clip in load(root)} == {".mp4"}


def test_a_corpus_without_any_sound_is_said_and_kept(tmp_path):
    root = write_corpus(tmp_path / "data", frames=20, sound="none")
    assert {(f.rule, f.severity) for f in validate(root)} == {("sound-there", "warning")}
    assert {clip.audio for clip in load(root)} == {None}


def test_embedded_data_never_pass_for_the_real(root):
    entry = CORPORA.get("affwild2")
    assert entry.inspect(root, deep=False).corpus == "affwild2"
    (root / "puppets.json").write_text("{}")
    (root / "truth").mkdir()
    (root / "truth/spans.csv").write_text("clip,start,end,kind,modality,detail\nalma,3,9,missing,audio,silence\n")
    (root / "truth/clips.csv").write_text("clip,subject\nalma,Alma A.\n")
    inspection = entry.inspect(root, deep=False)
    assert inspection.corpus == "puppets"
    alma = inspection.clips[0]
    assert alma.info.subject == "Alma A."
    assert [(s.start, s.end, s.kind, s.modality) for s in alma.spans] == [(3, 9, "missing", "audio")]


def test_corpora_are_listed_with_what_they_need():
    assert {"affwild2", "puppets", "synthetic"} <= set(CORPORA)
    for name in CORPORA:
        entry = CORPORA.get(name)
        assert entry.description
        assert entry.layout
        assert entry.needs


def test_a_target_that_nobody_labelled_is_said(root):
    for file in (root / ANNOTATIONS).glob("*/*.txt"):
        rewrite(file, lambda lines: [lines[0], *(f"{line.split(',')[0]},-5" for line in lines[1:])])
    rules = [(f.rule, f.severity) for f in validate(root)]
    assert rules.count(("target-none", "warning")) == 1
    assert rules.count(("label-none", "warning")) == 4
    (finding,) = [f for f in validate(root) if f.rule == "target-none"]
    assert "arousal" in finding.problem


def test_a_damaged_video_of_two_people_is_one_finding(tmp_path):
    clips = {"duo_left": "Train_Set", "solo": "Train_Set", "other": "Validation_Set"}
    root = write_corpus(tmp_path / "data", clips=clips, frames=20)
    shutil.copytree(root / "cropped_aligned/duo_left", root / "cropped_aligned/duo_right")
    shutil.copy(label_file(root, "duo_left"), label_file(root, "duo_left").with_name("duo_right.txt"))
    truncate(root / "videos/duo.mp4")
    assert [(f.file, f.rule) for f in validate(root)] == [("videos/duo.mp4", "video-readable")]


def annotations_only(root: Path, train: int, validation: int, pairs: int = 0) -> Listing:
    """Label files of so many videos; `pairs` of the training ones show two people."""
    for part, count in (("Train_Set", train), ("Validation_Set", validation)):
        folder = root / "VA_Estimation_Challenge" / part
        folder.mkdir(parents=True)
        for number in range(count):
            name = f"{part[0].lower()}{number}"
            twins = ["_left", "_right"] if part == "Train_Set" and number < pairs else [""]
            for twin in twins:
                (folder / f"{name}{twin}.txt").touch()
    return list_files(root)


@pytest.mark.parametrize(
    ("counts", "severity", "says"),
    [
        ((356, 76), "note", "356 training and 76 validation videos, as printed in 001, 002 and 003"),
        ((360, 72), "note", "360 training and 72 validation videos, as printed in 000"),
        ((350, 76, 6), "note", "356 training and 76 validation videos, as printed in 001, 002 and 003"),
        ((356, 76, 6), "note", "356 training and 76 validation videos, as printed in 001, 002 and 003"),
        ((350, 70), "warning", "350 training and 70 validation videos, as in no paper"),
    ],
)
def test_the_printed_split_is_recognised(tmp_path, counts, severity, says):
    listing = annotations_only(tmp_path, *counts)
    split = find_split(listing)
    assert split.description == says
    ((rule, found, problem),) = [(f.rule, f.severity, f.problem) for f in check_split(tmp_path, listing, split)]
    assert (rule, found, problem) == ("split-printed", severity, says)


def test_the_split_stands_in_the_store_and_a_part_of_the_corpus_is_not_scolded(sound_corpus):
    inspection = CORPORA.get("affwild2").inspect(sound_corpus, deep=False)
    assert inspection.origin == {"split": "3 training and 1 validation videos, as in no paper"}
    assert inspection.findings == ()


def test_clips_of_the_test_part_have_pictures_and_no_labels(root):
    """Named by the owners' list; the lists of other tracks name other clips."""
    for part in ("videos/{}.mp4", "audio/{}.wav", "cropped_aligned/{}"):
        source, target = root / part.format("dora"), root / part.format("fred")
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    names = root / "names"
    names.mkdir()
    (names / "Valence_Arousal_Estimation_Challenge_test_set_release.txt").write_text("fred\nfred\n\n")
    (names / "Expression_Recognition_Challenge_test_set_release.txt").write_text("someone\n")
    assert validate(root) == []
    clips = load(root)
    assert [(clip.info.name, clip.info.partition) for clip in clips][-2:] == [("dora", "validation"), ("fred", "test")]
    assert (clips[-1].labels == UNLABELLED).all()
    assert clips[-1].info.frames == FRAMES
    shutil.rmtree(root / "cropped_aligned/fred")
    (root / "videos/fred.mp4").unlink()
    found = {(f.rule, f.severity) for f in validate(root) if "fred" in f.file}
    assert found == {("crops-there", "error"), ("video-there", "error")}


def test_a_test_clip_that_is_also_trained_on_is_refused(root):
    (root / "Valence_Arousal_Estimation_Challenge_test_set_release.txt").write_text("alma\n")
    assert [f.rule for f in validate(root)] == ["partitions-apart"]
