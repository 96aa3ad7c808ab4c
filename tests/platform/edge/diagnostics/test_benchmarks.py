"""Benchmarks are collected from the tests of a clone, and two results are compared by their quartiles."""

import json
import subprocess
import sys
from dataclasses import asdict, replace

import pytest

from crossfold.platform.core.errors import UserError
from crossfold.platform.edge.diagnostics import benchmarks
from crossfold.platform.edge.diagnostics.benchmarks import (
    BenchmarkRun,
    Figure,
    Ratio,
    comparison_rows,
    figure_rows,
    read_run,
)
from tests.support.paths import environment

FIRST = Ratio(name="epoch", rival="loop", ratio=2.0, low=1.9, high=2.1, turns=5, own=0.5, share=0.4, goal=3.0)
SHORT = Figure(name="tracking", value=0.2, unit="s a cell", why="nothing else tracks cells", share=None)
MACHINE = {"processor": "P", "load": 0.1}
RUN = """
import sys
from pathlib import Path
from crossfold.platform.edge.cli.app import main
from crossfold.platform.edge.diagnostics import benchmarks
benchmarks._ROOT = Path(sys.argv[1])
main(["bench", *sys.argv[2:]])
"""
SUITE = f"""
def test_fast(record_property):
    record_property("other", 1)
    record_property("{benchmarks.PROPERTY}", {vars(FIRST)})
    record_property("{benchmarks.FIGURE}", {vars(SHORT)})

def test_broken():
    assert False

def test_interrupted():
    import os
    if "CROSSFOLD_TEST_INTERRUPT" in os.environ:
        raise KeyboardInterrupt
"""


@pytest.fixture
def clone(tmp_path):
    """A repository with two benchmarks, one of which does not pass."""
    folder = tmp_path / "clone" / "tests" / "benchmarks"
    folder.mkdir(parents=True)
    (folder.parent / "conftest.py").write_text(
        "def pytest_addoption(parser):\n    parser.addoption('--benchmarks', action='store_true')\n"
    )
    (folder.parents[1] / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    (folder / "test_suite.py").write_text(SUITE)
    return folder.parents[1]


@pytest.fixture
def run(clone):
    """Runs `crossfold bench` in that clone, in a process of its own: pytest does not run within pytest."""

    def command(place, *options, **variables):
        arguments = [sys.executable, "-c", RUN, str(clone), "--json", str(place), *options]
        return subprocess.run(arguments, env=environment(**variables), capture_output=True, text=True)

    return command


def test_ratios_and_failures_are_collected_with_the_machine(run, tmp_path):
    done = run(tmp_path / "a.json")
    assert done.returncode == 1, done.stderr
    found = read_run(tmp_path / "a.json")
    assert (found.ratios, found.figures) == ((FIRST,), (SHORT,))
    assert [name.rpartition("::")[2] for name in found.failed] == ["test_broken"]
    assert found.machine["cores"] >= 1
    assert found.machine["processor"]
    assert run(tmp_path / "b.json", "--only", "fast").returncode == 0
    assert read_run(tmp_path / "b.json").failed == ()
    nothing = run(tmp_path / "c.json", "--only", "nothing")
    assert nothing.returncode == 2
    assert "no benchmark matches 'nothing'" in nothing.stderr
    assert "is a folder" in run(tmp_path).stderr


def test_what_was_measured_before_an_interruption_is_kept(run, tmp_path):
    done = run(tmp_path / "a.json", CROSSFOLD_TEST_INTERRUPT="1")
    assert done.returncode == 130
    assert read_run(tmp_path / "a.json").ratios == (FIRST,)
    assert str(tmp_path / "a.json") in done.stdout


def test_files_of_other_versions_are_read(tmp_path):
    written = BenchmarkRun("2026-01-01T00:00:00Z", MACHINE, (FIRST,)).as_json()
    del written["figures"]
    first = {name: value for name, value in asdict(FIRST).items() if name not in ("own", "unit", "goal")}
    path = tmp_path / "a.json"
    path.write_text(json.dumps({**written, "ratios": [{**first, "seconds": 0.5}]}))
    assert read_run(path).ratios == (replace(FIRST, goal=None),)
    path.write_text(json.dumps({**written, "ratios": [{**asdict(FIRST), "of a later version": 1}]}))
    assert read_run(path).ratios == (FIRST,)


def test_without_the_repository_the_sentence_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmarks, "_ROOT", tmp_path)
    with pytest.raises(UserError, match="bench needs the repository") as caught:
        benchmarks.run_benchmarks()
    assert "make bench" in caught.value.remedy


def test_only_what_leaves_the_quartiles_has_moved(tmp_path, crossfold):
    others = [replace(FIRST, name="start"), replace(FIRST, name="gone")]
    once = replace(FIRST, name="once", low=2.0, high=2.0, turns=1)
    before = BenchmarkRun("2026-01-01T00:00:00Z", MACHINE, (FIRST, *others, once), figures=(SHORT,))
    slower = replace(FIRST, ratio=1.5, low=1.4, high=1.8)
    noise = replace(others[0], ratio=2.2, low=2.05, high=2.3)
    after = BenchmarkRun(
        "2026-01-02T00:00:00Z", {**MACHINE, "processor": "Q"}, (slower, noise, replace(once, ratio=4.0))
    )
    after = replace(after, figures=(replace(SHORT, value=0.3), replace(SHORT, name="new")))
    rows = comparison_rows(before, after)
    moved = {"epoch": "slower", "start": "", "gone": "", "once": "too few turns"}
    assert {row["name"]: row["moved"] for row in rows} == moved
    assert [row["change"] for row in rows] == [pytest.approx(-0.25), pytest.approx(0.1), None, 1.0]
    figures = figure_rows(before, after)
    assert [(row["name"], row["change"]) for row in figures] == [("tracking", pytest.approx(0.5)), ("new", None)]
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    for path, each in zip(paths, (before, after), strict=True):
        path.write_text(json.dumps(each.as_json()))
    code, shown, _ = crossfold("bench", "--compare", *paths)
    assert code == 0
    assert "slower" in shown
    assert "too few turns" in shown
    assert "+50%" in shown
    assert "The processors differ: P, and Q." in shown
    paths[0].write_text("{}")
    code, _, said = crossfold("bench", "--compare", *paths)
    assert code == 2
    assert "is no result of `crossfold bench`" in said


def test_the_command_shows_shares_goals_and_figures_without_a_rival(tmp_path, crossfold, monkeypatch):
    found = BenchmarkRun("2026-01-01T00:00:00Z", MACHINE, (FIRST,), figures=(SHORT,))
    monkeypatch.setattr(benchmarks, "run_benchmarks", lambda only, keep: keep(found) or found)
    code, shown, _ = crossfold("bench", "--json", tmp_path / "a.json")
    assert code == 0
    for expected in ("2 (1.9 to 2.1)", "0.5 s", "40%", "0.2 s a cell", "Figures without a rival"):
        assert expected in shown
    assert read_run(tmp_path / "a.json") == found
