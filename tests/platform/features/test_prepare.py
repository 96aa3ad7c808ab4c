"""Corpus to store: alignment through the whole chain, no leak, resuming, and refusal of damaged data."""

import json
import os
import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from crossfold.datasets.corpora.clips import UNLABELLED
from crossfold.datasets.corpora.embedded.synthetic import write_synthetic
from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.platform.core.errors import UserError
from crossfold.platform.features import read_clip
from crossfold.platform.features.pca_faces import MEASURES, WIDTH, LightEncoder, Moments, measure
from crossfold.platform.features.prepare import prepare
from crossfold.platform.workspace.workspace import Workspace
from tests.support.media import write_corpus

CLIPS = {f"t{number}": "Train_Set" for number in range(5)} | {"v0": "Validation_Set"}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Six clips of 40 frames; not to be written to."""
    return write_corpus(tmp_path_factory.mktemp("corpus") / "data", clips=CLIPS)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, corpus):
    """The store of `corpus`, prepared without disturbance in this process."""
    return prepare(Workspace(tmp_path_factory.mktemp("undisturbed")), "affwild2", corpus, processes=1)


def first_change(rows: np.ndarray) -> int:
    return int(np.abs(np.diff(rows, axis=0)).sum(1).argmax()) + 1


@pytest.mark.parametrize("rate", [Fraction(25), Fraction(30000, 1001)], ids=["25", "29.97"])
@pytest.mark.parametrize(("sound", "sound_rate"), [("wav", 16_000), ("wav", 44_100), ("video", 48_000)])
def test_flash_beep_and_label_step_meet_in_one_frame(tmp_path, rate, sound, sound_rate):
    event = 473
    clips = {"t0": "Train_Set", "v0": "Validation_Set"}
    root = write_corpus(
        tmp_path / "data", clips=clips, frames=500, rate=rate, event=event, sound=sound, sound_rate=sound_rate
    )
    store = FeatureStore(prepare(Workspace(tmp_path / "ws"), "affwild2", root, processes=1))
    for clip in clips:
        rows = store.rows(clip)
        assert first_change(store.labels[rows]) == event
        assert first_change(store.features("visual", 0)[rows]) == event
        assert int(np.diff(store.features("audio", 0)[rows].max(1)).argmax()) + 1 == event
        assert store.clip(clip).fps == pytest.approx(float(rate))


def test_the_store_holds_what_the_corpus_does(prepared, corpus):
    store = FeatureStore(prepared)
    assert (store.corpus, store.modalities, store.targets) == ("affwild2", ("audio", "visual"), ("valence", "arousal"))
    assert (store.frames, len(store.folds)) == (240, 6)
    assert (store.width("audio"), store.width("visual")) == (64, WIDTH)
    assert store.present("audio").all()
    assert store.present("visual").all()
    assert store.valid.all()
    assert store.manifest["origin"]["audio"]["kind"] == "log-mel"
    assert str(corpus) not in (prepared / "manifest.json").read_text()


def test_faces_that_an_earlier_version_read_before_it_was_stopped_give_the_same_store(
    tmp_path, corpus, prepared, monkeypatch
):
    monkeypatch.setattr(read_clip, "measure", lambda faces: faces)
    assert prepare(Workspace(tmp_path), "affwild2", corpus, processes=1).name == prepared.name


def test_clips_that_a_fold_reports_do_not_reach_its_encoder(tmp_path, corpus, prepared):
    root = Path(shutil.copytree(corpus, tmp_path / "data"))
    before = FeatureStore(prepared)
    reported = before.fold(2).validation
    for name in reported:
        for number, path in enumerate(sorted((root / "cropped_aligned" / name).iterdir())):
            donor = root / "cropped_aligned" / "v0" / f"{40 - number:05d}.jpg"
            path.write_bytes(donor.read_bytes())
    after = FeatureStore(prepare(Workspace(tmp_path / "ws"), "affwild2", root, processes=1))
    same = [clip.name for clip in before.clips if clip.name not in reported]
    for name in same:
        rows = before.rows(name)
        np.testing.assert_array_equal(before.features("visual", 2)[rows], after.features("visual", 2)[rows])
        assert not np.array_equal(before.features("visual", 0)[rows], after.features("visual", 0)[rows])


def test_unlabelled_and_absent_faces_do_not_reach_the_encoder(tmp_path, corpus, prepared):
    root = Path(shutil.copytree(corpus, tmp_path / "data"))
    labels = root / "annotations/VA_Estimation_Challenge/Train_Set/t1.txt"
    lines = labels.read_text().splitlines()
    labels.write_text("\n".join([*lines[:-10], *["-5,-5"] * 10]) + "\n")
    first = FeatureStore(prepare(Workspace(tmp_path / "a"), "affwild2", root, processes=1))
    for number in range(31, 41):
        (root / f"cropped_aligned/t1/{number:05d}.jpg").unlink()
    second = FeatureStore(prepare(Workspace(tmp_path / "b"), "affwild2", root, processes=1))
    rows = first.rows("t1")
    np.testing.assert_array_equal(first.features("visual", 0)[rows][:30], second.features("visual", 0)[rows][:30])
    assert not second.features("visual", 0)[rows][30:].any()
    assert second.present("visual")[rows].tolist() == [True] * 30 + [False] * 10
    assert not first.valid[rows][30:].any()
    assert (first.labels[rows][30:] == UNLABELLED).all()


class Killed(Exception):
    """Stands for the machine going away."""


@pytest.mark.parametrize("stage", ["read", "fit", "write"])
def test_a_prepare_that_was_killed_goes_on_where_it_was(tmp_path, corpus, prepared, stage):
    workspace = Workspace(tmp_path)
    calls: list[tuple[str, int]] = []

    def kill(at: str, done: int, _total: int) -> None:
        if (at, done) == (stage, 3):
            raise Killed

    def record(at: str, done: int, _total: int) -> None:
        calls.append((at, done))

    with pytest.raises(Killed):
        prepare(workspace, "affwild2", corpus, processes=1, progress=kill)
    assert not list(workspace.paths.stores.glob("affwild2-*"))
    store = prepare(workspace, "affwild2", corpus, processes=1, progress=record)
    assert store.name == prepared.name
    assert next(done for at, done in calls if at == "read") == (3 if stage == "read" else 6)
    assert sorted(path.name for path in workspace.paths.stores.iterdir()) == [".prepared", store.name]


def test_processes_do_not_change_a_bit(tmp_path, corpus, prepared):
    store = prepare(Workspace(tmp_path), "affwild2", corpus, processes=2)
    assert store.name == prepared.name


def test_nothing_changed_nothing_done(tmp_path, corpus):
    root = Path(shutil.copytree(corpus, tmp_path / "data"))
    workspace = Workspace(tmp_path / "ws")
    store = prepare(workspace, "affwild2", root, processes=1)
    assert prepare(workspace, "affwild2", root, progress=lambda *_: pytest.fail("worked again")) == store
    # Other times, same content: looked at again, and the same store.
    os.utime(root / "audio" / "t0.wav", (0, 0))
    worked = []
    assert prepare(workspace, "affwild2", root, processes=1, progress=lambda *call: worked.append(call)) == store
    assert worked
    shutil.rmtree(store)
    assert prepare(workspace, "affwild2", root, processes=1).is_dir()


def test_damage_stops_it_before_any_work(tmp_path, corpus):
    root = Path(shutil.copytree(corpus, tmp_path / "data"))
    for number in range(1, 15):
        (root / f"cropped_aligned/t0/{number:05d}.jpg").write_bytes(b"")
    (root / "audio/t1.wav").unlink()
    with pytest.raises(UserError) as error:
        prepare(Workspace(tmp_path / "ws"), "affwild2", root, processes=1)
    message = str(error.value)
    assert "15 things are wrong" in message
    assert "and 5 more: 4 crop-readable, 1 sound-there" in message
    assert not (tmp_path / "ws").exists()


def test_damage_that_only_decoding_shows_is_listed_with_its_file(tmp_path):
    root = write_corpus(tmp_path / "data", frames=100, sound="video", sound_rate=48_000)
    for name in ("alma", "bert"):
        (root / "audio").mkdir(exist_ok=True)
        (root / "audio" / f"{name}.wav").write_bytes(b"RIFF\x24\x00\x00\x00WAVEjunk")
    with pytest.raises(UserError, match=r"(?s)2 things are wrong.*alma.*bert"):
        prepare(Workspace(tmp_path / "ws"), "affwild2", root, processes=1)


def test_embedded_data_are_prepared_under_their_own_name_only(tmp_path, corpus):
    root = Path(shutil.copytree(corpus, tmp_path / "data"))
    with pytest.raises(UserError, match="holds affwild2, not puppets"):
        prepare(Workspace(tmp_path / "ws"), "puppets", root)
    (root / "puppets.json").write_text("{}")
    with pytest.raises(UserError, match="holds puppets, not affwild2"):
        prepare(Workspace(tmp_path / "ws"), "affwild2", root)
    store = prepare(Workspace(tmp_path / "ws"), "puppets", root, processes=1)
    assert FeatureStore(store).corpus == "puppets"


def test_a_clip_without_sound_is_absent_not_silent(tmp_path):
    root = write_corpus(tmp_path / "data", frames=20, sound="none")
    store = FeatureStore(prepare(Workspace(tmp_path / "ws"), "affwild2", root, processes=1))
    assert not store.present("audio").any()
    assert not store.features("audio", 0).any()


def test_a_folder_of_features_becomes_a_store_as_it_is(tmp_path):
    made = write_synthetic(tmp_path / "data", clips=6, frames=100)
    store = FeatureStore(prepare(Workspace(tmp_path / "ws"), "synthetic", tmp_path / "data"))
    assert store.corpus == "synthetic"
    assert {clip.name for clip in store.clips} == {clip.name for clip in made}
    for clip in made:
        rows = store.rows(clip.name)
        np.testing.assert_array_equal(store.labels[rows], clip.labels)
        for modality, features in clip.features.items():
            np.testing.assert_array_equal(store.features(modality, 0)[rows], features)
            missing = np.zeros(100, bool)
            for span in clip.spans:
                if span.kind == "missing" and span.modality == modality:
                    missing[span.start : span.end] = True
            np.testing.assert_array_equal(store.present(modality)[rows], ~missing)
    assert len(store.spans) == sum(len(clip.spans) for clip in made)


def test_a_damaged_folder_of_features_is_refused(tmp_path):
    write_synthetic(tmp_path / "data", clips=6, frames=100)
    files = sorted((tmp_path / "data").glob("*.npz"))
    files[0].unlink()
    files[1].write_bytes(files[1].read_bytes()[:2000])
    with np.load(files[2]) as data:
        np.savez(files[2], **{name: data[name][:90] for name in data.files})
    with pytest.raises(UserError) as error:
        prepare(Workspace(tmp_path / "ws"), "synthetic", tmp_path / "data")
    assert all(path.name in str(error.value) for path in files[:3])
    assert "3 things are wrong" in str(error.value)


def test_wrong_names_and_folders_are_answered(tmp_path):
    with pytest.raises(UserError, match="did you mean 'puppets'"):
        prepare(Workspace(tmp_path), "pupets", tmp_path)
    with pytest.raises(UserError, match="is not a folder"):
        prepare(Workspace(tmp_path), "puppets", tmp_path / "none")
    with pytest.raises(UserError, match="annotations-there"):
        prepare(Workspace(tmp_path), "affwild2", tmp_path)


def test_sums_of_parts_fit_the_encoder_of_the_whole():
    faces = np.random.default_rng(0).integers(0, 255, (60, 48, 48), np.uint8)
    measures = measure(faces)
    assert measures.shape == (60, MEASURES)
    whole = LightEncoder.fit([Moments.of(measures)])
    parts = LightEncoder.fit([Moments.of(measures[:25]), Moments.of(measures[25:])])
    codes = whole.encode(measures, np.ones(60, np.bool_))
    np.testing.assert_allclose(codes, parts.encode(measures, np.ones(60, np.bool_)), atol=1e-4)
    covariance = np.cov(codes.T, bias=True)
    assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 1e-5
    assert (np.diff(np.diag(covariance)) < 1e-6).all()
    # Sixty faces have no more than 59 directions.
    assert not codes[:, 59:].any()


def test_edges_do_not_change_with_the_light():
    face = np.random.default_rng(0).integers(40, 120, (1, 48, 48)).astype(np.uint8)
    dark, bright = measure(face)[0], measure(face * 2)[0]
    assert np.abs(dark - bright)[256:].max() < 0.01
    assert np.abs(dark - bright)[:256].mean() > 0.1


def test_the_memo_names_the_store(tmp_path, corpus):
    workspace = Workspace(tmp_path)
    store = prepare(workspace, "affwild2", corpus, processes=1)
    (memo,) = (workspace.paths.stores / ".prepared").iterdir()
    assert json.loads(memo.read_text())["store"] == store.name
    assert workspace.find_store("affwild2") == store
