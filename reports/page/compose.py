"""What stands on the page: for each setting its leaderboard, its figures and how it was run; then what all share."""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.platform.core.errors import UserError
from crossfold.platform.workspace.workspace import Workspace
from crossfold.reports.figures.ablations import fold_chart, optimism_chart, parameter_curves, seed_noise_chart
from crossfold.reports.figures.base import Figure
from crossfold.reports.figures.clip_media import Album, open_album
from crossfold.reports.figures.clip_traces import choose_examples, clip_figure
from crossfold.reports.figures.gains import gain_bars, gain_name, gate_pairs
from crossfold.reports.figures.gates import gate_charts
from crossfold.reports.figures.learning_curves import learning_curve
from crossfold.reports.figures.ranking import pareto_chart, rank_chart, win_matrix
from crossfold.reports.figures.robustness import degradation_chart
from crossfold.reports.results.comparable import comparable_variants, ranks_of, setting_targets, setting_variants
from crossfold.reports.results.model import Results, Setting
from crossfold.reports.results.runs import runs_of
from crossfold.reports.results.systems import corpus_name
from crossfold.reports.stats.bootstrap import Gain, paired_gain
from crossfold.reports.stats.formatting import listing
from crossfold.reports.tables.claims import Verdict
from crossfold.reports.tables.entries import Entry, Table
from crossfold.reports.tables.measure import measure, provenance
from crossfold.reports.tables.published import LEADERBOARD

TITLE = "Crossfold report"
DATE = "%Y-%m-%d %H:%M %Z"
MOST_DRAWN = 6
"""Settings with figures, those with the most finished cells; the others have their tables."""
CLIPS = 3
"""Clips that a reader may choose from in the first setting; the others show one."""

SELECTION = {
    "reported": "best epoch picked on the reported split",
    "held_out": "best epoch picked on held-out training videos",
}


@dataclass(frozen=True)
class Block:
    """Everything of one setting."""

    number: int
    """From 1, the setting with the most finished cells first."""
    setting: Setting
    name: str
    """Tells it from the other settings of the page."""
    summary: str
    """What was measured, in one sentence."""
    facts: Sequence[tuple[str, str]]
    """How it was run, as term and description."""
    notices: Sequence[str]
    leaderboard: Table | None
    standing: Sequence[Figure] = ()
    """Figures that belong to the leaderboard: ranks, wins, cost."""
    figures: Sequence[Figure] = ()
    clips: Sequence[Figure] = ()
    """One clip each; the reader chooses."""
    album: Album = field(default_factory=Album)
    """Where their faces and sound come from, or why there are none."""

    @property
    def suffix(self) -> str:
        """What ids of the page end with in this block."""
        return f"-{self.number}" if self.number > 1 else ""

    @property
    def drawn(self) -> tuple[Figure, ...]:
        """All figures."""
        return (*self.standing, *self.figures, *self.clips)


@dataclass(frozen=True)
class Page:
    """Everything the page shows, already computed."""

    title: str
    date: str
    blocks: Sequence[Block]
    tables: Sequence[Table]
    """Of papers, without the leaderboards."""
    notices: Sequence[str]
    verdicts: Sequence[Verdict] = ()
    """On the papers' claims."""

    @property
    def figures(self) -> tuple[Figure, ...]:
        """Of all settings."""
        return tuple(figure for block in self.blocks for figure in block.drawn)


def make_page(
    workspace: Workspace,
    results: Results,
    tables: Sequence[Table],
    verdicts: Sequence[Verdict],
    moment: datetime.datetime,
    *,
    figures: bool = True,
    media: Path | None = None,
) -> Page:
    """The page of the tables that were built. Without `figures` nothing is drawn and no prediction is read.

    media: folder of a corpus whose faces and sound the clips shall show, people included (`open_album`).
    """
    papers = [table for table in tables if not table.id.startswith(LEADERBOARD)]
    names = setting_names(list(results.settings.values()))
    boards = {table.setting.key: table for table in tables if table.id.startswith(LEADERBOARD)}
    printed = [gain.printed for table in papers for gain in table.gains]
    blocks: list[Block] = []
    for number, setting in enumerate(results.settings.values(), start=1):
        if tables and not boards and not any(table.setting.key == setting.key for table in papers):
            # A report of chosen tables is about what these tables show.
            continue
        store, notices = _open_store(workspace, setting)
        block = Block(
            number=number,
            setting=setting,
            name=names[setting.key],
            summary=_measured(results, setting, store),
            facts=_facts(results, setting, store),
            notices=[*notices, *_weights_notice(results, setting)],
            leaderboard=boards.get(setting.key),
        )
        if figures and len(blocks) < MOST_DRAWN:
            album = open_album(workspace, store, media) if store else Album()
            block = _draw(replace(block, album=album), results, store, printed)
        blocks.append(block)
    one = {block.setting.corpus for block in blocks}
    return Page(
        title=f"{TITLE}: {listing([corpus_name(corpus) for corpus in sorted(one)])}",
        date=moment.strftime(DATE).strip(),
        blocks=blocks,
        tables=papers,
        notices=_notices(results),
        verdicts=verdicts,
    )


def setting_names(settings: Sequence[Setting]) -> dict[str, str]:
    """Key -> corpus and recipe, and of the rest what tells settings apart."""
    names = {}
    for setting in settings:
        alike = [s for s in settings if (s.corpus, s.recipe) == (setting.corpus, setting.recipe)]
        words = [f"{corpus_name(setting.corpus)}, {setting.recipe}"]
        for values, word in (
            ({s.selection for s in alike}, f"selection {setting.selection.replace('_', ' ')}"),
            ({s.joint for s in alike}, "one model for all targets" if setting.joint else "a model a target"),
            ({s.protocol for s in alike}, f"protocol {setting.protocol}"),
            ({s.store for s in alike}, f"store {setting.store[:8]}"),
        ):
            if len(values) > 1:
                words.append(word)
        names[setting.key] = ", ".join(words)
    double = [key for key, name in names.items() if list(names.values()).count(name) > 1]
    return {key: f"{name} ({_hash(key, settings)})" if key in double else name for key, name in names.items()}


def _hash(key: str, settings: Sequence[Setting]) -> str:
    return next(setting.recipe_hash or "unknown" for setting in settings if setting.key == key)


def gate_gains(results: Results, setting: Setting) -> list[tuple[str, str, str, Gain]]:
    """Name, system, target and gain of every complete pair of a base and its gated version."""
    systems = setting_variants(results, setting)
    gains = []
    for base, gated in gate_pairs(results, setting):
        for target in setting_targets(results, setting):
            pair = [measure(results, setting, variant, target) for variant in (gated, base)]
            if all(entry.mean is not None for entry in pair):
                ours, theirs = (runs_of(results, setting, variant, target) for variant in (gated, base))
                gain = paired_gain(ours, theirs)
                if gain:
                    gains.append((gain_name(results, setting, base, gated), systems[gated], target, gain))
    return gains


def _draw(block: Block, results: Results, store: FeatureStore | None, printed: Sequence[float]) -> Block:
    setting = block.setting
    targets = setting_targets(results, setting)
    budget = comparable_variants(results, setting)
    gains = gate_gains(results, setting)
    standing = [
        rank_chart(results, setting, ranks_of(budget)),
        win_matrix(results, budget),
        pareto_chart(results, setting, budget),
    ]
    figures = [
        *(learning_curve(results, setting, target) for target in targets),
        *(gain_bars(gains, target) for target in targets),
        *parameter_curves(results, setting, budget),
        degradation_chart(results, setting),
        *gate_charts(results, setting),
        optimism_chart(results, setting),
        fold_chart(results, setting),
        seed_noise_chart(results, setting, printed),
    ]
    clips = []
    examples = choose_examples(results, setting, store, CLIPS if block.number == 1 else 1) if store else []
    for example in examples:
        if store:
            media = block.album.of(store.clip(example.clip))
            clips.append(clip_figure(results, setting, store, example, targets, media))
    note = _note(results, setting)
    return replace(
        block,
        standing=_finished(standing, block, note),
        figures=_finished(figures, block, note),
        clips=[
            replace(figure, id=f"{figure.id}-{index}")
            for index, figure in enumerate(_finished(clips, block, note), start=1)
        ],
    )


def _finished(figures: Sequence[Figure | None], block: Block, note: str) -> list[Figure]:
    """The figures that there are, with ids of their block and where they come from."""
    return [replace(each, id=f"{each.id}{block.suffix}", note=note) for each in figures if each]


def _note(results: Results, setting: Setting) -> str:
    """The line below every figure."""
    done = results.cells[(results.cells["setting"] == setting.key) & (results.cells["status"] == "done")]
    entry = Entry(
        "",
        "",
        mean=0.0,
        folds=tuple(sorted({int(fold) for fold in done["fold"]})),
        seeds=tuple(sorted({int(seed) for seed in done["seed"]})),
        cell_ids=tuple(str(cell_id) for cell_id in done["cell_id"].unique()),
    )
    lines = provenance(results, setting, (entry,), "")
    return "; ".join(f"{term}: {value}" for term, value in lines if value) + "."


def _open_store(workspace: Workspace, setting: Setting) -> tuple[FeatureStore | None, list[str]]:
    """The store that was measured; a report does without it, as after a merge from another machine."""
    try:
        return FeatureStore(workspace.find_store(setting.corpus, setting.store)), []
    except UserError:
        return None, [f"Feature store {setting.corpus}-{setting.store} is not in this workspace, so no clip is shown."]


def _weights_notice(results: Results, setting: Setting) -> list[str]:
    """Backbones that were trained from nothing say so; stores of random encoders say so by their corpus."""
    cells = results.cells[(results.cells["setting"] == setting.key) & (results.cells["status"] == "done")]
    recipe = results.records[str(cells["cell_id"].iloc[0])].cell.recipe if len(cells) else None
    if recipe is None or not recipe.backbones or recipe.weights != "random":
        return []
    return ["The backbones of these cells began with random weights, not with those of the papers."]


def _measured(results: Results, setting: Setting, store: FeatureStore | None) -> str:
    """What was measured, in one sentence."""
    cells = results.cells[results.cells["setting"] == setting.key].drop_duplicates("cell_id")
    done = int((cells["status"] == "done").sum())
    corpus = corpus_name(setting.corpus)
    if store:
        corpus += f" ({_count(len({clip.video for clip in store.clips}), 'video')}, {store.frames:,} frames)"
    return (
        f"{listing(setting_targets(results, setting)).capitalize()} of {corpus}: "
        f"{_count(cells['variant'].nunique(), 'system')}, {_count(cells['fold'].nunique(), 'fold')}, "
        f"{_count(cells['seed'].nunique(), 'seed')}; {done} of {_count(len(cells), 'training run')} finished; "
        f"recipe {setting.recipe}, {SELECTION.get(setting.selection, setting.selection)}."
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("s" if number != 1 else "")


def _facts(results: Results, setting: Setting, store: FeatureStore | None) -> list[tuple[str, str]]:
    cells = results.cells[results.cells["setting"] == setting.key].drop_duplicates("cell_id")
    done = cells[cells["status"] == "done"]
    versions: dict[str, set[str]] = {}
    for cell_id in done["cell_id"]:
        for name, version in results.records[cell_id].env.get("versions", {}).items():
            versions.setdefault(name, set()).add(str(version))
    corpus = setting.corpus
    if store:
        corpus += f", {len({clip.video for clip in store.clips})} videos, {store.frames:,} frames"
    counts = cells["status"].value_counts()
    return [
        ("Corpus", corpus),
        ("Feature store", setting.store),
        ("Recipe", f"{setting.recipe} ({setting.recipe_hash})" if setting.recipe_hash else setting.recipe),
        ("Protocol", str(setting.protocol)),
        ("Selection", SELECTION.get(setting.selection, setting.selection)),
        ("Post-processing", _post(results, list(done["cell_id"]))),
        ("Folds", listing(tuple(sorted(int(fold) for fold in cells["fold"].unique())))),
        ("Seeds", listing(tuple(sorted(int(seed) for seed in cells["seed"].unique())))),
        (
            "Cells",
            ", ".join(f"{counts[status]} {status}" for status in ("done", "failed", "planned") if status in counts),
        ),
        ("Versions", ", ".join(f"{name} {'/'.join(sorted(found))}" for name, found in sorted(versions.items()))),
    ]


def _post(results: Results, cell_ids: Sequence[str]) -> str:
    """Which ways of post-processing the cells were also scored with; figures and leaderboard are raw."""
    wanted = set(cell_ids)
    names = sorted({name for cell_id, _, name in results.processed if cell_id in wanted})
    return f"none on leaderboard and figures; tables may show {listing(names)}" if names else "none"


def _notices(results: Results) -> list[str]:
    notices = []
    if len(results.settings) > 1:
        notices.append(
            f"{len(results.settings)} settings ran in this workspace: another corpus, recipe, selection or protocol is "
            "another setting, and their numbers are never mixed."
        )
    if results.superseded:
        notices.append(f"{results.superseded} cells of earlier revisions of a system are left out.")
    return notices
