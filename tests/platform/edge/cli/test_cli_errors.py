"""What a newcomer meets on the command line: signals, wrong places, what one cell is made of, other looks at cells."""

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml

from tests.support.factories import TINY_SETTINGS, synthetic_workspace, write_sweep
from tests.support.paths import environment

TINY = TINY_SETTINGS | {
    "epochs": 1,
    "post": "ca2021",
    "stress": [{"kind": "missing", "modality": "each", "strengths": [0.5]}],
}

SAME = {"batch"}
"""Of these, what `demo` has as well."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A workspace with four finished cells of two variants, and the sweep file that names them."""
    from crossfold.platform.execution.run_cell import attempt_cell
    from crossfold.sweeps.launched import remember_sweep
    from crossfold.sweeps.prepared import prepare_cells, read_sweep

    place = tmp_path_factory.mktemp("mends")
    space = synthetic_workspace(place)
    path = write_sweep(place / "small.yaml", set=TINY, systems=[{"rjca+dca": {"iterations": [1, 2]}}])
    prepared = prepare_cells(read_sweep(str(path), ()), space)
    remember_sweep(prepared, space)
    for cell in prepared.plan.cells:
        assert attempt_cell(cell, space).status == "done"
    return space, path, prepared.plan.cells


def test_why_shows_everything_that_a_number_is_made_of(crossfold, lab):
    space, _, cells = lab
    cell = cells[0]
    code, said, _ = crossfold("why", cell.cell_id[:8], "-w", space.root)
    assert code == 0
    result = json.loads((space.paths.cell(cell.cell_id) / "result.json").read_text())
    assert f"valence: CCC {result['metrics']['valence']['ccc']:.4f} over" in said
    trained = result["post"]["columns"]["train"]["metrics"]["valence"]["ccc"]
    assert f"post-processing, fitted on the training clips: CCC {trained:.4f}" in said
    for entry in result["stress"]:
        assert f"{entry['strength']:g}: CCC {entry['metrics']['valence']['ccc']:.4f}" in said
    assert f"clean: CCC {result['spans']['clean']['valence']['ccc']:.4f}" in said
    assert f"AUROC {result['gates'][0]['auroc']:.4f}" in said
    assert f"again: crossfold rerun {cell.cell_id} --workspace {space.root}" in said
    assert "torch" in said.partition("machine: ")[2].partition("\n")[0]
    assert f"label: rjca+dca iterations=1 valence fold 0 seed 0 [{cell.cell_id[:6]}]" in said
    (recipe,) = (line for line in said.splitlines() if line.startswith("recipe: "))
    name, _, changes = recipe.removeprefix("recipe: ").partition(", but ")
    assert name == "demo"
    assert {change.partition(" ")[0] for change in changes.split("; ")} == TINY.keys() - {"post", "stress"} - SAME
    assert "epochs 1 instead of 24" in changes.split("; ")

    told = json.loads(crossfold("why", cell.cell_id, "-w", space.root, "--json")[1])
    (look,) = told["evaluations"]
    assert look["stress"] == result["stress"]
    assert look["spans"] == result["spans"]
    assert look["post"]["train"]["metrics"] == result["post"]["columns"]["train"]["metrics"]
    assert "bins" not in look["gates"][0]
    assert told["mlflow"] == {"run_id": None}
    (space.root / "mlflow-runs.jsonl").write_text(json.dumps({"cell": cell.cell_id, "run": "r1", "store": "s"}) + "\n")
    assert "mlflow: run r1," in crossfold("why", cell.cell_id, "-w", space.root)[1]


def test_why_of_a_cell_that_did_not_run_says_how_to(crossfold, lab, tmp_path):
    from crossfold.sweeps.launched import remember_sweep
    from crossfold.sweeps.prepared import Prepared, prepare_cells, read_sweep

    space, path, _ = lab
    prepared = prepare_cells(read_sweep(str(path), ["name=other", "seeds=[5]"]), space)
    assert isinstance(prepared, Prepared)
    remember_sweep(prepared, space)
    told = json.loads(crossfold("why", prepared.missing[0].cell_id, "-w", space.root, "--json")[1])
    assert told["status"].startswith("not run yet")
    assert told["run"] == "crossfold run other"


def test_every_cell_is_listed_with_its_label_state_and_ccc(crossfold, lab):
    space, _, cells = lab
    rows = json.loads(crossfold("status", "small", "--cells", "--json", "-w", space.root)[1])
    assert {row["cell"] for row in rows} == {cell.cell_id for cell in cells}
    best = {cell.cell_id: space.read(cell.cell_id).result["selection"]["best_ccc"] for cell in cells}
    assert all((row["state"], row["ccc"]) == ("done", best[row["cell"]]) for row in rows)
    code, said, _ = crossfold("status", "small", "--cells", "-w", space.root)
    # A label in brackets is no markup.
    assert (code, [cell.cell_id[:6] for cell in cells if f"[{cell.cell_id[:6]}]" not in said]) == (0, [])
    code, _, err = crossfold("status", "--cells", "--watch", "-w", space.root)
    assert (code, "leave out --cells or --watch" in err) == (2, True)


def test_many_tables_are_told_as_a_folder_and_few_by_their_paths(crossfold, lab):
    space, _, _ = lab
    code, said, _ = crossfold("report", "-w", space.root, "--no-figures")
    assert code == 0
    paths = [line for line in said.splitlines() if line.startswith(str(space.paths.reports))]
    assert paths == [str(space.paths.reports / "report.html")]
    listed = [path for path in space.paths.reports.iterdir() if path.suffix != ".html"]
    assert f"{len(listed)} tables (.csv, .md, .tex) in {space.paths.reports}" in said
    few = crossfold("report", "leaderboard", "--format", "md,csv", "-w", space.root)[1]
    assert all(f"{space.paths.reports}/leaderboard.{ext}" in few for ext in ("md", "csv"))


def test_rescoring_goes_over_the_chosen_cells_and_over_processes(crossfold, lab, monkeypatch):
    asked = []

    class Elsewhere:
        """Stands for processes: what travels to them is pickled, and comes in any order."""

        def __init__(self, processes):
            asked.append(processes)

        def __call__(self, work, tasks):
            for index, task in reversed(list(enumerate(tasks))):
                yield index, pickle.loads(pickle.dumps(work))(pickle.loads(pickle.dumps(task)))

    space, path, cells = lab
    look = ("rescore", path, "-w", space.root, "--post", "none", "--stress", "none", "--json")
    code, said, err = crossfold(*look, "--only", "iterations=1", "--only", "target=valence")
    assert code == 0, err
    assert json.loads(said)["rescored"] == 1
    (alone,) = Path(json.loads(said)["folder"]).glob("*.json")
    before = alone.read_bytes()
    alone.unlink()
    monkeypatch.setattr("crossfold.platform.core.process_pool.LocalWorkers", Elsewhere)
    code, said, err = crossfold(*look, "--processes", 2)
    assert (code, asked) == (0, [2]), err
    assert (json.loads(said)["rescored"], json.loads(said)["finished"]) == (4, 4)
    assert alone.read_bytes() == before
    assert {each.stem for each in alone.parent.glob("*.json")} == {cell.cell_id for cell in cells}
    code, _, err = crossfold(*look, "--device", "gpu")
    assert (code, "neither cpu nor cuda" in err) == (2, True)
    code, _, err = crossfold(*look, "--only", "iteration=1")
    assert (code, "did you mean 'iterations'" in err) == (2, True)


def test_a_run_looks_again_at_the_chosen_cells_only(lab):
    from crossfold.platform.edge.launch.rescore import rescore_outdated
    from crossfold.sweeps.prepared import prepare_cells, read_sweep

    space, path, _ = lab
    prepared = prepare_cells(read_sweep(str(path), ["stress=none", "post=dca2024"]), space)
    chosen = {prepared.plan.cells[0].cell_id}
    rescore_outdated(prepared, space, chosen, silent=True)
    folder = space.paths.rescored / prepared.plan.cells[0].recipe.evaluation.key
    assert {each.stem for each in folder.glob("*.json")} == chosen


def test_a_search_is_checked_for_inputs_and_weights_before_work(crossfold, lab, tmp_path):
    space, _, _ = lab
    path = tmp_path / "s.yaml"
    search = {"name": "s", "corpus": "synthetic", "recipe": "grjca2025", "system": "rjca", "trials": 2}
    search["space"] = {"iterations": {"int": [1, 2]}}
    path.write_text(yaml.safe_dump(search))
    code, _, err = crossfold("search", path, "-w", space.root)
    assert (code, "the recipe trains backbone" in err) == (2, True), err
    winner = {"recipe": "demo", "winner": {"set": {"backbones": {"visual": "resnet50"}}}}
    path.write_text(yaml.safe_dump(search | winner))
    code, _, err = crossfold("search", path, "-w", space.root)
    assert (code, "the recipe trains backbone resnet50 on raw crops48" in err) == (2, True), err
    assert not (space.root / "optuna.db").exists()


@pytest.mark.parametrize("address", ["nowhere", "ray://head", "head:port", "http://127.0.0.1:8265"])
def test_what_is_no_address_is_refused_before_work(crossfold, lab, address):
    space, path, _ = lab
    code, _, err = crossfold("run", path, "-w", space.root, "--set", "seeds=[9]", "--address", address)
    assert code == 2
    assert "ray://head:10001" in err
    assert ("crossfold submit" in err) == address.startswith("http")


def test_weights_are_named_for_every_worker(monkeypatch, tmp_path):
    from crossfold.platform.edge.fleet.ray_connection import _weights_environment
    from crossfold.platform.edge.launch.preflight import use_weights
    from crossfold.platform.modeling.pretrained_files import weights_folder

    monkeypatch.setenv("CROSSFOLD_WEIGHTS", "before")
    use_weights(None)
    assert os.environ["CROSSFOLD_WEIGHTS"] == "before"
    use_weights(tmp_path)
    assert weights_folder() == tmp_path
    assert _weights_environment() == {"runtime_env": {"env_vars": {"CROSSFOLD_WEIGHTS": str(tmp_path)}}}
    given = {"runtime_env": {"env_vars": {"CROSSFOLD_WEIGHTS": str(tmp_path)}}}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(given))
    assert _weights_environment() == {}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_a_command_in_order(number, tmp_path, monkeypatch, capsys):
    """Also in a background job, whose shell made it deaf to SIGINT, SIGTERM does."""
    from crossfold.platform.edge.cli import app as cli
    from crossfold.platform.edge.cli import data as cli_data

    def waits(*given, **named):
        os.kill(os.getpid(), number)
        threading.Event().wait(60)

    monkeypatch.setattr(cli_data, "build_store", waits)
    before = signal.getsignal(signal.SIGTERM)
    # `make test` runs this in a background job.
    deaf = signal.signal(signal.SIGINT, signal.default_int_handler)
    (tmp_path / "data").mkdir()
    try:
        with pytest.raises(SystemExit) as end:
            cli.main(["prepare", "puppets", "--root", str(tmp_path / "data"), "-w", str(tmp_path / "work")])
    finally:
        signal.signal(signal.SIGINT, deaf)
    assert end.value.code == 130
    assert "stopped; the same command continues" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_workspace_that_cannot_be_written_is_noticed_before_the_check(crossfold, lab, tmp_path, monkeypatch):
    from crossfold.datasets.corpora.registry import Corpus

    def never(*given, **named):
        raise AssertionError("the folder was read")

    space, _, _ = lab
    monkeypatch.setattr(Corpus, "read", never)
    (tmp_path / "file").write_text("")
    code, _, err = crossfold("prepare", "synthetic", "--root", space.root.parent / "corpus", "-w", tmp_path / "file")
    assert code == 2
    assert f"the workspace {tmp_path / 'file'} cannot be written" in err.replace("\n", "")


def test_a_folder_without_a_clip_does_not_pass(crossfold, tmp_path, own_registries):
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "from crossfold.datasets.corpora.registry import CORPORA, Corpus, Inspection\n"
        "CORPORA.register('bare', origin=__name__)(Corpus(description='d', layout='l', needs='n',\n"
        "    inspect=lambda root, deep: Inspection('bare', ()), sources=lambda root: []))\n"
    )
    (tmp_path / "data").mkdir()
    code, said, err = crossfold("validate", "bare", "--root", tmp_path / "data", "--plugin", plugin)
    assert code == 2, said + err
    assert "0 usable clips, 1 error," in said
    code, said, _ = crossfold("validate", "puppets", "--root", tmp_path / "data")
    assert (code, "puppets: 0 usable clips" in said) == (2, True)
    told = json.loads(crossfold("validate", "puppets", "--root", tmp_path / "data", "--json")[1])
    assert told["corpus"] == "puppets"


def test_a_process_of_its_own_ends_with_130(tmp_path):
    """The whole way: a real process, a real signal, an orderly code."""
    reach = "import sys; from crossfold.platform.edge.cli import app as cli, data as cli_data\n"
    reach += "def waits(*a, **k):\n    print('waiting', flush=True)\n    import time; time.sleep(60)\n"
    reach += (
        "cli_data.build_store = waits\ncli.main(['prepare', 'puppets', '--root', sys.argv[1], '-w', sys.argv[1]])\n"
    )
    process = subprocess.Popen([sys.executable, "-c", reach, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 130


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_command_that_is_stopped_in_code_that_is_made_while_it_runs_ends_with_130(tmp_path, number):
    # As the imports of a command do, which make dataclasses; Python would end with the code of the signal.
    plugin = tmp_path / "mine.py"
    plugin.write_text(f"exec('import os, time; os.kill(os.getpid(), {int(number)}); time.sleep(60)')")
    command = [sys.executable, "-m", "crossfold.platform.edge.cli", "plan", "demo", "--plugin", str(plugin)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment())
    assert done.returncode == 130, (done.stdout, done.stderr)
    assert "stopped" in done.stdout + done.stderr
