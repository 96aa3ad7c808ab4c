"""The saved view of an experiment: its cells or trials by CCC, with columns of scores and of what distinguishes them.

MLflow 3.17 shows no metric next to a run, and keeps a user's choice of columns in the browser. What it shows to
everybody is a view that a tag of the experiment holds: the list of saved views offers it, and an address opens it.
"""

import json
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

VIEW = "crossfold"
"""The name of the view in an address, as `viewStateShareKey`."""
TAG = f"mlflow.sharedViewState.{VIEW}"
CELL_PARAMS = ("system", "fold", "target", "seed")
NAMES = {"cell": "Cells by CCC", "trial": "Trials by CCC"}
"""The title of the view of each kind of runs."""
RUNS_READ = 200
"""Of an experiment of an earlier version: the runs whose metrics become columns."""


def scores(kind: str, metrics: Collection[str]) -> list[str]:
    """The metrics of a run that are columns: the CCC of each target of a cell, or that of a trial."""
    if kind == "trial":
        return [name for name in metrics if name == "ccc"]
    return [name for name in metrics if name.startswith("ccc_") and not name.startswith("ccc_video_mean_")]


def widened(tag: str | None, kind: str, metrics: Sequence[str], params: Sequence[str]) -> str | None:
    """The view with columns for these metrics and parameters, too; the runs are in the order of its first metric.

    Without a metric there is no view. What a user saved in its place is left as it is.
    """
    if not metrics:
        return tag
    now = int(time.time() * 1000)
    # Runs without their launches: MLflow would show only those, each with its cells folded away.
    shown = f"tags.kind = '{kind}'"
    order = {"orderByKey": f"metrics.`{metrics[0]}`", "orderByAsc": False}
    fresh = json.dumps({"selectedColumns": [], "searchFilter": shown, **order})
    try:
        view: dict[str, Any] = json.loads(tag) if tag else {"name": NAMES[kind], "createdAt": now, "state": fresh}
        state = json.loads(view["state"])
        before = list(state["selectedColumns"])
        columns = [f"metrics.`{name}`" for name in metrics] + [f"params.`{name}`" for name in params]
        state["selectedColumns"] = list(dict.fromkeys([*before, *columns]))
        if state["searchFilter"] != shown or state["selectedColumns"] == before:
            return tag
    except (ValueError, KeyError, TypeError):
        return tag
    return json.dumps(view | {"updatedAt": now, "state": json.dumps(state)})


def widen(client: Any, experiment: Any, run_tags: Mapping[str, str], metrics: Collection[str], params: Any) -> None:
    """Gives the view of an MLflow experiment the columns of a run of it, given by its tags, metrics and parameters."""
    kind = run_tags.get("kind", "")
    if kind in NAMES:
        shown = CELL_PARAMS if kind == "cell" else tuple(sorted(params))
        before = experiment.tags.get(TAG)
        after = widened(before, kind, scores(kind, metrics), shown)
        if after is not None and after != before:
            client.set_experiment_tag(experiment.experiment_id, TAG, after)
            experiment.tags[TAG] = after


def has_view(client: Any, experiment: Any) -> bool:
    """Whether an experiment has a view; one that an earlier version wrote gets it from its latest runs."""
    if TAG not in experiment.tags:
        for run in client.search_runs([experiment.experiment_id], max_results=RUNS_READ):
            widen(client, experiment, run.data.tags, run.data.metrics, run.data.params)
    return TAG in experiment.tags
