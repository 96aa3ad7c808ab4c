"""`import crossfold as cf` as a script or a notebook uses it."""

import re
import subprocess
import sys
import textwrap
import tomllib

import numpy as np
import pytest

import crossfold as cf
from tests.support.factories import TINY_SETTINGS, synthetic_workspace
from tests.support.paths import ROOT, environment

TINY = {key.replace(".", "__"): value for key, value in TINY_SETTINGS.items()}
HEAVY = ("torch", "ray", "mlflow", "optuna", "pandas", "numpy")


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    return synthetic_workspace(tmp_path_factory.mktemp("api")).root


@pytest.fixture(scope="module")
def trained(space):
    return cf.train(system="rjca", corpus="synthetic", target="valence", workspace=space, **TINY)


BLOCK = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"no module {name}", name=name)

sys.meta_path.insert(0, Blocked())
"""


def run_python(code, *blocked):
    """Runs code in a new interpreter in which some packages cannot be imported; returns what it printed."""
    command = [sys.executable, "-c", f"BLOCKED = {blocked!r}\n{BLOCK}\n{textwrap.dedent(code)}"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_import_alone_loads_nothing_heavy():
    code = f"import sys, crossfold; print([name for name in {HEAVY!r} if name in sys.modules])"
    assert run_python(code) == "[]"


def test_the_version_is_that_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "crossfold.__version__"}
    assert cf.__version__.count(".") == 2


def test_every_public_name_is_there_and_described():
    assert {"Workspace", "TrainedCell", "UserError", "load", "prepare", "report", "sweep", "train"} <= set(dir(cf))
    for name in cf.__all__:
        assert getattr(cf, name).__doc__


def test_training_gives_scores_curve_predictions_and_model(trained):
    assert list(trained.scores.index) == ["valence"]
    assert len(trained.curve) == TINY_SETTINGS["epochs"]
    valid = trained.predictions[trained.predictions["labelled"]]
    rmse = float(np.sqrt(np.mean((valid["prediction"] - valid["label"]) ** 2)))
    assert rmse == pytest.approx(trained.scores.loc["valence", "rmse"], rel=1e-5)
    assert not trained.model.training
    assert "rjca valence fold 0" in repr(trained)


def test_a_finished_cell_is_returned_at_once(space, trained, monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("it ran again")

    monkeypatch.setattr("crossfold.platform.edge.api.training.run_cells", never)
    again = cf.train(system="rjca", corpus="synthetic", target="valence", workspace=space, **TINY)
    assert again.cell_id == trained.cell_id


def test_the_cell_is_the_one_that_a_sweep_runs(space, trained):
    sweep = {"name": "mine", "corpus": "synthetic", "recipe": "demo", "set": TINY_SETTINGS, "systems": ["rjca"]}
    found = cf.sweep(sweep | {"targets": ["valence"], "seeds": [0]}, workspace=space, workers=0)
    assert list(found["cell_id"]) == [trained.cell_id]


def test_predictions_for_a_new_clip_have_a_row_per_frame_and_a_column_per_target(space, trained):
    clip = {modality: np.ones((30, width), np.float32) for modality, width in trained.widths.items()}
    frame = cf.load(trained.cell_id[:8], workspace=space).predict(clip)
    assert list(frame.columns) == ["valence"] and frame.index.name == "frame" and len(frame) == 30
    with pytest.raises(cf.UserError, match="audio"):
        trained.predict({"visual": clip["visual"]})


def test_predictions_for_a_clip_of_the_store_are_those_of_the_cell(space, trained):
    from crossfold.datasets.store.feature_store import FeatureStore
    from crossfold.platform.workspace.workspace import Workspace

    store = FeatureStore(Workspace(space).find_store("synthetic"))
    rows = trained.predictions
    clip = rows["clip"].iloc[0]
    place = store.rows(clip)
    features = {m: store.features(m, trained.cell.fold)[place] for m in trained.widths}
    present = {m: store.present(m)[place] for m in trained.widths}
    predicted = trained.predict(features, present)["valence"]
    of_cell = rows[rows["clip"] == clip].set_index("frame")["prediction"]
    # Products over another number of windows may differ in the last digit.
    np.testing.assert_allclose(predicted.loc[of_cell.index], of_cell, rtol=1e-5, atol=1e-6)


def test_the_page_about_python_runs_as_printed(tmp_path, monkeypatch):
    monkeypatch.setenv("CROSSFOLD_HOME", str(tmp_path))
    text = (ROOT / "docs" / "python.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 3
    names = {}
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), names)
    assert set(names["results"]["system"]) == {"concat", "rjca"}


def test_results_are_read_without_torch_ray_mlflow_and_optuna(space, trained):
    code = f"""
        import crossfold as cf
        space = cf.Workspace({str(space)!r})
        row = space.results().iloc[0]
        print(row["cell_id"], len(space.predictions(row["cell_id"])), len(space.curves()))
    """
    cell, predictions, epochs = run_python(code, "torch", "ray", "mlflow", "optuna").split()
    assert cell in {path.name for path in (space / "cells").iterdir()}
    assert int(predictions) > 0 and int(epochs) >= TINY_SETTINGS["epochs"]


def test_an_empty_workspace_has_no_results(tmp_path):
    empty = cf.Workspace(tmp_path)
    assert empty.results().empty and empty.curves().empty and empty.predictions().empty
    with pytest.raises(cf.UserError, match="nothing to report"):
        empty.report()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"system": "rjcaa"}, "did you mean 'rjca'"),
        ({"corpus": "synthetik"}, "did you mean 'synthetic'"),
        ({"epochz": 3}, "did you mean 'epochs'"),
        ({"target": "valense"}, "valense"),
        ({"fold": 99}, "99"),
        ({"recipe": "demoo"}, "did you mean 'demo'"),
        ({"system": {"rjca": {"iteratons": 2}}}, "did you mean 'iterations'"),
    ],
)
def test_a_mistake_is_named_before_work(space, asked, said):
    with pytest.raises(cf.UserError, match=said):
        cf.train(**({"system": "rjca", "corpus": "synthetic", "workspace": space} | asked))


def test_a_corpus_of_ones_own_needs_its_folder(tmp_path):
    with pytest.raises(cf.UserError, match="needs its folder"):
        cf.prepare("recola", workspace=tmp_path)


def test_the_embedded_corpus_is_made_once(tmp_path):
    first = cf.prepare("synthetic", workspace=tmp_path)
    assert cf.prepare("synthetic", workspace=tmp_path) == first


def test_a_report_is_one_page(space, trained):
    page = cf.report(space)
    assert page.name == "report.html" and page.stat().st_size > 100_000
