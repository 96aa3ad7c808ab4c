"""The command line as a user meets it: output, errors, exit codes."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.support.factories import TINY_SETTINGS, synthetic_workspace, write_sweep
from tests.support.paths import ROOT


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("cli")


@pytest.fixture(scope="module")
def workspace(place):
    """A workspace with a store of synthetic features."""
    return synthetic_workspace(place).root


@pytest.fixture(scope="module")
def sweep(place):
    return write_sweep(place / "small.yaml")


def test_wrong_names_answer_with_the_right_one(crossfold, workspace, sweep):
    assert crossfold("plam")[0] == 2
    assert "Did you mean 'plan'?" in crossfold("plam")[2]
    for arguments, help_ in [
        (("plan", "dem", "-w", workspace), "did you mean 'demo'?"),
        (("list", "system"), "did you mean 'systems'?"),
        (("prepare", "affwild", "--root", workspace), "did you mean 'affwild2'?"),
        (("validate", "affwild2", "--root", workspace / "nowhere"), "is not a folder"),
        (("plan", sweep, "-w", workspace, "--set", "epoch=3"), "did you mean 'epochs'?"),
        (("plan", sweep, "-w", workspace, "--set", "epochs"), "has no '='"),
        (("plan", "search-demo", "-w", workspace), "crossfold search search-demo"),
        (("search", sweep, "-w", workspace), "crossfold run"),
        (("run", sweep, "-w", workspace / "empty"), "crossfold prepare synthetic"),
        (("report", "dca-t9", "-w", workspace), "dca-t"),
        (("status", "smal", "-w", workspace), "no sweep 'smal'"),
        (("why", "zzzz", "-w", workspace), "'zzzz' begins no cells"),
        (("rerun", "zzzz", "-w", workspace), "no cell 'zzzz'"),
        (("mlflow", "ui", "-w", workspace / "empty"), "no mlflow.db"),
        (("submit", sweep, "--address", "http://127.0.0.1:9", "-w", workspace), "ray start --head"),
    ]:
        code, out, err = crossfold(*arguments)
        assert code == 2, (arguments, out, err)
        assert help_ in err.replace("\n", " "), (arguments, err)
        assert "Traceback" not in err


@pytest.mark.parametrize("kind", ["systems", "corpora", "recipes", "sweeps", "tables"])
def test_lists_are_tables_and_json(crossfold, kind):
    assert crossfold("list", kind)[0] == 0
    rows = json.loads(crossfold("list", kind, "--json")[1])
    assert rows
    assert all(row["name"] for row in rows)


def test_validate_says_what_is_wrong(crossfold, place):
    (place / "bad").mkdir(exist_ok=True)
    code, out, _ = crossfold("validate", "affwild2", "--root", place / "bad")
    assert code == 2
    assert "VA_Estimation_Challenge" in out
    assert json.loads(crossfold("validate", "affwild2", "--root", place / "bad", "--json")[1])["findings"]


def test_from_plan_to_report(crossfold, workspace, sweep):
    """One sweep, command by command; nothing finished runs again."""
    planned = json.loads(crossfold("plan", sweep, "-w", workspace, "--json")[1])
    assert (planned["cells"], planned["done"], planned["to_run"]) == (4, 0, 4)
    assert planned["predicted_hours"] > 0

    code, out, err = crossfold("run", sweep, "-w", workspace, "--workers", 0, "--json")
    assert code == 0, err
    assert json.loads(out)["done"] == 4
    assert "4 cells are done; nothing to run" in crossfold("run", sweep, "-w", workspace)[1]
    assert json.loads(crossfold("plan", sweep, "-w", workspace, "--json")[1])["to_run"] == 0

    (row,) = json.loads(crossfold("status", "small", "-w", workspace, "--json")[1])
    assert (row["cells"], row["done"], row["failed"]) == (4, 4, 0)

    cell = sorted(path.name for path in (workspace / "cells").iterdir() if path.name[0] != ".")[0]
    told = json.loads(crossfold("why", cell[:8], "-w", workspace, "--json")[1])
    assert told["cell"] == cell
    assert told["status"] == "done"
    before = (workspace / "cells" / cell / "result.json").read_bytes()
    code, out, _ = crossfold("rerun", cell, "-w", workspace)
    assert code == 0
    assert "(as before)" in out
    assert (workspace / "cells" / cell / "result.json").read_bytes() == before

    code, out, err = crossfold("report", "-w", workspace)
    assert code == 0, err
    assert (workspace / "reports" / "report.html").is_file()
    assert "@inproceedings" in crossfold("cite", sweep)[1]

    summary = crossfold("mlflow", "sync", "-w", workspace)
    assert summary[0] == 0


def test_a_failed_cell_ends_with_1_and_says_why(crossfold, workspace, place):
    broken = write_sweep(
        place / "broken.yaml", systems=["concat"], targets=["valence"], set={**TINY_SETTINGS, "optimizer.lr": 1e30}
    )
    code, out, _ = crossfold("run", broken, "-w", workspace, "--workers", 0)
    assert code == 1
    assert "failed (diverged)" in out
    (failure,) = list((workspace / "failures").iterdir())
    cell = failure.name.split("-")[0]
    code, out, _ = crossfold("why", cell, "-w", workspace)
    assert code == 0
    assert "not finite" in out
    assert json.loads(crossfold("plan", broken, "-w", workspace, "--json")[1])["failed_before"] == 1


def test_a_run_can_be_narrowed_ordered_and_ended_in_time(crossfold, workspace, place):
    first = write_sweep(place / "first.yaml", systems=["concat", "jca"], seeds=[7])
    second = write_sweep(place / "second.yaml", systems=["concat"], seeds=[7, 8])
    both = ("run", first, second, "-w", workspace, "--workers", 0)
    code, _, err = crossfold(*both, "--only", "sed=8")
    assert (code, "did you mean 'seed'" in err) == (2, True)
    # So many epochs that no machine is faster than the time it gets.
    long = write_sweep(place / "long.yaml", systems=["jca"], seeds=[7], set={"epochs": 100_000, "patience": 100_000})
    code, out, _ = crossfold("run", long, "-w", workspace, "--workers", 0, "--for", "0.01s", "--only", "target=valence")
    assert code == 3, out
    assert "1 of them chosen" in out
    assert "the time is up, with 1 cell left" in out
    code, out, _ = crossfold(*both, "--only", "system=concat", "--for", "9h")
    assert code == 0, out
    seeds = [line.split("seed ")[1][0] for line in out.splitlines() if line.startswith("[")]
    assert seeds == ["7", "7", "8", "8"]
    rows = {row["sweep"]: row for row in json.loads(crossfold("status", "-w", workspace, "--json")[1])}
    assert (rows["first"]["cells"], rows["first"]["done"], rows["second"]["done"]) == (4, 2, 4)
    ended = [[status for _, status in runs_of(workspace, name)].count("FINISHED") for name in ("first", "second")]
    assert ended == [2, 2]
    code, _, err = crossfold("run", first, "fold=0", "-w", workspace)
    assert (code, "write conditions after --only" in err) == (2, True)
    code, _, err = crossfold(*both, "--until", "soon")
    assert (code, "'soon' is no time" in err) == (2, True)


def test_a_plugin_is_a_system(crossfold, workspace, place, own_registries):
    plugin = place / "louder.py"
    plugin.write_text(
        "from crossfold.fusion_models.baselines import NoParams\n"
        "from crossfold.fusion_models.blocks.readout import LastReadout\n"
        "from crossfold.fusion_models.catalogue import register\n"
        "from crossfold.fusion_models.system import System, Unattended\n"
        "register(System(name='louder', title='Louder', source='our reading', equations='Z = X_a', bibtex='@misc{l}',\n"
        "    modalities=('audio',), params=NoParams, attend=lambda p, w, f: Unattended(),\n"
        "    readout=lambda p, w, s: LastReadout(w)))\n"
    )
    mine = write_sweep(place / "mine.yaml", systems=["louder"], targets=["valence"])
    code, out, err = crossfold("run", mine, "-w", workspace, "--workers", 0, "--plugin", plugin)
    assert code == 0, err
    assert "1 done" in out


@pytest.mark.slow
def test_a_driver_that_is_killed_continues_to_the_same_tables(crossfold, workspace, place):
    """kill -9 of the driver while Ray Train workers train; the same command ends in the same bytes."""
    path = write_sweep(place / "killed.yaml", seeds=[0, 1], set={**TINY_SETTINGS, "epochs": 48, "patience": 48})
    command = [sys.executable, "-m", "crossfold.platform.edge.cli", "run", path, "-w", workspace, "--workers", "2"]
    driver = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 180
    assert driver.stdout is not None
    for line in driver.stdout:
        if line.startswith("[3/8]") or time.monotonic() > deadline:
            break
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    done = json.loads(crossfold("plan", path, "-w", workspace, "--json")[1])["done"]
    assert 3 <= done < 8, "it was killed in the middle"
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert again.returncode == 0, again.stdout + again.stderr
    # Workers may finish the cell they hold in the second before they notice that their driver is gone.
    assert "killed: 8 cells, " in again.stdout
    assert done <= int(again.stdout.split("8 cells, ")[1].split(" done")[0]) <= 8

    from crossfold.datasets.store.feature_store import FeatureStore
    from crossfold.platform.core.layout import CELL_FILES
    from crossfold.platform.execution.run_cell import attempt_cell
    from crossfold.platform.workspace.workspace import Workspace
    from crossfold.sweeps.plan import expand
    from crossfold.sweeps.sweep_files import load

    alone = Workspace(place / "undisturbed")
    alone.paths.stores.parent.mkdir(parents=True)
    alone.paths.stores.symlink_to(workspace / "stores")
    store = FeatureStore(alone.find_store("synthetic"))
    cells = expand(load(path), store).cells
    for cell in cells:
        assert attempt_cell(cell, alone).status == "done"
        for name in set(CELL_FILES) - {"env.json"}:
            mine = (workspace / "cells" / cell.cell_id / name).read_bytes()
            assert mine == (alone.paths.cell(cell.cell_id) / name).read_bytes(), (cell.label, name)
    assert one_run_each(workspace, {cell.cell_id for cell in cells})


def one_run_each(workspace, cells):
    """Every cell has exactly one MLflow run, finished."""
    return runs_of(workspace, "killed") == [(cell, "FINISHED") for cell in sorted(cells)]


def runs_of(workspace, sweep):
    """Cell and status of every run in the experiment of a sweep."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{workspace / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(sweep)
    runs = [run for run in client.search_runs([experiment.experiment_id]) if "cell_id" in run.data.tags]
    return sorted((run.data.tags["cell_id"], run.info.status) for run in runs)
