"""Scores under the stress suite, as a table."""

import numpy as np
import pandas as pd

from crossfold.reports.results.model import Results, Robustness, Setting

COLUMNS = ("variant", "fold", "seed", "target", "kind", "modality", "strength", "ccc", "used")
FEWEST = 2
"""Strengths of a curve besides 0."""


def stress_table(results: Results, setting: Setting) -> pd.DataFrame:
    """Columns `COLUMNS`: one row per finished cell, target and entry of the suite, and the raw score as strength 0."""
    if setting.key not in results.stress_tables:
        results.stress_tables[setting.key] = _stress_table(results, setting)
    return results.stress_tables[setting.key]


def _stress_table(results: Results, setting: Setting) -> pd.DataFrame:
    cells = results.rows(setting, status="done")[["cell_id", "variant", "fold", "seed", "target", "ccc"]]
    damages: dict[tuple[str, str], int] = {}
    # By number of the cell and of the damage: with their words, the rows of 100,000 cells would take 1 GB.
    rows: list[tuple[int, int, float, float, bool]] = []
    facts = zip(cells["cell_id"].tolist(), cells["target"].tolist(), cells["ccc"].tolist(), strict=True)
    for at, (cell_id, target, ccc) in enumerate(facts):
        known: set[int] = set()
        for entry in results.robustness.get(cell_id, Robustness()).stress:
            metrics = entry["metrics"].get(target)
            if metrics is None or metrics["ccc"] is None:  # the damage left no frame with a prediction
                continue
            damage = damages.setdefault((entry["kind"], entry["modality"]), len(damages))
            rows.append((at, damage, float(entry["strength"]), float(metrics["ccc"]), bool(entry["used"])))
            # Strength 0 is where every line of the chart starts.
            if damage not in known:
                known.add(damage)
                rows.append((at, damage, 0.0, float(ccc), bool(entry["used"])))
    found = pd.DataFrame(rows, columns=["cell", "damage", "strength", "ccc", "used"])
    own = cells[["variant", "fold", "seed", "target"]].astype({"variant": "category", "target": "category"})
    kinds, modalities = (pd.Series([names[i] for names in damages], dtype="str").astype("category") for i in (0, 1))
    return pd.DataFrame(
        {name: own[name].take(found["cell"].to_numpy(np.int64)).reset_index(drop=True) for name in own}
        | {"kind": kinds.take(found["damage"].to_numpy(np.int64)).reset_index(drop=True)}
        | {"modality": modalities.take(found["damage"].to_numpy(np.int64)).reset_index(drop=True)}
        | {name: found[name] for name in ("strength", "ccc", "used")},
        columns=list(COLUMNS),
    )


def stress_scores(results: Results, setting: Setting) -> dict[str, float]:
    """Variant -> mean CCC over the damaged entries, targets, folds and seeds.

    Only variants of which every finished run was scored under the whole suite of the setting: means over different
    damage cannot be compared.
    """
    table = stress_table(results, setting)
    return _complete(results, setting, table[table["strength"] != 0], ["kind", "modality", "strength"])


def stress_areas(results: Results, setting: Setting) -> pd.DataFrame:
    """The area below each curve of CCC against dose, over the range of doses: the mean CCC as damage grows.

    One row per finished cell, target, kind and modality that has at least two strengths besides 0: columns variant,
    fold, seed, target, kind, modality, used and ccc. Trapezoids between the strengths, from the raw score at 0 on.
    """
    groups = ["variant", "fold", "seed", "target", "kind", "modality", "used"]
    # A suite may list strength 0 itself.
    table = stress_table(results, setting).drop_duplicates([*groups, "strength"]).sort_values([*groups, "strength"])
    # All curves at once, because a report may have 100,000 of them: the step to the first strength of a curve is none.
    curve = table.groupby(groups, sort=False)
    step, before = curve["strength"].diff().fillna(0.0), curve["ccc"].shift().fillna(0.0)
    table = table.assign(piece=step * (table["ccc"] + before) / 2, step=step)
    found = table.groupby(groups, sort=False).agg(n=("step", "size"), wide=("step", "sum"), below=("piece", "sum"))
    # With one strength there is no curve, only a score.
    found = found[found["n"] > FEWEST]
    return (found["below"] / found["wide"]).rename("ccc").reset_index()


def area_scores(results: Results, setting: Setting) -> dict[str, float]:
    """Variant -> mean of `stress_areas` over damages, targets, folds and seeds; for the variants of `stress_scores`."""
    return _complete(results, setting, stress_areas(results, setting), ["kind", "modality"])


def _complete(results: Results, setting: Setting, table: pd.DataFrame, damages: list[str]) -> dict[str, float]:
    """Variant -> mean CCC, of the variants of which every finished run has all damages of the table."""
    if table.empty:
        return {}
    wanted = results.rows(setting, status="done").groupby("variant").size() * len(table[damages].drop_duplicates())
    found = table.groupby("variant")["ccc"].agg(["size", "mean"])
    complete = found[found["size"] == wanted.reindex(found.index)]
    return {str(variant): float(mean) for variant, mean in complete["mean"].items()}
