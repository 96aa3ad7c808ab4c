"""The cells behind a number, their curves, configuration, environment and tracked run, as small data for the page.

The page builds the tables when a reader opens them; written out, the cells of a large sweep would be most of its bytes.
"""

import json
import os
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from crossfold.platform.workspace.cell_record import CellRecord
from crossfold.platform.workspace.logged_runs import logged_runs, public_address, store_digest
from crossfold.platform.workspace.workspace import Workspace
from crossfold.reports.results.comparable import setting_targets, setting_variants
from crossfold.reports.results.curves import Floats
from crossfold.reports.results.model import Results, Setting, memory_of
from crossfold.reports.tables.measure import commit_words

POINTS = 16
"""The most epochs of a curve on the page, the first and the last among them."""
DIGITS = string.digits + string.ascii_uppercase + string.ascii_lowercase


def drill_data(results: Results, settings: Sequence[Setting], workspace: Workspace | None) -> dict[str, Any]:
    """The data of every group of cells.

    groups: anchor -> rows `[fold, seed, CCC, mean per video, best epoch, epochs, id, why there is no result, when,
    seconds, environment, curve, MiB of memory, tracked run]`, with `params` and `setting`; environments and recipes are
    listed once.
    """
    anchors = group_anchors(results)
    environments: dict[str, int] = {}
    runs = mlflow_runs(workspace)
    recipes: dict[str, Any] = {}
    groups = {}
    for setting in settings:
        for variant, target in group_keys(results, setting):
            rows = results.groups[setting.key, variant, target]
            records = [results.records.get(str(cell_id)) for cell_id in rows["cell_id"]]
            first = next((record for record in records if record), None)
            if first and setting.key not in recipes:
                recipes[setting.key] = first.cell.recipe.model_dump(mode="json")
            data = []
            for row, record in zip(rows.to_dict("records"), records, strict=True):
                curve = results.curves.of(record.cell_id, target) if record else None
                data.append([*_row(row, record, curve, environments), runs.get(str(row["cell_id"]), ("", ""))[0]])
            params = json.loads(rows["params"].iloc[0])
            groups[anchors[setting.key, variant, target]] = {"setting": setting.key, "params": params, "rows": data}
    shown = {row[6] for group in groups.values() for row in group["rows"]}
    linked = {cell_id: page for cell_id, (_, page) in runs.items() if cell_id in shown}
    # Most runs are on one page of MLflow; it comes first, and only the other runs name theirs.
    pages = [page for page, _ in Counter(linked.values()).most_common()]
    return {
        "groups": groups,
        "environments": [json.loads(text) for text in environments],
        "recipes": recipes,
        "labels": {setting.key: setting.label for setting in settings if setting.label},
        "run_pages": {cell_id: pages.index(page) for cell_id, page in linked.items() if page != pages[0]},
        "pages": pages,
        "seen": sorted(results.seen & shown),
    }


def group_anchors(results: Results) -> dict[tuple[str, str, str], str]:
    """(setting, variant, target) -> the id of its block of cells; numbered, so that an id never contains a name."""
    keys = results.cells[["setting", "variant", "target"]].drop_duplicates().to_numpy()
    return {(str(s), str(v), str(t)): f"cells-{index}" for index, (s, v, t) in enumerate(keys, start=1)}


def group_keys(results: Results, setting: Setting) -> list[tuple[str, str]]:
    """The variants and targets of a setting that have cells, in order of figures."""
    targets = setting_targets(results, setting)
    keys = [(variant, target) for variant in setting_variants(results, setting) for target in targets]
    return [(variant, target) for variant, target in keys if (setting.key, variant, target) in results.groups]


def _row(
    row: Mapping[Any, Any], record: CellRecord | None, curve: Floats | None, environments: dict[str, int]
) -> list[Any]:
    fold, seed, cell_id = int(row["fold"]), int(row["seed"]), row["cell_id"]
    if record is None or curve is None:
        state = f"failed: {row['failure']}" if row["status"] == "failed" else "not run"
        return [fold, seed, None, None, None, None, cell_id, state, "", None, None, "", None]
    env = record.env
    facts = {
        **env.get("machine", {}),
        **{key: env[key] for key in ("device", "determinism", "precision") if key in env},
        **env.get("versions", {}),
        **({"commit": commit_words(env["code"])} if "code" in env else {}),
    }
    text = json.dumps(facts, sort_keys=True)
    return [
        fold,
        seed,
        round(float(row["ccc"]), 4),
        round(float(row["ccc_video_mean"]), 4),
        int(row["best_epoch"]),
        int(row["epochs"]),
        cell_id,
        "",
        str(env.get("finished_at", ""))[:16],
        round(float(env.get("train_seconds") or 0), 1),
        environments.setdefault(text, len(environments)),
        _packed(curve),
        next((round(size) for size in memory_of(env).values() if size is not None), None),
    ]


def _packed(values: Floats) -> str:
    """CCC by epoch, thinned to `POINTS` at equal steps: two digits of base 62 each, of thousandths above -1.

    `..` is no number.
    """
    # As lists of numbers, the curves would be half of a page without charts.
    chosen = np.unique(np.linspace(0, len(values) - 1, min(len(values), POINTS)).round().astype(int))
    thousandths = [round(float(value) * 1000) + 1000 if np.isfinite(value) else None for value in values[chosen]]
    return "".join(".." if n is None else DIGITS[n // 62] + DIGITS[n % 62] for n in thousandths)


def mlflow_runs(workspace: Workspace | None) -> dict[str, tuple[str, str]]:
    """Cell -> its run in MLflow and the address of its page, the last one where it was logged to several servers.

    The address is empty where the server is not known: runs were logged to a file, or by an older version.
    """
    here = os.environ.get("MLFLOW_TRACKING_URI", "")
    servers = {store_digest(here): here}
    found = {}
    for entry in logged_runs(workspace) if workspace else ():
        server = public_address(str(entry.get("server") or servers.get(entry.get("store", ""), "")))
        found[entry["cell"]] = (entry["run"], f"{server}/#/runs/" if server else "")
    return found
