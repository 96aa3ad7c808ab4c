"""Reads a workspace into tidy tables: what finished, what failed, what is still planned. Computes no score."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from crossfold.platform.core.cell import PROTOCOL, Cell
from crossfold.platform.core.errors import UserError
from crossfold.platform.core.hashing import canonical_json
from crossfold.platform.core.outcome import Failure
from crossfold.platform.core.recipe import Recipe
from crossfold.platform.workspace.cell_record import CellRecord
from crossfold.platform.workspace.documents import Rescored, read_document, read_launched
from crossfold.platform.workspace.store_cache import fold_rule_of
from crossfold.platform.workspace.workspace import RESCORE_AGAIN, Workspace, saved_ensembles
from crossfold.reports.results.model import COLUMNS, Results, Robustness, Setting, differing_keys, memory_of
from crossfold.reports.results.systems import DCA, LOADED_TITLES, system_label, system_rank
from crossfold.reports.stats.runs import Run, moments_of

MAX_KEYS = 3
"""The most parameters in the name of a variant; with more, the name could not be read."""


def launched_sweeps(workspace: Workspace) -> list[str]:
    """The names of the sweeps that were launched in a workspace."""
    # A name with a dot at its beginning is still being written.
    return [path.stem for path in sorted(workspace.paths.sweeps.glob("[!.]*.json"))]


def launched_corpora(workspace: Workspace) -> dict[str, str]:
    """The name of each launched sweep -> its corpus, with the dose that it lists first where it has some."""
    return {
        name: str(read_launched(workspace.paths.sweeps / f"{name}.json")["corpus"])
        for name in launched_sweeps(workspace)
    }


def load_results(workspace: Workspace) -> Results:
    """Reads every finished cell but those of searches, the failure log, and what launched sweeps still owe."""
    rescored, recipes = _rescored(workspace), list[Recipe]()
    read = {
        record.cell_id: _read(record, rescored.get(record.cell_id, ()), recipes)
        for record in workspace.records()
        if record.cell.inner is None
    }
    settings = {cell_id: each.setting for cell_id, each in read.items()}
    rows = [row for each in read.values() for row in _finished_rows(each.record, each.setting)]
    sweeps = {path.stem: read_launched(path) for path in sorted(workspace.paths.sweeps.glob("[!.]*.json"))}
    last = {failure.cell_id: failure for failure in workspace.failures_of() if failure.cell_id not in read}
    known = {setting.key: setting for setting in settings.values()}
    for owed, setting in _owed(list(sweeps.values()), settings, last):
        known.setdefault(setting.key, setting)
        rows.append(owed)
    # Two sweeps may ask for the same cell.
    cells = pd.DataFrame(rows, columns=list(COLUMNS)).drop_duplicates(["cell_id", "target"], ignore_index=True)
    cells, superseded = _latest_revisions(cells)
    sizes = Counter(cells["setting"])
    done = Counter(cells.loc[cells["status"] == "done", "setting"])
    shown = set(cells["cell_id"])
    kept = {cell_id: each for cell_id, each in read.items() if cell_id in shown}
    records = {cell_id: each.record for cell_id, each in kept.items()}
    titles = {**LOADED_TITLES, **_titles(records.values())}
    seen = frozenset(cell_id for sweep in sweeps.values() for cell_id in sweep.get("seen", ()))
    rules = _fold_rules(known.values(), workspace, sweeps.values())
    ruled = {key: replace(each, fold_rule=rules[each.corpus, each.store]) for key, each in known.items()}
    return Results(
        cells=cells.sort_values(["setting", "variant", "target", "fold", "seed"], ignore_index=True),
        runs={(cell_id, target): run for cell_id, each in kept.items() for target, run in each.runs.items()},
        settings=dict(sorted(ruled.items(), key=lambda item: (-done[item[0]], -sizes[item[0]], item[0]))),
        records=records,
        # Failed cells of a search are in no table, and the search reports them itself.
        failures=tuple(each for each in last.values() if each.cell_id in shown or " inner " not in each.label),
        superseded=superseded,
        variants=variant_names(cells, titles),
        seen=seen,
        processed={(cell_id, *key): run for cell_id, each in kept.items() for key, run in each.processed.items()},
        robustness={cell_id: each.robustness for cell_id, each in kept.items() if each.robustness != Robustness()},
        ensembles=saved_ensembles(workspace),
        titles=titles,
        sweep_cells={name: frozenset([*sweep["cells"], *sweep.get("earlier", ())]) for name, sweep in sweeps.items()},
    )


class _Read(NamedTuple):
    """What is kept of a finished cell: the moments of its videos as arrays, its record without them."""

    record: CellRecord
    setting: Setting
    runs: Mapping[str, Run]
    processed: Mapping[tuple[str, str], Run]
    robustness: Robustness


def _read(record: CellRecord, rescored: Sequence[Path], recipes: list[Recipe]) -> _Read:
    """recipes: the distinct ones so far, to which this adds its own."""
    # Cells of versions without a stress suite have only their score in `result.json`.
    committed = [record.result] if "stress" in record.result else []
    evaluations = [*committed, *(read_document(path, Rescored, RESCORE_AGAIN) for path in rescored)]
    cell, result = record.cell, record.result
    recipe = next((known for known in recipes if known == cell.recipe), None)
    if recipe is None:
        recipes.append(recipe := cell.recipe)
    # Each with its own recipe, and with the moments of videos as Python objects, 100,000 cells would take 10 GB.
    small = {key: value for key, value in result.items() if key in ("metrics", "selection", "model")}
    cell = cell.model_copy(update={"recipe": recipe})
    return _Read(
        record=replace(record, cell=cell, result=small),
        setting=_setting(cell),  # of the shared recipe, whose hash is computed once
        runs={target: _run(cell, result["metrics"][target], result["videos"][target]) for target in cell.targets},
        processed=dict(_processed(cell, evaluations)),
        robustness=_robustness(evaluations),
    )


def _setting(cell: Cell) -> Setting:
    return setting_of(cell.recipe, cell.corpus, cell.store, cell.protocol, joint=len(cell.targets) > 1)


def setting_of(recipe: Recipe, corpus: str, store: str, protocol: int, *, joint: bool) -> Setting:
    """The setting of the cells with this recipe, corpus, store and protocol."""
    recipe_hash = hashlib.sha256(recipe.identity_json.encode()).hexdigest()[:8]
    return Setting(corpus, store, recipe.name, recipe_hash, recipe.selection, protocol, joint)


def _fold_rules(
    settings: Iterable[Setting], workspace: Workspace, sweeps: Iterable[Mapping[str, Any]]
) -> dict[tuple[str, str], str]:
    """Corpus and store -> the rule of its folds, by the store itself; where it is elsewhere, by what was launched."""
    launched = {(sweep["corpus"], sweep["store"]): str(sweep.get("fold_rule", "")) for sweep in sweeps}
    stores = {(setting.corpus, setting.store) for setting in settings}
    return {store: fold_rule_of(workspace.paths.store(*store)) or launched.get(store, "") for store in stores}


def _rows(
    setting: Setting, params: Mapping[str, Any], targets: Sequence[str], **facts: Any
) -> Iterator[dict[str, Any]]:
    """One row of `Results.cells` for each target; `facts` are the columns that the setting does not determine."""
    text = canonical_json(params)  # computed once for all targets
    common = {name: getattr(setting, name) for name in ("corpus", "store", "recipe", "protocol", "selection")}
    variant = f"{facts['system']} {text}"
    for target in targets:
        yield {**common, **facts, "setting": setting.key, "params": text, "variant": variant, "target": target}


def _finished_rows(record: CellRecord, setting: Setting) -> Iterator[dict[str, Any]]:
    cell, result = record.cell, record.result
    facts = {
        "cell_id": record.cell_id,
        "status": "done",
        **{name: getattr(cell, name) for name in ("system", "fold", "seed", "revision")},
        "best_epoch": result["selection"]["best_epoch"],
        "epochs": result["selection"]["epochs"],
        "train_seconds": record.env.get("train_seconds"),
        "parameters": result["model"]["parameters"],
        "flops": result["model"].get("flops_per_window"),
        **memory_of(record.env),
    }
    for row in _rows(setting, cell.params, cell.targets, **facts):
        metrics = result["metrics"][row["target"]]
        yield row | {name: metrics[name] for name in ("ccc", "ccc_video_mean", "pcc", "rmse")}


def _run(cell: Cell, metrics: Mapping[str, Any], videos: Mapping[str, Sequence[float]]) -> Run:
    return Run(cell.fold, cell.seed, metrics["ccc"], *moments_of(videos))


def _titles(records: Iterable[CellRecord]) -> dict[str, str]:
    """System of a plug-in, without the gate -> the title that its last cell recorded."""
    last = sorted(records, key=lambda record: str(record.env.get("finished_at", "")))
    return {r.cell.system.partition(DCA)[0]: str(r.env["title"]) for r in last if r.env.get("title")}


def _rescored(workspace: Workspace) -> dict[str, list[Path]]:
    """Cell id -> the files of its later scorings."""
    # One listing: asking the disk for each of many cells takes seconds.
    found: dict[str, list[Path]] = {}
    for path in sorted(workspace.paths.rescored.glob("*/*.json")):
        found.setdefault(path.stem, []).append(path)
    return found


def _robustness(evaluations: Sequence[Mapping[str, Any]]) -> Robustness:
    """Of several evaluations, the one with the longest stress suite, and the gates that were scored with it.

    Of equally long ones, the one with most numbers by video, which cells of earlier versions lack.
    """
    most = max(
        evaluations,
        key=lambda each: (len(each.get("stress") or ()), sum("left_out" in one for one in each.get("stress") or ())),
        default={},
    )
    gates = most.get("gates") or next((each["gates"] for each in evaluations if each.get("gates")), None)
    return Robustness(tuple(_compact(entry) for entry in most.get("stress") or ()), gates or ())


def _compact(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """An entry with its numbers by video as arrays: as lists of numbers those of 100,000 cells would take 10 GB."""
    known = entry.get("left_out")
    if not known:
        return entry
    return {**entry, "left_out": {target: np.array(values, np.float32) for target, values in known.items()}}


def _processed(cell: Cell, evaluations: Sequence[Mapping[str, Any]]) -> Iterator[tuple[tuple[str, str], Run]]:
    """Target and post-processing -> the run after it; the committed scoring goes before later ones."""
    columns: dict[str, Mapping[str, Any]] = {}
    for evaluation in evaluations:
        columns = {**((evaluation.get("post") or {}).get("columns") or {}), **columns}  # the earlier scoring wins
    for name, column in columns.items():
        for target, metrics in column["metrics"].items():
            yield (target, name), _run(cell, metrics, column["videos"][target])


def _owed(
    sweeps: Sequence[Mapping[str, Any]], settings: Mapping[str, Setting], failed: Mapping[str, Failure]
) -> Iterator[tuple[dict[str, Any], Setting]]:
    """Rows of cells that a launched sweep asked for and that have not finished, each with its setting."""
    for sweep in sweeps:
        for cell_id in (cell_id for cell_id in sweep["cells"] if cell_id not in settings):
            label = sweep["labels"][cell_id]
            if label.get("inner") is not None:
                continue
            targets = label["target"].split("+")
            stored = {key: label.get(key, sweep[key]) for key in ("corpus", "store")}
            setting = _setting_of_sweep(
                {**sweep, **stored}, settings, joint=len(targets) > 1, selection=label.get("selection")
            )
            failure = failed.get(cell_id)
            facts = {
                "cell_id": cell_id,
                "status": "failed" if failure else "planned",
                "failure": failure.kind.value if failure else None,
                **{name: label[name] for name in ("system", "fold", "seed")},
            }
            for row in _rows(setting, label["params"], targets, **facts):
                yield row, setting


def _setting_of_sweep(
    sweep: Mapping[str, Any], settings: Mapping[str, Setting], *, joint: bool, selection: str | None
) -> Setting:
    """The setting of the sweep's finished cells; before any has finished, the one that the sweep file states.

    A sweep that states none gets a setting of its own, never that of another sweep: what one recipe still owes must
    not turn the rows of another into unfinished ones.
    """
    own = {settings[cell_id] for cell_id in sweep["cells"] if cell_id in settings}
    own = {setting for setting in own if selection in (None, setting.selection) and setting.store == sweep["store"]}
    if own:
        return replace(min(own, key=lambda setting: setting.key), joint=joint)
    protocol = int(sweep.get("protocol", PROTOCOL))
    if "recipe" in sweep:
        # A recipe that this version cannot read belongs to no cell that this version has run.
        with suppress(UserError):
            recipe = Recipe.parse(sweep["recipe"], "a launched sweep")
            recipe = recipe.model_copy(update={"selection": selection or recipe.selection})
            return setting_of(recipe, sweep["corpus"], sweep["store"], protocol, joint=joint)
    name = sweep.get("sweep", {}).get("recipe", "not known yet")
    return Setting(sweep["corpus"], sweep["store"], name, "", "not known yet", protocol, joint)


def _latest_revisions(cells: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Without the finished cells of a system whose mathematics has been revised since, and how many those were."""
    done = cells["status"] == "done"
    latest = cells[done].groupby(["setting", "system"])["revision"].transform("max")
    old = cells[done].index[cells.loc[done, "revision"].to_numpy() < latest.to_numpy()]
    return cells.drop(index=old).reset_index(drop=True), int(cells.loc[old, "cell_id"].nunique())


def variant_names(cells: pd.DataFrame, titles: Mapping[str, str]) -> dict[str, str]:
    """Names of variants, no two of which are the same: the system, and those parameters in which its variants differ.

    Variants of one setting are distinguished first. Where two of different settings would then share a name, as CA with
    one residual here and with another one there, all variants of the system have the parameters that distinguish them.
    """
    shown: dict[str, set[str]] = {}
    parsed = {row["variant"]: json.loads(row["params"]) for row in cells[["variant", "params"]].to_dict("records")}
    for _, group in cells.groupby(["setting", "system"]):
        variants = [str(variant) for variant in group["variant"].unique()]
        keys = _distinguishing_keys([parsed[variant] for variant in variants])
        for variant in variants:
            shown.setdefault(variant, set()).update(keys)

    def name_of(system: str, variant: str) -> str:
        # A cell of an older version lacks the parameters that were added since.
        keys = shown[variant] & parsed[variant].keys()
        detail = ", ".join(f"{key} {parsed[variant][key]}" for key in sorted(keys))
        return system_label(system, titles) + (f" ({detail})" if detail else "")

    by_system: dict[str, list[str]] = {}
    for system, variant in cells[["system", "variant"]].drop_duplicates().astype(str).itertuples(index=False):
        by_system.setdefault(system, []).append(variant)
    names: dict[str, str] = {}
    for system in sorted(by_system, key=system_rank):
        variants = sorted(by_system[system])
        if len({name_of(system, variant) for variant in variants}) < len(variants):
            keys = _distinguishing_keys([parsed[variant] for variant in variants])
            for variant in variants:
                shown[variant].update(keys)
        names |= {variant: name_of(system, variant) for variant in variants}
    # The title of a plug-in may be that of another system.
    systems = {variant: system for system, variants in by_system.items() for variant in variants}
    count = Counter(names.values())
    return {variant: f"{name} [{systems[variant]}]" if count[name] > 1 else name for variant, name in names.items()}


def _distinguishing_keys(variants: Sequence[Mapping[str, Any]]) -> Sequence[str]:
    """The keys in which variants differ; of more than `MAX_KEYS`, the fewest that distinguish all of them."""
    differing = differing_keys(variants)
    if len(differing) > MAX_KEYS:
        for size in range(1, MAX_KEYS + 1):
            for chosen in combinations(differing, size):
                if len({repr([params.get(key) for key in chosen]) for params in variants}) == len(variants):
                    return chosen
    return differing
