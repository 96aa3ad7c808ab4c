"""The dose of a synthetic corpus as an axis of a sweep, and its stores, which are made where they are needed."""

import shutil

import jsonschema
import pytest
import yaml

from crossfold.datasets.corpora.embedded.dose import SyntheticDose
from crossfold.datasets.corpora.embedded.dosed_store import dosed_store
from crossfold.datasets.store.feature_store import FeatureStore, verify_store
from crossfold.platform.core.errors import UserError
from crossfold.platform.workspace import store_cache
from crossfold.platform.workspace.workspace import Workspace
from crossfold.sweeps.launched import find_launched, remember_sweep
from crossfold.sweeps.prepared import prepare_cells
from crossfold.sweeps.schemas import schema
from crossfold.sweeps.sweep_files import Sweep, load

SMALL = {"clips": 4, "validation": 3, "frames": 80}
ASKED = {
    "name": "mine",
    "corpus": {"name": "synthetic", "conflict": [0, 0.2], **SMALL},
    "recipe": "demo",
    "systems": ["concat"],
    "seeds": [0],
}


@pytest.fixture
def space(tmp_path):
    return Workspace(tmp_path / "space")


def test_each_dose_has_its_store_and_its_cells(space):
    prepared = prepare_cells(Sweep.parse(ASKED, "mine"), space)
    names = [SyntheticDose(conflict=conflict, **SMALL).corpus for conflict in (0, 0.2)]
    assert [store.corpus for store in prepared.stores] == names
    assert [cell.corpus for cell in prepared.plan.cells] == [names[0], names[0], names[1], names[1]]
    assert {cell.store for cell in prepared.plan.cells} == {store.content_hash for store in prepared.stores}
    for store, cells in prepared.missing_by_store:
        verify_store(store.path)
        assert len(cells) == 2 and {cell.store for cell in cells} == {store.content_hash}
        assert (len(store.fold(0).train), len(store.fold(0).validation)) == (4, 3)
    assert set(prepared.stores[1].spans["kind"]) <= {"conflict"}


def test_doses_of_several_kinds_are_listed_one_after_the_other(space):
    corpora = [
        {"name": "synthetic", "conflict": [0, 0.4], **SMALL},
        {"name": "synthetic", "missing": [0, 0.4], **SMALL},
    ]
    prepared = prepare_cells(Sweep.parse(ASKED | {"corpus": corpora}, "mine"), space)
    assert len(prepared.stores) == 3, "the dose of nothing is in both lists and runs once"


def test_a_store_is_the_same_wherever_it_is_made(space, tmp_path, monkeypatch):
    first = prepare_cells(Sweep.parse(ASKED, "mine"), space).stores[1]
    monkeypatch.setenv(store_cache.CACHE, str(tmp_path / "disk"))
    shutil.rmtree(space.paths.stores)  # nothing is left to fetch
    made = space.local_store(first.corpus, first.content_hash)
    assert made == tmp_path / "disk" / first.path.name
    assert FeatureStore(made).content_hash == first.content_hash
    monkeypatch.delenv(store_cache.CACHE)
    assert space.local_store(first.corpus, first.content_hash).parent == space.paths.stores


def test_a_damaged_store_is_made_again_and_a_finished_one_is_kept(tmp_path):
    dose = SyntheticDose(**SMALL)
    folder = dosed_store(tmp_path, dose)
    before = (folder / "manifest.json").stat().st_mtime_ns
    assert dosed_store(tmp_path, dose) == folder
    assert (folder / "manifest.json").stat().st_mtime_ns == before
    (folder / "manifest.json").unlink()
    assert dosed_store(tmp_path, dose) == folder
    verify_store(folder)


def test_the_hash_of_a_dose_is_what_it_was(tmp_path):
    """Cells of users are named by it. A change needs a new `GENERATOR`."""
    dose = SyntheticDose(missing=0.1, corrupted=0.1, conflict=0.2, complementary=0.5, shared=0.3, **SMALL)
    assert dosed_store(tmp_path, dose).name.rpartition("-")[2] == "dcebdf2d2d30d02a"


def test_a_launched_sweep_with_doses_is_read_again(space):
    prepared = prepare_cells(Sweep.parse(ASKED, "mine"), space)
    remember_sweep(prepared, space)
    last = prepared.plan.cells[-1]
    assert find_launched(space, last.cell_id) == last


def test_what_makes_no_sense_is_refused_before_work(tmp_path):
    for corpus, words in (
        ({"name": "recola", "conflict": 0.1}, "takes no dose"),
        ({"name": "synthetic", "conflikt": 0.1}, "did you mean"),
        ({"name": "synthetic", "conflict": 2}, "less than or equal to 0.9"),
    ):
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump(ASKED | {"corpus": corpus}))
        with pytest.raises(UserError, match=words):
            load(path)
    with pytest.raises(UserError, match="leave out store"):
        Sweep.parse(ASKED | {"store": "abc"}, "mine")


def test_editors_complete_a_dose():
    found = schema("sweep")
    jsonschema.validate(ASKED, found)
    for wrong in ({"name": "synthetic", "conflikt": 0.1}, {"name": "recola", "conflict": 0.1}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(ASKED | {"corpus": wrong}, found)
