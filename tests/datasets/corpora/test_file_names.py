"""Names that systems write differently mean the same file, and files that systems add are no data."""

import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from crossfold.datasets.corpora.affwild2.reader import inspect_affwild2
from crossfold.datasets.corpora.manifest.reader import inspect_manifest
from tests.support.media import assert_readable, write_corpus

NFC, NFD = (unicodedata.normalize(form, "Müller-Šó") for form in ("NFC", "NFD"))
SETS = "annotations/VA_Estimation_Challenge/Train_Set"


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    clips = {"one": "Train_Set", "two": "Validation_Set"}
    return write_corpus(tmp_path_factory.mktemp("names") / "data", clips=clips, frames=30)


@pytest.fixture
def root(tmp_path, sound):
    return Path(shutil.copytree(sound, tmp_path / "data"))


def everything_under(root: Path, clip: str) -> list[Path]:
    return [path for path in sorted(root.rglob("*"), reverse=True) if path.stem == clip]


def test_files_that_a_mac_adds_are_no_data(root):
    before = inspect_affwild2(root, deep=True)
    for path in list(root.rglob("*")):
        double = b"\0\5\26\7\0\2\0\0Mac OS X        \377\376"
        path.with_name(f"._{path.name}").write_bytes(double)
        copy = root / "__MACOSX" / path.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            copy.with_name(f"._{path.name}").write_bytes(double)
        (path.parent / ".DS_Store").write_bytes(double)
    after = inspect_affwild2(root, deep=True)
    assert after.findings == before.findings
    assert [clip.info for clip in after.clips] == [clip.info for clip in before.clips]


@pytest.mark.parametrize("labels", [NFC, NFD])
def test_labels_and_media_meet_in_either_normal_form(root, labels):
    media = NFD if labels == NFC else NFC
    before = inspect_affwild2(root, deep=True)
    for path in everything_under(root, "one"):
        name = labels if SETS in str(path) else media
        path.rename(path.with_name(name + path.suffix))
    after = inspect_affwild2(root, deep=True)
    assert [f.rule for f in after.findings] == [f.rule for f in before.findings]
    assert {clip.info.name for clip in after.clips} == {NFC, "two"}


def write_manifest(root: Path, *, named: str = "x", there: str = "x", subjects=("s1", "s2"), folder: str = "f") -> Path:
    (root / folder).mkdir(parents=True)
    (root / "features" / "audio").mkdir(parents=True)
    rows = ["clip,subject,partition,visual_features,label:v,rate"]
    for clip, part, subject in ((named, "train", subjects[0]), ("y", "validation", subjects[1])):
        np.save(root / folder / f"{there if clip == named else clip}.npy", np.ones((4, 2)))
        rows.append(f"{clip},{subject},{part},f/{clip}.npy,0.5,4")
    (root / "manifest.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return root


@pytest.mark.parametrize(("named", "there"), [(NFC, NFD), (NFD, NFC)])
def test_paths_of_a_manifest_meet_in_either_normal_form(tmp_path, named, there):
    inspection = inspect_manifest(write_manifest(tmp_path / "data", named=named, there=there), deep=True)
    assert [f for f in inspection.findings if f.severity == "error"] == []
    assert {clip.info.name for clip in inspection.clips} == {NFC, "y"}


@pytest.mark.parametrize(("named", "there"), [(NFC, NFD), (NFD, NFC)])
def test_features_found_by_name_meet_in_either_normal_form(tmp_path, named, there):
    root = tmp_path / "data"
    (root / "features/audio").mkdir(parents=True)
    for name in (there, "y"):
        np.save(root / f"features/audio/{name}.npy", np.ones((4, 2)))
    (root / "manifest.csv").write_text(f"clip,partition,label:v,rate\n{named},train,0.5,4\ny,validation,0.5,4\n")
    assert {clip.info.name for clip in inspect_manifest(root, deep=True).clips} == {NFC, "y"}


def test_one_clip_in_two_normal_forms_is_one_clip_twice(tmp_path):
    root = write_manifest(tmp_path / "data", named=NFC, there=NFC)
    text = (root / "manifest.csv").read_text(encoding="utf-8")
    (root / "manifest.csv").write_text(text + f"{NFD},s3,train,f/{NFC}.npy,0.5,4\n", encoding="utf-8")
    assert "clip-once" in {f.rule for f in inspect_manifest(root, deep=True).findings}


@pytest.mark.parametrize("subjects", [("1", "01"), ("P-3", "p_03"), ("7", "7.0"), ("Ann", "ann"), ("s 1", "S_01")])
def test_subjects_of_nearly_one_name_on_two_sides_are_reported(tmp_path, subjects):
    findings = inspect_manifest(write_manifest(tmp_path / "data", subjects=subjects), deep=True).findings
    assert [(f.rule, f.severity) for f in findings] == [("subject-alike", "warning")]
    assert_readable(findings, tmp_path)


@pytest.mark.parametrize("subjects", [("1", "2"), ("s1_01", "s10_1"), ("10", "1"), ("a", "b")])
def test_subjects_of_different_names_are_not(tmp_path, subjects):
    assert inspect_manifest(write_manifest(tmp_path / "data", subjects=subjects), deep=True).findings == ()


@pytest.mark.parametrize("missing", ["n/a", "NA", "nan", "-", "None"])
def test_a_subject_that_is_missing_twice_is_not_one_person(tmp_path, missing):
    findings = inspect_manifest(write_manifest(tmp_path / "data", subjects=(missing, missing)), deep=True).findings
    assert [f.rule for f in findings] == ["subject-there"]


def test_subjects_in_two_normal_forms_are_one_person(tmp_path):
    findings = inspect_manifest(write_manifest(tmp_path / "data", subjects=(NFC, NFD)), deep=True).findings
    assert [f.rule for f in findings if f.severity == "error"] == ["subject-apart"]


def test_the_hint_for_a_missing_file_prefers_the_same_name_in_other_case(tmp_path):
    root = write_manifest(tmp_path / "data", named="x0", there="X0")
    (root / "f" / "x1.npy").touch()
    (finding,) = [f for f in inspect_manifest(root, deep=True).findings if f.rule == "file-there"]
    assert "did you mean 'X0.npy'?" in finding.problem
