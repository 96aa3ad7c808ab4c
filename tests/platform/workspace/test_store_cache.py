"""A store is fetched once a node, checked, and never half there."""

import shutil
from concurrent.futures import ThreadPoolExecutor

import fsspec
import pytest

from crossfold.datasets.store.feature_store import FeatureStore, verify_store
from crossfold.platform.core.errors import DataError
from crossfold.platform.execution.run_cell import attempt_cell
from crossfold.platform.workspace import store_cache as node_stores
from crossfold.platform.workspace.workspace import Workspace


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch):
    monkeypatch.delenv(node_stores.CACHE, raising=False)
    monkeypatch.delenv(node_stores.STORES, raising=False)


@pytest.fixture
def bucket(synthetic_store):
    """The store at an fsspec URL that is no path."""
    files = fsspec.filesystem("memory")
    place = f"/bucket/{synthetic_store.path.name}"
    for path in synthetic_store.path.iterdir():
        files.pipe_file(f"{place}/{path.name}", path.read_bytes())
    yield "memory://bucket"
    files.rm("/bucket", recursive=True)


def test_a_workspace_of_its_own_is_used_as_it_is(workspace, synthetic_store):
    found = workspace.local_store(synthetic_store.corpus, synthetic_store.content_hash)
    assert found == workspace.paths.store(synthetic_store.corpus, synthetic_store.content_hash)


def test_a_store_is_fetched_from_a_url_once_and_is_whole(tmp_path, bucket, synthetic_store, monkeypatch):
    monkeypatch.setenv(node_stores.STORES, bucket)
    monkeypatch.setenv(node_stores.CACHE, str(tmp_path / "disk"))
    fetched = []
    copy = node_stores._copy
    monkeypatch.setattr(node_stores, "_copy", lambda url, folder: (fetched.append(url), copy(url, folder)))
    space = Workspace(tmp_path / "space")
    with ThreadPoolExecutor(4) as workers:
        asked = [
            workers.submit(space.local_store, synthetic_store.corpus, synthetic_store.content_hash) for _ in range(8)
        ]
        (local,) = {future.result() for future in asked}
    assert len(fetched) == 1
    assert local.parent == tmp_path / "disk"
    verify_store(local)
    assert FeatureStore(local).content_hash == synthetic_store.content_hash
    assert [path.name for path in local.parent.iterdir() if path.is_dir()] == [local.name]


def test_without_a_cache_a_missing_store_lands_in_the_workspace(tmp_path, bucket, synthetic_store, monkeypatch):
    monkeypatch.setenv(node_stores.STORES, bucket)
    space = Workspace(tmp_path / "space")
    local = space.local_store(synthetic_store.corpus, synthetic_store.content_hash)
    assert local == space.find_store(synthetic_store.corpus)


def damage(place: str) -> None:
    files = fsspec.filesystem("memory")
    content = bytearray(files.cat_file(place))
    content[-1] ^= 1
    files.pipe_file(place, bytes(content))


def test_a_flipped_bit_is_never_trained_on(tmp_path, bucket, synthetic_store, monkeypatch):
    damage(f"/bucket/{synthetic_store.path.name}/labels.npy")
    monkeypatch.setenv(node_stores.STORES, bucket)
    space = Workspace(tmp_path / "space")
    with pytest.raises(DataError, match="is damaged: its files have content hash"):
        space.local_store(synthetic_store.corpus, synthetic_store.content_hash)
    assert not [path for path in space.paths.stores.iterdir() if path.is_dir()]


def test_a_copy_that_was_damaged_on_its_way_is_fetched_again(tmp_path, bucket, synthetic_store, monkeypatch):
    monkeypatch.setenv(node_stores.STORES, bucket)
    copy = node_stores._copy
    tries = []

    def first_time_damaged(url, folder):
        copy(url, folder)
        tries.append(url)
        if len(tries) == 1:
            path = folder / "valid.npy"
            path.write_bytes(path.read_bytes()[:-1] + b"\x07")

    monkeypatch.setattr(node_stores, "_copy", first_time_damaged)
    local = Workspace(tmp_path / "space").local_store(synthetic_store.corpus, synthetic_store.content_hash)
    assert len(tries) == 2
    verify_store(local)


def test_a_store_that_is_nowhere(tmp_path, bucket, monkeypatch):
    monkeypatch.setenv(node_stores.STORES, bucket)
    with pytest.raises(DataError, match="there is no store at memory://bucket/puppets-0"):
        Workspace(tmp_path).local_store("puppets", "0")


def test_a_cell_on_a_fetched_store_gives_the_same_bytes(tmp_path, workspace, tiny_cell, bucket, monkeypatch):
    cell = tiny_cell("concat")
    assert attempt_cell(cell, workspace).status == "done"
    space = Workspace(tmp_path / "elsewhere")
    monkeypatch.setenv(node_stores.STORES, bucket)
    monkeypatch.setenv(node_stores.CACHE, str(tmp_path / "disk"))
    assert attempt_cell(cell, space).status == "done"
    for name in ("result.json", "predictions.npz", "best.safetensors"):
        assert (space.paths.cell(cell.cell_id) / name).read_bytes() == (
            workspace.paths.cell(cell.cell_id) / name
        ).read_bytes()
    shutil.rmtree(space.root)
