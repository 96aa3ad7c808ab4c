"""Scores under the stress suite, as a table."""

import pandas as pd

from crossfold.reports.results.model import Results, Setting

COLUMNS = ("variant", "fold", "seed", "target", "kind", "modality", "strength", "ccc", "used")


def stress_table(results: Results, setting: Setting) -> pd.DataFrame:
    """Columns `COLUMNS`: one row a finished cell, target and entry of its battery, and the raw score as strength 0."""
    cells = results.cells
    done = cells[(cells["setting"] == setting.key) & (cells["status"] == "done")]
    rows = []
    for cell in done[["cell_id", "variant", "fold", "seed", "target", "ccc"]].itertuples(index=False):
        look = results.looks.get(str(cell.cell_id))
        known: set[tuple[str, str]] = set()
        for entry in look.stress if look else ():
            metrics = entry["metrics"].get(cell.target)
            if metrics is None or metrics["ccc"] is None:
                continue
            where = (entry["kind"], entry["modality"])
            common = (cell.variant, cell.fold, cell.seed, cell.target, *where)
            rows.append((*common, float(entry["strength"]), float(metrics["ccc"]), bool(entry["used"])))
            if where not in known:
                known.add(where)
                rows.append((*common, 0.0, float(str(cell.ccc)), bool(entry["used"])))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def stress_scores(results: Results, setting: Setting) -> dict[str, float]:
    """Variant -> mean CCC over the damaged entries, targets, folds and seeds.

    Only variants of which every finished run was scored under the setting's whole battery: means over different
    damage could not be compared.
    """
    table = stress_table(results, setting)
    table = table[table["strength"] != 0]
    if table.empty:
        return {}
    battery = table[["kind", "modality", "strength"]].drop_duplicates()
    runs = results.cells[(results.cells["setting"] == setting.key) & (results.cells["status"] == "done")]
    wanted = runs.groupby("variant").size() * len(battery)
    found = table.groupby("variant")["ccc"].agg(["size", "mean"])
    whole = found[found["size"] == wanted.reindex(found.index)]
    return {str(variant): float(mean) for variant, mean in whole["mean"].items()}
