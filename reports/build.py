"""`crossfold report`: a workspace becomes tables, figures and one page. Never trains, needs no GPU."""

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from crossfold.datasets.store import FeatureStore
from crossfold.platform.errors import UserError, nearest
from crossfold.platform.results import Workspace
from crossfold.reports.budget import setting_targets, setting_variants
from crossfold.reports.cells import Results, Setting, load_results
from crossfold.reports.claims import Verdict, count_words, judge
from crossfold.reports.claims_text import claims_csv, claims_latex, claims_markdown
from crossfold.reports.comparison import corpus_name
from crossfold.reports.figures import Figure, gain_bars, gate_pairs, learning_curve
from crossfold.reports.html import Page, render
from crossfold.reports.leaderboard import build_leaderboard
from crossfold.reports.measure import measure, provenance, runs_of
from crossfold.reports.specs import LEADERBOARD, check_tables, table_spec
from crossfold.reports.statistics import Gain, paired_gain
from crossfold.reports.tables import build, choose_setting
from crossfold.reports.text import to_csv, to_latex, to_markdown
from crossfold.reports.traces import choose_example, clip_trace
from crossfold.reports.values import MEAN, NOT_MEASURABLE, Table, listing

FORMATS = ("html", "md", "tex", "csv")
TITLE = "Crossfold report"
DATE = "%Y-%m-%d %H:%M %Z"

_SELECTION = {
    "reported": "best epoch picked on the reported split",
    "held_out": "best epoch picked on held-out training videos",
}
CLAIMS = "claims"
"""Name of the files with the verdicts on the papers' claims."""
_CLAIM_WRITERS: Mapping[str, Callable[[Sequence[Verdict]], str]] = {
    "md": claims_markdown,
    "tex": claims_latex,
    "csv": claims_csv,
}
_WRITERS: Mapping[str, Callable[[Table], str]] = {"md": to_markdown, "tex": to_latex, "csv": to_csv}


@dataclass(frozen=True)
class Report:
    """What was written."""

    paths: tuple[Path, ...]
    """The page first, where one was asked for; then each table in each format."""
    summary: str
    """A few lines for a terminal."""


def build_report(
    workspace: Workspace,
    *,
    tables: Sequence[str] = (),
    formats: Sequence[str] = FORMATS,
    out: Path | None = None,
    now: datetime.datetime | None = None,
) -> Report:
    """Writes `report.html` and one file a table and format into `out`, by default the workspace's `reports`.

    tables: ids such as `dca-t1`; none means all. The same workspace gives the same bytes, but for the date `now`.
    Raises `UserError` for an unknown table or format, and where nothing has run yet.
    """
    wanted = check_tables(tables)
    for name in formats:
        if name not in FORMATS:
            raise UserError(f"unknown format {name!r}{nearest(name, FORMATS)}", "give some of " + ", ".join(FORMATS))
    results = load_results(workspace)
    if results.cells.empty:
        raise UserError(
            f"nothing to report: workspace {workspace.root} has no finished cell",
            "run `crossfold demo`, or `crossfold run SWEEP` with --workspace, first",
        )
    moment = now or datetime.datetime.now(datetime.UTC)
    built = build_tables(results, wanted, moment)
    verdicts = judge(results, built)
    out = out or workspace.reports
    out.mkdir(parents=True, exist_ok=True)
    texts: dict[str, str] = {}
    if "html" in formats:
        texts["report.html"] = render(_page(workspace, results, built, verdicts, moment), results)
    for table in built:
        for name in (name for name in FORMATS if name in formats and name in _WRITERS):
            texts[f"{table.id}.{name}"] = _WRITERS[name](table)
    for name in (name for name in FORMATS if verdicts and name in formats and name in _CLAIM_WRITERS):
        texts[f"{CLAIMS}.{name}"] = _CLAIM_WRITERS[name](verdicts)
    for name, text in texts.items():
        (out / name).write_text(text, encoding="utf-8")
    return Report(tuple(out / name for name in texts), summary(built, verdicts))


def build_tables(results: Results, wanted: Sequence[str], made: datetime.datetime | None = None) -> tuple[Table, ...]:
    """The tables asked for; the leaderboard once a setting, papers' tables where they belong best.

    made: the date that each table carries.
    """
    built: list[Table] = []
    for name in wanted:
        if name == LEADERBOARD:
            for index, setting in enumerate(results.settings.values(), start=1):
                built.append(build_leaderboard(results, setting, f"-{index}" if index > 1 else ""))
        else:
            spec = table_spec(name)
            built.append(build(spec, results, choose_setting(spec, results)))
    date = made.strftime(DATE).strip() if made else ""
    return tuple(replace(table, provenance=provenance(results, table.setting, table.entries, date)) for table in built)


def gate_gains(results: Results, setting: Setting) -> list[tuple[str, str, str, Gain]]:
    """Variant name, system, target and gain of every complete pair of a base and its gated version."""
    systems = setting_variants(results, setting)
    gains = []
    for base, gated in gate_pairs(results, setting):
        for target in setting_targets(results, setting):
            pair = [measure(results, setting, variant, target) for variant in (gated, base)]
            if all(entry.mean is not None for entry in pair):
                ours, theirs = (runs_of(results, setting, variant, target) for variant in (gated, base))
                gain = paired_gain(ours, theirs)
                if gain:
                    gains.append((results.variants[gated], systems[gated], target, gain))
    return gains


def _page(
    workspace: Workspace,
    results: Results,
    tables: Sequence[Table],
    verdicts: Sequence[Verdict],
    moment: datetime.datetime,
) -> Page:
    setting = next(iter(results.settings.values()))
    store, notices = _open_store(workspace, setting)
    notices += _notices(results)
    return Page(
        title=f"{TITLE}: {corpus_name(setting.corpus)}",
        date=moment.strftime(DATE).strip(),
        summary=_measured(results, setting, store),
        facts=_facts(results, setting, store),
        tables=tables,
        verdicts=verdicts,
        figures=_figures(results, setting, store),
        notices=notices,
        setting=setting,
    )


def _figures(results: Results, setting: Setting, store: FeatureStore | None) -> list[Figure]:
    targets = setting_targets(results, setting)
    gains = gate_gains(results, setting)
    figures = [learning_curve(results, setting, target) for target in targets]
    figures += [gain_bars(gains, target) for target in targets]
    example = choose_example(results, setting, store) if store else None
    if store and example:
        figures += [clip_trace(results, setting, store, example, target) for target in targets]
    return [figure for figure in figures if figure]


def _open_store(workspace: Workspace, setting: Setting) -> tuple[FeatureStore | None, list[str]]:
    """The store that was measured; a report does without it, as after a merge from another machine."""
    try:
        return FeatureStore(workspace.find_store(setting.corpus, setting.store)), []
    except UserError:
        return None, [f"Feature store {setting.corpus}-{setting.store} is not in this workspace, so no clip is shown."]


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
        f"recipe {setting.recipe}, {_SELECTION.get(setting.selection, setting.selection)}."
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
        ("Selection", _SELECTION.get(setting.selection, setting.selection)),
        ("Post-processing", "none"),
        ("Folds", listing(tuple(sorted(int(fold) for fold in cells["fold"].unique())))),
        ("Seeds", listing(tuple(sorted(int(seed) for seed in cells["seed"].unique())))),
        (
            "Cells",
            ", ".join(f"{counts[status]} {status}" for status in ("done", "failed", "planned") if status in counts),
        ),
        ("Versions", ", ".join(f"{name} {'/'.join(sorted(found))}" for name, found in sorted(versions.items()))),
    ]


def _notices(results: Results) -> list[str]:
    notices = []
    others = list(results.settings.values())[1:]
    if others:
        named = "; ".join(f"{s.corpus} {s.store}, recipe {s.recipe} ({s.recipe_hash or 'unknown'})" for s in others)
        notices.append(f"Also in this workspace, and never mixed with the above: {named}.")
    if results.superseded:
        notices.append(f"{results.superseded} cells of earlier revisions of a system are left out.")
    return notices


def summary(tables: Sequence[Table], verdicts: Sequence[Verdict]) -> str:
    """A few lines for a terminal: what each table has, the claims, and which tables nothing has run for."""
    lines = [_summary(table) for table in tables if not table.idle or len(tables) == 1]
    idle = [table.id for table in tables if table.idle]
    if idle and len(tables) > 1:
        lines.append(f"nothing run for {listing(idle)}: `crossfold run TABLE` runs one")
    return "\n".join([*lines, *filter(None, [count_words(verdicts)])])


def _summary(table: Table) -> str:
    if table.architecture:
        return f"{table.id}: {table.sentences[0]}"
    entries = [entry for entry in table.entries if entry.target != MEAN and entry.verdict != NOT_MEASURABLE]
    if not entries:
        return f"{table.id}: nothing in it can be measured here"
    done = sum(entry.mean is not None for entry in entries)
    label = f" ({table.setting.label})" if table.setting.label else ""
    return f"{table.id}: {done} of {len(entries)} entries measured on {table.setting.corpus}{label}"
