"""Cells as worker groups of their own, which a sweep on one group is measured against. Imported by Ray's processes."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ray import tune
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from ray.tune.integration.ray_train import TuneReportCallback


def sleep_loop(config: dict) -> None:
    """The training loop of a cell."""
    time.sleep(config["seconds"])


def one_fit(config: dict) -> None:
    """A cell as a `TorchTrainer.fit` with one worker."""
    TorchTrainer(
        sleep_loop,
        train_loop_config={"seconds": config["seconds"]},
        scaling_config=ScalingConfig(num_workers=1),
        torch_config=TorchConfig(backend="gloo"),
        run_config=RunConfig(
            name=config["name"],
            storage_path=config["storage"],
            callbacks=[TuneReportCallback()] if config["tuned"] else None,
        ),
    ).fit()


def run_fits(storage: Path, cells: int, workers: int, seconds: float) -> float:
    """Seconds that `cells` fits take, `workers` at a time."""
    configs = [
        {"name": f"fit{index}", "storage": str(storage), "seconds": seconds, "tuned": False} for index in range(cells)
    ]
    began = time.monotonic()
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(one_fit, configs))
    return time.monotonic() - began


def run_tuned_fits(storage: Path, cells: int, workers: int, seconds: float) -> float:
    """The same as Tune trials that each drive a fit, as Ray's guide to tuning with Train v2 has it."""
    tuner = tune.Tuner(
        # A driver of a fit computes nothing; the worker that it starts takes the core.
        tune.with_resources(one_fit, {"CPU": 0.01}),
        param_space={
            "name": tune.grid_search([f"tuned{index}" for index in range(cells)]),
            "storage": str(storage),
            "seconds": seconds,
            "tuned": True,
        },
        tune_config=tune.TuneConfig(max_concurrent_trials=workers),
        run_config=tune.RunConfig(name="tuned", storage_path=str(storage), verbose=0),
    )
    began = time.monotonic()
    results = tuner.fit()
    took = time.monotonic() - began
    if results.errors:
        raise results.errors[0]
    return took
