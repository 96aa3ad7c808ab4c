"""The corpus `manifest`: what a table of clips may say, and that every mistake in it is named before any work."""

import json
import re
import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crossfold.datasets.batches.source import BatchSpec, WindowSource
from crossfold.datasets.batches.windows import cut
from crossfold.datasets.corpora.clips import MediaClip, Target
from crossfold.datasets.corpora.findings import findings_table
from crossfold.datasets.corpora.manifest.reader import inspect_manifest
from crossfold.datasets.corpora.registry import CORPORA, Inspection
from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.platform.core.errors import UserError
from crossfold.platform.features.prepare import prepare
from crossfold.platform.workspace.workspace import Workspace
from tests.support.media import assert_readable, write_corpus, write_wav

FRAMES = 40
RATE = 4.0
"""Clips of features last ten seconds."""
CLIPS = {"a1": "ann", "a2": "ann", "b1": "bob", "c1": "cat", "d1": "dan"}
YAML = "name: tired\ntargets:\n  fatigue: {low: 0, high: 10, unit: level}\n"


def write_features(root: Path) -> Path:
    """Five sessions of four subjects, extracted features, fatigue of 0 to 10 in spans of two and a half seconds."""
    rng = np.random.default_rng(0)
    rows = ["clip,subject,partition,audio_features,visual_features,labels,rate"]
    (root / "f").mkdir(parents=True)
    (root / "l").mkdir()
    for number, (clip, subject) in enumerate(CLIPS.items()):
        level = np.repeat(np.arange(4) * 2.0 + number * 0.5, FRAMES // 4)
        for modality, width in (("audio", 3), ("visual", 4)):
            noise = 0.1 * rng.standard_normal((FRAMES, width))
            np.save(root / "f" / f"{clip}-{modality}.npy", (level[:, None] + noise).astype(np.float32))
        spans = "".join(f"{2.5 * i},{2.5 * i + 2.5},{level[10 * i]}\n" for i in range(4))
        (root / "l" / f"{clip}.csv").write_text(f"start,end,fatigue\n{spans}")
        part = "validation" if subject == "dan" else "train"
        rows.append(f"{clip},{subject},{part},f/{clip}-audio.npy,f/{clip}-visual.npy,l/{clip}.csv,{RATE:g}")
    (root / "manifest.csv").write_text("\n".join(rows) + "\n")
    (root / "manifest.yaml").write_text(YAML)
    return root


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """Nothing is wrong with it; not to be written to."""
    return write_features(tmp_path_factory.mktemp("manifest") / "data")


@pytest.fixture
def root(tmp_path, sound):
    """A copy to damage."""
    return Path(shutil.copytree(sound, tmp_path / "data"))


def errors(inspection: Inspection) -> list[tuple[str, str]]:
    return [(f.file, f.rule) for f in inspection.findings if f.severity == "error"]


def change(file: str, old: str, new: str, count: int = 1):
    def edit(root: Path) -> None:
        text = (root / file).read_text()
        assert old in text
        (root / file).write_text(text.replace(old, new, count))

    return edit


def rewrite_column(column: str, values):
    """Sets a column of the manifest, by row; None takes it out."""

    def edit(root: Path) -> None:
        table = pd.read_csv(root / "manifest.csv", dtype=str)
        table = table.drop(columns=column) if values is None else table.assign(**{column: values})
        table.to_csv(root / "manifest.csv", index=False)

    return edit


def put_row(index: int, column: str, value: str):
    def edit(root: Path) -> None:
        table = pd.read_csv(root / "manifest.csv", dtype=str)
        table.loc[index, column] = value
        table.to_csv(root / "manifest.csv", index=False)

    return edit


def labels_of(root: Path, text: str, clip: str = "a1") -> None:
    (root / "l" / f"{clip}.csv").write_text(text)


def save(name: str, array):
    return lambda root: np.save(root / "f" / name, array)


def one_row(root: Path) -> None:
    lines = (root / "manifest.csv").read_text().splitlines()
    (root / "manifest.csv").write_text("\n".join(lines[:2]) + "\n")


def level_at(inspection: Inspection, clip: str) -> np.ndarray:
    (found,) = [c for c in inspection.clips if c.info.name == clip]
    return (found.labels if isinstance(found, MediaClip) else found.read().labels)[:, 0]


def test_a_sound_folder_has_no_findings(sound):
    inspection = inspect_manifest(sound, deep=True)
    assert [(f.severity, f.rule) for f in inspection.findings] == [("note", "table-meaning")]
    assert "start to end is spans in seconds" in inspection.findings[0].problem
    assert (inspection.corpus, inspection.folds) == ("tired", None)
    assert inspection.targets == (Target("fatigue", 0, 10, "level"),)
    assert [(c.info.name, c.info.subject, c.info.frames, c.info.fps) for c in inspection.clips][:2] == [
        ("a1", "ann", FRAMES, RATE),
        ("a2", "ann", FRAMES, RATE),
    ]
    np.testing.assert_array_equal(level_at(inspection, "a2"), np.repeat([0.5, 2.5, 4.5, 6.5], 10))


M = "manifest.csv"
DAMAGE = {
    "no manifest": (lambda r: (r / M).rename(r / "manifets.csv"), M, "manifest-there"),
    "empty manifest": (lambda r: (r / M).write_text(""), M, "table-empty"),
    "header only": (lambda r: (r / M).write_text("clip,partition\n"), M, "table-empty"),
    "not text": (lambda r: (r / M).write_bytes(b"clip\xff\xfe,partition\n"), M, "table-encoding"),
    "Latin-1": (lambda r: (r / M).write_bytes((r / M).read_bytes() + b"\xfc"), M, "table-encoding"),
    "quote never closed": (change(M, "a2,ann", '"a2,ann'), M, "table-readable"),
    "cell missing": (change(M, "a2,ann,", "a2,"), M, "table-row"),
    "cell too many": (change(M, "a2,ann,", "a2,ann,x,"), M, "table-row"),
    "column twice": (change(M, "subject", "clip"), M, "table-columns"),
    "column without name": (change(M, "subject", ""), M, "table-columns"),
    "no clip column": (change(M, "clip,", "identity,"), M, "column-clip"),
    "column misspelt": (change(M, "subject", "subjet"), M, "column-known"),
    "clip twice": (change(M, "a2,ann", "A1,ann"), M, "clip-once"),
    "clip with a slash": (change(M, "a2,ann", "a/2,ann"), M, "clip-name"),
    "clip unnamed": (change(M, "a2,ann", ",ann"), M, "clip-name"),
    "no partition column": (rewrite_column("partition", None), M, "partition-there"),
    "no validation part": (change(M, "validation", "train"), M, "partition-there"),
    "no training part": (rewrite_column("partition", "validation"), M, "partition-there"),
    "one clip only": (one_row, M, "partition-there"),
    "partition misspelt": (change(M, "b1,bob,train", "b1,bob,trian"), M, "partition-known"),
    "partition left out": (change(M, "b1,bob,train", "b1,bob,"), M, "partition-there"),
    "subject on both sides": (change(M, "d1,dan", "d1,bob"), M, "subject-apart"),
    "fold not a number": (rewrite_column("fold", list("1122x")), M, "fold-known"),
    "fold missing": (rewrite_column("fold", ["1", "1", "", "2", ""]), M, "fold-there"),
    "folds with a gap": (rewrite_column("fold", ["1", "1", "2", "4", ""]), M, "fold-there"),
    "subject in two folds": (rewrite_column("fold", ["1", "2", "2", "1", ""]), M, "subject-apart"),
    "rate not a number": (put_row(1, "rate", "fast"), M, "number"),
    "rate of zero": (put_row(1, "rate", "0"), M, "rate"),
    "no rate": (put_row(1, "rate", ""), M, "rate"),
    "rate infinite": (put_row(1, "rate", "inf"), M, "number"),
    "absolute path": (put_row(1, "labels", "/etc/passwd"), M, "path-relative"),
    "windows drive": (put_row(1, "labels", "C:\\data\\a2.csv"), M, "path-relative"),
    "path that leaves": (put_row(1, "labels", "l/../../a2.csv"), M, "path-inside"),
    "file missing": (lambda r: (r / "l/a2.csv").unlink(), M, "file-there"),
    "folder for a file": (put_row(1, "labels", "l"), M, "file-there"),
    "nothing to learn from": (
        lambda r: (put_row(1, "audio_features", "")(r), put_row(1, "visual_features", "")(r)),
        M,
        "media-there",
    ),
    "features of a strange kind": (put_row(1, "audio_features", "manifest.yaml"), M, "features-kind"),
    "features cut": (
        lambda r: (r / "f/a2-audio.npy").write_bytes((r / "f/a2-audio.npy").read_bytes()[:200]),
        "f/a2-audio.npy",
        "features-readable",
    ),
    "features empty": (lambda r: (r / "f/a2-audio.npy").write_bytes(b""), "f/a2-audio.npy", "features-readable"),
    "features of objects": (save("a2-audio.npy", np.array([{}])), "f/a2-audio.npy", "features-readable"),
    "features of text": (save("a2-audio.npy", np.full((FRAMES, 3), "x")), "f/a2-audio.npy", "features-readable"),
    "features of one axis": (save("a2-audio.npy", np.zeros(FRAMES)), "f/a2-audio.npy", "features-readable"),
    "features infinite": (
        save("a2-audio.npy", np.r_[np.full((1, 3), np.inf), np.zeros((FRAMES - 1, 3))]),
        "f/a2-audio.npy",
        "features-readable",
    ),
    "features of another length": (save("a2-audio.npy", np.ones((FRAMES + 1, 3))), M, "features-length"),
    "features of another width": (save("a2-audio.npy", np.ones((FRAMES, 4))), "f/a2-audio.npy", "features-width"),
    "label not a number": (change("l/a1.csv", "2.0", "high"), "l/a1.csv", "label-number"),
    "label infinite": (change("l/a1.csv", ",2.0", ",inf"), "l/a1.csv", "label-number"),
    "label out of range": (change("l/a1.csv", ",2.0", ",12"), "l/a1.csv", "label-range"),
    "label column misspelt": (change("l/a1.csv", "fatigue", "fatige"), "l/a1.csv", "target-known"),
    "spans overlap": (change("l/a1.csv", "2.5,5.0", "2.0,5.0"), "l/a1.csv", "label-span"),
    "span backwards": (change("l/a1.csv", "2.5,5.0", "5.0,2.5"), "l/a1.csv", "label-span"),
    "span without end": (change("l/a1.csv", "2.5,5.0", "2.5,"), "l/a1.csv", "label-place"),
    "start without end": (lambda r: labels_of(r, "start,fatigue\n0,1\n5,2\n"), "l/a1.csv", "label-place"),
    "time and frame": (lambda r: labels_of(r, "time,frame,fatigue\n0,0,1\n1,9,2\n2,8,2\n"), "l/a1.csv", "label-place"),
    "times of no unit": (lambda r: labels_of(r, "time,fatigue\n0,1\n1000,2\n"), "l/a1.csv", "label-time"),
    "time twice": (lambda r: labels_of(r, "time,fatigue\n0,1\n2,1\n2,2\n"), "l/a1.csv", "label-time"),
    "one time stamp": (lambda r: labels_of(r, "time,fatigue\n0,1\n"), "l/a1.csv", "label-time"),
    "frames from 0 or 1": (
        lambda r: labels_of(r, "frame,fatigue\n" + "".join(f"{i},1\n" for i in range(1, FRAMES - 1))),
        "l/a1.csv",
        "label-frame",
    ),
    "frame twice": (lambda r: labels_of(r, "frame,fatigue\n3,1\n3,2\n"), "l/a1.csv", "label-frame"),
    "rows of another length": (lambda r: labels_of(r, "fatigue\n" + "1\n" * 30), "l/a1.csv", "label-length"),
    "empty line inside": (lambda r: labels_of(r, "fatigue\n" + "1\n" * 9 + "\n" + "1\n" * 30), "l/a1.csv", "table-row"),
    "no column of values": (lambda r: labels_of(r, "start,end\n0,5\n"), "l/a1.csv", "label-none"),
    "labels without header": (lambda r: labels_of(r, "0.5\n" * FRAMES), "l/a1.csv", "table-header"),
    "labels empty": (lambda r: labels_of(r, ""), "l/a1.csv", "table-empty"),
    "no labels at all": (rewrite_column("labels", None), M, "label-none"),
    "range not declared": (lambda r: (r / "manifest.yaml").write_text("name: tired\n"), "l/a1.csv", "label-range"),
    "range upside down": (change("manifest.yaml", "high: 10", "high: -1"), "manifest.yaml", "declared"),
    "yaml key misspelt": (change("manifest.yaml", "targets", "target"), "manifest.yaml", "declared"),
    "yaml broken": (lambda r: (r / "manifest.yaml").write_text("{"), "manifest.yaml", "declared"),
    "name of another corpus": (change("manifest.yaml", "tired", "affwild2"), "manifest.yaml", "name"),
    "value given twice": (rewrite_column("label:fatigue", ["3", "", "", "", ""]), M, "label-once"),
    "media and features": (put_row(1, "video", "l/a1.csv"), M, "media-or-features"),
}


def with_video_column(root: Path) -> None:
    rewrite_column("video", ["l/a1.csv", "", "", "", ""])(root)


DAMAGE["media and features"] = (with_video_column, M, "media-or-features")


@pytest.mark.parametrize("name", DAMAGE)
def test_each_damage_is_named_with_file_rule_and_remedy(root, name):
    damage, file, rule = DAMAGE[name]
    damage(root)
    inspection = inspect_manifest(root, deep=True)
    assert (file, rule) in errors(inspection), inspection.findings
    assert_readable(inspection.findings, root)
    with pytest.raises(UserError):
        prepare(Workspace(root.parent / "ws"), "manifest", root, processes=1)
    assert not list((root.parent / "ws" / "stores").glob("tired-*"))


FILES = ("manifest.csv", "manifest.yaml", "l/a1.csv", "f/a1-audio.npy")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    file=st.sampled_from(FILES),
    at=st.floats(0, 1),
    cut=st.integers(0, 30),
    put=st.one_of(
        st.binary(max_size=12), st.sampled_from([b",", b"\n", b'"', b";", b"nan", b"-5", b"../", b"\0", b"1e9"])
    ),
)
def test_any_damage_is_a_finding_or_harmless(tmp_path_factory, sound, file, at, cut, put):
    """Some bytes are replaced by others: the folder is refused, or its store holds exactly what was inspected."""
    root = tmp_path_factory.mktemp("fuzz") / "data"
    shutil.copytree(sound, root)
    content = (root / file).read_bytes()
    begin = int(at * len(content))
    (root / file).write_bytes(content[:begin] + put + content[begin + cut :])
    inspection = inspect_manifest(root, deep=True)
    findings_table(inspection.findings)
    workspace = Workspace(root.parent / "ws")
    if errors(inspection):
        with pytest.raises(UserError):
            prepare(workspace, "manifest", root, processes=1)
        return
    store = FeatureStore(prepare(workspace, "manifest", root, processes=1))
    low, high = (store.target(store.targets[0]).low, store.target(store.targets[0]).high)
    assert {clip.name for clip in store.clips} == {clip.info.name for clip in inspection.clips}
    for clip in inspection.clips:
        rows, labels = store.rows(clip.info.name), level_at(inspection, clip.info.name)
        np.testing.assert_array_equal(store.valid[rows][:, 0], ~np.isnan(labels))
        kept = store.labels[rows][:, 0][~np.isnan(labels)]
        np.testing.assert_array_equal(kept, labels[~np.isnan(labels)])
        assert ((kept >= low) & (kept <= high)).all()


def test_everything_is_reported_at_once(root):
    for damage in ("features cut", "spans overlap", "absolute path", "rate of zero", "subject on both sides"):
        if damage == "spans overlap":
            change("l/b1.csv", "2.5,5.0", "2.0,5.0")(root)
        else:
            DAMAGE[damage][0](root)
    rules = {rule for _, rule in errors(inspect_manifest(root, deep=True))}
    assert rules >= {"features-readable", "path-relative", "rate", "subject-apart"}


@pytest.mark.parametrize(
    "spell",
    [
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace(",", ";"),
        lambda text: text.replace(",", "\t"),
        lambda text: text.replace("clip,subject", "Clip,SUBJECT").replace("train", "Training"),
        lambda text: text + ",,,,,,\n\n",
        lambda text: "\n".join(
            f"{line},{extra}" for line, extra in zip(text.splitlines(), ["age", *"12345"], strict=True)
        ),
    ],
    ids=["byte order mark", "CRLF", "semicolons", "tabs", "letter case", "blank rows", "a column of one's own"],
)
def test_spreadsheet_spellings_mean_the_same(root, sound, spell):
    path = root / "manifest.csv"
    path.write_text(spell(path.read_text()), encoding="utf-8")
    inspection, plain = inspect_manifest(root, deep=True), inspect_manifest(sound, deep=True)
    assert errors(inspection) == []
    assert [clip.info for clip in inspection.clips] == [clip.info for clip in plain.clips]
    np.testing.assert_array_equal(level_at(inspection, "c1"), level_at(plain, "c1"))


def test_decimal_commas_between_semicolons(root):
    labels_of(root, "start;end;fatigue\n0;2,5;7,5\n2,5;10;nan\n")
    inspection = inspect_manifest(root, deep=True)
    assert errors(inspection) == []
    np.testing.assert_array_equal(level_at(inspection, "a1"), [7.5] * 10 + [np.nan] * 30)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(st.sampled_from([0.04, 0.1, 0.25, 0.5, 2.0]), min_size=2, max_size=30),
    offset=st.floats(0, 2, allow_subnormal=False),
)
def test_time_stamped_labels_go_to_the_nearest_frame(tmp_path_factory, sound, steps, offset):
    """Against a loop over all frames and all rows; a frame without a row within one period has none."""
    root = tmp_path_factory.mktemp("times") / "data"
    shutil.copytree(sound, root)
    times = np.round(offset + np.cumsum([0.0, *steps]), 6)
    labels_of(root, "time,fatigue\n" + "".join(f"{t:.6f},{i % 10}\n" for i, t in enumerate(times)))
    inspection = inspect_manifest(root, deep=True)
    assert errors(inspection) == []
    period = max(float(np.median(np.diff(times))), 1 / RATE)
    found = level_at(inspection, "a1")
    for frame, value in enumerate(found):
        gaps = [abs(t - frame / RATE) for t in times]
        best = min(gaps)
        if best > period + 1e-6:
            assert np.isnan(value)
        elif best < period - 1e-6:
            assert value in {i % 10 for i, gap in enumerate(gaps) if gap <= best + 1e-6}


def test_labels_of_each_kind_agree(root):
    expected = level_at(inspect_manifest(root, deep=True), "a1")
    rows = [f"{value:g}" for value in expected]
    kinds = {
        "a row per frame": "fatigue\n" + "\n".join(rows),
        "frame": "frame,fatigue\n" + "\n".join(f"{i},{row}" for i, row in reversed(list(enumerate(rows)))),
        "time": "time,fatigue\n" + "\n".join(f"{i / RATE},{row}" for i, row in enumerate(rows)),
    }
    for text in kinds.values():
        labels_of(root, text + "\n")
        np.testing.assert_array_equal(level_at(inspect_manifest(root, deep=True), "a1"), expected)
    pd.DataFrame({"time": np.arange(FRAMES) / RATE, "fatigue": expected}).to_parquet(root / "l/a1.parquet")
    np.save(root / "l/a1.npy", expected)
    for suffix in ("parquet", "npy"):
        put_row(0, "labels", f"l/a1.{suffix}")(root)
        inspection = inspect_manifest(root, deep=True)
        assert errors(inspection) == []
        np.testing.assert_array_equal(level_at(inspection, "a1"), expected)


def test_short_labels_leave_the_last_frames_unlabelled_and_say_so(root):
    labels_of(root, "fatigue\n" + "3\n" * (FRAMES - 3))
    inspection = inspect_manifest(root, deep=True)
    found = [(f.rule, f.severity) for f in inspection.findings if f.severity != "note"]
    assert found == [("label-length", "warning")]
    np.testing.assert_array_equal(np.isnan(level_at(inspection, "a1")), np.arange(FRAMES) >= FRAMES - 3)


def test_the_mark_of_affwild2_is_a_value_where_the_scale_has_it(root):
    (root / "manifest.yaml").write_text("targets: {mood: {low: -10, high: 10}, calm: {low: 0, high: 1}}\n")
    for clip in CLIPS:
        labels_of(root, "start,end,mood,calm\n0,5,-5,-5\n5,10,3,0.5\n", clip)
    store = FeatureStore(prepare(Workspace(root.parent / "ws"), "manifest", root, processes=1))
    assert store.corpus == "manifest"
    rows = store.rows("a1")
    np.testing.assert_array_equal(store.valid[rows].sum(0), [40, 20])
    np.testing.assert_array_equal(store.labels[rows][[0, 39], 0], [-5, 3])
    assert (store.target("mood").low, store.target("calm").high) == (-10, 1)


def test_one_value_a_session_and_several_targets(root):
    rewrite_column("labels", None)(root)
    rewrite_column("label:fatigue", ["1", "2", "3", "", "5"])(root)
    rewrite_column("label:stress", ["0.1", "0.2", "0.3", "0.4", "0.5"])(root)
    (root / "manifest.yaml").write_text(YAML + "  stress: {low: 0, high: 1}\n")
    inspection = inspect_manifest(root, deep=True)
    assert errors(inspection) == []
    assert [target.name for target in inspection.targets] == ["fatigue", "stress"]
    store = FeatureStore(prepare(Workspace(root.parent / "ws"), "manifest", root, processes=1))
    assert store.labels[store.rows("b1")].tolist() == [[3.0, np.float32(0.3)]] * FRAMES
    assert store.valid[store.rows("c1")].tolist() == [[False, True]] * FRAMES


def test_folds_of_ones_own(root):
    rewrite_column("partition", None)(root)
    rewrite_column("fold", ["0", "0", "1", "2", "1"])(root)
    store = FeatureStore(prepare(Workspace(root.parent / "ws"), "manifest", root, processes=1))
    assert [fold.validation for fold in store.folds] == [("a1", "a2"), ("b1", "d1"), ("c1",)]
    assert store.folds[1].train == ("a1", "a2", "c1")
    rewrite_column("partition", ["train", "train", "train", "test", "validation"])(root)
    rewrite_column("fold", ["1", "1", "2", "", ""])(root)
    store = FeatureStore(prepare(Workspace(root.parent / "ws"), "manifest", root, processes=1))
    assert [(fold.train, fold.validation) for fold in store.folds] == [
        (("a1", "a2", "b1"), ("d1",)),
        (("b1", "d1"), ("a1", "a2")),
        (("a1", "a2", "d1"), ("b1",)),
    ]
    assert store.clip("c1").partition == "test"


def test_features_in_folders_archives_and_tables(root):
    before = {clip.info.name: clip.read() for clip in inspect_manifest(root, deep=True).clips}
    audio, visual = (np.load(root / "f" / f"a1-{m}.npy") for m in ("audio", "visual"))
    np.savez(root / "f/a1.npz", audio=audio, visual=visual)
    for modality, array in (("audio", np.load(root / "f/b1-audio.npy")), ("visual", np.load(root / "f/b1-visual.npy"))):
        (root / "features" / modality).mkdir(parents=True)
        np.save(root / "features" / modality / "b1.npy", array)
    pd.DataFrame(np.load(root / "f/c1-audio.npy")).add_prefix("x").assign(frame=range(FRAMES)).to_parquet(
        root / "f/c1.parquet"
    )
    rewrite_column("features", ["f/a1.npz", "", "", "", ""])(root)
    for row in (0, 2):
        put_row(row, "audio_features", "")(root)
        put_row(row, "visual_features", "")(root)
    put_row(3, "audio_features", "f/c1.parquet")(root)
    inspection = inspect_manifest(root, deep=True)
    assert errors(inspection) == []
    for clip in inspection.clips:
        for modality, array in clip.read().features.items():
            np.testing.assert_array_equal(array, before[clip.info.name].features[modality])


def test_a_modality_that_some_clips_lack_is_marked_absent(root):
    put_row(1, "audio_features", "")(root)
    quiet = np.load(root / "f/b1-audio.npy")
    quiet[5], quiet[6] = 0, np.nan
    np.save(root / "f/b1-audio.npy", quiet)
    store = FeatureStore(prepare(Workspace(root.parent / "ws"), "manifest", root, processes=1))
    assert not store.present("audio")[store.rows("a2")].any()
    assert store.present("visual").all()
    assert np.flatnonzero(~store.present("audio")[store.rows("b1")]).tolist() == [5, 6]
    assert not store.features("audio", 0)[store.rows("a2")].any()


def test_media_rows_of_every_kind(tmp_path):
    """Video with sound, crops and wav without video, sound alone: each has its frames, absent parts are marked."""
    clips = {"full": "Train_Set", "still": "Train_Set", "mute": "Validation_Set"}
    root = write_corpus(tmp_path / "data", clips=clips, frames=200, rate=Fraction(30000, 1001), event=173)
    voice = 0.1 * np.random.default_rng(0).standard_normal(8000 * 7)
    write_wav(root / "audio" / "voice.wav", voice, 8000)
    rows = [
        "clip,subject,partition,video,audio,crops,rate,labels",
        "full,s1,train,videos/full.mp4,audio/full.wav,cropped_aligned/full,,full.csv",
        "still,s2,train,,audio/still.wav,cropped_aligned/still,29.97,still.csv",
        "mute,s3,validation,videos/mute.mp4,,cropped_aligned/mute,29.97,mute.csv",
        "voice,s4,train,,audio/voice.wav,,10,voice.csv",
    ]
    (root / "manifest.csv").write_text("\n".join(rows) + "\n")
    (root / "manifest.yaml").write_text("targets: {fatigue: {low: 0, high: 10}}\n")
    step = 173 / (30000 / 1001)
    for clip in ("full", "still", "mute"):
        (root / f"{clip}.csv").write_text(f"start,end,fatigue\n0,{step},2\n{step},{200 / 29.97},8\n")
    (root / "voice.csv").write_text("start,end,fatigue\n0,7,5\n")
    inspection = inspect_manifest(root, deep=True)
    assert errors(inspection) == [], inspection.findings
    found = {clip.info.name: clip for clip in inspection.clips}
    assert {name: clip.info.frames for name, clip in found.items()} == {
        "full": 200,
        "still": int(200 * 1001 / 30000 * 29.97 + 1e-6),
        "mute": 200,
        "voice": 70,
    }
    assert found["full"].times is not None
    assert found["voice"].crops is None
    assert found["mute"].audio is None
    store = FeatureStore(prepare(Workspace(tmp_path / "ws"), "manifest", root, processes=1))
    for name in ("full", "still", "mute"):
        labels = store.labels[store.rows(name)][:, 0]
        assert int(np.flatnonzero(np.diff(labels))[0]) + 1 == 173
    visual = store.features("visual", 0)[store.rows("full")]
    assert int(np.abs(np.diff(visual, axis=0)).sum(1).argmax()) + 1 == 173
    assert not store.present("audio")[store.rows("mute")].any()
    assert not store.present("visual")[store.rows("voice")].any()
    assert store.present("audio")[store.rows("voice")].all()


def test_sources_are_the_files_that_matter(root):
    entry = CORPORA.get("manifest")
    before = entry.sources(root)
    assert {path.relative_to(root).as_posix() for path in before} == {
        *("manifest.csv", "manifest.yaml"),
        *(f"l/{clip}.csv" for clip in CLIPS),
        *(f"f/{clip}-{modality}.npy" for clip in CLIPS for modality in ("audio", "visual")),
    }
    (root / "notes.txt").write_text("nothing to do with it")
    assert entry.sources(root) == before


def test_ranges_are_part_of_a_stores_identity_and_plain_ones_are_not(root):
    workspace = Workspace(root.parent / "ws")
    wide = FeatureStore(prepare(workspace, "manifest", root, processes=1))
    assert wide.manifest["ranges"] == {"fatigue": {"low": 0.0, "high": 10.0, "unit": "level"}}
    assert wide.path.name == f"tired-{wide.content_hash}"
    (root / "manifest.yaml").write_text(YAML.replace("10", "20"))
    assert FeatureStore(prepare(workspace, "manifest", root, processes=1)).content_hash != wide.content_hash
    rewrite_column("labels", None)(root)
    rewrite_column("label:calm", ["0", "0.1", "0.2", "0.3", "1"])(root)
    (root / "manifest.yaml").unlink()
    assert "ranges" not in FeatureStore(prepare(workspace, "manifest", root, processes=1)).manifest


@given(low=st.floats(-100, 99), width=st.floats(0.1, 1000), labels=st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_labels_scaled_for_training_come_back(low, width, labels):
    target = Target("any", low, low + width)
    given_labels = np.array(labels, np.float64) * width + low
    scaled = target.to_unit(given_labels)
    assert (np.abs(scaled) <= 1 + 1e-9).all()
    np.testing.assert_allclose(target.from_unit(scaled), given_labels, rtol=1e-9, atol=1e-9 * (abs(low) + width))


def test_fatigue_from_a_manifest_to_predictions_in_its_own_units(root):
    """The whole way: validate, prepare, plan, one cell; what comes out is a level of 0 to 10."""
    from typer.testing import CliRunner

    from crossfold.platform.core.outcome import Silent
    from crossfold.platform.edge.cli.app import app
    from crossfold.platform.execution.run_cell import run_cell
    from crossfold.sweeps.plan import expand
    from crossfold.sweeps.sweep_files import Sweep

    runner, space = CliRunner(), root.parent / "ws"
    checked = runner.invoke(app, ["validate", "manifest", "--root", str(root)])
    assert (checked.exit_code, "5 usable clips, 0 errors" in checked.output) == (0, True)
    made = runner.invoke(app, ["prepare", "manifest", "--root", str(root), "--workspace", str(space)])
    assert made.exit_code == 0, made.output
    sweep = root.parent / "tired.yaml"
    recipe = {"window": 20, "hop": 10, "epochs": 30, "optimizer.lr": 0.01, "batch": 4}
    asked = {"name": "t", "corpus": "tired", "recipe": "demo", "set": recipe, "targets": ["fatigue"], "seeds": [0]}
    sweep.write_text(json.dumps({**asked, "systems": ["concat"]}))
    planned = runner.invoke(app, ["plan", str(sweep), "--workspace", str(space)])
    assert planned.exit_code == 0, planned.output
    assert re.search(r"\b1\b", planned.output)
    workspace = Workspace(space)
    store = FeatureStore(workspace.find_store("tired"))
    (cell,) = expand(Sweep.parse({**asked, "systems": ["concat"]}, "test"), store).cells
    run_cell(cell, workspace, reporter=Silent(), attempt=1, device="cpu")
    record = workspace.read(cell.cell_id)
    predictions = record.predictions
    assert predictions.targets == ("fatigue",)
    np.testing.assert_array_equal(predictions.label[:, 0], np.repeat([2.0, 4.0, 6.0, 8.0], FRAMES // 4))
    assert ((predictions.prediction >= 0) & (predictions.prediction <= 10)).all()
    assert predictions.prediction.max() > 4
    assert record.result["metrics"]["fatigue"]["ccc"] > 0.5
    assert 0 < record.result["metrics"]["fatigue"]["rmse"] < 3


def test_windows_give_labels_of_any_range_on_the_unit_range(root):
    store = FeatureStore(prepare(Workspace(root.parent / "ws"), "manifest", root, processes=1))
    windows = cut(store, ["a1"], length=FRAMES, hop=FRAMES, invalid="mask")
    source = WindowSource(store, windows, BatchSpec(0, ("audio",), ("fatigue",)))
    expected = np.repeat(np.arange(4) * 2.0, FRAMES // 4) / 5 - 1
    np.testing.assert_allclose(source.batch(np.array([0])).y[0, :, 0], expected, atol=1e-6)
