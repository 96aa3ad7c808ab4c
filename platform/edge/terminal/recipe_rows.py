"""What the command line says of recipes: the list, the difference of two, and the schedule of one as table and plot."""

import itertools
import json
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from crossfold.platform.core.errors import UserError

if TYPE_CHECKING:
    from crossfold.platform.core.recipe import Recipe
    from crossfold.platform.training.lr_schedule import Planned, Simulation


AFFWILD2_FRAMES = 1_800_000
"""About the training frames of a fold of Aff-Wild2, which 001 to 003 train on."""

COLUMNS, MOST_ROWS = 64, 13
"""Of the plot, in characters; a decade takes two rows where there is room."""


def recipe_list() -> list[dict[str, Any]]:
    """One row a recipe; each that works end to end also exists as `NAME+features`."""
    from crossfold.sweeps.recipe_files import load_recipe, shipped_recipes

    rows = []
    for name in shipped_recipes():
        if name.endswith("+features"):
            continue
        recipe = load_recipe(name)
        rows.append(
            {
                "name": name,
                "mode": "end to end, or +features" if recipe.backbones else "features",
                "window": recipe.window if recipe.clip.frames == 1 else f"{recipe.window} x {recipe.clip.frames}",
                "hop": recipe.hop,
                "batch": recipe.batch,
                "epochs": recipe.epochs,
                "optimizer": recipe.optimizer.kind,
                "lr": recipe.optimizer.lr,
                "loss": f"{recipe.loss.kind} per {recipe.loss.scope}",
                "targets": "joint" if recipe.joint_targets else "separate",
                "selection": recipe.selection,
            }
        )
    return rows


def difference_rows(left: str, right: str) -> list[dict[str, Any]]:
    """One row a field in which two recipes differ, with the source of each value."""
    from crossfold.sweeps.recipe_files import differences

    return [
        {
            "field": found.field,
            left: _spelled(found.values[0], found.field),
            right: _spelled(found.values[1], found.field),
            f"source in {left}": _said(found.sources[0]),
            f"source in {right}": _said(found.sources[1]),
        }
        for found in differences(left, right)
    ]


def nearest_recipe(recipe: "Recipe") -> tuple[str, list[str]]:
    """The shipped recipe that one differs least from, and each difference in words.

    What a cell's identity leaves out (post-processing, stress) is not compared: it does not change the training.
    """
    from crossfold.sweeps.recipe_files import flat, load_recipe, shipped_recipes

    mine = flat(recipe)
    trains = {key for key in mine if key.partition(".")[0] in json.loads(recipe.identity_json)}
    found: list[tuple[int, str, list[str]]] = []
    for name in shipped_recipes():
        theirs = flat(load_recipe(name))
        words = [
            f"{key} {_spelled(value, key)} instead of {_spelled(theirs.get(key), key)}"
            for key, value in mine.items()
            if key in trains and theirs.get(key) != value
        ]
        found.append((len(words), name, words))
    _, name, words = min(found)
    return name, words


def recipe_facts(name: str, changes: dict[str, Any], windows: int | None, frames: int | None, improves: int) -> Any:
    """Everything that `explain --recipe` says, as plain data.

    windows: of an epoch; else they follow from the `frames` of the corpus. improves: epochs after which the validation
    CCC no longer rises.
    """
    from crossfold.platform.training.lr_schedule import simulate
    from crossfold.sweeps.recipe_files import flat, load_recipe, source_of_field, sources_of

    if improves < 0:
        raise UserError(f"--improves {improves} is less than no epoch", "give 0 or more")
    recipe, said = load_recipe(name, changes), sources_of(name)
    if windows is None:
        windows = max(1, math.ceil((frames or AFFWILD2_FRAMES) / (recipe.hop * recipe.clip.frames)))
    steps = math.ceil(windows / recipe.batch)
    rising = itertools.chain((epoch / (improves + 1) for epoch in range(improves)), itertools.repeat(-1.0))
    run = simulate(recipe, steps, rising)
    fields = [
        {"field": field, "value": _spelled(value, field), "source": _said(source_of_field(said, field))}
        for field, value in flat(recipe).items()
        if field != "stress"
    ]
    for row in fields:
        if row["field"] in changes:
            row["source"] = "--set"
    return {
        "recipe": name,
        "windows": windows,
        "steps_per_epoch": steps,
        "assumption": f"the validation CCC rises in the first {improves} epochs, then no more",
        "epochs": [vars(epoch) for epoch in run.epochs],
        "end": ENDS[run.end],
        "schedule": list(_phases(run.epochs, recipe)),
        "plot": plot(run),
        "fields": fields,
    }


ENDS = {
    "epochs": "all epochs of the recipe are done",
    "patience": "the patience of early stopping is used up",
    "exhausted": "the rate of the last stage fell below its minimum",
}


def _phases(epochs: Sequence["Planned"], recipe: "Recipe") -> Iterator[dict[str, Any]]:
    """Epochs in a row that do the same."""

    def alike(epoch: "Planned") -> tuple[Any, ...]:
        return epoch.stage, epoch.groups, epoch.first_rate, epoch.last_rate

    for (stage, groups, first, last), run in itertools.groupby(epochs, key=alike):
        phase = list(run)
        ends = (phase[0].epoch + 1, phase[-1].epoch + 1)
        yield {
            "epochs": f"{ends[0]}-{ends[1]}" if ends[0] != ends[1] else str(ends[0]),
            "stage": stage + 1,
            "backbones learn": _learning(recipe, groups),
            "rate": f"{last:.3g}" if first == last else f"{first:.2g} to {last:.3g}, each epoch",
            "then": next((epoch.event for epoch in reversed(phase) if epoch.event), ""),
        }


def _learning(recipe: "Recipe", groups: int) -> str:
    if not recipe.backbones:
        return "none, features are from the store"
    released = [m for m in recipe.backbones if recipe.thaw.modalities is None or m in recipe.thaw.modalities]
    if recipe.thaw.at_once:
        return f"all layers of {', '.join(released)}"
    if not groups or not released:
        return "none"
    return f"group{'s 1 to' if groups > 1 else ''} {groups} of {', '.join(released)}"


def plot(run: "Simulation") -> list[str]:
    """The rate over the epochs, on a logarithmic axis, as lines of text; `|` where a stage begins."""
    rates = [epoch.last_rate for epoch in run.epochs]
    per_column = math.ceil(len(rates) / COLUMNS)
    columns = [rates[i : i + per_column] for i in range(0, len(rates), per_column)]
    top, bottom = math.log10(max(rates)), math.log10(min(rate for rate in rates if rate > 0))
    rows = 1 if top == bottom else min(max(round(2 * (top - bottom)), 2) + 1, MOST_ROWS)
    heights = [{_row(rate, top, bottom, rows) for rate in column if rate > 0} for column in columns]
    begins = {
        epoch.epoch // per_column for before, epoch in itertools.pairwise(run.epochs) if epoch.stage != before.stage
    }
    lines = []
    for row in range(rows):
        level = 10 ** (top - row * (top - bottom) / max(rows - 1, 1))
        marks = "".join("█" if row in height else ("|" if x in begins else " ") for x, height in enumerate(heights))
        lines.append(f"{level:8.1e} {marks}".rstrip())
    lines.append(f"{'epoch':>8} 1{str(len(rates)).rjust(len(columns) - 1)}")
    return lines


def _row(rate: float, top: float, bottom: float, rows: int) -> int:
    return round((top - math.log10(rate)) / (top - bottom) * (rows - 1)) if rows > 1 else 0


def _spelled(value: Any, field: str = "") -> str:
    if value is None and field == "thaw.modalities":
        return "all"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_spelled(inner)}" for key, inner in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(_spelled, value)) or "none"
    return {True: "yes", False: "no", None: "none"}[value] if value is None or isinstance(value, bool) else str(value)


def _said(source: Any) -> str:
    return f"{source.kind}: {source.note}" if source.kind else source.note
