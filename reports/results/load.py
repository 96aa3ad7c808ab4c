"""A workspace as tidy tables: what finished, what failed, what is still planned. Reads files, computes nothing."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd

from crossfold.platform.core.cell import PROTOCOL, Cell
from crossfold.platform.core.errors import UserError
from crossfold.platform.core.hashing import canonical_json
from crossfold.platform.core.outcome import Failure
from crossfold.platform.core.recipe import Recipe
from crossfold.platform.workspace.cell_record import CellRecord
from crossfold.platform.workspace.workspace import Workspace, saved_ensembles
from crossfold.reports.results.model import COLUMNS, Look, Results, Setting, memory_of
from crossfold.reports.results.systems import system_label, system_rank
from crossfold.reports.stats.bootstrap import Run, moments_of

MAX_KEYS = 3
"""More parameters than this make no name that can be read."""


def load_results(workspace: Workspace) -> Results:
    """Reads every finished cell but those of searches, the failure ledger, and what launched sweeps still owe."""
    records = {record.cell_id: record for record in workspace.records() if record.cell.inner is None}
    settings = {cell_id: _setting(record.cell) for cell_id, record in records.items()}
    rows = [row for record in records.values() for row in _finished_rows(record, settings[record.cell_id].key)]
    sweeps = {
        path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(workspace.sweeps.glob("*.json"))
    }
    last = {failure.cell_id: failure for failure in workspace.failures_of() if failure.cell_id not in records}
    known = {setting.key: setting for setting in settings.values()}
    for owed, setting in _owed(list(sweeps.values()), settings, last):
        known.setdefault(setting.key, setting)
        rows.append(owed | {"setting": setting.key})
    cells = pd.DataFrame(rows, columns=list(COLUMNS)).drop_duplicates(["cell_id", "target"], ignore_index=True)
    cells, superseded = _latest_revisions(cells)
    sizes = Counter(cells["setting"])
    done = Counter(cells.loc[cells["status"] == "done", "setting"])
    kept = set(cells["cell_id"])
    rescored = _rescored(workspace)
    seen = {
        cell_id: [*_committed(record), *(json.loads(path.read_text()) for path in rescored.get(cell_id, ()))]
        for cell_id, record in records.items()
        if cell_id in kept
    }
    return Results(
        cells=cells.sort_values(["setting", "variant", "target", "fold", "seed"], ignore_index=True),
        runs={
            (cell_id, target): _run(record, target)
            for cell_id, record in records.items()
            if cell_id in kept
            for target in record.cell.targets
        },
        settings=dict(sorted(known.items(), key=lambda item: (-done[item[0]], -sizes[item[0]], item[0]))),
        records={cell_id: record for cell_id, record in records.items() if cell_id in kept},
        failures=tuple(
            failure for failure in last.values() if failure.cell_id in kept or " inner " not in failure.label
        ),
        superseded=superseded,
        variants=_variant_names(cells),
        processed={
            key: run
            for cell_id, record in records.items()
            if cell_id in kept
            for key, run in _processed(record, seen[cell_id])
        },
        looks={cell_id: look for cell_id, found in seen.items() if (look := _look(found)) != Look()},
        ensembles=saved_ensembles(workspace),
        swept={name: frozenset(sweep["cells"]) for name, sweep in sweeps.items()},
    )


def _setting(cell: Cell) -> Setting:
    return setting_of(cell.recipe, cell.corpus, cell.store, cell.protocol, joint=len(cell.targets) > 1)


def setting_of(recipe: Recipe, corpus: str, store: str, protocol: int, *, joint: bool) -> Setting:
    """The setting of everything that runs so."""
    return Setting(
        corpus=corpus,
        store=store,
        recipe=recipe.name,
        recipe_hash=hashlib.sha256(recipe.identity_json.encode()).hexdigest()[:8],
        selection=recipe.selection,
        protocol=protocol,
        joint=joint,
    )


def _finished_rows(record: CellRecord, setting: str) -> Iterator[dict[str, Any]]:
    cell, result = record.cell, record.result
    params = canonical_json(cell.params)
    for target in cell.targets:
        metrics = result["metrics"][target]
        yield {
            "cell_id": record.cell_id,
            "status": "done",
            "setting": setting,
            "system": cell.system,
            "params": params,
            "variant": f"{cell.system} {params}",
            "corpus": cell.corpus,
            "store": cell.store,
            "fold": cell.fold,
            "target": target,
            "seed": cell.seed,
            "recipe": cell.recipe.name,
            "protocol": cell.protocol,
            "revision": cell.revision,
            "selection": cell.recipe.selection,
            **{name: metrics[name] for name in ("ccc", "ccc_video_mean", "pcc", "rmse")},
            "best_epoch": result["selection"]["best_epoch"],
            "epochs": result["selection"]["epochs"],
            "train_seconds": record.env.get("train_seconds"),
            "parameters": result["model"]["parameters"],
            "flops": result["model"].get("flops_per_window"),
            **memory_of(record.env),
        }


def _run(record: CellRecord, target: str) -> Run:
    videos, moments = moments_of(record.result["videos"][target])
    return Run(record.cell.fold, record.cell.seed, record.result["metrics"][target]["ccc"], videos, moments)


def _committed(record: CellRecord) -> Sequence[Mapping[str, Any]]:
    """What the cell says of itself beyond its score; cells from before there was any of it say nothing."""
    return (record.result,) if "stress" in record.result else ()


def _rescored(workspace: Workspace) -> dict[str, list[Path]]:
    """Cell id -> the files of its later scorings, from one listing: to ask for each of many cells takes seconds."""
    found: dict[str, list[Path]] = {}
    for path in sorted(workspace.rescored.glob("*/*.json")):
        found.setdefault(path.stem, []).append(path)
    return found


def _look(evaluations: Sequence[Mapping[str, Any]]) -> Look:
    """The longest battery that the cell was scored under, and the gates that were looked at with it."""
    most = max(evaluations, key=lambda each: len(each.get("stress") or ()), default={})
    gates = most.get("gates") or next((each["gates"] for each in evaluations if each.get("gates")), None)
    return Look(most.get("stress") or (), gates or ())


def _processed(
    record: CellRecord, evaluations: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[tuple[str, str, str], Run]]:
    """The runs after each post-processing of the cell; the committed scoring goes before later ones."""
    seen = set()
    for evaluation in evaluations:
        for name, column in ((evaluation.get("post") or {}).get("columns") or {}).items():
            if name in seen:
                continue
            seen.add(name)
            for target, metrics in column["metrics"].items():
                videos, moments = moments_of(column["videos"][target])
                run = Run(record.cell.fold, record.cell.seed, metrics["ccc"], videos, moments)
                yield (record.cell_id, target, name), run


def _owed(
    sweeps: Sequence[Mapping[str, Any]], settings: Mapping[str, Setting], failed: Mapping[str, Failure]
) -> Iterator[tuple[dict[str, Any], Setting]]:
    """Rows of cells that a launched sweep asked for and that have not finished, each with its setting."""
    for sweep in sweeps:
        asked = [cell_id for cell_id in sweep["cells"] if cell_id not in settings]
        for cell_id in asked:
            label = sweep["labels"][cell_id]
            if label.get("inner") is not None:
                continue
            targets = label["target"].split("+")
            setting = _setting_of_sweep(sweep, settings, joint=len(targets) > 1, selection=label.get("selection"))
            params = canonical_json(label["params"])
            failure = failed.get(cell_id)
            for target in targets:
                yield (
                    {
                        "cell_id": cell_id,
                        "status": "failed" if failure else "planned",
                        "failure": failure.kind.value if failure else None,
                        "system": label["system"],
                        "params": params,
                        "variant": f"{label['system']} {params}",
                        "corpus": setting.corpus,
                        "store": setting.store,
                        "fold": label["fold"],
                        "target": target,
                        "seed": label["seed"],
                        "recipe": setting.recipe,
                        "protocol": setting.protocol,
                        "selection": setting.selection,
                    },
                    setting,
                )


def _setting_of_sweep(
    sweep: Mapping[str, Any], settings: Mapping[str, Setting], *, joint: bool, selection: str | None
) -> Setting:
    """The setting of the sweep's finished cells; before any has finished, the one that the sweep says it runs in.

    A sweep that does not say gets one of its own. Never that of another sweep: what one recipe still
    owes must not make the rows of another look unfinished.
    """
    own = {settings[cell_id] for cell_id in sweep["cells"] if cell_id in settings}
    own = {setting for setting in own if selection in (None, setting.selection)}
    if own:
        return replace(min(own, key=lambda setting: setting.key), joint=joint)
    protocol = int(sweep.get("protocol", PROTOCOL))
    if "recipe" in sweep:
        # A recipe that this version no longer reads is one that it cannot have run either.
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


def _variant_names(cells: pd.DataFrame) -> dict[str, str]:
    """Names of variants: the system, and those parameters in which its variants of one setting differ."""
    shown: dict[str, set[str]] = {}
    parsed = {row["variant"]: json.loads(row["params"]) for row in cells[["variant", "params"]].to_dict("records")}
    for _, group in cells.groupby(["setting", "system"]):
        values = {str(variant): parsed[variant] for variant in group["variant"].unique()}
        for variant in values:
            shown.setdefault(variant, set()).update(_telling_keys(list(values.values())))
    names = {}
    distinct = cells[["system", "variant"]].drop_duplicates().to_dict("records")
    for row in sorted(distinct, key=lambda row: (system_rank(str(row["system"])), str(row["variant"]))):
        variant, params = str(row["variant"]), parsed[row["variant"]]
        # A parameter that a variant does not have, as before it was invented, is none of its names.
        detail = ", ".join(f"{key} {params[key]}" for key in sorted(shown[variant] & params.keys()))
        names[variant] = system_label(str(row["system"])) + (f" ({detail})" if detail else "")
    return names


def _telling_keys(variants: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The keys in which variants differ; of more than `MAX_KEYS`, the fewest that tell all of them apart."""
    keys = sorted({key for params in variants for key in params})
    differing = [key for key in keys if len({repr(params.get(key)) for params in variants}) > 1]
    if len(differing) <= MAX_KEYS:
        return tuple(differing)
    for size in range(1, MAX_KEYS + 1):
        for chosen in combinations(differing, size):
            if len({repr([params.get(key) for key in chosen]) for params in variants}) == len(variants):
                return chosen
    return tuple(differing)
