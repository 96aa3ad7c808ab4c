"""`crossfold search`: hyperparameters of systems, found by Ray Tune and Optuna."""

import time
from dataclasses import replace
from typing import Annotated

import typer

from crossfold.platform.edge.cli import options
from crossfold.platform.edge.terminal import completion
from crossfold.platform.edge.terminal.console import out, say


def search(
    sweep: Annotated[
        str,
        typer.Argument(
            help="A YAML file with a block `search`, or the name of one that ships.", autocompletion=completion.sweeps
        ),
    ],
    workspace: options.Workspace = None,
    set_: options.Set = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="The number of trials of each system in all; else that of the file.")
    ] = None,
    retrain: Annotated[
        int | None,
        typer.Option(min=0, help="Judge so many of the best again with fresh seeds, which choose the winner."),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="One trial at a time: the same trials whatever the number of workers.")
    ] = False,
    workers: options.Workers = None,
    address: options.Address = None,
    only_search: Annotated[bool, typer.Option("--only-search", help="Do not run the winners' cells.")] = False,
    until: options.Until = None,
    lasting: options.For = None,
    plugin: options.Plugin = None,
    weights: options.Weights = None,
) -> None:
    """Search with Ray Tune and Optuna on inner folds, then run each winner, and each default, as ordinary cells.

    The same command brings a killed search up to the same number of trials. It exits as `run` does.
    """
    from crossfold.datasets.store.feature_store import FeatureStore
    from crossfold.platform.edge.launch.preflight import check_cluster, check_search, driving, use_weights
    from crossfold.platform.edge.launch.run_sweeps import run_sweeps
    from crossfold.platform.edge.search.fleet_access import KeptFleet
    from crossfold.platform.edge.search.run_search import run_searches
    from crossfold.platform.edge.tracking.search_runs import log_searches
    from crossfold.platform.scheduling.fleet_options import FleetOptions
    from crossfold.platform.scheduling.time_budget import budget_seconds
    from crossfold.sweeps.prepared import prepare_cells, read_searches
    from crossfold.sweeps.trials import default_sweep, seen_folds, winner_sweep

    began, stop_after = time.monotonic(), budget_seconds(until, lasting)
    fleet = FleetOptions(workers=workers, address=address, plugins=plugin or (), stop_after=stop_after)
    space = options.open_workspace(workspace)
    changes: dict[str, int] = {"strict": True} if strict else {}
    changes |= {} if retrain is None else {"retrain": retrain}
    asked = [each.model_copy(update=changes) for each in read_searches(sweep, set_)]
    store = FeatureStore(space.find_store(asked[0].corpus, asked[0].store))
    use_weights(weights)
    for each in asked:
        check_search(each, store, space)
    check_cluster(fleet)
    with driving(space), KeptFleet(space, fleet) as kept:
        results = run_searches(asked, store, space, fleet, trials=trials, show=out.print, kept=kept)
        if results is not None:
            log_searches(space, [each.name for each in asked])
            for each, result in zip(asked, results, strict=True):
                say(f"{each.name}: best mean CCC of the inner folds {result.best_value:.4f} with {result.best_params}")
                for line in result.optimism():
                    say(f"{each.name}: {line}")
        if results is None or only_search:
            summary = None
        else:
            sweeps = [
                sweep
                for each, result in zip(asked, results, strict=True)
                for sweep in (winner_sweep(each, result.best_params, seen_folds(each, store)), default_sweep(each))
            ]
            prepared = [prepare_cells(sweep, space) for sweep in {sweep.name: sweep for sweep in sweeps}.values()]
            if any(cell.recipe.devices > 1 for each in prepared for cell in each.missing):
                # Its groups of workers need the devices that these hold.
                kept.close()
            left = None if stop_after is None else stop_after - (time.monotonic() - began)
            summary = run_sweeps(prepared, space, replace(fleet, stop_after=left), pool=kept.pool)
    if results is None:
        raise typer.Exit(options.TIME_UP)
    if summary is not None:
        options.exit_with(summary)
