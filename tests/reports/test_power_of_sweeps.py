"""`crossfold power`: the forecast of a finished sweep, its printed gains, and what it refuses."""

import json

import pytest
from typer.testing import CliRunner

from crossfold.platform.core.errors import UserError
from crossfold.platform.edge.api.workspace import power
from crossfold.platform.edge.cli.app import app
from crossfold.reports.build import build_tables
from crossfold.reports.power import forecast_power
from crossfold.reports.results.load import load_results
from crossfold.reports.tables.claims import claims_grid, judge
from tests.support import lab


@pytest.fixture(scope="module")
def forecast(finished):
    return forecast_power(finished, "demo", 0.05)


def test_each_target_has_variances_a_chance_and_what_is_needed(forecast):
    assert [each.target for each in forecast.targets] == ["valence", "arousal"]
    for each in forecast.targets:
        assert (each.pairs, each.comparisons, each.design.seeds) == (45, 90, 3)
        assert 0 < each.power.low < each.power.chance < each.power.high < 1
        assert each.smallest_gain > each.gain  # as the chance is below 80 %
        assert each.needed["seeds"] > 3
        plans = [plan["videos"] or 10**9 for plan in each.plans]
        assert plans == sorted(plans, reverse=True)


def test_printed_gains_have_the_chance_that_claims_show(finished, forecast):
    found = {(each["claim"], each["target"], each["comparison"]): each for each in forecast.printed}
    assert len(found) == len(forecast.printed) > 10
    assert all(each["printed_gain"] > 0 and 0 <= each["low"] <= each["high"] <= 1 for each in forecast.printed)
    results = load_results(finished)
    (verdict,) = (
        v for v in judge(results, build_tables(results, ["dca-t1"])) if v.claim.id == "dca-improves-every-base"
    )
    for line in verdict.comparisons:
        if line.gain:  # TCA did not run
            own = found[verdict.claim.id, line.target, line.label]
            assert own["chance"] == line.power.chance
    grid = claims_grid([verdict])
    shown = grid.rows[0][grid.heads.index("Power of the paper")]
    assert shown.text.count("%") == 2
    assert shown.sort == min(line.power.chance for line in verdict.comparisons if line.power)


def test_the_command_prints_what_python_gives(finished, forecast):
    asked = ["power", "demo", "--gain", "0.05", "-w", str(finished.root)]
    printed = CliRunner().invoke(app, [*asked, "--json"])
    assert json.loads(printed.stdout) == json.loads(json.dumps(forecast.as_dict()))
    text = CliRunner().invoke(app, asked).stdout
    assert "a true gain of 0.05 has a power of" in text
    assert "dca-improves-every-base" in text
    pair = power("demo", 0.05, pair=("rjca+dca", "rjca"), workspace=finished.root)
    assert {each.pairs for each in pair.targets} == {1}


@pytest.mark.parametrize(
    ("gain", "pair", "words"),
    [
        (0.0, (), "between 0 and 2"),
        (float("nan"), (), "between 0 and 2"),
        (0.01, ("rjca", "rjcaa"), "did you mean"),
        (0.01, ("rjca", "rjca"), "at least two systems"),
    ],
)
def test_an_impossible_question_is_refused(finished, gain, pair, words):
    with pytest.raises(UserError, match=words):
        forecast_power(finished, "demo", gain, pair)


@pytest.mark.parametrize(
    ("shape", "skip", "words"),
    [
        ({"folds": (0,), "seeds": (0, 1, 2)}, 1, "not finished: 11 of 12 runs"),
        ({"folds": (0,), "seeds": (0,)}, 0, "has one seed"),
    ],
)
def test_too_little_is_refused_with_the_remedy(workspace, shape, skip, words):
    store = lab.make_store(workspace.root)
    systems = (lab.Fake("ca", {"residual": "tanh"}, 0.2), lab.Fake("concat", {}, 0.3))
    cells = lab.cells_of(store, systems, **shape)
    lab.launch(workspace, store, [cell for cell, _ in cells])
    for cell, noise in cells[: len(cells) - skip]:
        lab.finish(workspace, store, cell, noise)
    with pytest.raises(UserError, match=words):
        forecast_power(workspace, "demo", 0.01)
    with pytest.raises(UserError, match=r"no sweep 'dem'.*did you mean"):
        forecast_power(workspace, "dem", 0.01)
