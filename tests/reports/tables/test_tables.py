"""Tables: published strings as printed, measured numbers only where they are complete, and words everywhere else."""

import csv
import dataclasses
import datetime
import io
import json
from pathlib import Path

import numpy as np
import pytest

from crossfold.platform.core.errors import UserError
from crossfold.platform.core.outcome import Failure, FailureClass
from crossfold.reports.all_tables import build_tables
from crossfold.reports.page.draw import gate_gains
from crossfold.reports.results.load import load_results
from crossfold.reports.stats.hypothesis_tests import Family
from crossfold.reports.tables import published as specs
from crossfold.reports.tables.claims import judge
from crossfold.reports.tables.comparison import order_sentences
from crossfold.reports.tables.conv_sizes import recomputed_sizes
from crossfold.reports.tables.entries import ABOVE, AGREES, BELOW, NOT_COMPARABLE, NOT_MEASURABLE, NOT_RUN
from crossfold.reports.tables.formats import to_csv, to_latex, to_markdown
from crossfold.reports.tables.grid import main_grid
from crossfold.reports.tables.leaderboard import build_leaderboard
from crossfold.reports.tables.paper_table import build, choose_setting
from crossfold.reports.tables.published import check_tables, declared, table_ids, table_spec
from crossfold.sweeps.recipe_files import load_recipe
from tests.support import lab


@pytest.fixture(scope="module")
def results(finished):
    return load_results(finished)


@pytest.fixture(scope="module")
def dca(results):
    spec = table_spec("dca-t1")
    return build(spec, results, choose_setting(spec, results))


def entries_of(table, label):
    return next(line.entries for line in table.lines if line.label == label)


def small(workspace, systems, *, corpus="puppets", **other):
    """A workspace with some systems, one fold, three seeds, valence; gives the store and (cell, noise) pairs."""
    store = lab.make_store(workspace.root, corpus)
    variants = tuple(fake for fake in lab.VARIANTS if fake.system in systems)
    return store, lab.cells_of(store, variants, **{"folds": (0,), "targets": (("valence",),), **other})


def test_every_declared_table_is_consistent_with_print():
    for table in table_ids()[1:]:
        spec = table_spec(table)
        labels = [row.label for row in spec.rows]
        assert len(set(labels)) == len(labels)
        assert {label for pair in spec.pairs for label in (pair.base, pair.better)} <= set(labels)
        assert all(set(row.printed) == {column.key for column in spec.columns} for row in spec.rows)
        for row in spec.rows:
            assert row.implemented or not row.where
            for column in spec.columns:
                asked = spec.asked(row, column)
                assert asked.why_not or asked.system in spec.systems, f"{table}: {asked.system} has no parameters"


def test_published_numbers_stand_as_printed(dca):
    assert [entry.printed for entry in entries_of(dca, "JCA [12] w/o DCA")] == ["0.657", "0.580"]


def test_measured_numbers_are_means_of_the_right_variant(dca, results):
    cells = results.cells
    cells = cells[(cells["system"] == "ca") & (cells["target"] == "valence")]
    chosen = cells[cells["params"].str.contains("sum")]
    entry = entries_of(dca, "CA [2] w/o DCA")[0]
    assert (entry.done, entry.planned) == (6, 6)
    assert entry.mean == pytest.approx(chosen["ccc"].mean())
    assert set(entry.cell_ids) == set(chosen["cell_id"])
    assert entry.interval.low < entry.mean < entry.interval.high


def test_what_has_not_run_says_so(dca):
    for entry in entries_of(dca, "TCA [9] w/ DCA"):
        assert (entry.text, entry.verdict, entry.mean) == ("not run", "not run", None)


def test_a_row_of_another_recipe_is_compared_with_the_rest_in_pairs(workspace):
    """rjcma-s1: with TCNs, and without in the sweep of that row, which names the recipe field it changes."""
    store = lab.make_store(workspace.root)
    with_tcn = load_recipe("rjcma2024")
    without = load_recipe("rjcma2024", {"temporal.kind": "none"})
    for sweep, recipe, noise in (("rjcma-s1", with_tcn, 0.3), ("rjcma-s1-none", without, 0.9)):
        cells = lab.cells_of(store, (lab.Fake("rjcma", {"iterations": 3}, noise),), folds=(0,), recipe=recipe)
        lab.launch(workspace, store, [cell for cell, _ in cells], name=sweep)
        for cell, _ in cells:
            lab.finish(workspace, store, cell, noise)
    results = load_results(workspace)
    table = build_tables(results, ["rjcma-s1"])[0]
    tcn, none = (entries_of(table, f"RJCMA {words}")[0] for words in ("with TCNs", "without"))
    assert table.setting.recipe_hash != none.elsewhere.recipe_hash
    assert (tcn.elsewhere, tcn.mean > none.mean) == (None, True)
    assert any("from sweep rjcma-s1-none; the recipe fields are its own" in note for note in table.notes)
    verdict = next(each for each in judge(results, [table]) if each.claim.id == "tcns-help")
    assert verdict.says == "supported"
    assert [line.gain.n for line in verdict.comparisons] == [3, 3]
    assert "| RJCMA with TCNs |" in to_markdown(table)
    assert "Published" not in to_markdown(table)


def test_another_corpus_is_never_compared_by_value(dca):
    assert not dca.comparable
    assert "not the paper's corpus" in dca.sentences[0]
    assert {entry.verdict for entry in dca.entries} == {"not comparable", "not run"}
    assert all(entry.difference is None for entry in dca.entries)


def test_gains_are_judged_by_sign(dca):
    verdicts = {(line.label, line.target): line.verdict for line in dca.gains}
    assert verdicts["CA [2] w/o DCA → CA [2] w/ DCA", "valence"] == "same sign"
    assert verdicts["TCA [9] w/o DCA → TCA [9] w/ DCA", "arousal"] == "not run"
    # The losses are not distinguishable from noise.
    assert verdicts["RJCA [13] w/o DCA → RJCA [13] w/ DCA", "valence"] == "not distinguishable"
    assert any("6 are measured: 3 with the same sign" in sentence for sentence in dca.findings)
    assert any("Kendall's tau" in sentence and "n = 6" in sentence for sentence in dca.findings)


def test_printed_gains_are_those_of_the_printed_strings(dca):
    gain = next(line for line in dca.gains if line.label.startswith("RJCA") and line.target == "arousal")
    assert gain.printed == pytest.approx(0.718 - 0.694)


def test_footnotes_are_lettered_in_order(dca):
    assert [mark for mark, _ in dca.footnotes] == ["a", "b", "c", "d", "e"]
    assert entries_of(dca, "CA [2] w/o DCA")
    assert dca.lines[0].marks == ("a", "b")


def test_rows_of_other_features_are_not_filled_from_this_store(results):
    spec = table_spec("ca-t2")
    table = build(spec, results, choose_setting(spec, results))
    other = entries_of(table, "2D CNN + Feature Concatenation")[0]
    assert (other.text, other.verdict) == ("not run", "not run")
    assert entries_of(table, "I3D + Feature Concatenation")[0].mean is not None
    tanh = entries_of(table, "I3D + Cross-Attention (the paper's own method)")[0]
    assert "tanh" in tanh.variant


def test_rows_of_other_features_come_from_the_store_of_their_own_sweep(workspace, tmp_path):
    """Two rows of ca-t2 are concatenation: of I3D features, and of those of a 2D CNN."""
    other = lab.make_store(tmp_path / "other", first_clip="elsewhere")
    both = {"ca-t2-2dcnn": (other, ("concat", "lstm")), "ca-t2": (lab.make_store(workspace.root), ("concat", "ca"))}
    for sweep, (store, systems) in both.items():
        fakes = tuple(lab.Fake(name, {"residual": "tanh"} if name == "ca" else {}, 0.5) for name in systems)
        cells = lab.cells_of(store, fakes, folds=(0,), seeds=(0, 1), targets=(("valence",),))
        lab.launch(workspace, store, [cell for cell, _ in cells], name=sweep)
        for cell, noise in cells:
            lab.finish(workspace, store, cell, noise if sweep == "ca-t2" else noise + 0.2)
        # The single rows alone never fill the others.
        table = build_tables(load_results(workspace), ["ca-t2"])[0]
        first, second = (entries_of(table, f"{kind} + Feature Concatenation")[0] for kind in ("2D CNN", "I3D"))
        assert first.done == 2
        assert second.done == (2 if sweep == "ca-t2" else 0)
    assert table.setting.store == both["ca-t2"][0].content_hash
    assert first.elsewhere.store == other.content_hash
    assert first.mean != second.mean
    assert second.elsewhere is None
    assert any(f"store {other.content_hash}, from sweep ca-t2-2dcnn" in note for note in table.notes)
    assert f"{table.setting.store}, {other.content_hash}" in dict(table.provenance)["store"]
    records = list(csv.DictReader(io.StringIO(to_csv(table))))
    assert {row["store"] for row in records if row["row"].startswith("2D CNN") and row["measured"]} == {
        other.content_hash
    }


def test_an_unfinished_row_shows_a_count_and_no_mean(workspace):
    store, cells = small(workspace, {"jca", "jca+dca"})
    lab.launch(workspace, store, [cell for cell, _ in cells])
    for cell, noise in cells[:-1]:
        lab.finish(workspace, store, cell, noise)
    table = build_tables(load_results(workspace), ["dca-t1"])[0]
    entry = entries_of(table, "JCA [12] w/ DCA")[0]
    assert (entry.text, entry.verdict, entry.mean, entry.interval) == ("2/3 cells", "not run", None, None)
    assert next(line for line in table.gains if line.label.startswith("JCA")).verdict == "2/3 cells"
    assert any("No printed gain can be checked" in sentence for sentence in table.findings)


def test_a_failed_row_says_why(workspace):
    store, cells = small(workspace, {"rjca"})
    lab.launch(workspace, store, [cell for cell, _ in cells])
    lab.finish(workspace, store, *cells[0])
    cell = cells[1][0]
    workspace.record_failure(Failure(cell.cell_id, cell.label, FailureClass.OOM, 1, "m", "t", "2025"))
    entry = entries_of(build_tables(load_results(workspace), ["dca-t1"])[0], "RJCA [13] w/o DCA")[0]
    assert (entry.text, entry.verdict) == ("failed: oom (1/3 cells)", "failed: oom")


def test_on_the_papers_corpus_the_difference_is_shown_and_only_its_fold_counts(workspace):
    recipe = load_recipe("dca2024")
    store, cells = small(workspace, {"jca", "jca+dca"}, corpus="affwild2", folds=(0, 1), recipe=recipe)
    for cell, noise in cells:
        lab.finish(workspace, store, cell, noise)
    table = build_tables(load_results(workspace), ["dca-t1"])[0]
    entry = entries_of(table, "JCA [12] w/o DCA")[0]
    assert table.comparable
    assert table.setting.label == ""
    assert (entry.folds, entry.planned) == ((0,), 3)
    assert entry.verdict == "above"
    assert entry.difference == pytest.approx(entry.mean - 0.657)
    assert "the paper's corpus" in table.sentences[0]


def test_the_papers_corpus_wins_over_a_larger_one(workspace):
    for corpus, systems in (("puppets", {"jca", "rjca", "concat"}), ("affwild2", {"jca"})):
        store, cells = small(workspace, systems, corpus=corpus)
        for cell, noise in cells:
            lab.finish(workspace, store, cell, noise)
    results = load_results(workspace)
    tables = build_tables(results, table_ids())
    corpora = {table.id: table.setting.corpus for table in tables}
    assert (corpora["leaderboard-puppets"], corpora["leaderboard-affwild2"]) == ("puppets", "affwild2")
    assert "leaderboard" not in corpora
    assert (corpora["dca-t1"], corpora["grjca-t1"], corpora["ca-t2"]) == ("affwild2", "affwild2", "puppets")


def test_several_variants_of_a_row_are_named_and_never_averaged(workspace):
    store, cells = small(workspace, {"rjca"})
    deeper = dataclasses.replace(lab.VARIANTS[8], params={"axis": "time", "iterations": 3, "tied": True})
    cells += lab.cells_of(store, (deeper,), folds=(0,), seeds=(0,), targets=(("valence",),))
    for cell, noise in cells:
        lab.finish(workspace, store, cell, noise)
    table = build_tables(load_results(workspace), ["dca-t1"])[0]
    assert entries_of(table, "RJCA [13] w/o DCA")[0].planned == 3
    assert any("the table shows RJCA; also run: RJCA (tied True)" in note for note in table.notes)


def _on_other_folds(lines):
    return [
        dataclasses.replace(line, entries=[dataclasses.replace(e, folds=(1,)) for e in line.entries]) for line in lines
    ]


def test_rows_on_different_folds_are_not_ranked(workspace):
    for systems, folds in (({"jca", "jca+dca"}, (0, 1)), ({"rjca", "rjca+dca"}, (0,))):
        store, cells = small(workspace, systems, folds=folds)
        for cell, noise in cells:
            lab.finish(workspace, store, cell, noise)
    table = build_tables(load_results(workspace), ["dca-t1"])[0]
    # On another corpus the folds that all rows have are the ones that count; means over different folds have no order.
    assert {entry.folds for entry in table.entries if entry.mean is not None} == {(0,)}
    results = load_results(workspace)
    board = build_tables(results, ["leaderboard"])[0]
    assert {entry.folds for entry in board.entries} == {(0, 1), (0,)}
    assert any("Rows differ in their folds" in note for note in board.notes)
    assert order_sentences(table_spec("dca-t1"), [*table.lines[:-2], *_on_other_folds(table.lines[-2:])]) == ()


def test_the_leaderboard_ranks_by_the_mean_of_both_targets(results):
    table = build_leaderboard(results, next(iter(results.settings.values())))
    assert table.columns == ("mean", "valence", "arousal")
    assert len(table.lines) == 10
    means = [line.entries[0].mean for line in table.lines]
    assert means == sorted(means, reverse=True)
    for line in table.lines:
        mean, valence, arousal = line.entries
        assert mean.mean == pytest.approx((valence.mean + arousal.mean) / 2)
        assert mean.interval.low < mean.mean < mean.interval.high
        assert (mean.done, mean.planned) == (12, 12)


def test_fusion_gains_over_each_unimodal_system_on_the_mean_and_over_the_best_by_target(results):
    table = build_leaderboard(results, next(iter(results.settings.values())))
    by_label = {line.label: line.entries for line in table.lines}
    assert table.rivals == ("Audio only", "Visual only")
    assert table.best == "Visual only"
    assert all(not entry.gains for rival in table.rivals for entry in by_label[rival])
    mean, valence, _ = by_label["JCA + DCA"]
    assert {each.rival for each in mean.gains} == set(table.rivals)
    for each in mean.gains:
        assert each.gain.mean == pytest.approx(mean.mean - by_label[each.rival][0].mean)
        assert each.gain.n == 6
        assert each.gain.family == Family(10)
    assert [each.rival for each in valence.gains] == ["Visual only"]
    assert "4 of 8 fusion systems beat both unimodal systems on the mean of valence and arousal CCC" in table.headline
    assert "CA (residual sum)" not in table.headline, "its gain over audio alone is not clear on 11 videos"


def test_two_targets_of_one_model_count_like_two_models(workspace):
    systems = {"unimodal_audio", "unimodal_visual", "jca+dca"}
    store, cells = small(workspace, systems, targets=(("valence", "arousal"),))
    for cell, noise in cells:
        lab.finish(workspace, store, cell, noise)
    table = build_tables(load_results(workspace), ["leaderboard"])[0]
    entry = table.lines[0].entries[0]
    assert (table.lines[0].label, entry.done, entry.planned) == ("JCA + DCA", 3, 3)
    assert "the one complete fusion system, JCA + DCA, beats both unimodal systems on the mean" in table.headline


@pytest.mark.parametrize(
    ("hidden", "expected"),
    [
        ("unimodal_audio", "cannot be said yet on puppets: not complete: Audio only (5/6 cells)."),
        ("jca", "the one complete fusion system, JCA + DCA, beats both"),
    ],
)
def test_rows_with_unfinished_cells_stand_last_and_are_never_counted(workspace, hidden, expected):
    targets = (("valence",), ("arousal",))
    store, cells = small(workspace, {"unimodal_audio", "unimodal_visual", "jca", "jca+dca"}, targets=targets)
    lab.launch(workspace, store, [cell for cell, _ in cells])
    skipped = next(cell for cell, _ in cells if cell.system == hidden and cell.target == "arousal")
    for cell, noise in cells:
        if cell is not skipped:
            lab.finish(workspace, store, cell, noise)
    table = build_tables(load_results(workspace), ["leaderboard"])[0]
    assert table.lines[-1].system == hidden
    assert [entry.text.split()[0] for entry in table.lines[-1].entries[::2]] == ["5/6", "2/3"]
    assert expected in table.headline
    assert ("(1 more cannot be compared yet)" in table.headline) == (hidden == "jca")


def test_the_headline_says_that_no_fusion_system_wins(workspace):
    store = lab.make_store(workspace.root)
    worse = tuple(dataclasses.replace(fake, noise=0.9) for fake in lab.VARIANTS[6:8])
    for cell, noise in lab.cells_of(store, (*lab.VARIANTS[:2], *worse), folds=(0,), seeds=(0, 1, 2)):
        lab.finish(workspace, store, cell, noise)
    table = build_tables(load_results(workspace), ["leaderboard"])[0]
    assert "On puppets, none of the 2 fusion systems beats both unimodal systems" in table.headline


def test_one_target_needs_no_mean(workspace):
    store, cells = small(workspace, {"unimodal_audio", "unimodal_visual", "jca"})
    for cell, noise in cells:
        lab.finish(workspace, store, cell, noise)
    table = build_tables(load_results(workspace), ["leaderboard"])[0]
    assert table.columns == ("valence",)
    assert "beats both unimodal systems on valence CCC" in table.headline


def test_gate_gains_pair_equal_parameters(results):
    gains = gate_gains(results, next(iter(results.settings.values())))
    assert [(name, target) for name, _, target, _ in gains] == [
        (name, target) for name in ("CA + DCA", "JCA + DCA", "RJCA + DCA") for target in ("valence", "arousal")
    ]
    assert np.sign([gain.mean for *_, gain in gains]).tolist() == [1, 1, 1, 1, -1, -1]


def test_a_wrong_table_answers_with_the_nearest():
    with pytest.raises(UserError, match=r"did you mean 'dca-t[123]'"):
        check_tables(["dca-t9"])
    assert check_tables([]) == table_ids()
    assert check_tables(["ca-t2", "ca-t2"]) == ("ca-t2",)


def test_all_fifteen_tables_of_the_papers_are_declared_and_the_experiments_without_printed_numbers():
    papers = {"dca-t": 3, "grjca-t": 3, "rjcma-t": 4, "grjca1-t": 1, "ca-t": 4, "dca-s": 3, "grjca-s": 1, "rjcma-s": 2}
    count = {name: sum(table[:-1] == name for table in table_ids()) for name in papers}
    assert {table for table in table_ids()[1:] if not table_spec(table).printed} == {
        t for t in table_ids() if "-s" in t
    }
    assert count == papers
    assert set(declared().short) == set(declared().papers)


def test_every_cell_of_a_table_says_something(workspace):
    """Third-party rows, test columns and copied cells have words of their own; nothing is left blank."""
    store, cells = small(workspace, {"jca"})
    lab.finish(workspace, store, *cells[0])
    results = load_results(workspace)
    for table in build_tables(results, table_ids()[1:]):
        assert all(entry.text and entry.verdict for entry in table.entries), table.id
        spec = table_spec(table.id)
        for row, line in zip(spec.rows, table.lines if spec.rows else (), strict=True):
            for column, entry in zip(spec.columns, line.entries, strict=True):
                if not row.implemented:
                    assert (entry.text, entry.verdict) == ("not in this implementation", "not measurable")
                elif column.partition == "test" or column.stream in spec.copied:
                    assert (entry.text, entry.verdict) == ("not measurable", "not measurable")


def test_recursions_and_systems_may_be_rows_and_columns(workspace):
    """grjca-t2: a row is a number of recursions, a column a system; each cell finds its own runs."""
    store = lab.make_store(workspace.root)
    variants = tuple(
        lab.Fake(system, {"axis": "time", "iterations": depth}, 0.3 + 0.02 * depth)
        for system in ("rjca", "grjca", "hgrjca")
        for depth in (1, 2, 3, 4)
    )
    for cell, noise in lab.cells_of(store, variants, folds=(1,), seeds=(0, 1)):
        lab.finish(workspace, store, cell, noise)
    results = load_results(workspace)
    table = build_tables(results, ["grjca-t2"])[0]
    assert (table.row_head, [line.label for line in table.lines]) == (
        "Recursions",
        ["l = 1", "l = 2", "l = 3", "l = 4"],
    )
    assert table.heads[1] == "Valence, GRJCA"
    for line, depth in zip(table.lines, (1, 2, 3, 4), strict=True):
        for entry, system in zip(line.entries, ["rjca", "grjca", "hgrjca"] * 2, strict=True):
            cells = [results.records[cell_id].cell for cell_id in entry.cell_ids]
            assert {(cell.system, cell.params["iterations"], cell.fold) for cell in cells} == {(system, depth, 1)}
            assert entry.column.endswith(f"{entry.target}.{system}")
            assert entry.mean is not None


def test_rows_that_are_folds_take_their_own_fold_and_a_mean_over_targets(workspace):
    store = lab.make_store(workspace.root)
    variant = lab.Fake("rjcma", {"axis": "time", "iterations": 3}, 0.3)
    cells = lab.cells_of(store, (variant,), folds=(0, 1, 2), seeds=(0, 1))
    lab.launch(workspace, store, [cell for cell, _ in cells])
    for cell, noise in cells[:-1]:
        lab.finish(workspace, store, cell, noise)
    results = load_results(workspace)
    lines = build_tables(results, ["rjcma-t1"])[0].lines
    for fold in (0, 1):
        valence, arousal, mean = lines[fold].entries
        assert (valence.folds, arousal.folds, mean.folds) == ((fold,),) * 3
        assert mean.mean == pytest.approx((valence.mean + arousal.mean) / 2)
    assert [entry.text for entry in lines[2].entries[1:]] == ["1/2 cells", "3/4 cells"]
    assert {entry.text for entry in lines[5].entries} == {"not run"}


def test_wrong_printed_means_are_recomputed():
    """C6: 0.526, 0.607 and 0.618 are not the means of their rows; all other printed means are."""
    wrong = {}
    for table in table_ids()[1:]:
        spec = table_spec(table)
        for row in spec.rows:
            for column in spec.columns:
                if (mean := spec.recomputed(row, column)) is not None:
                    wrong[table, row.label, row.printed[column.key]] = mean
    assert wrong == {
        ("rjcma-t1", "Fold 4", "0.526"): pytest.approx(0.5305),
        ("rjcma-t3", "l = 1", "0.607"): pytest.approx(0.612),
        ("rjcma-t3", "l = 2", "0.618"): pytest.approx(0.6225),
    }


def test_the_post_processing_of_a_paper_is_used_where_the_runs_have_it_and_raw_is_shown_too(workspace):
    store, cells = small(workspace, {"ca", "concat"})
    for cell, noise in cells:
        lab.finish(workspace, store, cell, noise, post="oracle")
    table = build_tables(load_results(workspace), ["ca-t2"])[0]
    entry = entries_of(table, "I3D + Feature Concatenation")[0]
    assert entry.post == "oracle"
    assert entry.mean == pytest.approx(entry.raw + 0.1 * (1 - entry.raw))
    gain = next(line for line in table.gains if line.gain)
    better = entries_of(table, "I3D + Cross-Attention (the paper's own method)")[0]
    assert gain.gain.mean == pytest.approx(better.mean - entry.mean)
    # A table that declares no post-processing shows raw numbers of the very same runs.
    raw = build_tables(load_results(workspace), ["leaderboard"])[0]
    assert {each.post for each in raw.entries} == {"raw"}


def test_runs_without_the_post_processing_of_a_paper_are_shown_raw_and_say_so(results):
    table = build_tables(results, ["ca-t2"])[0]
    assert {entry.post for entry in table.entries} == {"raw"}
    assert any("not scored with the post-processing of the paper" in note for note in table.notes)


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ({"name": "grjca2025"}, "with recipe grjca2025, which is not the paper's (dca2024)"),
        ({"name": "dca2024", "epochs": 3}, "with recipe dca2024, but changed from the one that ships"),
    ],
)
def test_another_recipe_is_never_compared_by_value(workspace, recipe, words):
    changed = load_recipe(recipe.pop("name"), recipe)
    store, cells = small(workspace, {"jca"}, corpus="affwild2", recipe=changed)
    for cell, noise in cells:
        lab.finish(workspace, store, cell, noise)
    table = build_tables(load_results(workspace), ["dca-t1"])[0]
    assert not table.comparable
    assert words in table.sentences[0]
    assert {entry.verdict for entry in table.entries} == {"not comparable", "not run"}


def test_numbers_quoted_from_other_papers_get_no_verdict(workspace):
    """A14, C1: the same system measures a starred and an unstarred row, and only the starred one is judged."""
    recipe = load_recipe("rjcma2024")
    store, cells = small(workspace, {"rjca"}, corpus="affwild2", recipe=recipe)
    for cell, noise in cells:
        lab.finish(workspace, store, cell, noise)
    table = build_tables(load_results(workspace), ["rjcma-t2"])[0]
    cited, own = (entries_of(table, f"Praveen et al [23]{star}")[0] for star in ("", "*"))
    assert cited.mean == own.mean
    assert (cited.verdict, own.verdict) == ("not comparable", "above")


def test_protocols_and_recipes_never_mix_in_one_table(workspace):
    """Better numbers of another recipe exist for every row; the table takes none of them."""
    store, cells = small(workspace, {"jca", "jca+dca"}, seeds=(0,))
    _, others = small(workspace, {"jca", "rjca"}, recipe=load_recipe("demo", {"epochs": 2}))
    for cell, noise in cells + others:
        lab.finish(workspace, store, cell, noise)
    results = load_results(workspace)
    for table in build_tables(results, table_ids()):
        settings = {
            results.cells.loc[results.cells["cell_id"] == cell_id, "setting"].item()
            for entry in table.entries
            for cell_id in entry.cell_ids
        }
        assert settings <= {table.setting.key}


def test_a_target_that_the_corpus_lacks_has_a_stand_in_elsewhere_and_never_at_home(workspace):
    store, cells = small(workspace, {"concat"})
    for cell, noise in cells:
        lab.finish(workspace, store, cell, noise)
    table = build_tables(load_results(workspace), ["ca-t4"])[0]
    entry = entries_of(table, "Feature Concatenation")[0]
    assert (table.heads, entry.target, entry.done) == (("Fatigue Level (here valence)",), "valence", 3)
    assert any("puppets has no fatigue: valence replaces it" in note for note in table.notes)


def test_the_audio_network_follows_from_its_strings():
    spec = table_spec("ca-t1")
    assert recomputed_sizes(spec.blocks, spec.layers) == tuple(block[2] for block in spec.blocks)
    # Without the pads that print leaves out, the sizes are others: the agreement is no tautology.
    assert recomputed_sizes(spec.blocks, ())[2:4] != tuple(block[2] for block in spec.blocks)[2:4]
    with pytest.raises(ValueError, match="no layer"):
        recomputed_sizes([("Input", "-", "1 x 8 x 8"), ("Block", "Sum", "1 x 8 x 8")], ())


def test_every_table_says_where_its_numbers_come_from(results):
    made = datetime.datetime(2025, 1, 2, 3, 4, tzinfo=datetime.UTC)
    for table in build_tables(results, table_ids(), made):
        known = dict(table.provenance)
        assert known["corpus"] == "puppets (embedded corpus: puppets - not the papers' data)"
        assert known["store"] == table.setting.store
        assert known["made"] == "2025-01-02 03:04 UTC"
        if any(entry.mean is not None for entry in table.entries):
            assert (known["seeds"], known["post-processing"]) == ("0, 1 and 2", "raw")
            assert known["versions"] == "crossfold 0.1.0, torch 2.13.0"


PUBLISHED = json.loads((Path(specs.__file__).parent / "published.json").read_text())
WORDS = {AGREES, BELOW, ABOVE, NOT_COMPARABLE, NOT_MEASURABLE, NOT_RUN}


def test_every_printed_number_stands_in_its_table_and_every_cell_says_one_of_seven_things(results, workspace):
    """All of `published.json`, counted there and in the tables, as printed and as the number that it is."""
    counted = 0
    for printed in PUBLISHED["tables"]:
        table = build_tables(results, [printed["id"]])[0]
        strings = [text for line in table.lines for entry in line.entries for text in [entry.printed] if text]
        if printed["kind"] == "architecture":
            assert strings == [row[2] for row in printed["rows"]]
            continue
        wanted = [row["printed"][column["key"]] for row in printed["rows"] for column in printed["columns"]]
        assert strings == [text for text in wanted if text]
        assert [entry.column for entry in table.entries if entry.bold] == [
            key
            for row in printed["rows"]
            for key in (column["key"] for column in printed["columns"])
            if key in row["bold"]
        ]
        published = [cell for row in main_grid(table).rows for cell in row if cell.kind == "published"]
        assert sum(cell.strong for cell in published) == sum(entry.bold for entry in table.entries)
        values = [entry.value for entry in table.entries if entry.value is not None]
        assert values == [
            row["cells"][column["key"]]
            for row in printed["rows"]
            for column in printed["columns"]
            if row["cells"][column["key"]] is not None
        ]
        assert {entry.verdict for entry in table.entries} <= WORDS
        counted += len(values)
        # Nothing printed is lost on the way to a page or a file.
        for text in (to_markdown(table), to_latex(table)):
            assert all(string in text for string in strings)
    assert counted == sum(
        value is not None
        for table in PUBLISHED["tables"]
        if table["kind"] != "architecture"
        for row in table["rows"]
        for value in row["cells"].values()
    )
    assert counted > 300


def test_where_print_contradicts_itself_a_footnote_says_so(results):
    """C1-C15 of the list of decisions, each on the tables that it is about."""
    about = {
        "dca-t1": {"C1"}, "dca-t2": {"C8"}, "dca-t3": {"C1", "C10", "C11", "C12", "C14"}, "grjca-t1": {"C2", "C10"},
        "grjca-t2": {"B13"}, "grjca-t3": {"C4"}, "rjcma-t1": {"C5", "C6"}, "rjcma-t2": {"C1", "C7", "C11"},
        "rjcma-t3": {"C6"}, "grjca1-t1": {"C3", "C9", "C13"}, "ca-t3": {"C8"},
    }  # fmt: skip
    for name, notes in about.items():
        table = build_tables(results, [name])[0]
        said = [text for _, text in table.footnotes] + list(table.notes)
        absent = {note for note in notes if not any(text.startswith(specs.footnotes()[note].says) for text in said)}
        assert not absent, f"{name}: {absent}"
