"""The words of the page about a setting: its name, what was measured, and how it was run."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from crossfold.datasets.store.feature_store import FeatureStore
from crossfold.platform.core.cell import EARLIER_FOLDS, PROTOCOL, SEEN, changes_since, folds_advice
from crossfold.reports.doses.section import is_dosed
from crossfold.reports.results.comparable import setting_targets
from crossfold.reports.results.model import Results, Setting
from crossfold.reports.results.runs import RAW
from crossfold.reports.results.systems import corpus_name
from crossfold.reports.stats.formatting import facts_text, listing
from crossfold.reports.tables.claims import METHOD, Verdict, claims_grid, comparisons_grid, count_words
from crossfold.reports.tables.claims_formats import TITLE, labels, origins
from crossfold.reports.tables.measure import commits_of, origin, versions_of

_SELECTION = {
    "reported": "best epoch picked on the reported split",
    "held_out": "best epoch picked on held-out training videos",
}


def page_title(corpora: Sequence[str]) -> str:
    """The title of the page; corpora with a dose are one."""
    names = dict.fromkeys(
        f"{name.partition('-dose')[0]} with doses" if is_dosed(name) else corpus_name(name) for name in corpora
    )
    return f"Crossfold report: {listing(list(names))}"


def setting_names(settings: Sequence[Setting]) -> dict[str, str]:
    """Key -> corpus and recipe, and of the rest what differs between the settings of a page."""
    names = {}
    for setting in settings:
        alike = [s for s in settings if (s.corpus, s.recipe) == (setting.corpus, setting.recipe)]
        words = [f"{corpus_name(setting.corpus)}, {setting.recipe}"]
        for values, word in (
            ({s.selection for s in alike}, f"selection {setting.selection.replace('_', ' ')}"),
            ({s.joint for s in alike}, "one model for all targets" if setting.joint else "one model per target"),
            ({s.protocol for s in alike} | {PROTOCOL}, f"protocol {setting.protocol}"),
            ({s.fold_rule for s in alike}, f"folds {setting.fold_rule or 'of an unknown rule'}"),
            ({s.store for s in alike}, f"store {setting.store[:8]}"),
        ):
            if len(values) > 1:
                words.append(word)
        names[setting.key] = ", ".join(words)
    hashes = {setting.key: setting.recipe_hash or "unknown" for setting in settings}
    # Two recipes may have one name and other fields; their hashes differ.
    double = [key for key, name in names.items() if list(names.values()).count(name) > 1]
    return {key: f"{name} ({hashes[key]})" if key in double else name for key, name in names.items()}


def summary_of(results: Results, setting: Setting, store: FeatureStore | None) -> str:
    """What was measured, in one sentence."""
    cells = results.rows(setting).drop_duplicates("cell_id")  # a cell with two targets has two rows
    done = int((cells["status"] == "done").sum())
    corpus = corpus_name(setting.corpus)
    if store:
        corpus += f" ({_count(_videos(store), 'video')}, {store.frames:,} frames)"
    return (
        f"{listing(setting_targets(results, setting)).capitalize()} of {corpus}: "
        f"{_count(cells['variant'].nunique(), 'system')}, {_count(cells['fold'].nunique(), 'fold')}, "
        f"{_count(cells['seed'].nunique(), 'seed')}; {done} of {_count(len(cells), 'training run')} finished; "
        f"recipe {setting.recipe}, {_SELECTION.get(setting.selection, setting.selection)}."
    )


def facts_of(results: Results, setting: Setting, store: FeatureStore | None) -> list[tuple[str, str]]:
    """How a setting was run, as term and description."""
    cells = results.rows(setting).drop_duplicates("cell_id")
    done = set(cells.loc[cells["status"] == "done", "cell_id"])
    posts = sorted({name for cell_id, _, name in results.processed if cell_id in done})
    counts = cells["status"].value_counts()
    states = [f"{counts[status]} {status}" for status in ("done", "failed", "planned") if status in counts]
    size = f", {_videos(store)} videos, {store.frames:,} frames" if store else ""
    return [
        ("Corpus", setting.corpus + size),
        ("Feature store", setting.store),
        ("Recipe", f"{setting.recipe} ({setting.recipe_hash})" if setting.recipe_hash else setting.recipe),
        ("Protocol", str(setting.protocol)),
        ("Selection", _SELECTION.get(setting.selection, setting.selection)),
        ("Post-processing", f"none on leaderboard and figures; tables may show {listing(posts)}" if posts else "none"),
        ("Folds", listing(_numbers(cells, "fold"))),
        ("Fold rule", setting.folds_words),
        ("Seeds", listing(_numbers(cells, "seed"))),
        ("Cells", ", ".join(states)),
        ("Versions", versions_of(results, done)),
        ("Commits", ", ".join(f"{commit} ({cells})" for commit, cells in commits_of(results, done).items())),
    ]


def figure_note(results: Results, setting: Setting) -> str:
    """The line below every figure of a setting: where its numbers come from."""
    done = results.rows(setting, status="done")
    folds, seeds = _numbers(done, "fold"), _numbers(done, "seed")
    cell_ids = set(done["cell_id"])
    return facts_text(origin(results, setting, cell_ids, folds=folds, seeds=seeds, stores=[setting.store], posts=[RAW]))


def weights_notices(results: Results, setting: Setting) -> list[str]:
    """The warning of backbones that were trained from random weights instead of the papers'."""
    # Stores of random encoders carry their warning in the name of the corpus.
    done = results.rows(setting, status="done")["cell_id"]
    recipe = results.records[str(done.iloc[0])].cell.recipe if len(done) else None
    if recipe is None or not recipe.backbones or recipe.weights != "random":
        return []
    return ["The backbones of these cells began with random weights, not with those of the papers."]


def page_notices(results: Results) -> list[str]:
    """What a reader must know of the page as a whole."""
    notices = []
    if len(results.settings) > 1:
        notices.append(
            f"{len(results.settings)} settings ran in this workspace: another corpus, recipe, selection or protocol is "
            "another setting, and their numbers are never mixed."
        )
    notices += [
        f"Cells of protocol {protocol} were computed by an earlier version: since then, {changes_since(protocol)}. "
        "They are in tables of their own."
        for protocol in sorted({setting.protocol for setting in results.settings.values()} - {PROTOCOL})
    ]
    notices += fold_notices(results)
    if shown := results.seen & set(results.cells["cell_id"]):
        notices.append(f"Numbers with the mark seen ({_count(len(shown), 'cell')}) are no estimate: {SEEN}.")
    if results.superseded:
        notices.append(f"{results.superseded} cells of earlier revisions of a system are left out.")
    return notices


def claims_of(verdicts: Sequence[Verdict]) -> Mapping[str, Any] | None:
    """What the part of the claims shows; None without any."""
    if not verdicts:
        return None
    return {
        "title": TITLE,
        "gist": "what they say of their systems, tested on these runs",
        "labels": labels(verdicts),
        "count": count_words(verdicts),
        "grid": claims_grid(verdicts),
        "comparisons": comparisons_grid(verdicts),
        "method": METHOD,
        "origins": origins(verdicts, dated=False),
    }


def fold_notices(results: Results) -> list[str]:
    """What a reader should know of stores with folds of an earlier version, where some were used beyond fold 0."""
    used = results.cells.loc[results.cells["fold"] > 0, "setting"].unique()
    settings = [setting for key, setting in results.settings.items() if key in used]
    earlier = {(s.corpus, s.store) for s in settings if s.fold_rule == EARLIER_FOLDS}
    return [f"Feature {folds_advice(*store)}." for store in sorted(earlier)]


def _videos(store: FeatureStore) -> int:
    return len({clip.video for clip in store.clips})


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("s" if number != 1 else "")


def _numbers(cells: pd.DataFrame, column: str) -> list[int]:
    return sorted({int(value) for value in cells[column]})
