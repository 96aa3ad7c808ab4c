"""Records of searches as `crossfold search` leaves them, for reports and MLflow."""

import json

import numpy as np
import pandas as pd

from crossfold.platform.workspace.workspace import Workspace

SPACE = {
    "iterations": {"int": [1, 4]},
    "temperature": {"log": [0.03, 3.0]},
    "recipe.loss.scope": {"choice": ["window", "batch"]},
}


def write_search(workspace: Workspace, name: str, *, trials: int = 30, seed: int = 0, **changes) -> None:
    """A search whose best is at three recursions; temperature does nothing."""
    generator = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "number": range(trials),
            "state": ["pruned" if at % 5 == 4 else "failed" if at % 11 == 10 else "complete" for at in range(trials)],
            "value": 0.0,
            "objective_parameters": generator.integers(1000, 9000, trials).astype(float),
            "epochs": 6,
            "seconds": 1.0,
            "iterations": generator.integers(1, 5, trials),
            "temperature": 10 ** generator.uniform(-1.5, 0.5, trials),
            "recipe.loss.scope": generator.choice(["window", "batch"], trials),
        }
    )
    table["value"] = 0.6 - 0.1 * (table["iterations"] - 3).abs() + generator.normal(0, 0.01, trials)
    best = table[table["state"] == "complete"].sort_values("value").iloc[-1]
    params = {key: best[key].item() if hasattr(best[key], "item") else best[key] for key in SPACE}
    record = {
        "name": name, "group": "mine", "repeat": 0, "corpus": "puppets", "store": "0" * 16, "study": f"{name}-1",
        "search": {"system": "grjca", "inner_folds": 2, "fold": 0}, "space": SPACE,
        "sampler": {"kind": "tpe"}, "scheduler": {"kind": "asha"}, "objective": "mean", "objectives": ["ccc"],
        "budget": {"trials": trials}, "spent": {"trials": trials, "hours": 0.5, "cell_epochs": 700},
        "trials": {each: int((table["state"] == each).sum()) for each in ("complete", "failed", "pruned")},
        "best_params": params, "best_value": float(best["value"]), "front": [],
        "importance": [
            {"parameter": "iterations", "fanova": 0.9, "ped_anova": 0.8, "chance": 0.4, "matters": True},
            {"parameter": "temperature", "fanova": 0.1, "ped_anova": 0.2, "chance": 0.4, "matters": False},
        ],
        "retrained": [
            {"number": int(best["number"]), "params": params, "search_value": float(best["value"]),
             "values": [0.5, 0.52, 0.54], "mean": 0.52, "low": 0.4703, "high": 0.5697}
        ],
        "cells": [],
    }  # fmt: skip
    folder = workspace.paths.searches
    folder.mkdir(parents=True, exist_ok=True)
    table.to_parquet(folder / f"{name}.parquet")
    (folder / f"{name}.json").write_text(json.dumps(record | changes))
