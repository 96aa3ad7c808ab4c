"""Behind a number: its cells, their curves, configuration, environment and tracked run, as small data for the page.

The page builds the tables when a reader opens them; written out, the cells of a large sweep would be most of its bytes.
"""

import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from crossfold.platform.results import CellRecord, Workspace
from crossfold.reports.budget import setting_targets, setting_variants
from crossfold.reports.cells import Results, Setting

POINTS = 16
"""Epochs of a curve that are kept, the first and the last among them."""
RUNS = "mlflow-runs.jsonl"
"""Which run mirrors which cell; written by the mirror, beside the cells."""


def drill_data(results: Results, settings: Sequence[Setting], workspace: Workspace | None) -> dict[str, Any]:
    """Everything the page needs below the groups of cells.

    groups: anchor -> rows `[fold, seed, CCC, mean per video, best epoch, epochs, id, why not, when, seconds,
    environment, curve]`, with `params` and `setting`; environments and recipes are listed once.
    """
    anchors = group_anchors(results)
    environments: dict[str, int] = {}
    runs = _runs(workspace)
    recipes: dict[str, Any] = {}
    groups = {}
    for setting in settings:
        for variant, target in group_keys(results, setting):
            anchor = anchors.get((setting.key, variant, target))
            if anchor is None:
                continue
            rows = results.groups[setting.key, variant, target]
            records = [results.records.get(str(cell_id)) for cell_id in rows["cell_id"]]
            first = next((record for record in records if record), None)
            if first and setting.key not in recipes:
                recipes[setting.key] = first.cell.recipe.model_dump(mode="json")
            groups[anchor] = {
                "setting": setting.key,
                "params": json.loads(rows["params"].iloc[0]),
                "rows": [
                    _row(row, record, target, environments)
                    for row, record in zip(rows.to_dict("records"), records, strict=True)
                ],
            }
    shown = {row[6] for group in groups.values() for row in group["rows"]}
    return {
        "groups": groups,
        "environments": [json.loads(text) for text in environments],
        "recipes": recipes,
        "runs": {cell_id: run for cell_id, run in runs.items() if cell_id in shown},
    }


def group_anchors(results: Results) -> dict[tuple[str, str, str], str]:
    """(setting, variant, target) -> the id of its block of cells; numbered, so that names never reach an id."""
    keys = results.cells[["setting", "variant", "target"]].drop_duplicates().to_numpy()
    return {(str(s), str(v), str(t)): f"cells-{index}" for index, (s, v, t) in enumerate(keys, start=1)}


def group_keys(results: Results, setting: Setting) -> list[tuple[str, str]]:
    """The variants and targets of a setting, in order of figures."""
    targets = setting_targets(results, setting)
    return [(variant, target) for variant in setting_variants(results, setting) for target in targets]


def _row(row: Mapping[Any, Any], record: CellRecord | None, target: str, environments: dict[str, int]) -> list[Any]:
    if record is None:
        state = f"failed: {row['failure']}" if row["status"] == "failed" else "not run"
        return [int(row["fold"]), int(row["seed"]), None, None, None, None, row["cell_id"], state, "", None, None, []]
    env = record.env
    facts = {
        **env.get("machine", {}),
        **{key: env[key] for key in ("device", "determinism", "precision") if key in env},
        **env.get("versions", {}),
    }
    text = json.dumps(facts, sort_keys=True)
    return [
        int(row["fold"]),
        int(row["seed"]),
        round(float(row["ccc"]), 4),
        round(float(row["ccc_video_mean"]), 4),
        int(row["best_epoch"]),
        int(row["epochs"]),
        row["cell_id"],
        "",
        str(env.get("finished_at", ""))[:16],
        round(float(env.get("train_seconds") or 0), 1),
        environments.setdefault(text, len(environments)),
        _curve(record, target),
    ]


def _curve(record: CellRecord, target: str) -> list[int | None]:
    """CCC by epoch in thousandths, thinned to `POINTS` at equal steps."""
    values = record.curve[f"ccc_{target}"].to_numpy()
    chosen = np.unique(np.linspace(0, len(values) - 1, min(len(values), POINTS)).round().astype(int))
    return [round(float(value) * 1000) if np.isfinite(value) else None for value in values[chosen]]


def _runs(workspace: Workspace | None) -> dict[str, str]:
    """Cell -> its run in the MLflow mirror, the last one where it was mirrored to several stores."""
    path = workspace.root / RUNS if workspace else None
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path and path.is_file() else ():
        # A driver that was killed may have left half a line.
        with contextlib.suppress(ValueError, KeyError):
            entry = json.loads(line)
            found[str(entry["cell"])] = str(entry["run"])
    return found
