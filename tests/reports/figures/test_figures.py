"""Figures that say what a choice does: each from planted numbers, and none where there is nothing to show."""

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from crossfold.platform.core.recipe import Recipe
from crossfold.reports.build import build_report
from crossfold.reports.figures.ablations import (
    fold_chart,
    optimism_chart,
    parameter_curves,
    seed_noise_chart,
    selection_pairs,
)
from crossfold.reports.figures.clip_media import open_album
from crossfold.reports.figures.gains import gain_name
from crossfold.reports.figures.gates import gate_charts
from crossfold.reports.figures.learning_curves import by_epoch
from crossfold.reports.figures.rank_ranges import rank_chart
from crossfold.reports.figures.ranking import pareto_chart, standing_chart, win_matrix
from crossfold.reports.figures.robustness import degradation_chart
from crossfold.reports.results.areas import NO_INTERVAL_NOTE, area_lines
from crossfold.reports.results.comparable import (
    Standing,
    comparable_variants,
    gain_over,
    gate_pairs,
    mean_ranks,
    standing_of,
)
from crossfold.reports.results.gate_scores import gate_table
from crossfold.reports.results.load import load_results
from crossfold.reports.results.robustness_scores import (
    area_runs,
    area_scores,
    stress_areas,
    stress_scores,
    stress_table,
    trained_whole,
)
from crossfold.reports.results.runs import runs_of
from crossfold.reports.stats.formatting import DASH
from crossfold.reports.stats.intervals import changes_of, left_out, spread_of, t_quantile
from crossfold.reports.stats.runs import mean_scores
from crossfold.reports.tables.formats import to_csv
from crossfold.reports.tables.grid import areas_grid, main_grid
from crossfold.reports.tables.leaderboard import build_leaderboard
from tests.support import lab
from tests.support.media import write_corpus

BOTH = (("valence", "arousal"),)


def fill(workspace, variants, *, stressed=False, **options):
    store = lab.make_store(workspace.root)
    for cell, noise in lab.cells_of(store, variants, **options):
        lab.finish(workspace, store, cell, noise, stressed=stressed)
    results = load_results(workspace)
    return results, next(iter(results.settings.values())), store


@pytest.fixture(scope="module")
def planted(finished):
    results = load_results(finished)
    return results, next(iter(results.settings.values()))


def test_comparable_variants_are_what_most_complete_systems_ran(workspace):
    results, setting, store = fill(workspace, lab.VARIANTS[:3], folds=(0, 1), seeds=(0,))
    for cell, noise in lab.cells_of(store, lab.VARIANTS[6:8], folds=(0,), seeds=(0,)):
        lab.finish(workspace, store, cell, noise)
    results = load_results(workspace)
    scores = comparable_variants(results, setting)
    assert [results.variants[v] for v in scores] == ["Audio only", "Visual only", "Concatenation"]
    assert len(scores) == 4
    # One owed cell, and a system is no longer complete.
    owed = [cell for cell, _ in lab.cells_of(store, lab.VARIANTS[:1], folds=(2,), seeds=(0,))]
    lab.launch(workspace, store, owed, recipe=Recipe(name="demo", epochs=30))
    results = load_results(workspace)
    assert "Audio only" not in [results.variants[v] for v in comparable_variants(results, setting)]


def test_letters_are_shared_where_no_system_beats_the_other(planted):
    results, setting = planted
    standing = standing_of(results, setting)
    table = build_leaderboard(results, setting)
    assert table.word_heads == ("Group",)
    words = {line.label: set(line.words[0].split()) for line in table.lines}
    assert [line.label for line in table.lines] == [results.variants[variant] for variant in standing.means]
    beaten = 0
    for line in table.lines:
        for against in line.entries[0].gains:
            assert bool(words[line.label] & words[against.rival]) == (against.gain.sign == 0)
            beaten += against.gain.sign == 1
    assert beaten
    chart = standing_chart(results, setting, standing)
    assert len(chart.panels[0].spec["data"]) == 1 + len(standing.groups)
    assert table.extra == ("Mean rank", "Parameters", "Training, s")
    assert standing_chart(results, setting, None) is None


def test_ranges_of_ranks_hold_the_rank_and_stay_on_their_axis(planted):
    results, setting = planted
    scores = comparable_variants(results, setting)
    figure = rank_chart(results, setting, scores)
    spec = figure.panels[0].spec
    lines, marks = spec["data"][0::2], spec["data"][1::2]
    assert [mark["x"][0] for mark in marks] == list(range(1, scores.shape[1] + 1))
    low, high = spec["layout"]["xaxis"]["range"]
    for line, mark in zip(lines, marks, strict=True):
        assert low < line["x"][0] <= mark["x"][0] <= line["x"][1] < high
        assert line["y"] == [mark["y"][0]] * 2
    best = results.variants[str(scores.mean().idxmax())]
    assert figure.panels[0].alt.startswith(f"Rank, and range of ranks: {best} 1 (")
    assert all(low < tick < high and tick == int(tick) for tick in spec["layout"]["xaxis"]["tickvals"])
    assert rank_chart(results, setting, scores.iloc[:, :2]) is None


def test_mean_ranks_average_seeds_first(planted):
    results, setting = planted
    scores = comparable_variants(results, setting)
    ranks = mean_ranks(scores)
    blocks = [block.mean() for _, block in scores.groupby(level=["target", "fold"])]
    for variant in scores:
        places = [1 + sum(block[other] > block[variant] for other in scores) for block in blocks]
        assert ranks[variant] == pytest.approx(np.mean(places))
    assert mean_ranks(scores.iloc[:, :1]) == {}


def test_who_wins_is_counted_in_blocks(planted):
    results, setting = planted
    scores = comparable_variants(results, setting)
    heat = win_matrix(results, scores).panels[0].spec["data"][0]
    z = np.array(heat["z"], float)
    off = ~np.eye(len(z), dtype=bool)
    np.testing.assert_allclose((z + z.T)[off], 1)
    order = sorted(scores, key=lambda v: -scores[v].mean())
    assert z[0, -1] == (scores[order[0]] > scores[order[-1]]).mean()


def test_no_cheaper_system_reaches_the_front(planted):
    results, setting = planted
    figure = pareto_chart(results, setting, comparable_variants(results, setting))
    line, dots = figure.panels[0].spec["data"]
    points = list(zip(dots["x"], dots["y"], strict=True))
    for x, y in zip(line["x"], line["y"], strict=True):
        assert not any(cost <= x and score > y for cost, score in points)
    assert list(line["y"]) == sorted(line["y"])


def test_axes_of_nearly_equal_systems_enlarge_no_noise(planted):
    results, setting = planted
    scores = comparable_variants(results, setting)
    flat = scores * 0 + 0.8 + 0.001 * np.arange(scores.shape[1])
    cells = results.cells.assign(parameters=[70_000 + len(variant) for variant in results.cells["variant"]])
    layout = pareto_chart(replace(results, cells=cells), setting, flat).panels[0].spec["layout"]
    low, high = layout["yaxis"]["range"]
    assert high - low >= 0.05
    left, right = (10**end for end in layout["xaxis"]["range"])
    assert right / left >= 2
    assert sum(left <= tick <= right for tick in layout["xaxis"]["tickvals"]) >= 2
    standing = standing_of(results, setting)
    close = Standing({variant: 0.8 + 0.001 * at for at, variant in enumerate(standing.means)}, standing.groups)
    low, high = standing_chart(results, setting, close).panels[0].spec["layout"]["xaxis"]["range"]
    assert high - low >= 0.05


def test_recursions_have_a_curve_of_their_own(workspace):
    steps = tuple(lab.Fake("rjca", {"axis": "time", "iterations": m}, 0.5 - 0.1 * m) for m in (1, 2, 3))
    results, setting, _ = fill(workspace, (*steps, lab.VARIANTS[0]), folds=(0,), seeds=(0, 1), targets=BOTH)
    (figure,) = parameter_curves(results, setting, comparable_variants(results, setting))
    (line,) = figure.panels[0].spec["data"]
    assert figure.id == "by-iterations"
    assert list(line["x"]) == [1, 2, 3]
    scores = comparable_variants(results, setting).mean()
    expected = [scores[v] for v in sorted(scores.index) if v.startswith("rjca")]
    np.testing.assert_allclose(list(line["y"]), expected, atol=1e-4)


def test_without_a_parameter_that_varies_alone_there_is_no_curve(planted):
    results, setting = planted
    assert parameter_curves(results, setting, comparable_variants(results, setting)) == []


def test_the_stress_score_is_the_mean_over_the_suite(workspace):
    results, setting, _ = fill(workspace, lab.VARIANTS[:3], stressed=True, folds=(0,), seeds=(0, 1))
    scores = stress_scores(results, setting)
    raw = results.cells.groupby("variant")["ccc"].mean()
    # Strengths 0.5, 1 and 3 take 5, 10 and 30%; one of two modalities is used by the first, both by the last.
    kept = {"Audio only": (0.95 + 0.9 + 0.7 + 3) / 6, "Concatenation": (0.95 + 0.9 + 0.7) / 3}
    for variant, score in scores.items():
        if results.variants[variant] in kept:
            assert score == pytest.approx(kept[results.variants[variant]] * raw[variant])
    table = stress_table(results, setting)
    assert (table.loc[table["strength"] == 0, "ccc"] >= 0).all()
    figure = degradation_chart(results, setting)
    lines = ["Audio gone", "Visual gone", "Audio noisy", "Visual noisy"]
    assert [panel.title for panel in figure.panels] == [*lines, "Area below the curves"]
    # Only systems that read the modality are in its panel.
    names = [[trace.get("name") for trace in panel.spec["data"]] for panel in figure.panels]
    assert "Visual only" not in names[0]
    assert "Visual only" in names[1]


def test_the_area_is_the_mean_as_damage_grows(workspace):
    results, setting, _ = fill(workspace, lab.VARIANTS[:3], stressed=True, folds=(0,), seeds=(0, 1))
    raw = results.cells.groupby("variant")["ccc"].mean()
    # Only the missing modality has two strengths, 0.5 and 1, which take 5 and 10 %: a line from 1 to 0.9.
    areas = area_scores(results, setting)
    used = stress_areas(results, setting)
    assert set(used["kind"]) == {"missing"}
    for variant, area in areas.items():
        reads = used.loc[used["variant"] == variant, "used"].mean()
        assert area == pytest.approx(raw[variant] * (1 - 0.05 * reads))
    panel = degradation_chart(results, setting).panels[-1]
    clean, dots = panel.spec["data"]
    names = [results.variants[variant] for variant in areas]
    assert sorted(dots["text"]) == sorted(names)
    assert all(under < whole for under, whole in zip(dots["x"], clean["x"], strict=True))
    assert max(dots["x"]) == dots["x"][0]


def test_an_area_has_the_interval_of_its_videos_and_seeds(workspace):
    """Each curve falls by a known share, so that areas, their changes and their gains are shares of those of CCC."""
    results, setting, _ = fill(workspace, lab.VARIANTS[:6], stressed=True, folds=(0,), seeds=(0, 1, 2))
    runs = area_runs(results, setting)
    assert {variant: mean_scores(of)["ccc"].mean() for variant, of in runs.items()} == pytest.approx(
        area_scores(results, setting)
    )
    lines = {line.variant: line for line in area_lines(results, setting)}
    assert set(lines) == set(runs) == set(results.variants)
    for variant, line in lines.items():
        whole = [runs_of(results, setting, variant, target) for target in lab.TARGETS]
        kept = 1 - 0.05 * (0.5 if "unimodal" in variant else 1)
        for own, raw in zip(runs[variant], whole, strict=True):
            np.testing.assert_allclose(left_out(own), kept * left_out(raw), atol=1e-6)
        half = spread_of(changes_of(whole, [])).error * kept / (1 - line.area**2)
        wide = np.arctanh(line.interval.high) - np.arctanh(line.interval.low)
        assert wide / 2 == pytest.approx(half * t_quantile(spread_of(changes_of(whole, [])).df), rel=1e-3)
        assert (line.gate is not None) == ("+dca" in variant)
        assert line.dropout is None
    (gated,) = (line for line in lines.values() if line.gate)
    base = next(v for v, name in results.variants.items() if name == "CA (residual sum)")
    ccc = gain_over(results, setting, *([runs_of(results, setting, v, t) for t in lab.TARGETS]
                                        for v in (gated.variant, base)))  # fmt: skip
    assert (gated.gate.mean, gated.gate.p) == pytest.approx((0.95 * ccc.mean, ccc.p), rel=1e-4)
    board = build_leaderboard(results, setting)
    heads = areas_grid(board).heads
    assert heads == (
        "System",
        "Area",
        "95% interval",
        "CCC without damage",
        "Gain of the gate, 95% interval",
        "p (family)",
    )
    rows = list(csv.DictReader(io.StringIO(to_csv(board))))
    (over,) = [row for row in rows if row["kind"] == "area" and row["against"]]
    assert (over["row"], over["against"]) == (gated.label, "without its gate")
    assert float(over["low"]) == pytest.approx(gated.gate.low, abs=1e-5)
    panel = degradation_chart(results, setting).panels[-1]
    assert min(panel.spec["data"][1]["error_x"]["array"]) > 0


def test_cells_without_numbers_by_video_have_an_area_and_say_why_no_interval(workspace):
    results, setting, _ = fill(workspace, lab.VARIANTS[:3], stressed=True, folds=(0,), seeds=(0, 1, 2))
    old = {
        cell: replace(found, stress=[{k: v for k, v in entry.items() if k != "left_out"} for entry in found.stress])
        for cell, found in results.robustness.items()
    }
    results = replace(results, robustness=old)
    board = build_leaderboard(results, setting)
    assert [(line.interval, line.by_video) for line in board.areas] == [(None, False)] * 3
    assert NO_INTERVAL_NOTE in board.notes
    assert {row[2].text for row in areas_grid(board).rows} == {DASH}
    assert set(degradation_chart(results, setting).panels[-1].spec["data"][1]["error_x"]["array"]) == {0}


def test_modality_dropout_is_compared_with_training_without_it(workspace):
    store = lab.make_store(workspace.root)
    for dropout, less in (({}, 0.0), ({"audio": 0.3}, 0.1)):
        recipe = Recipe(name="demo" + "+modality_dropout" * bool(dropout), epochs=30, modality_dropout=dropout)
        for cell, noise in lab.cells_of(store, lab.VARIANTS[2:4], folds=(0,), seeds=(0, 1, 2), recipe=recipe):
            lab.finish(workspace, store, cell, noise - less, stressed=True)
    results = load_results(workspace)
    plain, dropped = sorted(results.settings.values(), key=lambda setting: len(setting.recipe))
    assert trained_whole(results, dropped) == plain
    assert trained_whole(results, plain) is None
    assert all(line.dropout is None for line in area_lines(results, plain))
    lines = area_lines(results, dropped)
    before = area_scores(results, plain)
    for line in lines:
        assert line.dropout.mean == pytest.approx(line.area - before[line.variant], abs=1e-6)
        assert line.dropout.mean > 0
        assert line.dropout.family.comparisons == len(lines) == 2


def test_one_strength_is_a_score_and_no_curve(workspace):
    results, setting, _ = fill(workspace, lab.VARIANTS[:2], stressed=True, folds=(0,), seeds=(0,))
    single = {
        # What was the weaker strength is none: a suite may list strength 0 itself.
        cell: replace(
            found, stress=[each | {"strength": each["strength"] * (each["strength"] != 0.5)} for each in found.stress]
        )
        for cell, found in results.robustness.items()
    }
    results = replace(results, robustness=single)
    assert area_scores(results, setting) == {}
    assert stress_scores(results, setting)
    titles = [panel.title for panel in degradation_chart(results, setting).panels]
    assert titles == ["Audio gone", "Visual gone", "Audio noisy", "Visual noisy"]


def test_a_partly_scored_system_has_no_stress_score(workspace):
    results, setting, store = fill(workspace, lab.VARIANTS[:2], stressed=True, folds=(0,), seeds=(0,))
    for cell, noise in lab.cells_of(store, lab.VARIANTS[:1], folds=(0,), seeds=(1,)):
        lab.finish(workspace, store, cell, noise)
    results = load_results(workspace)
    assert [results.variants[v] for v in stress_scores(results, setting)] == ["Visual only"]


def test_gates_are_averaged_and_an_undefined_auroc_is_left_out(workspace):
    results, setting, _ = fill(workspace, lab.VARIANTS[5:8], stressed=True, folds=(0,), seeds=(0, 1))
    table = gate_table(results, setting)
    variants = {str(v) for v in table.index.get_level_values("variant")}
    assert {results.variants[v] for v in variants} == {"CA + DCA", "JCA + DCA"}
    assert table.xs("any", level="damage")["auroc"].unique().tolist() == pytest.approx([0.6])
    figures = {figure.id: figure for figure in gate_charts(results, setting)}
    assert set(figures) == {"gate-spans", "gate-stress", "gate-weight"}
    assert list(figures["gate-spans"].panels[0].spec["layout"]["xaxis"]["ticktext"]) == ["any", "audio missing"]


def test_nothing_is_drawn_where_nothing_was_stressed(planted):
    results, setting = planted
    assert degradation_chart(results, setting) is None
    assert gate_charts(results, setting) == []
    assert optimism_chart(results, setting) is None


def test_optimism_is_reported_minus_held_out_of_the_same_cell(workspace):
    store = lab.make_store(workspace.root)
    for selection, noise in (("reported", 0.3), ("held_out", 0.6)):
        recipe = Recipe(name="demo", epochs=30, selection=selection)
        for cell, _ in lab.cells_of(store, lab.VARIANTS[2:3], folds=(0, 1), seeds=(0, 1), recipe=recipe):
            lab.finish(workspace, store, cell, noise)
    results = load_results(workspace)
    settings = {setting.selection: setting for setting in results.settings.values()}
    (gain,) = selection_pairs(results, settings["reported"]).values()
    means = results.cells.groupby("selection")["ccc"].mean()
    assert gain.mean == pytest.approx(means["reported"] - means["held_out"])
    assert gain.n == 4
    assert gain.low <= gain.mean <= gain.high
    assert selection_pairs(results, settings["held_out"]) == {}
    assert "Concatenation" in optimism_chart(results, settings["reported"]).panels[0].alt


def test_folds_and_seeds(planted):
    results, setting = planted
    scores = comparable_variants(results, setting)
    folds = fold_chart(results, setting)
    assert f"fold 0 {scores.xs(0, level='fold').mean().mean():.3f}" in folds.panels[0].alt
    chart = seed_noise_chart(results, setting, [0.01, -0.01, 0.5])
    bars, strokes = chart.panels[0].spec["data"]
    assert list(strokes["x"]) == [0.01, 0.5]
    first = scores.columns[0]
    by_seed = scores[first].groupby(["fold", "seed"]).mean()
    expected = np.sqrt(by_seed.groupby("fold").var(ddof=1).mean())
    assert bars["x"][0] == pytest.approx(expected, abs=1e-4)
    assert len(seed_noise_chart(results, setting, []).panels[0].spec["data"]) == 1


def test_one_seed_says_nothing_of_seeds_and_one_fold_nothing_of_folds(workspace):
    results, setting, _ = fill(workspace, lab.VARIANTS[:2], folds=(0,), seeds=(0,))
    assert fold_chart(results, setting) is None
    assert seed_noise_chart(results, setting, [0.01]) is None


def test_gates_of_their_own_gain_over_the_system_without(workspace):
    common = {"axis": "time", "iterations": 3}
    fakes = tuple(lab.Fake(name, common, 0.4) for name in ("rjca", "rjca+dca", "grjca", "hgrjca"))
    results, setting, _ = fill(workspace, fakes, folds=(0,), seeds=(0,))
    names = [gain_name(results, setting, *pair) for pair in gate_pairs(results, setting)]
    assert names == ["RJCA + DCA", "GRJCA over RJCA", "HGRJCA over GRJCA"]


def test_faces_and_sound_come_from_where_the_corpus_was_prepared(workspace, tmp_path):
    root = write_corpus(tmp_path / "mine")
    (root / "puppets.json").write_text("{}")
    store = lab.make_store(workspace.root, first_clip="alma")
    assert open_album(workspace, store).of(store.clip("alma")) is None
    memo = workspace.paths.stores / ".prepared" / "puppets-1.json"
    memo.parent.mkdir()
    memo.write_text(json.dumps({"store": store.path.name, "root": str(root)}))
    album = open_album(workspace, store)
    assert (album.note, album.private) == ("", False)
    media = album.of(store.clip("alma"))
    assert len(media.faces) == 8
    assert all(uri.startswith("data:image/jpeg;base64,") for _, uri in media.faces)
    assert media.outline.count("M") == 240
    assert album.of(store.clip("clip_01")) is None
    memo.write_text(json.dumps({"store": store.path.name, "root": "/nowhere"}))
    assert "/nowhere, where the media were, is not on this machine" in open_album(workspace, store).note
    assert "No media of these clips were found" in open_album(workspace, store, memo.parent).note


def test_faces_of_people_are_shown_only_where_they_were_asked_for(workspace, tmp_path):
    root = write_corpus(workspace.root / "corpora" / "licensed")
    store = lab.make_store(workspace.root, corpus="affwild2", first_clip="alma")
    memo = workspace.paths.stores / ".prepared" / "affwild2-1.json"
    memo.parent.mkdir()
    memo.write_text(json.dumps({"store": store.path.name, "root": str(root)}))
    album = open_album(workspace, store)
    assert album.of(store.clip("alma")) is None
    assert f"crossfold report --media {root} embeds them, people included" in album.note
    for cell, noise in lab.cells_of(store, lab.VARIANTS[:2], folds=(0,), seeds=(0,)):
        lab.finish(workspace, store, cell, noise)
    pages = [
        build_report(workspace, formats=["html"], out=tmp_path / name, media=media).paths[0].read_text(encoding="utf-8")
        for name, media in (("quiet", None), ("asked", root))
    ]
    assert ["data:image/jpeg" in page for page in pages] == [False, True]
    assert "this page shows people" in pages[1]


def test_memory_is_a_mean_over_cells_one_kind_a_column(workspace):
    results, setting, _ = fill(workspace, lab.VARIANTS[:3], folds=(0,), seeds=(0, 1))
    assert not any("emory" in head for head in build_leaderboard(results, setting).extra)
    of = {}
    for record in results.records.values():
        of.setdefault(record.cell.system, []).append(record)
    peaks = {"unimodal_audio": [("process", 100), ("process", 300)] * 2, "concat": [("device", 50)] * 4}
    for system, kept in peaks.items():
        for record, (kind, size) in zip(of[system], kept, strict=True):
            env = record.env | {"peak_memory": {"bytes": size * 2**20, "kind": kind}}
            (record.path / "env.json").write_text(json.dumps(env))
    results = load_results(workspace)
    table = build_leaderboard(results, setting)
    grid = main_grid(table)
    shown = {
        row[0].text: {head: row[grid.heads.index(head)].text for head in ("Memory, MiB", "GPU memory, MiB")}
        for row in grid.rows
    }
    assert shown["Audio only"] == {"Memory, MiB": "200", "GPU memory, MiB": "not measured"}
    assert shown["Concatenation"] == {"Memory, MiB": "not measured", "GPU memory, MiB": "50.0"}
    assert shown["Visual only"] == {"Memory, MiB": "not measured", "GPU memory, MiB": "not measured"}
    lines = [line for line in to_csv(table).splitlines() if ",further," in line and "Memory, MiB" in line]
    assert len(lines) == 3
    assert sum("200.000000" in line for line in lines) == 1


def test_a_learning_curve_is_the_mean_of_its_runs_as_long_as_half_of_them_train(workspace):
    """Against data frames, which a large report has no time for."""
    results, setting, _ = fill(workspace, lab.VARIANTS[:1])
    (variant,) = results.variants
    runs = pd.concat(
        record.curve.assign(fold=record.cell.fold)
        for record in results.records.values()
        if record.cell.target == "valence"
    )
    by = runs.groupby("epoch")["ccc_valence"]
    mean = by.mean()[by.count() * 2 >= 6]
    variance = runs.groupby(["epoch", "fold"])["ccc_valence"].var(ddof=1).groupby("epoch").mean().fillna(0)
    summary = by_epoch(results, setting, variant, "valence")
    np.testing.assert_allclose(summary["mean"], mean)
    np.testing.assert_allclose(summary["sd"], np.sqrt(variance[mean.index]))
    assert summary["epoch"].tolist() == [epoch + 1 for epoch in mean.index]
    assert len(mean) < runs["epoch"].nunique()
