"""What the command line shows of recipes: the list, the difference of two, and the schedule of one, with a plot."""

import itertools
import json
import math
import operator
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from crossfold.platform.core.errors import UserError

if TYPE_CHECKING:
    from crossfold.platform.core.recipe import Recipe
    from crossfold.platform.training.lr_schedule import Planned
    from crossfold.sweeps.recipe_files import Source


AFFWILD2_FRAMES = 1_800_000
"""The training frames of a fold of Aff-Wild2, on which 001 to 003 train, rounded."""

COLUMNS, MOST_ROWS = 64, 13
"""The size of the plot in characters; a decade takes two rows where they fit."""

ENDS = {
    "epochs": "all epochs of the recipe are done",
    "patience": "the patience of early stopping is used up",
    "exhausted": "the rate of the last stage fell below its minimum",
}


def recipe_list() -> list[dict[str, Any]]:
    """A row for each recipe; one that works end to end also exists as `NAME+features`."""
    from crossfold.sweeps.recipe_files import load_recipe, shipped_recipes

    rows = []
    for name in shipped_recipes():
        # The column `mode` says that they exist; listed, they would double the table.
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
    """A row for each field in which two recipes differ, with the source of each value."""
    from crossfold.sweeps.recipe_files import differences

    rows = []
    for found in differences(left, right):
        values = {
            name: format_value(value, found.field) for name, value in zip((left, right), found.values, strict=True)
        }
        sources = {
            f"source in {name}": _source(source) for name, source in zip((left, right), found.sources, strict=True)
        }
        rows.append({"field": found.field} | values | sources)
    return rows


def left_out_rows(name: str) -> list[dict[str, Any]]:
    """A row for each fact of the authors' code that a recipe does not repeat."""
    from crossfold.sweeps.not_repeated import left_out_of

    return [{"fact": entry.fact, "the code": entry.code, "why not": entry.why} for entry in left_out_of(name)]


def nearest_recipe(recipe: "Recipe") -> tuple[str, list[str]]:
    """The shipped recipe that one differs least from, and each difference in words.

    What a cell's identity leaves out (post-processing, stress) is not compared: it does not change the training.
    """
    from crossfold.sweeps.recipe_files import flat, load_recipe, shipped_recipes

    # Other fields, such as `stress`, do not change the training.
    identity = json.loads(recipe.identity_json)
    mine = {key: value for key, value in flat(recipe).items() if key.partition(".")[0] in identity}
    found: dict[str, list[str]] = {}
    for name in shipped_recipes():
        theirs = flat(load_recipe(name))
        found[name] = [
            f"{key} {format_value(value, key)} instead of {format_value(theirs.get(key), key)}"
            for key, value in mine.items()
            if theirs.get(key) != value
        ]
    return min(found.items(), key=lambda entry: (len(entry[1]), entry[0]))


def recipe_facts(name: str, changes: dict[str, Any], windows: int | None, frames: int | None, improves: int) -> Any:
    """Everything that `explain --recipe` shows, as plain data. Raises `UserError` for less than no epochs.

    windows: in an epoch; if None they follow from the `frames` of the corpus. improves: the number of epochs in which
    the validation CCC rises.
    """
    from crossfold.platform.training.lr_schedule import simulate
    from crossfold.sweeps.recipe_files import flat, load_recipe, source_of_field, sources_of

    if improves < 0:
        raise UserError(f"--improves {improves} is less than no epoch", "give 0 or more")
    recipe, sources = load_recipe(name, changes), sources_of(name)
    if windows is None:
        windows = max(1, math.ceil((frames or AFFWILD2_FRAMES) / recipe.frames_per_window))
    steps = math.ceil(windows / recipe.batch)
    # -1 is below every CCC of the rise, so that patience and plateau begin to count there.
    rising = itertools.chain((epoch / (improves + 1) for epoch in range(improves)), itertools.repeat(-1.0))
    run = simulate(recipe, steps, rising)
    fields = [
        {
            "field": field,
            "value": format_value(value, field),
            "source": "--set" if field in changes else _source(source_of_field(sources, field)),
        }
        for field, value in flat(recipe).items()
        if field != "stress"
    ]
    return {
        "recipe": name,
        "windows": windows,
        "steps_per_epoch": steps,
        "assumption": f"the validation CCC rises in the first {improves} epochs, then no more",
        "epochs": [vars(epoch) for epoch in run.epochs],
        "end": ENDS[run.end],
        "schedule": list(_phases(run.epochs, recipe)),
        "plot": plot([epoch.last_rate for epoch in run.epochs], _stage_starts(run.epochs)),
        "fields": fields,
    }


def _phases(epochs: Sequence["Planned"], recipe: "Recipe") -> Iterator[dict[str, Any]]:
    """A row for each run of epochs that do the same."""
    alike = operator.attrgetter("stage", "groups", "first_rate", "last_rate")
    for (stage, groups, first, last), run in itertools.groupby(epochs, key=alike):
        phase = list(run)
        begin, end = phase[0].epoch + 1, phase[-1].epoch + 1
        yield {
            "epochs": f"{begin}-{end}" if begin != end else str(begin),
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


def _stage_starts(epochs: Sequence["Planned"]) -> list[int]:
    return [epoch.epoch for before, epoch in itertools.pairwise(epochs) if epoch.stage != before.stage]


def plot(rates: Sequence[float], marked: Sequence[int]) -> list[str]:
    """Learning rates by epoch on a logarithmic axis, as lines of text; `|` at the marked epochs, counted from 0."""
    positive = [rate for rate in rates if rate > 0]
    if not positive:
        return ["the rate is 0 at the end of every epoch"]
    per_column = math.ceil(len(rates) / COLUMNS)
    columns = [rates[i : i + per_column] for i in range(0, len(rates), per_column)]
    top, bottom = math.log10(max(positive)), math.log10(min(positive))
    rows = 1 if top == bottom else min(max(round(2 * (top - bottom)), 2) + 1, MOST_ROWS)
    # A column that holds several epochs marks a cell for each of their rates.
    per_row = (top - bottom) / max(rows - 1, 1) or 1.0
    heights = [{round((top - math.log10(rate)) / per_row) for rate in column if rate > 0} for column in columns]
    begins = {epoch // per_column for epoch in marked}
    lines = []
    for row in range(rows):
        marks = "".join("█" if row in height else "|" if x in begins else " " for x, height in enumerate(heights))
        lines.append(f"{10 ** (top - row * (top - bottom) / max(rows - 1, 1)):8.1e} {marks}".rstrip())
    return [*lines, f"{'epoch':>8} 1{str(len(rates)).rjust(len(columns) - 1)}"]


def format_value(value: Any, field: str = "") -> str:
    """A value of a recipe in words."""
    match value:
        case None:
            return "all" if field == "thaw.modalities" else "none"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:g}"
        case dict():
            return ", ".join(f"{key}: {format_value(inner)}" for key, inner in value.items()) or "none"
        case list() | tuple():
            return ", ".join(map(format_value, value)) or "none"
    return str(value)


def _source(source: "Source") -> str:
    return f"{source.kind}: {source.note}" if source.kind else source.note
