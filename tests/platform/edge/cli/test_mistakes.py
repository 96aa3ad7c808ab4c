"""What people get wrong in their first weeks: each mistake is refused before work, with what, why and how to go on."""

import pytest
import yaml

from tests.support.factories import TINY_SETTINGS, synthetic_workspace, write_sweep

SWEEP = {"name": "mine", "corpus": "synthetic", "recipe": "demo", "systems": ["concat"], "targets": ["valence"]}
SEARCH = {"name": "look", "corpus": "synthetic", "recipe": "demo", "system": "rjca", "trials": 2}
SPACE = {"space": {"iterations": {"int": [1, 2]}}}


def sweep(**changes):
    """The text of a sweep with some keys changed; None takes one out."""
    return yaml.safe_dump({key: value for key, value in {**SWEEP, **changes}.items() if value is not None})


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a workspace of one finished cell, and what a user may have lying there."""
    from crossfold.platform.execution.run_cell import attempt_cell
    from crossfold.sweeps.launched import remember_sweep
    from crossfold.sweeps.prepared import prepare_cells, read_sweep

    folder = tmp_path_factory.mktemp("mistakes")
    space = synthetic_workspace(folder / "work")
    good = write_sweep(folder / "good.yaml", set=TINY_SETTINGS | {"stress": "none"}, systems=["concat"], seeds=[0])
    prepared = prepare_cells(read_sweep(str(good), ()), space)
    remember_sweep(prepared, space)
    assert attempt_cell(prepared.plan.cells[0], space).status == "done"
    (folder / "empty").mkdir()
    (folder / "recipe.yaml").write_text("window: 50\nhop: 25\nepochs: 3\n")
    (folder / "search.yaml").write_text(yaml.safe_dump(SEARCH | SPACE))
    (folder / "broken.py").write_text("import crossfold\nx = (\n")
    (folder / "fails.py").write_text("import numpy\n\nnumpy.no_such_thing()\n")
    (folder / "nothing.py").write_text("x = 1\n")
    (folder / "table.xlsx").write_bytes(b"PK\x03\x04\x00\xff")
    (folder / "clip.mp4").write_bytes(b"no video")
    (folder / "weights.safetensors").write_bytes(b"no weights")
    return folder, space.root


CELL = "CELL"
"""Stands for the id of the finished cell."""
MISTAKES = {
    # name: (command, content of sweep.yaml if it is used, what the answer says, how to go on)
    "a sweep that is not there": ("run swep.yaml", None, "no sweep 'swep.yaml'", "give a YAML file or a name"),
    "a shipped sweep with a slip": ("run dmeo", None, "did you mean 'demo'", "give a YAML file or a name"),
    "two sweeps, one of them wrong": (
        "run good.yaml grjca-t22",
        None,
        "did you mean 'grjca-t2'",
        "YAML file or a name",
    ),
    "a system with a slip": ("run sweep.yaml", sweep(systems=["rcja"]), "unknown system 'rcja'", "list systems"),
    "a system of a plug-in without it": (
        "run sweep.yaml",
        sweep(systems=["my_fusion"]),
        "'my_fusion'",
        "--plugin FILE",
    ),
    "a parameter with a slip": (
        "run sweep.yaml",
        sweep(systems=[{"rjca": {"iteration": 2}}]),
        "did you mean 'iterations'",
        "correct the named keys",
    ),
    "a parameter out of its range": (
        "run sweep.yaml",
        sweep(systems=[{"rjca": {"iterations": 0}}]),
        "greater than or equal to 1",
        "correct the named keys",
    ),
    "a gate where there is nothing to gate": (
        "run sweep.yaml",
        sweep(systems=["concat+dca"]),
        "concat yields no (unattended, attended) features",
        "put +dca on one of: ca",
    ),
    "systems as one word": (
        "run sweep.yaml",
        sweep(systems="rjca"),
        "give a list of systems",
        "correct the named keys",
    ),
    "a recipe with a slip": ("run sweep.yaml", sweep(recipe="demmo"), "did you mean 'demo'", "list recipes"),
    "an unknown variant of a recipe": ("run sweep.yaml", sweep(recipe="rjcma2024+relased"), "released", "list recipes"),
    "a corpus with a slip": (
        "run sweep.yaml",
        sweep(corpus="syntetic"),
        "did you mean 'synthetic'",
        "correct its name",
    ),
    "a corpus without its data": ("run sweep.yaml", sweep(corpus="affwild2"), "no feature store", "corpus=puppets"),
    "a paper's sweep without its data": ("run grjca-t2", None, "no feature store", "--set corpus=puppets"),
    "a hash of no store": ("run sweep.yaml", sweep(store="ffff"), "with hash 'ffff'", "correct its name"),
    "a fold that is not there": ("run sweep.yaml", sweep(folds=[77]), "77", "fold"),
    "a target that is not annotated": ("run sweep.yaml", sweep(targets=["joy"]), "'joy'", "valence"),
    "seeds as a number": ("run sweep.yaml", sweep(seeds=3), "seeds = 3: give a list", "correct the named keys"),
    "seeds as a range": ("run sweep.yaml", sweep(seeds="0..3"), "give a list, such as [0, 1, 2]", "the named keys"),
    "a seed twice": ("run sweep.yaml", sweep(seeds=[0, 0]), "each once", "correct the named keys"),
    "a key with a slip": ("run sweep.yaml", sweep(sytems=["rjca"]), "did you mean 'systems'", "a grid has name"),
    "a key that is missing": ("run sweep.yaml", sweep(recipe=None), "key 'recipe' is missing", "a grid has name"),
    "a field of the recipe among the keys": (
        "run sweep.yaml",
        sweep(epochs=3),
        "epochs is a field of the recipe",
        "write it under `set:`",
    ),
    "a field of the recipe with a slip": (
        "run sweep.yaml",
        sweep(set={"epoch": 3}),
        "did you mean 'epochs'",
        "correct",
    ),
    "a recipe in the place of a sweep": ("run recipe.yaml", None, "recipe.yaml is a recipe, not a sweep", "`recipe:"),
    "a sweep in the place of a recipe": (
        "run sweep.yaml",
        sweep(recipe="good.yaml"),
        "good.yaml is a sweep, not a recipe",
        "crossfold run",
    ),
    "a search with run": ("run search.yaml", None, "is a search, not a grid", "crossfold search"),
    "a grid with search": ("search good.yaml", None, "is a grid, not a search", "crossfold run"),
    "a search without a space": ("search sweep.yaml", yaml.safe_dump(SEARCH), "key 'space' is missing", "a search has"),
    "a space of no parameter": (
        "search sweep.yaml",
        yaml.safe_dump(SEARCH | {"space": {"iteration": {"int": [1, 2]}}}),
        "did you mean 'iterations'",
        "correct the named keys",
    ),
    "a tab in YAML": ("run sweep.yaml", "name: mine\n\tcorpus: synthetic\n", "line 2", "tab"),
    "a key twice": ("run sweep.yaml", sweep() + "seeds: [0]\nseeds: [1]\n", "is given twice", "sweep"),
    "a list in the place of a sweep": ("run sweep.yaml", "- concat\n- rjca\n", "not a mapping", "looks like this"),
    "a spreadsheet in the place of a sweep": ("run table.xlsx", None, "no text in UTF-8", "YAML file"),
    "a setting without a value": ("run good.yaml --set epochs", None, "has no '='", "--set key=value"),
    "a setting with a slip": ("run good.yaml --set epoch=3", None, "did you mean 'epochs'", "recipe field"),
    "a word for a number": ("run good.yaml --set epochs=many", None, "give a whole number", "correct the named keys"),
    "no epoch": ("run good.yaml --set epochs=0", None, "greater than or equal to 1", "correct the named keys"),
    "a hop longer than the window": ("run good.yaml --set hop=500", None, "hop", "window"),
    "a setting among the sweeps": ("run good.yaml epochs=3", None, "'epochs=3' is no sweep", "--set"),
    "a condition on no axis": ("run good.yaml --only sistem=rjca", None, "no axis 'sistem'", "one of system"),
    "a condition that nothing meets": ("run good.yaml --only system=rjca fold=0", None, "no cell has it", "concat"),
    "a time that is none": ("run good.yaml --until 25:00", None, "25:00", "08:00"),
    "a duration that is none": ("run good.yaml --for soon", None, "soon", "2h"),
    "an address that is none": ("run sweep.yaml --address head", sweep(seeds=[8]), "head", "ray://head:10001"),
    "fewer than no workers": ("run good.yaml --workers -1", None, "greater than or equal to 0", "--help"),
    "an option with a slip": ("run good.yaml --worker 2", None, "No such option", "--help"),
    "a command with a slip": ("rnu good.yaml", None, "No such command 'rnu'", "--help"),
    "a plug-in that is not there": ("run good.yaml --plugin gone.py", None, "gone.py", "give the path of one"),
    "a plug-in with an open bracket": ("check --plugin broken.py", None, "SyntaxError", "fix the file"),
    "a plug-in that raises": ("check --plugin fails.py", None, "fails.py, line 3: AttributeError", "fix the file"),
    "a plug-in that registers nothing": ("check --plugin nothing.py", None, "registers no system", "call `register"),
    "a folder of data that is not there": ("prepare manifest --root gone", None, "gone", "--root"),
    "a folder without data": ("prepare manifest --root empty", None, "manifest.csv", "validate"),
    "a corpus that has no reader": ("prepare recolla --root empty", None, "did you mean 'recola'", "list corpora"),
    "an extractor with a slip": (
        "prepare puppets --root empty --audio vgish",
        None,
        "did you mean 'vggish'",
        "list extractors",
    ),
    "a file of folds that is not there": ("folds synthetic --check gone.yaml", None, "gone.yaml", "fold"),
    "a video that is not there": ("predict concat gone.mp4", None, "there is no gone.mp4", "give a video"),
    "a cell that is not there": (
        "predict ffffffff clip.mp4",
        None,
        "'ffffffff' is no finished cell",
        "crossfold status",
    ),
    "a system that never ran": ("predict rjca clip.mp4", None, "rjca", "crossfold run"),
    "the clip before the cell": (f"predict clip.mp4 {CELL}", None, "clip.mp4 is a file in the place", "comes first"),
    "the file of weights for a cell": (
        "predict weights.safetensors clip.mp4",
        None,
        "holds the weights of a model alone",
        "give its cell",
    ),
    "a corpus of predictions in capitals": (
        "predict concat clip.mp4 --corpus Synthetic",
        None,
        "did you mean 'synthetic'",
        "correct its name",
    ),
    "a sweep to ask about as if it were a cell": ("why good", None, "'good' is a sweep", "crossfold report good"),
    "a predictor of a sweep": ("export good --format predictor --out o", None, "'good' is a sweep", "report good"),
    "a prediction by a sweep": ("predict good clip.mp4", None, "'good' is a sweep", "crossfold report good"),
    "a report of one cell": (f"report {CELL}", None, "is a cell, no table", "crossfold why"),
    "a sweep without its ending": ("run goood", None, "did you mean 'good.yaml'", "give a YAML file"),
    "a search of a file without its ending": ("search searc", None, "did you mean 'search.yaml'", "give a YAML file"),
    "a format of predictions with a slip": ("predict concat clip.mp4 --format cvs", None, "did you mean 'csv'", "give"),
    "a table that is not there": ("report grjca-t22", None, "did you mean 'grjca-t2'", "list tables"),
    "a format of reports": ("report --format pdf", None, "unknown format 'pdf'", "html, md, tex, csv"),
    "a report of nothing": ("report -w empty", None, "nothing to report", "crossfold demo"),
    "a system to explain with a slip": ("explain rjac", None, "did you mean 'rjca'", "list systems"),
    "a width without its modality": ("explain rjca --width 64", None, "is not modality=width", "audio"),
    "a list of nothing there is": ("list systms", None, "did you mean 'systems'", "one of systems"),
    "a cell to ask about that is not there": ("why ffffffff", None, "ffffffff", "crossfold status"),
    "an export of what did not run": (
        "export sweep.yaml --format csv --out o",
        sweep(seeds=[5]),
        "1 of 1 cells have no result",
        "crossfold run",
    ),
    "an export in no format": ("export good.yaml --format abav --out o", None, "did you mean 'abaw'", "give one of"),
    "a citation of nothing": ("cite rjac", None, "did you mean 'rjca'", "--plugin FILE"),
    "a workspace to join that is not there": ("merge gone", None, "gone is no workspace", "give the folder"),
    "a model under a name that is taken": (
        "new system rjca",
        None,
        "there is a system 'rjca' already",
        "choose another",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_refused_before_work_with_what_why_and_how(crossfold, place, monkeypatch, own_registries, mistake):
    folder, space = place
    command, content, what, how = MISTAKES[mistake]
    monkeypatch.chdir(folder)
    monkeypatch.setenv("CROSSFOLD_HOME", str(space))
    if content is not None:
        (folder / "sweep.yaml").write_text(content)
    before = sorted(path.relative_to(folder) for path in folder.rglob("*") if "__pycache__" not in path.parts)
    (cell,) = (path.name for path in (space / "cells").iterdir() if not path.name.startswith("."))
    code, out, err = crossfold(*command.replace(CELL, cell).split())
    said = " ".join(err.split())
    assert code == 2, out + err
    assert what in said and how in said, err
    problem, _, remedy = said.partition(" -> ") if " -> " in said else said.partition("Error")[::-1]
    assert problem and remedy, err
    assert "Traceback" not in err and len(said) < 1200
    after = sorted(path.relative_to(folder) for path in folder.rglob("*") if "__pycache__" not in path.parts)
    assert after == before


def test_there_are_at_least_forty():
    assert len(MISTAKES) >= 40
