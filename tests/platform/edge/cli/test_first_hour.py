"""What the commands print to somebody who uses Crossfold for the first time."""

import json
import re
import shlex

import pandas as pd
import pytest
import yaml

from tests.support.factories import TINY_SETTINGS, synthetic_workspace, write_sweep

TINY = TINY_SETTINGS | {"epochs": 1, "stress": "none"}


@pytest.fixture
def space(tmp_path):
    return synthetic_workspace(tmp_path / "work").root


@pytest.fixture
def own_corpus(crossfold, tmp_path):
    """A workspace whose only corpus, `tired`, is somebody's own, with one finished cell of its own target."""
    import numpy as np

    data = tmp_path / "data"
    data.mkdir()
    generator = np.random.default_rng(0)
    rows = []
    for number in range(6):
        labels = np.clip(5 + np.cumsum(generator.normal(size=80)), 0, 10)
        audio, visual = (np.outer(labels - 5, np.ones(width)).astype("float32") for width in (3, 4))
        np.savez(data / f"c{number}.npz", audio=audio, visual=visual)
        pd.DataFrame({"time": np.arange(80) / 25, "fatigue": labels}).to_csv(data / f"c{number}.csv", index=False)
        partition = "train" if number < 4 else "validation"
        rows.append({"clip": f"c{number}", "subject": number, "partition": partition, "rate": 25})
        rows[-1] |= {"features": f"c{number}.npz", "labels": f"c{number}.csv"}
    pd.DataFrame(rows).to_csv(data / "manifest.csv", index=False)
    (data / "manifest.yaml").write_text("name: tired\ntargets:\n  fatigue: {low: 0, high: 10}\n")
    code, out, err = crossfold("prepare", "manifest", "--root", data, "-w", tmp_path / "own")
    assert code == 0, err
    return tmp_path / "own", out


def ran(crossfold, space, path, **changes):
    path = write_sweep(path, **{"set": TINY, "seeds": [0], **changes})
    code, out, err = crossfold("run", path, "-w", space, "--workers", 0)
    assert code == 0, out + err
    return out


def test_lines_of_a_run_name_the_variant_also_when_one_variant_is_left(crossfold, space, tmp_path):
    path = tmp_path / "two.yaml"
    write_sweep(path, set=TINY, seeds=[0], systems=[{"rjca": {"iterations": [1, 2]}}], targets=["valence"])
    for left in (1, 2):
        code, out, err = crossfold("run", path, "-w", space, "--workers", 0, "--only", f"iterations={left}")
        assert code == 0, err
        assert re.search(rf"\[1/1\] done +rjca iterations={left} valence fold 0 seed 0", out), out
        assert out.splitlines()[-1] == f"next: {shlex.join(['crossfold', 'report', '-w', str(space)])}"


def test_variants_that_are_skipped_for_one_reason_are_one_line(crossfold, space, tmp_path):
    out = ran(crossfold, space, tmp_path / "s.yaml", systems=["concat", "unimodal_text", "rjcma"])
    (line,) = (line for line in out.splitlines() if line.startswith("skipped"))
    assert line.startswith("skipped unimodal_text: needs text") or line.startswith("skipped unimodal_text, rjcma: ")


def test_a_plan_has_words_as_heads_and_counts_the_start_of_workers(crossfold, space, tmp_path):
    from crossfold.platform.execution.cost_history import save_startup
    from crossfold.platform.workspace.workspace import Workspace

    path = write_sweep(tmp_path / "plan.yaml", set=TINY, seeds=[0], systems=["concat"])
    code, out, err = crossfold("plan", path, "-w", space, "--workers", 2)
    assert code == 0, err
    assert "to run" in out and "_" not in out.splitlines()[2]
    before = json.loads(crossfold("plan", path, "-w", space, "--workers", 2, "--json")[1])
    save_startup(Workspace(space), before["startup_seconds"] + 3600)
    after = json.loads(crossfold("plan", path, "-w", space, "--workers", 2, "--json")[1])
    assert after["predicted_hours"] == pytest.approx(before["predicted_hours"] + 1, abs=0.01)
    ran(crossfold, space, path, systems=["concat"])
    done = json.loads(crossfold("plan", path, "-w", space, "--json")[1])
    assert (done["to_run"], done["predicted_hours"]) == (0, 0)


def test_prepare_ends_with_the_command_that_trains_on_the_store(crossfold, own_corpus):
    space, said = own_corpus
    command = shlex.split(said.splitlines()[-1].removeprefix("next: "))
    assert command == [
        "crossfold",
        "run",
        "demo",
        "--set",
        "corpus=tired",
        "--set",
        "targets=[fatigue]",
        "-w",
        str(space),
    ]
    code, out, err = crossfold("plan", *command[2:])
    assert code == 0, out + err


def test_a_page_about_an_own_corpus_has_no_tables_of_papers(crossfold, own_corpus, tmp_path):
    space, _ = own_corpus
    settings = {"set": TINY | {"loss": {"scope": "batch"}}, "corpus": "tired", "targets": ["fatigue"]}
    ran(crossfold, space, tmp_path / "own.yaml", systems=["concat"], **settings)
    code, out, err = crossfold("report", "-w", space, "--no-figures")
    assert code == 0, err
    files = {path.name for path in (space / "reports").iterdir()}
    assert files == {"report.html", "leaderboard.md", "leaderboard.tex", "leaderboard.csv"}
    assert "claims" not in out and "nothing run for" not in out
    page = (space / "reports" / "report.html").read_text()
    assert "fatigue" in page and "Published" not in page
    # Who asks for one gets it.
    code, out, err = crossfold(
        "report", "grjca-t2", "-w", space, "--no-figures", "--format", "md", "--out", tmp_path / "t"
    )
    assert code == 0, err
    assert (tmp_path / "t" / "grjca-t2.md").is_file()


def test_report_of_a_sweep_holds_its_cells_alone(crossfold, space, tmp_path):
    ran(crossfold, space, tmp_path / "a.yaml", name="first", systems=["concat"])
    ran(crossfold, space, tmp_path / "b.yaml", name="second", systems=["unimodal_audio"])
    for given in ("second", tmp_path / "b.yaml"):
        code, _, err = crossfold(
            "report", given, "-w", space, "--no-figures", "--format", "csv", "--out", tmp_path / "r"
        )
        assert code == 0, err
        table = pd.read_csv(tmp_path / "r" / "leaderboard.csv")
        assert set(table["system"]) == {"unimodal_audio"}
    code, _, err = crossfold("report", "secnd", "-w", space)
    assert code == 2 and "did you mean 'second'" in " ".join(err.split())


def test_report_takes_the_titles_of_plugins(crossfold, space, tmp_path, own_registries, monkeypatch):
    from crossfold.reports.results.systems import LOADED_TITLES

    # What the command adds is gone after the test.
    monkeypatch.setitem(LOADED_TITLES, "mine", "")
    del LOADED_TITLES["mine"]
    assert crossfold("new", "system", "mine", "--out", tmp_path)[0] == 0
    ran(crossfold, space, tmp_path / "a.yaml", name="first", systems=["concat"])
    write_sweep(tmp_path / "b.yaml", name="second", set=TINY, seeds=[0], systems=["mine"])
    # Planned only: no finished cell has recorded the title.
    from crossfold.platform.core.registry import load_plugin
    from crossfold.platform.workspace.workspace import Workspace
    from crossfold.sweeps.launched import remember_sweep
    from crossfold.sweeps.prepared import prepare_cells, read_sweep

    load_plugin(tmp_path / "mine.py")
    remember_sweep(prepare_cells(read_sweep(str(tmp_path / "b.yaml"), ()), Workspace(space)), Workspace(space))
    report = ("report", "leaderboard", "-w", space, "--no-figures", "--format", "csv")
    assert crossfold(*report)[0] == 0
    assert "mine" in set(pd.read_csv(space / "reports" / "leaderboard.csv")["row"])
    assert crossfold(*report, "--plugin", tmp_path / "mine.py")[0] == 0
    assert "Mine" in set(pd.read_csv(space / "reports" / "leaderboard.csv")["row"])


@pytest.mark.parametrize(
    ("given", "spread"),
    [
        ("run a --only x=1 y=2,3 -w z", "run a --only x=1 --only y=2,3 -w z"),
        ("rescore a --only x=1 y=2 --json", "rescore a --only x=1 --only y=2 --json"),
        ("run --only=x=1 y=2 a", "run --only=x=1 --only y=2 a"),
        ("run a --only nonsense y=2", "run a --only nonsense --only y=2"),
        ("run a x=1 --only y=2", "run a x=1 --only y=2"),
        ("run a --set x=1 --only y=2 --set z=3", "run a --set x=1 --only y=2 --set z=3"),
    ],
)
def test_only_takes_several_conditions_in_every_command(given, spread):
    from crossfold.platform.edge.cli.app import _spread_conditions

    assert _spread_conditions(given.split()) == spread.split()


def test_a_launched_sweep_is_known_by_its_name_when_its_file_is_gone(crossfold, space, tmp_path):
    path = tmp_path / "two.yaml"
    ran(crossfold, space, path, name="mine", systems=[{"rjca": {"iterations": [1, 2]}}], targets=["valence"])
    path.unlink()
    code, out, err = crossfold("plan", "mine", "-w", space, "--json")
    assert code == 0, err
    assert [json.loads(out)[key] for key in ("cells", "done")] == [2, 2]
    assert "mine: all 2 cells are done" in crossfold("run", "mine", "-w", space, "--workers", 0)[1]
    more = json.loads(crossfold("plan", "mine", "-w", space, "--set", "seeds=[0, 1]", "--json")[1])
    assert (more["cells"], more["done"]) == (4, 2)
    table = tmp_path / "predictions.csv"
    code, _, err = crossfold("export", "mine", "-w", space, "--format", "csv", "--out", table)
    assert code == 0, err
    assert set(pd.read_csv(table)["system"]) == {"rjca"}


def test_rescoring_takes_several_conditions_after_one_option(crossfold, space, tmp_path):
    path = tmp_path / "two.yaml"
    ran(crossfold, space, path, systems=[{"rjca": {"iterations": [1, 2]}}], targets=["valence", "arousal"])
    look = ("rescore", path, "-w", space, "--post", "ca2021", "--stress", "none", "--json")
    code, out, err = crossfold(*look, "--only", "iterations=1", "target=valence")
    assert code == 0, err
    assert json.loads(out)["rescored"] == 1


def test_cite_of_a_workspace_has_what_ran_there(crossfold, space, tmp_path):
    code, _, err = crossfold("cite", "-w", space)
    assert code == 2 and "no finished cell to cite" in err
    ran(crossfold, space, tmp_path / "a.yaml", systems=["concat", "rjca"])
    code, out, _ = crossfold("cite", "--workspace", space)
    assert code == 0
    assert re.findall(r"^@\w+\{(\w+),", out, re.MULTILINE) == ["praveen2021ca", "praveen2023rjca"]
    code, _, err = crossfold("cite", "rjca", "--workspace", space)
    assert code == 2 and "leave one of them out" in err


def test_list_alone_names_what_can_be_listed(crossfold):
    code, out, _ = crossfold("list", "--json")
    kinds = {row["list"] for row in json.loads(out)}
    assert code == 0 and {"systems", "weights"} <= kinds
    code, out, _ = crossfold("list")
    assert code == 0 and all(kind in out for kind in kinds)


def test_findings_with_the_same_words_are_counted(crossfold, own_corpus, tmp_path):
    table = pd.read_csv(tmp_path / "data" / "manifest.csv")
    for name in table["clip"]:
        (tmp_path / "data" / f"{name}.npz").unlink()
    code, out, _ = crossfold("validate", "manifest", "--root", tmp_path / "data")
    assert code == 2 and "and 5 more" in out and "6 errors" in out
    code, out, _ = crossfold("validate", "manifest", "--root", tmp_path / "data", "--json")
    assert sum(row["severity"] == "error" for row in json.loads(out)["findings"]) == 6


def test_after_the_demo_the_leaderboard_and_the_next_steps_are_shown(crossfold, space, tmp_path):
    import typer

    from crossfold.platform.edge.cli.app import app
    from crossfold.platform.edge.cli.run import NEXT_STEPS
    from crossfold.platform.workspace.workspace import Workspace
    from crossfold.reports.build import build_report
    from crossfold.reports.tables.summary import leaderboard_rows

    ran(crossfold, space, tmp_path / "a.yaml", systems=["concat", "rjca"], targets=["valence", "arousal"])
    report = build_report(Workspace(space), figures=False)
    (board,) = report.leaderboards
    rows = leaderboard_rows(board)
    assert [row["system"] for row in rows] == [line.label for line in board.lines]
    assert {row["system"] for row in rows} == {"Concatenation", "RJCA"}
    assert all(re.fullmatch(r"-?\d\.\d{3}", row["valence"]) for row in rows)
    group = typer.main.get_command(app)
    named = [command.split()[1] for command, _ in NEXT_STEPS]
    assert {"new", "predict"} <= set(named) <= set(group.commands)


def test_a_shell_that_does_not_find_the_command_is_shown_how(tmp_path, monkeypatch):
    from crossfold.platform.edge.cli import run

    script, command = tmp_path / "my venv" / "bin" / "activate", tmp_path / "path" / "crossfold"
    for file in (script, command):
        file.parent.mkdir(parents=True)
        file.touch(mode=0o755)
    monkeypatch.setattr(run.sys, "prefix", str(tmp_path / "my venv"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    (step,) = run._activation()
    assert step[0] == "source 'my venv/bin/activate'"
    monkeypatch.setenv("PATH", str(command.parent))
    assert run._activation() == []


def test_a_sweep_of_data_that_are_not_there_offers_the_corpus_without_a_licence(crossfold, space, tmp_path):
    (tmp_path / "s.yaml").write_text(
        yaml.safe_dump({"name": "s", "corpus": "affwild2", "recipe": "demo", "systems": ["ca"]})
    )
    code, _, err = crossfold("run", tmp_path / "s.yaml", "-w", space)
    assert code == 2
    assert "--set corpus=puppets --set recipe=demo (`crossfold demo` prepares it)" in " ".join(err.split())
    code, _, err = crossfold("run", tmp_path / "s.yaml", "-w", space, "--set", "corpus=puppets")
    assert code == 2
    assert "--set corpus=puppets" not in err
