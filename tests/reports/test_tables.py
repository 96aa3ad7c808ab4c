"""Tables: published strings as printed, measured numbers only where they are complete, and words everywhere else."""

import dataclasses

import numpy as np
import pytest

from crossfold.platform.contracts import Failure, FailureClass
from crossfold.platform.errors import UserError
from crossfold.reports.build import build_tables, gate_gains
from crossfold.reports.cells import load_results
from crossfold.reports.leaderboard import build_leaderboard
from crossfold.reports.specs import check_tables, table_ids, table_spec
from crossfold.reports.tables import build, choose_setting


@pytest.fixture(scope="module")
def results(finished):
    return load_results(finished)


@pytest.fixture(scope="module")
def dca(results):
    spec = table_spec("dca-t1")
    return build(spec, results, choose_setting(spec, results))


def entries_of(table, label):
    return next(line.entries for line in table.lines if line.label == label)


def small(workspace, lab, systems, *, corpus="puppets", **other):
    """A workspace with some systems, one fold, three seeds, valence; gives the store and (cell, noise) pairs."""
    store = lab.make_store(workspace.root, corpus)
    variants = tuple(fake for fake in lab.VARIANTS if fake.system in systems)
    return store, lab.cells_of(store, variants, **{"folds": (0,), "targets": (("valence",),), **other})


def test_every_declared_table_is_consistent_with_print():
    for table in table_ids()[1:]:
        spec = table_spec(table)
        labels = [row.label for row in spec.rows]
        assert {label for pair in spec.pairs for label in (pair.base, pair.better)} <= set(labels)
        assert all(set(row.printed) == {column.key for column in spec.columns} for row in spec.rows)


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


def test_another_corpus_is_never_compared_by_value(dca):
    assert not dca.comparable
    assert "not the paper's corpus" in dca.sentences[0]
    assert {entry.verdict for entry in dca.entries} == {"not comparable", "not run"}
    assert all(entry.difference is None for entry in dca.entries)


def test_gains_are_judged_by_sign(dca):
    verdicts = {(line.label, line.target): line.verdict for line in dca.gains}
    assert verdicts["CA [2] w/o DCA → CA [2] w/ DCA", "valence"] == "same sign"
    assert verdicts["TCA [9] w/o DCA → TCA [9] w/ DCA", "arousal"] == "not run"
    # Both intervals exclude zero, but over seeds the losses are not distinguishable from noise.
    assert verdicts["RJCA [13] w/o DCA → RJCA [13] w/ DCA", "valence"] == "not distinguishable"
    assert any("6 are measured: 4 with the same sign" in sentence for sentence in dca.sentences)
    assert any("Kendall's tau" in sentence and "n = 6" in sentence for sentence in dca.sentences)


def test_printed_gains_are_those_of_the_printed_strings(dca):
    gain = next(line for line in dca.gains if line.label.startswith("RJCA") and line.target == "arousal")
    assert gain.printed == pytest.approx(0.718 - 0.694)


def test_footnotes_are_lettered_in_order(dca):
    assert [mark for mark, _ in dca.footnotes] == ["a", "b", "c", "d"]
    assert entries_of(dca, "CA [2] w/o DCA")
    assert dca.lines[0].marks == ("a", "b")


def test_rows_of_other_features_are_not_filled_with_ours(results):
    spec = table_spec("ca-t2")
    table = build(spec, results, choose_setting(spec, results))
    assert entries_of(table, "2D CNN + Feature Concatenation")[0].text == "not run"
    assert entries_of(table, "I3D + Feature Concatenation")[0].mean is not None
    tanh = entries_of(table, "I3D + Cross-Attention (ours)")[0]
    assert "tanh" in tanh.variant


def test_an_unfinished_row_shows_a_count_and_no_mean(workspace, lab):
    store, cells = small(workspace, lab, {"jca", "jca+dca"})
    lab.launch(workspace, store, [cell for cell, _ in cells])
    for cell, noise in cells[:-1]:
        lab.finish(workspace, store, cell, noise)
    table = build_tables(load_results(workspace), ["dca-t1"])[0]
    entry = entries_of(table, "JCA [12] w/ DCA")[0]
    assert (entry.text, entry.verdict, entry.mean, entry.interval) == ("2/3 cells", "not run", None, None)
    assert next(line for line in table.gains if line.label.startswith("JCA")).verdict == "2/3 cells"
    assert any("No printed gain can be checked" in sentence for sentence in table.sentences)


def test_a_failed_row_says_why(workspace, lab):
    store, cells = small(workspace, lab, {"rjca"})
    lab.launch(workspace, store, [cell for cell, _ in cells])
    lab.finish(workspace, store, *cells[0])
    cell = cells[1][0]
    workspace.record_failure(Failure(cell.cell_id, cell.label, FailureClass.OOM, 1, "m", "t", "2025"))
    entry = entries_of(build_tables(load_results(workspace), ["dca-t1"])[0], "RJCA [13] w/o DCA")[0]
    assert (entry.text, entry.verdict) == ("failed: oom (1/3 cells)", "failed: oom")


def test_on_the_papers_corpus_the_difference_is_shown_and_only_its_fold_counts(workspace, lab):
    store, cells = small(workspace, lab, {"jca", "jca+dca"}, corpus="affwild2", folds=(0, 1))
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


def test_the_papers_corpus_wins_over_a_larger_one(workspace, lab):
    for corpus, systems in (("puppets", {"jca", "rjca", "concat"}), ("affwild2", {"jca"})):
        store, cells = small(workspace, lab, systems, corpus=corpus)
        for cell, noise in cells:
            lab.finish(workspace, store, cell, noise)
    results = load_results(workspace)
    tables = build_tables(results, table_ids())
    corpora = {table.id: table.setting.corpus for table in tables}
    expected = {"leaderboard": "puppets", "leaderboard-2": "affwild2", "dca-t1": "affwild2", "ca-t2": "puppets"}
    assert corpora == expected


def test_several_variants_of_a_row_are_named_and_never_averaged(workspace, lab):
    store, cells = small(workspace, lab, {"rjca"})
    deeper = dataclasses.replace(lab.VARIANTS[8], params={"axis": "time", "iterations": 4})
    cells += lab.cells_of(store, (deeper,), folds=(0,), seeds=(0,), targets=(("valence",),))
    for cell, noise in cells:
        lab.finish(workspace, store, cell, noise)
    table = build_tables(load_results(workspace), ["dca-t1"])[0]
    assert entries_of(table, "RJCA [13] w/o DCA")[0].planned == 3
    assert any("RJCA (iterations 3) stands here; also run: RJCA (iterations 4)" in note for note in table.notes)


def test_rows_on_different_folds_are_not_ranked(workspace, lab):
    for systems, folds in (({"jca", "jca+dca"}, (0, 1)), ({"rjca", "rjca+dca"}, (0,))):
        store, cells = small(workspace, lab, systems, folds=folds)
        for cell, noise in cells:
            lab.finish(workspace, store, cell, noise)
    table = build_tables(load_results(workspace), ["dca-t1"])[0]
    assert not any("Kendall" in sentence for sentence in table.sentences)
    assert any("Rows differ in their folds" in note for note in table.notes)


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
        assert each.p >= each.gain.p
    assert [each.rival for each in valence.gains] == ["Visual only"]
    assert "all 8 fusion systems beat both unimodal systems on the mean of valence and arousal CCC" in table.headline


def test_two_targets_of_one_model_count_like_two_models(workspace, lab):
    systems = {"unimodal_audio", "unimodal_visual", "jca+dca"}
    store, cells = small(workspace, lab, systems, targets=(("valence", "arousal"),))
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
def test_rows_with_unfinished_cells_stand_last_and_are_never_counted(workspace, lab, hidden, expected):
    targets = (("valence",), ("arousal",))
    store, cells = small(workspace, lab, {"unimodal_audio", "unimodal_visual", "jca", "jca+dca"}, targets=targets)
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


def test_fusion_that_wins_nothing_is_said_to_win_nothing(workspace, lab):
    store = lab.make_store(workspace.root)
    worse = tuple(dataclasses.replace(fake, noise=0.9) for fake in lab.VARIANTS[6:8])
    for cell, noise in lab.cells_of(store, (*lab.VARIANTS[:2], *worse), folds=(0,), seeds=(0,)):
        lab.finish(workspace, store, cell, noise)
    table = build_tables(load_results(workspace), ["leaderboard"])[0]
    assert "On puppets, none of the 2 fusion systems beats both unimodal systems" in table.headline
    # One run of each is no sample of runs.
    assert all(each.p is None for line in table.lines for entry in line.entries for each in entry.gains)
    assert "t test" not in " ".join(table.sentences)


def test_one_target_needs_no_mean(workspace, lab):
    store, cells = small(workspace, lab, {"unimodal_audio", "unimodal_visual", "jca"})
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
    with pytest.raises(UserError, match="did you mean 'dca-t1'"):
        check_tables(["dca-t3"])
    assert check_tables([]) == table_ids()
    assert check_tables(["ca-t2", "ca-t2"]) == ("ca-t2",)
