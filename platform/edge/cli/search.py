"""`crossfold search`: hyperparameters of a system, found by Ray Tune and Optuna."""

import time
from dataclasses import replace
from typing import Annotated

import typer

from crossfold.platform.edge.cli import options
from crossfold.platform.edge.terminal.console import out, say


def search(
    sweep: Annotated[str, typer.Argument(help="A YAML file with a `space`, or the name of one that ships.")],
    workspace: options.Workspace = None,
    set_: options.Set = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="The number of trials in all; else that of the file.")
    ] = None,
    workers: options.Workers = None,
    address: options.Address = None,
    only_search: Annotated[bool, typer.Option("--only-search", help="Do not run the winner's cells.")] = False,
    until: options.Until = None,
    lasting: options.For = None,
    plugin: options.Plugin = None,
    weights: options.Weights = None,
) -> None:
    """Search with Ray Tune and Optuna on inner folds, then run the winner as ordinary cells.

    The same command brings a killed search up to the same number of trials. It exits as `run` does.
    """
    from crossfold.datasets.store.feature_store import FeatureStore
    from crossfold.platform.edge.launch.preflight import check_cluster, check_search, driving, use_weights
    from crossfold.platform.edge.launch.run_sweeps import run_sweeps
    from crossfold.platform.edge.search.run_search import run_search
    from crossfold.platform.scheduling.fleet_options import FleetOptions
    from crossfold.platform.scheduling.time_budget import budget_seconds
    from crossfold.sweeps.prepared import prepare_cells, read_search
    from crossfold.sweeps.trials import winner_sweep

    began, stop_after = time.monotonic(), budget_seconds(until, lasting)
    fleet = FleetOptions(workers=workers, address=address, plugins=plugin or (), stop_after=stop_after)
    space = options.open_workspace(workspace)
    asked = read_search(sweep, set_)
    store = FeatureStore(space.find_store(asked.corpus, asked.store))
    use_weights(weights)
    check_search(asked, store, space)
    check_cluster(fleet)
    with driving(space):
        result = run_search(asked, store, space, fleet, trials=trials, show=out.print)
    if result is None:
        raise typer.Exit(options.TIME_UP)
    say(f"{asked.name}: best mean CCC of the inner folds {result.best_value:.4f} with {result.best_params}")
    if only_search:
        return
    winner = prepare_cells(winner_sweep(asked, result.best_params), space)
    left = None if stop_after is None else stop_after - (time.monotonic() - began)
    options.exit_with(run_sweeps([winner], space, replace(fleet, stop_after=left)))
