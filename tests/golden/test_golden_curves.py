"""Twenty or so optimisation steps of every system, frozen: a number that moves was moved on purpose, or is a bug.

Regenerate with `python tests/golden/regenerate.py` after a change of the mathematics, raise `revision` of the systems
whose numbers moved, and say why in the commit. The corpus, the windows, the order of batches, the initial weights, the
dropout, the loss, the schedule and the score all stand between the seed and these numbers.
"""

import json
import os
from pathlib import Path

import pytest

from crossfold.fusion_models.catalogue import find_system, system_names
from crossfold.platform.execution.run_cell import attempt_cell
from tests.support.factories import make_store, synthetic_clips

pytestmark = pytest.mark.usefixtures("in_double_precision")

GOLDEN = Path(__file__).parent / "curves.json"
TOLERANCE = 1e-6
CHANGES = {"epochs": 3, "temporal__dropout": 0.2, "optimizer__clip_norm": 5.0}


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """The synthetic store with text beside it; audio and visual are the same numbers."""
    return make_store(tmp_path_factory.mktemp("synthetic") / "stores", synthetic_clips(text=4))


@pytest.fixture
def workspace(new_workspace, store):
    """An empty workspace with that store."""
    return new_workspace(store.path)


def curve_of(name, workspace, tiny_cell, store):
    cell = tiny_cell(name, targets=("valence", "arousal"), store=store, **CHANGES)
    # A fixed name for the store: its hash covers parquet bytes, which another pyarrow writes differently.
    link = workspace.paths.store(cell.corpus, "golden")
    if not link.exists():
        link.symlink_to(workspace.paths.store(cell.corpus, cell.store).resolve())
    cell = cell.model_copy(update={"store": "golden"})
    outcome = attempt_cell(cell, workspace)
    assert outcome.status == "done", outcome.failure
    record = workspace.read(cell.cell_id)
    columns = ("train_loss", "ccc_valence", "ccc_arousal")
    return {
        "revision": find_system(name).revision,
        "parameters": record.result["model"]["parameters"],
        **{column: [float(value) for value in record.curve[column]] for column in columns},
        "ccc": {target: metrics["ccc"] for target, metrics in record.result["metrics"].items()},
    }


@pytest.mark.skipif("CROSSFOLD_REGENERATE" not in os.environ, reason="run by tests/golden/regenerate.py only")
def test_regenerate(workspace, tiny_cell, store):
    curves = {name: curve_of(name, workspace, tiny_cell, store) for name in system_names()}
    GOLDEN.write_text(json.dumps(curves, indent=1, sort_keys=True) + "\n")


@pytest.mark.skipif("CROSSFOLD_REGENERATE" in os.environ, reason="the numbers are being regenerated")
@pytest.mark.parametrize("name", system_names())
def test_the_curve_is_the_golden_one(name, workspace, tiny_cell, store):
    golden = json.loads(GOLDEN.read_text())
    assert name in golden, "a new system: run `python tests/golden/regenerate.py`"
    expected, found = golden[name], curve_of(name, workspace, tiny_cell, store)
    assert found["parameters"] == expected["parameters"]
    for column in ("train_loss", "ccc_valence", "ccc_arousal"):
        assert found[column] == pytest.approx(expected[column], abs=TOLERANCE), column
    assert found["ccc"] == pytest.approx(expected["ccc"], abs=TOLERANCE)
    assert found["revision"] == expected["revision"], "the revision was raised: regenerate"


@pytest.mark.skipif("CROSSFOLD_REGENERATE" in os.environ, reason="the numbers are being regenerated")
def test_no_system_is_gone():
    assert set(json.loads(GOLDEN.read_text())) <= set(system_names())


@pytest.mark.skipif("CROSSFOLD_REGENERATE" in os.environ, reason="the numbers are being regenerated")
def test_golden_curves_differ_between_systems():
    losses = [tuple(curve["train_loss"]) for curve in json.loads(GOLDEN.read_text()).values()]
    assert len(set(losses)) == len(losses)
