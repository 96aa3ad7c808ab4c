"""Recovery of what is known: a system that is the oracle gate, one with a random gate, and a report on both."""

import csv
import importlib
import io
from types import SimpleNamespace

import pytest

from crossfold.datasets.corpora.clips import VALENCE_AROUSAL
from crossfold.datasets.corpora.embedded.dose import PuppetDose, SyntheticDose
from crossfold.datasets.corpora.embedded.episodes import clip_infos, make_clip
from crossfold.datasets.corpora.partitions import Fold
from crossfold.datasets.store.feature_store import StoreSpec, write_store
from crossfold.fusion_models import catalogue
from crossfold.fusion_models.catalogue import systems
from crossfold.platform.core.errors import UserError
from crossfold.platform.execution.run_cell import attempt_cell
from crossfold.platform.workspace.workspace import Workspace
from crossfold.reports.build import build_report, choose
from crossfold.reports.doses.findings import dose_verdicts
from crossfold.reports.doses.first_verdicts import first_verdicts
from crossfold.reports.doses.scores import _simpler, dose_axes, dose_points
from crossfold.reports.doses.section import embedded_label
from crossfold.reports.results.load import load_results
from crossfold.reports.stats.intervals import Gain, Spread
from crossfold.sweeps.launched import remember_sweep
from crossfold.sweeps.prepared import prepare_cells
from crossfold.sweeps.sweep_files import Sweep

LINEAR = {
    "temporal.kind": "identity",
    "head.layers": 0,
    "head.output": "linear",
    "optimizer.lr": 0.02,
    "optimizer.weight_decay": 0.0,
    "optimizer.plateau_patience": 1,
    "optimizer.clip_norm": None,
    "batch": 100,
    "epochs": 16,
    "selection": "reported",
}


def run(space, **asked):
    data = {"recipe": "dose", "targets": ["valence"], "seeds": [0, 1, 2], "set": LINEAR} | asked
    prepared = prepare_cells(Sweep.parse(data, "test"), space)
    remember_sweep(prepared, space)
    for cell in prepared.missing:
        outcome = attempt_cell(cell, space)
        assert outcome.status == "done", outcome.failure


@pytest.fixture(scope="module")
def oracle_gate():
    """The oracle gate is a system while these tests run, and not for others in this process."""
    list(systems)
    with pytest.MonkeyPatch.context() as patch:
        for owner, name in ((systems, "_entries"), (systems, "_origins"), (catalogue, "_files")):
            patch.setattr(owner, name, dict(getattr(owner, name)))
        importlib.import_module("tests.support.oracle_gate")
        yield


@pytest.fixture(scope="module")
def space(tmp_path_factory, oracle_gate):
    """The oracle gate and the random gate on 400 clips, and two systems at two doses of a few."""
    space = Workspace(tmp_path_factory.mktemp("doses"))
    large = {"name": "synthetic", "conflict": 0.4, "clips": 400, "truth": ["oracle", "shuffled"]}
    run(space, name="recovery", corpus=large, systems=["oracle_gate"])
    few = {"name": "synthetic", "conflict": [0.1, 0.3], "clips": 8, "validation": 6, "frames": 80}
    run(space, name="few", corpus=few, systems=["rjca", "rjca+dca"], set={"epochs": 2}, joint_targets=True)
    return space


@pytest.fixture(scope="module")
def points(space):
    return dose_points(load_results(space), space)


def test_the_oracle_gate_reaches_the_ceiling_and_a_random_gate_gains_nothing(points):
    oracle, shuffled = (next(p for p in points if p.dose.truth == truth) for truth in ("oracle", "shuffled"))
    for point, expected, margin in ((oracle, 1.0, 0.05), (shuffled, 0.0, 0.03)):
        (score,) = point.systems
        ceiling, fixed = point.ceilings["oracle"], point.ceilings["fixed"]
        assert (score.ccc - fixed) / (ceiling - fixed) == pytest.approx(expected, abs=margin)
        assert score.share.interval.low < score.share.mean < score.share.interval.high
    assert oracle.ceilings["oracle"] > oracle.ceilings["ideal"] > oracle.ceilings["fixed"] + 0.05
    assert oracle.systems[0].errors["conflict"] < shuffled.systems[0].errors["conflict"] - 0.1


def test_what_varies_alone_is_an_axis(points):
    axes = {axis.parameter: axis for axis in dose_axes([p for p in points if p.dose.clips == 8])}
    assert set(axes) == {"conflict"}
    assert axes["conflict"].values == [0.1, 0.3]
    ((score, slope),) = axes["conflict"].slopes()
    gains = [point.by_system["rjca+dca"].gain.mean for point in axes["conflict"].points]
    assert score.base == "rjca"
    assert slope.mean == pytest.approx((gains[1] - gains[0]) / 0.2)
    assert 0 <= slope.p <= 1
    for point in axes["conflict"].points:
        base, gated = (point.by_system[name] for name in ("rjca", "rjca+dca"))
        assert set(gated.places) == set(base.errors) == {"good", "conflict"}
        for kind, gain in gated.places.items():
            assert gain.mean == pytest.approx(base.errors[kind] - gated.errors[kind])
        assert gated.places["good"].low < gated.places["good"].mean < gated.places["good"].high
        assert not base.places
        assert (base.simpler, gated.simpler, base.over_simpler) == ("", base.name, None)
        assert gated.over_simpler.mean == pytest.approx(gated.gain.mean)
    assert all(0 <= point.by_system["rjca+dca"].gate.auroc <= 1 for point in axes["conflict"].points)


def test_the_report_has_files_and_a_part_of_the_page(space, tmp_path):
    built = build_report(space, tables=["dose"], out=tmp_path, formats=("html", "md", "csv"))
    words = (tmp_path / "dose.md").read_text()
    assert "Share of the way to the ideal observer" in words and "Where gains arise" in words
    for finding in (
        "Gains over a simpler system",
        "gains of a gate over the system without it",
        "slope of a gain",
        "AUROC between",
    ):
        assert finding in words, finding
    assert "oracle_gate" in built.summary or "Oracle gate" in built.summary
    rows = list(csv.DictReader(io.StringIO((tmp_path / "dose.csv").read_text())))
    fixed = [row for row in rows if row["variant"] == "observer fixed"]
    assert {row["dose_truth"] for row in fixed} == {"oracle", "shuffled", "none"}
    assert {figure.id for figure in built.page.figures} >= {"dose-gain", "dose-auroc"}
    page = (tmp_path / "report.html").read_text()
    assert "gains of a gate over the system without it" in page
    assert "<li>Gate: " in page.partition("<main")[0], "on the first screen"
    assert 'id="part-doses"' in page and "not the papers' data" in page.replace("&#39;", "'")
    assert not (tmp_path / "dca-t1.md").exists(), "the papers' tables have nothing to say of a dose"


@pytest.fixture(scope="module")
def puppets(tmp_path_factory):
    """One system on two corpora that count as puppets: their clips are synthetic; one has too few to estimate from."""
    space = Workspace(tmp_path_factory.mktemp("puppets"))
    for conflict, clips in ((0.4, 24), (0.2, 6)):
        dose = SyntheticDose(conflict=conflict, clips=clips, validation=6, frames=200)
        infos = tuple(clip_infos(dose))
        train, reported = (tuple(i.name for i in infos if i.partition == part) for part in ("train", "validation"))
        spec = StoreSpec(
            corpus=f"puppets-dose-conflict={conflict}",
            layout="a test",
            targets=VALENCE_AROUSAL,
            clips=infos,
            origin={},
            folds=(Fold(0, train, reported),),
        )
        write_store(space.paths.stores, spec, lambda info, dose=dose: make_clip(dose, info))
    corpus = {"name": "puppets", "conflict": [0.2, 0.4]}
    run(space, name="films", corpus=corpus, systems=["concat"], set={"epochs": 1}, joint_targets=True, seeds=[0])
    return space


def test_ceilings_of_puppets_are_estimated_and_where_that_cannot_be_the_report_says_why(puppets, tmp_path):
    few, enough = dose_points(load_results(puppets), puppets)
    assert enough.ceiling_origin == "estimated"
    ccc = enough.ceilings
    assert ccc["fixed"] + 0.02 < ccc["ideal"] < ccc["oracle"] + 0.01
    assert max(ccc["audio"], ccc["visual"]) < ccc["ideal"]
    assert enough.systems[0].share is not None
    assert set(enough.systems[0].errors) == set(enough.ceiling_errors["oracle"]) == {"good", "conflict"}
    assert (few.ceilings, few.systems[0].share) == ({}, None)
    assert few.systems[0].errors.keys() == {"good", "conflict"}, "where errors are is known without a ceiling"
    build_report(puppets, tables=["films"], out=tmp_path, formats=("md",))
    words = (tmp_path / "dose.md").read_text()
    assert "On puppets the best fixed weights and the ideal observer are estimated" in words
    assert "At conflict 0.2 there is no ceiling: 8 training clips are needed to estimate it, and fold 0 has 6." in words
    assert {path.name.partition("-")[0] for path in tmp_path.iterdir()} == {"dose.md", "leaderboard"}, (
        "no paper has a number of a dose, and no claim is judged on one"
    )


def test_a_system_is_held_against_the_next_simpler_one():
    ran = ["unimodal_audio", "unimodal_visual", "concat", "rjca", "rjca+dca"]
    found = {name: _simpler(name, "rjca" if name == "rjca+dca" else "", "unimodal_visual", ran) for name in ran}
    assert found == {
        "unimodal_audio": "",
        "unimodal_visual": "",
        "concat": "unimodal_visual",
        "rjca": "concat",
        "rjca+dca": "rjca",
    }
    assert _simpler("rjca", "", "unimodal_visual", ["rjca", "unimodal_visual"]) == "unimodal_visual"
    assert _simpler("rjca", "", "", ["rjca"]) == ""


def test_clear_gains_and_losses_are_named_with_the_dose():
    def point(signs):
        scores = [
            SimpleNamespace(name=name, simpler="B", over_simpler=Gain(0.1 * sign, Spread(0.01, 30.0, True), 3))
            for name, sign in signs.items()
        ]
        return SimpleNamespace(dose=SyntheticDose(conflict=0.2), systems=scores)

    assert dose_verdicts([point({})]) == ""
    assert dose_verdicts([point({"A": 0})]).count(": none.") == 2
    words = dose_verdicts([point({"A": 1, "C": -1})])
    assert (
        "A beats B at conflict 0.2 (+0.100" in words
        and "C is beaten by B at conflict 0.2 (\N{MINUS SIGN}0.100" in words
    )
    assert dose_verdicts([point({"A": 1})]).endswith("Losses against one, by the same rule: none.")
    assert "; 2 more." in dose_verdicts([point({str(name): 1 for name in range(8)})])


def test_the_first_screen_has_the_clearest_verdict_of_each_kind():
    def score(system, mean, error, simpler="", base=""):
        return SimpleNamespace(
            system=system, name=system.upper(), simpler=simpler, base=base,
            over_simpler=Gain(mean, Spread(error, 30.0, True), 3) if simpler else None,
        )  # fmt: skip

    def point(conflict, *scores):
        return SimpleNamespace(dose=SyntheticDose(conflict=conflict), systems=scores)

    weak = point(0.1, score("concat", 0.001, 0.01, "V"), score("ca", -0.01, 0.001, "CONCAT"))
    strong = point(
        0.4, score("concat", 0.13, 0.01, "V"), score("ca", -0.06, 0.001, "CONCAT"),
        score("ca+dca", 0.001, 0.01, "CA", "ca"),
    )  # fmt: skip
    minus = "\N{MINUS SIGN}"
    assert first_verdicts([weak, strong]) == [
        "Fusion: CONCAT beats V (+0.130 [0.110, 0.150], p < 0.01) at conflict 0.4; 1 of 2 comparisons is clear.",
        f"Attention: CA is beaten by CONCAT ({minus}0.060 [{minus}0.062, {minus}0.058], p < 0.01) at conflict 0.4; "
        "2 of 2 comparisons are clear.",
        "Gate: whether CA+DCA beats CA at conflict 0.4 is open.",
    ]
    open_twice = [point(dose, score("ca+dca", 0.001, 0.01, "CA", "ca")) for dose in (0.1, 0.2)]
    assert first_verdicts(open_twice) == ["Gate: none of 2 comparisons is clear."]
    # Without concatenation nothing is said of attention over it.
    assert first_verdicts([point(0.1, score("ca", 0.5, 0.01, "V"))]) == []
    assert first_verdicts([point(0.1, score("concat", 0.5, 0.01))]) == []


def test_the_label_names_the_corpora_that_are_shown():
    synthetic, puppets = SyntheticDose(conflict=0.2), PuppetDose(conflict=0.2)
    assert "corpus: puppets with a dose" in embedded_label([puppets])
    assert "corpus: puppets and synthetic with a dose" in embedded_label([synthetic, puppets, synthetic])


def test_dose_without_a_launched_sweep_says_what_to_run(workspace):
    with pytest.raises(UserError, match="no sweep with doses") as caught:
        choose(workspace, ["dose"])
    assert "crossfold run dose-synthetic" in caught.value.remedy
