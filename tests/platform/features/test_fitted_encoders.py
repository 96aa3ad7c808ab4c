"""What a fold fitted stays with the store, outside its hash, so that new clips are encoded alike."""

import json

import numpy as np
import pytest

from crossfold.datasets.store.feature_store import FeatureStore, verify_store
from crossfold.platform.core.errors import DataError
from crossfold.platform.features.fitted_encoders import fitted_of
from crossfold.platform.features.pca_faces import LightEncoder, _blocks, _half_turn, _slope, measure
from crossfold.platform.features.prepare import prepare
from crossfold.platform.workspace.workspace import Workspace
from tests.support.media import write_corpus


@pytest.fixture
def prepared(tmp_path):
    corpus = write_corpus(tmp_path / "data")
    return corpus, prepare(Workspace(tmp_path / "ws"), "affwild2", corpus, processes=1)


def without_fitted(store):
    """The store as versions wrote it that kept no encoder."""
    (store / "fitted.safetensors").unlink()
    manifest = json.loads((store / "manifest.json").read_text())
    del manifest["fitted"]
    (store / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


def test_every_fold_keeps_its_encoder(prepared):
    store = FeatureStore(prepared[1])
    encoders = [fitted_of(store.fitted(), "visual", fold.index) for fold in store.folds]
    assert all(isinstance(encoder, LightEncoder) for encoder in encoders)
    assert len({encoder.axes.tobytes() for encoder in encoders}) == len(store.folds)
    assert fitted_of(store.fitted(), "audio", 0) is None
    verify_store(prepared[1])


def test_a_store_of_an_earlier_version_keeps_its_hash_and_is_completed_by_preparing_again(prepared, tmp_path):
    corpus, store = prepared
    fitted = FeatureStore(store).fitted()
    without_fitted(store)
    verify_store(store)
    assert FeatureStore(store).fitted() == {}
    assert prepare(Workspace(tmp_path / "ws"), "affwild2", corpus, processes=1) == store
    again = FeatureStore(store).fitted()
    assert again.keys() == fitted.keys()
    for name, array in fitted.items():
        np.testing.assert_array_equal(again[name], array)


def test_damaged_encoders_are_refused(prepared):
    path = prepared[1] / "fitted.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="digest"):
        verify_store(prepared[1])
    path.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        FeatureStore(prepared[1]).fitted()


@pytest.mark.parametrize("parts", [8, 16])
@pytest.mark.parametrize("frames", [1, 2, 65, 300])
def test_block_means_are_those_of_numpy_to_the_last_bit(parts, frames):
    """The hash of a store depends on them."""
    image = np.random.default_rng(frames).random((frames, 48, 48), np.float32)
    expected = image.reshape(frames, parts, 48 // parts, parts, 48 // parts).mean((2, 4))
    np.testing.assert_array_equal(_blocks(np.ascontiguousarray(image.T), parts), expected)
    faces = (image * 255).astype(np.uint8)
    one_by_one = np.concatenate([measure(faces[at : at + 1]) for at in range(frames)])
    np.testing.assert_array_equal(measure(faces), one_by_one)


def test_directions_of_edges_are_those_of_numpy_to_the_last_bit():
    generator = np.random.default_rng(0)
    # As differences of grey levels are, so that every direction along an axis is among them, and both signs of zero.
    down, across = generator.integers(-9, 10, (2, 100_000)).astype(np.float32) / 510
    angle = np.concatenate([np.arctan2(down, across), np.float32([np.pi, -np.pi, -0.0, -1e-30])])
    assert {np.float32(np.pi), np.float32(-np.pi)} <= set(angle)
    np.testing.assert_array_equal(_half_turn(angle.copy()), angle % np.pi)


@pytest.mark.parametrize("side", [3, 48])
def test_slopes_are_those_of_numpy_to_the_last_bit(side):
    image = np.random.default_rng(side).integers(0, 256, (side, side, 5)).astype(np.float32) / 255
    slopes = np.empty((2, *image.shape), np.float32)
    _slope(image, slopes[0])
    _slope(image.swapaxes(0, 1), slopes[1].swapaxes(0, 1))
    np.testing.assert_array_equal(slopes, np.gradient(image, axis=(0, 1)))
