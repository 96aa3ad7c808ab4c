"""What `pip install crossfold` gives without an extra: results and reports, and a sentence where more is needed."""

import json
import subprocess
import sys

import pytest

from crossfold.platform.edge.cli.app import EXTRAS
from crossfold.platform.workspace.workspace import Workspace
from tests.support import lab
from tests.support.paths import environment

WITHOUT = f"""
import sys
from importlib.abc import MetaPathFinder

class Absent(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {sorted(EXTRAS)}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
"""
COMMAND = f"{WITHOUT}\nfrom crossfold.platform.edge.cli import main\nmain(sys.argv[1:])"
RESULTS = f"{WITHOUT}\nimport crossfold as cf\nprint(cf.Workspace(sys.argv[1]).results().to_json(orient='records'))"


def python(script, *words):
    command = [sys.executable, "-c", script, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    workspace = Workspace(tmp_path_factory.mktemp("light"))
    store = lab.make_store(workspace.root)
    for cell, noise in lab.cells_of(store, lab.VARIANTS[:2], folds=(0,), seeds=(0, 1)):
        lab.finish(workspace, store, cell, noise)
    return workspace


def test_results_are_read_as_a_data_frame(workspace):
    done = python(RESULTS, workspace.root)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert len(rows) == len(workspace.finished()) > 0
    assert all(-1 <= row["ccc"] <= 1 for row in rows)


def test_the_report_is_made(workspace, tmp_path):
    done = python(COMMAND, "report", "--workspace", workspace.root, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "report.html").stat().st_size > 100_000


@pytest.mark.parametrize("words", [("run", "demo"), ("mlflow", "sync")])
def test_what_needs_more_says_which_extra(workspace, words):
    done = python(COMMAND, *words, "--workspace", workspace.root)
    assert done.returncode == 2, done.stderr
    assert "pip install 'crossfold[" in done.stderr
    assert "Traceback" not in done.stderr
