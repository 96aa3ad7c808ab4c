"""Scores under the stress suite, as a table."""

import pandas as pd

from crossfold.reports.results.model import Results, Robustness, Setting

COLUMNS = ("variant", "fold", "seed", "target", "kind", "modality", "strength", "ccc", "used")


def stress_table(results: Results, setting: Setting) -> pd.DataFrame:
    """Columns `COLUMNS`: one row per finished cell, target and entry of the suite, and the raw score as strength 0."""
    cells = results.rows(setting, status="done")
    rows = []
    for cell in cells[["cell_id", "variant", "fold", "seed", "target", "ccc"]].itertuples(index=False):
        known: set[tuple[str, str]] = set()
        for entry in results.robustness.get(str(cell.cell_id), Robustness()).stress:
            metrics = entry["metrics"].get(cell.target)
            if metrics is None or metrics["ccc"] is None:  # the damage left no frame with a prediction
                continue
            damage = (entry["kind"], entry["modality"])
            common = (cell.variant, cell.fold, cell.seed, cell.target, *damage)
            rows.append((*common, float(entry["strength"]), float(metrics["ccc"]), bool(entry["used"])))
            # Strength 0 is where every line of the chart starts.
            if damage not in known:
                known.add(damage)
                rows.append((*common, 0.0, float(str(cell.ccc)), bool(entry["used"])))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def stress_scores(results: Results, setting: Setting) -> dict[str, float]:
    """Variant -> mean CCC over the damaged entries, targets, folds and seeds.

    Only variants of which every finished run was scored under the whole suite of the setting: means over different
    damage cannot be compared.
    """
    table = stress_table(results, setting)
    table = table[table["strength"] != 0]
    if table.empty:
        return {}
    suite = table[["kind", "modality", "strength"]].drop_duplicates()
    wanted = results.rows(setting, status="done").groupby("variant").size() * len(suite)
    found = table.groupby("variant")["ccc"].agg(["size", "mean"])
    complete = found[found["size"] == wanted.reindex(found.index)]
    return {str(variant): float(mean) for variant, mean in complete["mean"].items()}
