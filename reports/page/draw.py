"""The figures of one setting."""

from collections.abc import Sequence

from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.reports.figures.ablations import fold_chart, optimism_chart, parameter_curves, seed_noise_chart
from crossfold.reports.figures.base import Figure
from crossfold.reports.figures.clip_media import Album
from crossfold.reports.figures.clip_traces import choose_clips, clip_figure
from crossfold.reports.figures.gains import gain_bars, gain_name
from crossfold.reports.figures.gates import gate_charts
from crossfold.reports.figures.learning_curves import learning_curve
from crossfold.reports.figures.rank_ranges import rank_chart
from crossfold.reports.figures.ranking import pareto_chart, standing_chart, win_matrix
from crossfold.reports.figures.robustness import degradation_chart
from crossfold.reports.results.comparable import (
    comparable_variants,
    gain_over,
    gate_pairs,
    setting_targets,
    setting_variants,
    standing_of,
)
from crossfold.reports.results.model import Results, Setting
from crossfold.reports.results.runs import runs_of
from crossfold.reports.stats.intervals import Gain

Figures = list[Figure]


def draw_standing(results: Results, setting: Setting) -> Figures:
    """The figures that belong to the leaderboard: ranks, wins, cost."""
    scores = comparable_variants(results, setting)
    ranks = standing_chart(results, setting, standing_of(results, setting))
    return _drawn(
        [
            ranks,
            rank_chart(results, setting, scores),
            win_matrix(results, scores),
            pareto_chart(results, setting, scores),
        ]
    )


def draw_figures(results: Results, setting: Setting, printed: Sequence[float]) -> Figures:
    """Learning curves, gains and ablations. printed: gains in print."""
    targets = setting_targets(results, setting)
    gains = gate_gains(results, setting)
    figures = [
        *(learning_curve(results, setting, target) for target in targets),
        *(gain_bars(gains, target) for target in targets),
        *parameter_curves(results, setting, comparable_variants(results, setting)),
        degradation_chart(results, setting),
        *gate_charts(results, setting),
        optimism_chart(results, setting),
        fold_chart(results, setting),
        seed_noise_chart(results, setting, printed),
    ]
    return _drawn(figures)


def draw_clips(results: Results, setting: Setting, store: FeatureStore, album: Album, count: int) -> Figures:
    """One figure per clip, at most `count`."""
    views = choose_clips(results, setting, store, count)
    return _drawn([clip_figure(view, album.of(view.info)) for view in views])


def gate_gains(results: Results, setting: Setting) -> list[tuple[str, str, str, Gain]]:
    """Name, system, target and gain of every complete pair of a base and its gated version."""
    systems = setting_variants(results, setting)
    gains = []
    for base, gated in gate_pairs(results, setting):
        for target in setting_targets(results, setting):
            rows = [results.groups.get((setting.key, variant, target)) for variant in (gated, base)]
            # A bar of an unfinished pair would be a mean over fewer runs than the table waits for.
            if any(cells is None or (cells["status"] != "done").any() for cells in rows):
                continue
            better, worse = ([runs_of(results, setting, variant, target)] for variant in (gated, base))
            if gain := gain_over(results, setting, better, worse):
                gains.append((gain_name(results, setting, base, gated), systems[gated], target, gain))
    return gains


def _drawn(figures: Sequence[Figure | None]) -> Figures:
    return [figure for figure in figures if figure]
