"""Claims of the papers: declared as data, judged on paired runs, never on fewer than all of them."""

import csv
import dataclasses
import io
import re

import pytest

from crossfold.reports.all_tables import build_tables
from crossfold.reports.results.load import load_results
from crossfold.reports.stats.hypothesis_tests import Family
from crossfold.reports.tables.claims import (
    CONTRADICTED,
    NOT_SUPPORTED,
    NOT_YET,
    SUPPORTED,
    UNTESTABLE,
    all_claims,
    claims_grid,
    compared_cells,
    comparisons_grid,
    count_words,
    judge,
)
from crossfold.reports.tables.claims_formats import claims_csv, claims_latex, claims_markdown
from crossfold.reports.tables.published import declared, table_ids, table_spec
from crossfold.reports.tables.summary import summary
from crossfold.sweeps.recipe_files import load_recipe
from tests.support import lab

STATES_RESULTS = {
    "dca2024": {"1", "3 C", "4 C", "4 E", "4 F"},
    "grjca2025": {"1", "5.1", "5.2", "5.3", "6"},
    "rjcma2024": {"2.2", "5.1", "5.2", "5.3"},
    "grjca2025v1": {"3"},
    "ca2021": {"III C", "V A", "V C", "V D"},
}
"""The sections of each paper that say something about results, by the headings in print (the DCA paper has no 4 D)."""
TWO_STAGES = {"residual": "tanh", "stages": 2, "dense": False}


def verdict_of(workspace, claim):
    results = load_results(workspace)
    found = next(each for each in all_claims() if each.id == claim)
    return next(v for v in judge(results, build_tables(results, [found.table])) if v.claim.id == claim)


def run(workspace, noises, *, skip=0, **other):
    """Runs CA with one and two stages; less noise is better."""
    store = lab.make_store(workspace.root, other.pop("corpus", "puppets"))
    params = {"ca": {"residual": "tanh"}, "ca_2stage": TWO_STAGES}
    variants = tuple(lab.Fake(system, params[system], noise) for system, noise in noises.items())
    cells = lab.cells_of(store, variants, **{"folds": (0,), "seeds": tuple(range(6)), **other})
    lab.launch(workspace, store, [cell for cell, _ in cells], recipe=cells[0][0].recipe)
    for cell, noise in cells[: len(cells) - skip]:
        lab.finish(workspace, store, cell, noise)


def test_every_claim_names_cells_that_are_printed_and_measurable():
    claims = all_claims()
    assert len({claim.id for claim in claims}) == len(claims) > 20
    assert {claim.paper for claim in claims} == set(declared().papers)
    for claim in claims:
        assert claim.table in table_ids()
        for comparison in claim.comparisons:
            for sides in compared_cells(claim, comparison).values():
                spec = table_spec(claim.table)
                rows = {each.label: each for each in spec.rows}
                for row, column in (*sides.better, *sides.base):
                    assert not spec.asked(rows[row], spec.columns[column]).why_not, f"{claim.id}: {row} is unmeasurable"
                # The same system on two stores, and on two folds, is two.
                made = [
                    (spec.asked(rows[row], spec.columns[column]), rows[row].sweep)
                    for row, column in (*sides.better, *sides.base)
                ]
                assert all(made[0] != other for other in made[1:]), f"{claim.id}: both sides are one"


@pytest.mark.parametrize("claim", all_claims(), ids=lambda claim: claim.id)
def test_a_claim_cites_its_table_and_sections_that_speak_of_results(claim):
    cited = re.search(r"Sections? (.+?)(?:(?:,| and) (?:Table|the supplement)|$)", claim.where)
    assert bool(cited) == ("Section" in claim.where), claim.where
    assert set(cited[1].split(" and ") if cited else ()) <= STATES_RESULTS[claim.paper], claim.where
    if not table_spec(claim.table).printed:
        assert "Table" not in claim.where
        return
    number = table_spec(claim.table).number.removeprefix("Table ")
    assert re.search(rf"Tables? ([\dIV]+ and )?{number}\b", claim.where), claim.where


def test_a_claim_that_names_nothing_printed_is_refused():
    claim = next(claim for claim in all_claims() if claim.id == "two-stages-help")
    wrong = claim.comparisons[0].model_copy(update={"base": "Nothing | fusion"})
    with pytest.raises(KeyError, match="no printed row 'Nothing'"):
        compared_cells(claim, wrong)
    wrong = claim.comparisons[0].model_copy(update={"base": "Proposed Approach, Cross-Attention | smell"})
    with pytest.raises(KeyError, match="no target in common"):
        compared_cells(claim, wrong)


@pytest.mark.parametrize(
    ("noises", "says"),
    [
        ({"ca": 0.9, "ca_2stage": 0.3}, SUPPORTED),
        ({"ca": 0.3, "ca_2stage": 0.9}, CONTRADICTED),
        ({"ca": 0.4, "ca_2stage": 0.39}, NOT_SUPPORTED),
    ],
)
def test_verdicts_follow_the_paired_runs(workspace, noises, says):
    run(workspace, noises)
    verdict = verdict_of(workspace, "two-stages-help")
    assert verdict.says == says
    assert [each.target for each in verdict.comparisons] == ["valence", "arousal"]
    for each in verdict.comparisons:
        assert each.gain.n == 6
        assert each.gain.family == Family(2, 2)
        assert each.printed == pytest.approx(0.005 if each.target == "valence" else 0.003)
    assert not verdict.comparable
    assert "(1 measured on other data, folds or recipes than the paper's: puppets)" in count_words([verdict])


def run_one(workspace, system, params, noise_of_fold, corpus="puppets"):
    """Runs one system on some folds with three seeds."""
    store = lab.make_store(workspace.root, corpus)
    cells = lab.cells_of(store, (lab.Fake(system, params, 0.5),), folds=tuple(noise_of_fold))
    lab.launch(workspace, store, [cell for cell, _ in cells])
    for cell, _ in cells:
        lab.finish(workspace, store, cell, noise_of_fold[cell.fold])


@pytest.mark.parametrize(("official", "says"), [(1.5, SUPPORTED), (0.2, CONTRADICTED)])
def test_a_fold_is_compared_with_the_mean_of_the_others_without_pairs(workspace, official, says):
    run_one(workspace, "rjcma", {}, {0: official, 1: 0.7, 2: 0.6, 3: 0.6, 4: 0.5, 5: 0.5})
    verdict = verdict_of(workspace, "rjcma-fold-0-is-hard")
    assert verdict.says == says
    (line,) = verdict.comparisons
    cells = load_results(workspace).cells.query("target == 'valence'").groupby("fold")["ccc"].mean()
    assert line.gain.mean == pytest.approx(cells[1:].mean() - cells[0])
    assert line.printed == pytest.approx((0.585 + 0.467 + 0.536 + 0.432 + 0.463) / 5 - 0.455)
    assert (line.gain.n, line.effect) == (0, None)
    assert "of Fold 1, Fold 2, Fold 3, Fold 4 and Fold 5 over Fold 0" in line.label


@pytest.mark.parametrize("corpus", ["puppets", "affwild2"])
def test_a_baseline_of_an_abstract_counts_on_the_papers_corpus_alone(workspace, corpus):
    run_one(workspace, "rjcma", {}, {0: 0.4}, corpus)
    verdict = verdict_of(workspace, "rjcma-over-abaw-baseline")
    assert [line.printed for line in verdict.comparisons] == pytest.approx([0.455 - 0.240, 0.652 - 0.200])
    if corpus == "puppets":
        assert verdict.text == "not testable yet (0/2)"
        assert {line.verdict for line in verdict.comparisons} == {"only on Aff-Wild2, fold 0"}
    else:
        means = load_results(workspace).cells.groupby("target")["ccc"].mean()
        assert verdict.says == SUPPORTED
        assert [line.gain.mean for line in verdict.comparisons] == pytest.approx(
            [means["valence"] - 0.24, means["arousal"] - 0.2]
        )


@pytest.mark.parametrize(
    ("two", "says"), [(3e6, SUPPORTED), (1e6, CONTRADICTED), (2e6, NOT_SUPPORTED), (None, NOT_YET)]
)
def test_the_cheaper_system_takes_fewer_operations(workspace, two, says):
    run(workspace, {"ca": 0.5, "ca_2stage": 0.5})
    results = load_results(workspace)
    flops = results.cells["system"].map({"ca": 2e6, "ca_2stage": two}).astype(float)
    results = dataclasses.replace(results, cells=results.cells.assign(flops=flops))
    verdicts = judge(results, build_tables(results, ["ca-t3"]))
    verdict = next(each for each in verdicts if each.claim.id == "one-stage-is-cheaper")
    assert verdict.says == says
    assert says == NOT_YET or verdict.text == f"{says}: 2 against {two / 1e6:.0f} MFLOPs a window"


def test_a_claim_waits_until_every_comparison_is_complete(workspace):
    run(workspace, {"ca": 0.9, "ca_2stage": 0.3}, skip=1)
    verdict = verdict_of(workspace, "two-stages-help")
    assert (verdict.says, verdict.text) == (NOT_YET, "not testable yet (1/2)")
    assert next(each for each in verdict.comparisons if each.gain is None).verdict == "5/6 cells"


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_two_seeds_are_no_sample_of_seeds(workspace, seeds):
    run(workspace, {"ca": 0.9, "ca_2stage": 0.3}, seeds=seeds)
    verdict = verdict_of(workspace, "two-stages-help")
    assert verdict.text == "not testable yet (too few seeds or videos to say)"
    assert all(each.gain.mean > 0.05 for each in verdict.comparisons)


def test_one_clear_loss_contradicts_whatever_is_still_to_run(workspace):
    run(workspace, {"ca": 0.3, "ca_2stage": 0.9}, skip=1)
    assert verdict_of(workspace, "two-stages-help").says == CONTRADICTED


def test_systems_that_do_the_same_are_indistinguishable_and_not_better(workspace):
    run(workspace, {"ca": 0.002, "ca_2stage": 0.001})
    verdict = verdict_of(workspace, "two-stages-help")
    assert verdict.says == NOT_SUPPORTED
    assert "2 of 2 indistinguishable" in verdict.text
    assert all(each.p_same < 0.05 for each in verdict.comparisons)


def test_what_needs_withheld_labels_is_untestable_for_good(workspace):
    run(workspace, {"ca": 0.5})
    verdict = verdict_of(workspace, "grjca-test")
    assert verdict.says == UNTESTABLE
    assert "withheld" in verdict.text


def test_on_the_papers_own_data_a_claim_says_so(workspace):
    run(workspace, {"ca": 0.9, "ca_2stage": 0.3}, corpus="recola", recipe=load_recipe("ca2021"))
    verdict = verdict_of(workspace, "two-stages-help")
    assert (verdict.says, verdict.comparable) == (SUPPORTED, True)
    assert "other data" not in count_words([verdict])


@pytest.fixture(scope="module")
def verdicts(finished):
    results = load_results(finished)
    return judge(results, build_tables(results, table_ids()))


def test_claims_are_judged_for_the_tables_that_are_asked_for(finished, verdicts):
    results = load_results(finished)
    tables = build_tables(results, ["dca-t1"])
    few = judge(results, tables)
    assert {verdict.claim.id for verdict in few} == {
        "dca-improves-every-base",
        "dca-helps-plain-attention-most",
        "joint-beats-plain-attention",
    }
    assert len(verdicts) == len(all_claims())
    assert "3 claims of the papers: 3 not testable yet" in summary(tables, few)
    assert judge(results, build_tables(results, ["leaderboard"])) == ()
    assert count_words(()) == ""


def test_claims_in_every_format_are_labelled_and_inert(verdicts):
    evil = dataclasses.replace(
        verdicts[0],
        claim=verdicts[0].claim.model_copy(update={"says": "=1+1 <script>alert(1)</script> $x_y$ | \u202e&"}),
    )
    made = [evil, *verdicts[1:]]
    markdown, tex, text = claims_markdown(made), claims_latex(made), claims_csv(made)
    for written in (markdown, tex):
        assert "mbedded corpus: puppets - not the papers' data" in written
        assert "<script" not in written
    assert "\\$x\\_y\\$" in tex
    rows = list(csv.DictReader(io.StringIO(text)))
    assert rows[0]["says"].startswith("'=1+1")
    assert all(row["label"] for row in rows)
    assert {row["claim"] for row in rows} == {claim.id for claim in all_claims()}
    measured = [row for row in rows if row["measured_gain"]]
    assert len(measured) == sum(verdict.done for verdict in verdicts) == len(comparisons_grid(verdicts).rows)
    assert len(claims_grid(verdicts).rows) == len(verdicts)


def test_a_gain_that_is_said_to_be_larger_is_the_difference_of_two_gains(verdicts):
    by_id = {verdict.claim.id: verdict for verdict in verdicts}
    alone = {(each.label, each.target): each for each in by_id["dca-improves-every-base"].comparisons}
    larger = [each for each in by_id["dca-helps-plain-attention-most"].comparisons if each.gain]
    # TCA did not run: of four comparisons and two targets, those of CA are left.
    assert len(larger) == 4
    for each in larger:
        first, other = each.label.split(", more than ")
        pair, than = alone[first, each.target], alone[other, each.target]
        assert each.gain.mean == pytest.approx(pair.gain.mean - than.gain.mean)
        assert each.gain.differences == pytest.approx(
            [a - b for a, b in zip(pair.gain.differences, than.gain.differences, strict=True)]
        )
        assert each.gain.low < each.gain.mean < each.gain.high
        assert each.printed == pytest.approx(pair.printed - than.printed)
