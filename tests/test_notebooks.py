"""The notebooks run from top to bottom, are saved without results, and are listed where readers look."""

import ast
import json

import pytest

from tests.support.paths import ROOT

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """One for all of them: the store is prepared once."""
    return tmp_path_factory.mktemp("notebooks")


def code_cells(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def run(source, names):
    """Runs a cell as a notebook does, and returns the value of its last expression."""
    tree = ast.parse(source)
    last = ast.Expression(tree.body.pop().value) if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    return eval(compile(last, "cell", "eval"), names) if last is not None else None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(path, workspace, own_registries, tmp_path, monkeypatch):
    monkeypatch.setenv("CROSSFOLD_HOME", str(workspace))
    monkeypatch.chdir(tmp_path)
    names = {"__name__": f"notebook_{path.stem}"}
    values = [run(source, names) for source in code_cells(path)]
    match path.stem:
        case "first-results":
            assert {"concat", "rjca"} <= set(values[-2]["system"])
            assert len(values[3].data) == 2  # a line for each cell
        case "own-model":
            assert values[3] == []  # no broken rule
            assert "Cross-scaling + DCA" in values[-1].read_text(encoding="utf-8")
        case "own-data":
            assert values[-2].loc["fatigue", "ccc"] > 0.5
            assert values[-1]["fatigue"].between(0, 10).all()
        case "statistics":
            assert values[0].loc["concat", "count"] == 3
            assert values[1]["count"] == 3
            assert len(values[2]) == 2
            assert set(values[3].index) == {"reported", "held_out"}
        case _:
            pytest.fail("say here what its last cells give")


def test_the_four_notebooks_are_saved_without_results_and_listed():
    assert [path.stem for path in NOTEBOOKS] == ["first-results", "own-data", "own-model", "statistics"]
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    for path in NOTEBOOKS:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
        assert f"notebooks/{path.name}" in page
