"""The feature store: what is written is read back, equal content has one name, and damage is refused."""

import json

import numpy as np
import pytest

from crossfold.datasets.corpora.clips import UNLABELLED, ClipArrays, ClipInfo, Span
from crossfold.datasets.corpora.partitions import make_folds
from crossfold.datasets.store.feature_store import FeatureStore, StoreSpec, write_store
from crossfold.platform.core.errors import DataError, UserError

FRAMES = {"a": 30, "b": 20, "c": 25, "v": 15}
INFOS = [
    ClipInfo(
        name=name,
        video=name,
        subject=f"s-{name}",
        partition="validation" if name == "v" else "train",
        fps=29.97,
        frames=count,
    )
    for name, count in FRAMES.items()
]
FOLDS = make_folds(INFOS)


def arrays(info: ClipInfo) -> ClipArrays:
    rng = np.random.default_rng(ord(info.name))
    n = info.frames
    labels = rng.uniform(-1, 1, (n, 2)).astype(np.float32)
    labels[3] = UNLABELLED
    labels[4, 1] = UNLABELLED
    labels[5, 0] = -1.0
    features = {"audio": rng.normal(2, 3, (n, 4)).astype(np.float32)}
    features |= {f"visual@{f.index}": rng.normal(f.index, 1, (n, 5)).astype(np.float32) for f in FOLDS}
    present = {"audio": rng.random(n) > 0.2, "visual": rng.random(n) > 0.2}
    return ClipArrays(features, present, labels, (Span(2, 6, "missing", "audio", "silence"),))


def write(folder, bring=arrays, origin=None, **other):
    return write_store(
        folder,
        StoreSpec(
            corpus="tiny",
            layout="none",
            targets=("valence", "arousal"),
            clips=INFOS,
            origin=origin or {"by": "test"},
            **other,
        ),
        bring,
    )


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write(tmp_path_factory.mktemp("stores"))


def test_what_is_written_is_read_back(path):
    store = FeatureStore(path)
    assert store.clips == tuple(INFOS)
    assert store.modalities == ("audio", "visual")
    assert store.folds == FOLDS
    for info in INFOS:
        rows, brought = store.rows(info.name), arrays(info)
        assert rows.stop - rows.start == info.frames
        np.testing.assert_array_equal(store.labels[rows], brought.labels)
        np.testing.assert_array_equal(store.valid[rows], brought.labels != UNLABELLED)
        for modality in store.modalities:
            np.testing.assert_array_equal(store.present(modality)[rows], brought.present[modality])
        for fold in FOLDS:
            np.testing.assert_array_equal(store.features("audio", fold.index)[rows], brought.features["audio"])
            key = f"visual@{fold.index}"
            np.testing.assert_array_equal(store.features("visual", fold.index)[rows], brought.features[key])
    assert len(store.spans) == len(INFOS)
    assert store.spans.iloc[0].to_dict() == {
        "clip": "a",
        "start": 2,
        "end": 6,
        "kind": "missing",
        "modality": "audio",
        "detail": "silence",
    }


def test_normalisation_is_of_present_training_frames_alone(path):
    store = FeatureStore(path)
    for fold in FOLDS:
        for modality in store.modalities:
            rows = np.concatenate([np.arange(store.frames)[store.rows(name)] for name in fold.train])
            rows = rows[store.present(modality)[rows]]
            seen = store.features(modality, fold.index)[rows].astype(np.float64)
            stats = store.normalisation(modality, fold.index)
            np.testing.assert_allclose(stats.mean, seen.mean(0), rtol=1e-5)
            np.testing.assert_allclose(stats.std, seen.std(0), rtol=1e-5)


def test_equal_content_has_one_name_and_any_change_another(tmp_path, path):
    assert write(tmp_path).name == path.name
    assert write(tmp_path) == tmp_path / path.name
    assert write(tmp_path, origin={"by": "other"}).name != path.name

    def touched(info: ClipInfo) -> ClipArrays:
        brought = arrays(info)
        brought.labels[0, 0] += np.float32(1e-6)
        return brought

    assert write(tmp_path, touched).name != path.name
    assert write(tmp_path, folds=FOLDS[:1]).name != path.name
    assert not [entry for entry in tmp_path.iterdir() if entry.name.startswith(".")]


def test_a_writer_that_fails_leaves_nothing(tmp_path):
    def fails(info: ClipInfo) -> ClipArrays:
        if info.name == "c":
            raise RuntimeError("killed")
        return arrays(info)

    with pytest.raises(RuntimeError):
        write(tmp_path, fails)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda b: ClipArrays(b.features, b.present, b.labels[:-1]), "labels has"),
        (
            lambda b: ClipArrays(b.features, b.present | {"audio": b.present["audio"][1:]}, b.labels),
            "presence of audio has",
        ),
        (lambda b: ClipArrays(b.features | {"audio": b.features["audio"] * np.nan}, b.present, b.labels), "not finite"),
        (
            lambda b: ClipArrays({"audio": b.features["audio"]}, b.present, b.labels),
            "b brings audio 4 wide, labels 2 wide",
        ),
        (
            lambda b: ClipArrays(b.features | {"audio": b.features["audio"][:, :1]}, b.present, b.labels),
            "b brings audio 1 wide",
        ),
    ],
    ids=["labels", "present", "nan", "modality-missing", "width"],
)
def test_arrays_of_another_shape_are_refused(tmp_path, damage, says):
    with pytest.raises(DataError, match=says):
        write(tmp_path, lambda info: damage(arrays(info)) if info.name == "b" else arrays(info))
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_store_is_refused(tmp_path):
    path = write(tmp_path)
    audio = path / "audio.npy"
    audio.write_bytes(audio.read_bytes()[:-8])
    store = FeatureStore(path)
    with pytest.raises(DataError, match=r"audio\.npy cannot be read"):
        store.features("audio", 0)
    (path / "labels.npy").unlink()
    with pytest.raises(DataError, match=r"labels\.npy cannot be read"):
        FeatureStore(path)
    (path / "manifest.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(DataError, match="store format 99"):
        FeatureStore(path)
    with pytest.raises(DataError, match="not a feature store"):
        FeatureStore(tmp_path)


def test_wrong_names_are_answered_with_the_right_ones(path):
    store = FeatureStore(path)
    with pytest.raises(UserError, match=r"text.* has audio, visual"):
        store.features("text", 0)
    with pytest.raises(UserError, match="folds 0-3"):
        store.fold(9)


def test_arrays_stay_on_disk_and_cannot_be_written(path):
    features = FeatureStore(path).features("audio", 0)
    assert isinstance(features, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        features[0] = 0


def raw_arrays(info: ClipInfo) -> ClipArrays:
    rng = np.random.default_rng(ord(info.name))
    plain = arrays(info)
    features = {
        "audio": rng.normal(-20, 9, (info.frames, 64, 107)).astype(np.float16),
        "visual": rng.integers(0, 255, (info.frames, 48, 48, 3), np.uint8),
    }
    return ClipArrays(features, plain.present, plain.labels)


def write_raw(folder, bring=raw_arrays, visual="crops48"):
    return write(folder, bring, inputs={"audio": "mel64x107", "visual": visual})


def test_raw_input_keeps_its_shape_and_type(tmp_path):
    store = FeatureStore(write_raw(tmp_path))
    assert (store.frame_shape("audio"), store.frame_shape("visual")) == ((64, 107), (48, 48, 3))
    assert (store.input_kind("audio"), store.input_kind("visual")) == ("mel64x107", "crops48")
    for info in INFOS:
        for modality, stored in raw_arrays(info).features.items():
            read = store.features(modality, 2)[store.rows(info.name)]
            assert read.dtype == stored.dtype
            np.testing.assert_array_equal(read, stored)


def test_decibels_are_standardised_per_band_over_present_training_frames_and_pictures_are_not(tmp_path):
    store = FeatureStore(write_raw(tmp_path))
    for fold in FOLDS:
        rows = np.concatenate([np.arange(store.frames)[store.rows(name)] for name in fold.train])
        rows = rows[store.present("audio")[rows]]
        seen = store.features("audio", 0)[rows].astype(np.float64)
        stats = store.normalisation("audio", fold.index)
        np.testing.assert_allclose(stats.mean, seen.mean((0, 2))[:, None], rtol=1e-5)
        np.testing.assert_allclose(stats.std, seen.std((0, 2))[:, None], rtol=1e-5)
        assert store.normalisation("visual", fold.index) is None


def test_features_are_not_raw_by_accident(tmp_path, path):
    assert FeatureStore(path).input_kind("audio") is None
    assert FeatureStore(path).frame_shape("audio") == (4,)
    assert set(FeatureStore(path).manifest["modalities"]["audio"]) == {"width", "files"}
    with pytest.raises(DataError, match=r"shape \[64, 107\] a frame"):
        write(tmp_path, raw_arrays)

    def wider(info: ClipInfo) -> ClipArrays:
        brought = raw_arrays(info)
        if info.name == "b":
            wide = brought.features["audio"].astype(np.float32)
            return ClipArrays(brought.features | {"audio": wide}, *rest(brought))
        return brought

    def rest(brought: ClipArrays) -> tuple:
        return brought.present, brought.labels

    with pytest.raises(DataError, match="audio is float32, of the first clip it was float16"):
        write_raw(tmp_path, wider)
    with pytest.raises(DataError, match="type float64"):
        write_raw(tmp_path, lambda info: ClipArrays({"audio": np.zeros((info.frames, 2, 2))}, *rest(raw_arrays(info))))
