"""Scores under the stress suite, as a table; and the areas below their curves, as runs."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from crossfold.reports.results.comparable import setting_targets
from crossfold.reports.results.load import setting_of
from crossfold.reports.results.model import Results, Robustness, Setting
from crossfold.reports.results.runs import cells_of_variant
from crossfold.reports.stats.intervals import left_out
from crossfold.reports.stats.runs import Floats, Run

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


def area_runs(results: Results, setting: Setting, *, used: bool = False) -> dict[str, list[list[Run]]]:
    """Variant -> for each target its runs, whose score is the mean of `stress_areas` over damages.

    Of the variants of `area_scores`, those of which every cell has numbers by video, so that a run knows what its area
    changes by without each video. used: only the damages to a modality that the system reads.
    """
    found = {}
    for variant in area_scores(results, setting):
        targets = setting_targets(results, setting)
        groups = [
            [
                _area_run(results.runs[cell_id, target], results.robustness[cell_id], target, used=used)
                for cell_id in _done(results, setting, variant, target)
            ]
            for target in targets
        ]
        known = [[run for run in group if run is not None] for group in groups]
        if [len(group) for group in known] == [len(group) for group in groups] and all(known):
            found[variant] = known
    return found


def _done(results: Results, setting: Setting, variant: str, target: str) -> list[str]:
    cells = cells_of_variant(results, setting, variant, target, ())
    return [str(cell_id) for cell_id in cells["cell_id"][cells["status"] == "done"]]


def _area_run(run: Run, robustness: Robustness, target: str, *, used: bool) -> Run | None:
    """The run with the mean area below its curves as its score; None without numbers by video, or without a curve."""
    curves: dict[tuple[str, str], dict[float, tuple[float, Floats]]] = {}
    whole = run.ccc + left_out([run])[:, 0]
    for entry in robustness.stress:
        if used and not entry["used"]:
            continue
        without = entry.get("left_out", {}).get(target)
        curve = curves.setdefault((entry["kind"], entry["modality"]), {0.0: (run.ccc, whole)})
        if without is not None and len(without) == len(run.videos):
            curve.setdefault(float(entry["strength"]), (entry["metrics"][target]["ccc"], without.astype(np.float64)))
        elif entry["strength"] != 0:
            curve[float(entry["strength"])] = (np.nan, whole)
    areas = [_area(curve) for curve in curves.values() if len(curve) > FEWEST]
    if not areas or any(np.isnan(area) for area, _ in areas):
        return None
    changes: Floats = np.mean([each for _, each in areas], axis=0)
    return replace(run, ccc=float(np.mean([area for area, _ in areas])), changes=changes)


def _area(curve: Mapping[float, tuple[float, Floats]]) -> tuple[float, Floats]:
    """The area below a curve over its range of strengths, and its change without each video."""
    strengths = sorted(curve)
    wide = strengths[-1] - strengths[0]
    below = float(np.trapezoid([curve[at][0] for at in strengths], strengths)) / wide
    without = np.asarray(np.trapezoid(np.stack([curve[at][1] for at in strengths]), strengths, axis=0))
    return below, without / wide - below


def trained_whole(results: Results, setting: Setting) -> Setting | None:
    """The setting that differs from this one in its modality dropout alone, of which it has none; None without one."""
    done = results.rows(setting, status="done")
    if done.empty:
        return None
    cell = results.records[str(done["cell_id"].iloc[0])].cell
    if not cell.recipe.modality_dropout:
        return None
    recipe = cell.recipe.model_copy(update={"modality_dropout": {}})
    same = setting_of(recipe, setting.corpus, setting.store, setting.protocol, joint=setting.joint)
    return results.settings.get(same.key)


def _complete(results: Results, setting: Setting, table: pd.DataFrame, damages: list[str]) -> dict[str, float]:
    """Variant -> mean CCC, of the variants of which every finished run has all damages of the table."""
    if table.empty:
        return {}
    wanted = results.rows(setting, status="done").groupby("variant").size() * len(table[damages].drop_duplicates())
    found = table.groupby("variant")["ccc"].agg(["size", "mean"])
    complete = found[found["size"] == wanted.reindex(found.index)]
    return {str(variant): float(mean) for variant, mean in complete["mean"].items()}
