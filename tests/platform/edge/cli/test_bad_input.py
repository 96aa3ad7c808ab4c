"""Options and files that ask for too much are refused in a sentence, before anything is allocated or started."""

import sys

import pytest
import yaml
from typer.testing import CliRunner

from crossfold.platform.edge.cli.app import app, main
from tests.support.factories import synthetic_workspace, write_sweep

LAUGHS = (
    "{a: &a [x, x], b: &b ["
    + "*a, " * 40
    + "*a], c: &c ["
    + "*b, " * 40
    + "*b], d: &d ["
    + "*c, " * 40
    + "*c], e: ["
    + ("*d, " * 40)
    + "*d]}"
)


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    return synthetic_workspace(tmp_path_factory.mktemp("bad")).root


@pytest.fixture
def refused(capsys, monkeypatch):
    """Runs a command that must end with 2, and returns what it said in one line."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["crossfold", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        text = " ".join((said.out + said.err).split())
        assert ended.value.code == 2, text
        assert "Traceback" not in text and len(text) < 3000
        return text

    return run


@pytest.mark.parametrize(
    ("setting", "rule"),
    [
        ("seeds=" + "[" * 5000 + "]" * 5000, "lists or mappings in each other"),
        (f"targets={LAUGHS}", "more than 1,000,000 values"),
        ("seeds=[" + "7" * 5000 + "]", "cannot be read"),
        ("epochs=1000000000", "less than or equal to 1000000"),
        ("temporal.levels=1000000", "less than or equal to 16"),
        ("temporal.width=1000000000000", "less than or equal to 16384"),
        ("window=1000000000000", "less than or equal to 1000000"),
        ("devices=1000000000", "less than or equal to"),
        ("seeds=[99999999999999999999999]", "less than"),
    ],
    ids=lambda value: value[:16],
)
def test_a_setting_that_asks_for_too_much_is_refused(refused, space, tmp_path, setting, rule):
    sweep = write_sweep(tmp_path / "mine.yaml")
    assert rule in refused("plan", sweep, "-w", space, "--set", setting)


@pytest.mark.parametrize(
    ("systems", "rule"),
    [
        ([{"rjca": {"iterations": 10**9}}], "less than or equal to 64"),
        ([{"lstm": {"lstm_layers": 10**6}}], "less than or equal to 64"),
        ([{"transformer": {"feedforward": 10**12}}], "less than or equal to 16384"),
    ],
    ids=["iterations", "layers", "width"],
)
def test_a_system_that_asks_for_too_much_is_refused(refused, space, tmp_path, systems, rule):
    sweep = write_sweep(tmp_path / "mine.yaml", systems=systems)
    assert rule in refused("plan", sweep, "-w", space)


@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_sweep_that_is_nested_a_hundred_thousand_times_does_not_end_the_process(refused, space, tmp_path, command):
    path = tmp_path / "deep.yaml"
    path.write_text("systems: " + "[" * 100_000 + "]" * 100_000)
    assert "in each other" in refused(command, path, "-w", space)


def test_a_recipe_that_is_nested_is_refused(refused, space, tmp_path):
    recipe = tmp_path / "deep-recipe.yaml"
    recipe.write_text("loss: " + "{a: " * 100_000 + "1" + "}" * 100_000)
    sweep = write_sweep(tmp_path / "mine.yaml", recipe=str(recipe))
    assert "in each other" in refused("plan", sweep, "-w", space)


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "demo", "--workers", "1000000000"),
        ("run", "demo", "--workers", "1" + "0" * 30),
        ("corpus", "synthetic", "OUT", "--frames", "1000000000000"),
        ("corpus", "synthetic", "OUT", "--clips", "1000000000000"),
        ("corpus", "synthetic", "OUT", "--seed", "-1"),
        ("corpus", "puppets", "OUT", "--seconds", "1e12"),
        ("mlflow", "ui", "--port", "99999999"),
    ],
    ids=" ".join,
)
def test_a_count_beyond_all_use_is_refused_by_its_option(refused, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    text = refused(*arguments)
    assert "Input should be" in text and arguments[-2] in text
    assert list(tmp_path.iterdir()) == []


def test_a_workspace_with_nul_is_refused(refused):
    assert "NUL" in refused("status", "-w", "a\0b")


@pytest.mark.parametrize("raised", ["class E(BaseException): pass\nraise E('x')", "raise SystemExit(0)", "exit()"])
def test_a_plugin_that_raises_anything_is_named(refused, space, tmp_path, raised):
    plugin = tmp_path / "mine.py"
    plugin.write_text(raised)
    text = refused("plan", write_sweep(tmp_path / "s.yaml"), "-w", space, "--plugin", plugin)
    assert "mine.py, line" in text


def test_a_sweep_within_the_limits_is_planned(space, tmp_path):
    sweep = write_sweep(tmp_path / "mine.yaml", seeds=list(range(200)))
    done = CliRunner().invoke(app, ["plan", str(sweep), "-w", str(space)])
    assert done.exit_code == 0, done.output
    assert "800" in done.output
    assert yaml.safe_load(sweep.read_text())["seeds"][-1] == 199
