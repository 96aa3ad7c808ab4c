"""What Crossfold has to offer: `crossfold list`, `explain`, `profile`, `cite`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from crossfold.platform.core.errors import UserError, did_you_mean
from crossfold.platform.edge.cli import options
from crossfold.platform.edge.terminal import completion
from crossfold.platform.edge.terminal.console import emit, out, say

DEFAULT_WIDTHS = {"audio": 128, "visual": 512, "text": 768}
"""d_m of 001 and 002: VGGish, ResNet-50, BERT."""


def explain(
    system: Annotated[
        str | None,
        typer.Argument(
            help="A system, such as hgrjca or ca+dca; or a code of the register, such as B7.",
            show_default=False,
            autocompletion=completion.systems,
        ),
    ] = None,
    width: Annotated[
        list[str] | None, typer.Option(help="modality=width, such as audio=64.", show_default=False)
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="parameter=value, such as iterations=2; of a recipe, field=value.", show_default=False
        ),
    ] = None,
    frames: Annotated[int, typer.Option(min=2, help="L, the number of frames of a window.")] = 300,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Explain a recipe instead, such as rjcma2024+released.",
            show_default=False,
            autocompletion=completion.recipes,
        ),
    ] = None,
    windows: Annotated[
        int | None, typer.Option(min=1, help="Recipe: training windows of the corpus.", show_default=False)
    ] = None,
    corpus_frames: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Recipe: training frames, where the windows are not known. By default about those of Aff-Wild2.",
            show_default=False,
        ),
    ] = None,
    improves: Annotated[int, typer.Option(help="Recipe: epochs in which the validation CCC is assumed to rise.")] = 10,
    as_json: options.Json = False,
    plugin: options.Plugin = None,
) -> None:
    """Show what a system computes, or what a code such as B7 stands for; with --recipe, how its training runs and where
    every value comes from."""
    from crossfold.reports.register import CODE, find_entry

    if system is not None and CODE.fullmatch(system):
        entry = find_entry(system)
        emit(entry.model_dump(), True) if as_json else say(*entry.lines())
        return

    from crossfold.fusion_models.catalogue import find_system
    from crossfold.platform.edge.terminal.recipe_rows import recipe_facts
    from crossfold.platform.edge.terminal.system_rows import system_facts

    if (system is None) == (recipe is None):
        raise UserError("explain takes a system or a recipe", "crossfold explain hgrjca, or explain --recipe rjcma2024")
    values = options.key_values(set_, "--set")
    if system is not None:
        found = find_system(system)
        params = found.params.parse(values, f"--set of {system}")
        facts, show = system_facts(found, params, _widths(width, found.modalities_for(params)), frames), _print_system
    else:
        assert recipe is not None
        facts, show = recipe_facts(recipe, values, windows, corpus_frames, improves), _print_recipe
    if as_json:
        emit(facts, True)
    else:
        show(facts)


def _print_system(facts: dict[str, Any]) -> None:
    out.print(facts["system"], style="bold", end="")
    say(f": {facts['title']} ({facts['source']})")
    out.print(facts["about"], style="dim")
    out.print("\nEquations", style="bold")
    say(*(f"  {line}" for line in facts["equations"]))
    rows = [{**row, "shape": " x ".join(map(str, row["shape"]))} for row in facts["shapes"]]
    emit(rows, False, "Shapes of one window")
    note = f" ({facts['flops_note']})" if facts["flops_note"] else ""
    say(
        f"{facts['parameters']:,} parameters, {facts['flops_per_window']:,} FLOPs per window{note}",
        "It predicts streams." if facts["streams"] else "It needs the whole window, so it cannot predict streams.",
    )
    if facts["switches"]:
        rows = [{**row, "departs": "departs" if row["departs"] else ""} for row in facts["switches"]]
        emit(rows, False, "Switches, against the resolved reading of the print")
    if facts["released"]:
        say("variant=released: " + ", ".join(f"{key}={value}" for key, value in facts["released"].items()))
    say(facts["bibtex"])


def _print_recipe(facts: dict[str, Any]) -> None:
    out.print(facts["recipe"], style="bold", end="")
    say(f": {facts['windows']:,} windows, {facts['steps_per_epoch']:,} steps per epoch")
    out.print(f"Assumed: {facts['assumption']}.", style="dim")
    emit(facts["schedule"], False, "Schedule")
    out.print("Learning rate", style="bold", end="")
    say(" at the end of each epoch; | where a stage begins", *facts["plot"])
    say(f"Ends after {len(facts['epochs'])} epochs: {facts['end']}.")
    emit(facts["fields"], False, "Fields, and where their values come from")


def _widths(given: list[str] | None, known: Sequence[str]) -> dict[str, int]:
    widths = {m: DEFAULT_WIDTHS[m] for m in known}
    for text in given or ():
        modality, _, number = text.partition("=")
        if modality not in known or not number.isdecimal() or int(number) < 1:
            raise UserError(
                f"--width {text!r} is not modality=width, with a width of at least 1",
                f"modalities of this system: {', '.join(known)}",
            )
        widths[modality] = int(number)
    return widths


def profile(
    system: Annotated[str, typer.Argument(help="A system, such as hgrjca or ca+dca.")],
    recipe: Annotated[
        str, typer.Option(help="The recipe whose batch, windows, encoders and optimiser are used.")
    ] = "rjcma2024+features",
    width: Annotated[
        list[str] | None, typer.Option(help="modality=width of the features, such as audio=64.", show_default=False)
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="key=value: a parameter of the system, or a field of the recipe such as precision=bf16.",
            show_default=False,
        ),
    ] = None,
    as_json: options.Json = False,
    plugin: options.Plugin = None,
) -> None:
    """Show where the time, FLOPs and memory of a training step go on this CPU, next to the limit of the machine.

    It trains on random features, and its times are those of this machine in its present load.
    """
    from crossfold.fusion_models.catalogue import find_system
    from crossfold.platform.core.cell import Cell
    from crossfold.platform.execution.step_parts import profile_step
    from crossfold.sweeps.recipe_files import load_recipe

    found, values = find_system(system), options.key_values(set_, "--set")
    ours = {key: value for key, value in values.items() if key in found.params.model_fields}
    params = found.params.parse(ours, f"--set of {system}")
    chosen = load_recipe(recipe, {key: value for key, value in values.items() if key not in ours})
    if chosen.backbones:
        raise UserError(
            f"recipe {recipe} trains backbones, and a profile is of a step on features",
            f"crossfold profile {system} --recipe {recipe}+features",
        )
    parsed = params.model_dump(mode="json")
    cell = Cell(
        system=system, params=parsed, corpus="none", store="0", fold=0, targets=("valence",), seed=0, recipe=chosen
    )
    profiled = profile_step(cell, _widths(width, found.modalities_for(params)))
    facts = {
        "system": system,
        "recipe": recipe,
        "precision": chosen.precision,
        "batch": chosen.batch,
        "window": chosen.window,
        "threads": profiled.threads,
        "parameters": profiled.parameters,
        "product_flops_per_second": profiled.rates.products,
        "copied_bytes_per_second": profiled.rates.copies,
        "seconds": profiled.seconds,
        "parts": [vars(part) for part in profiled.parts],
    }
    if as_json:
        emit(facts, True)
        return
    say(
        f"{system}, recipe {recipe}: {chosen.batch} windows of {chosen.window}, {chosen.precision}, "
        f"{profiled.parameters:,} parameters, threads: {profiled.threads}",
        f"A step takes {profiled.seconds * 1e3:.4g} ms. Measured limits: {profiled.rates.products / 1e9:.4g} GFLOP/s "
        f"(products), {profiled.rates.copies / 1e9:.4g} GB/s (copies).",
    )
    rows = [
        {
            "part": part.part,
            "share": f"{(part.forward + part.backward) / profiled.seconds:.0%}",
            "forward, ms": f"{part.forward * 1e3:.4g}",
            "backward, ms": f"{part.backward * 1e3:.4g}",
            "limit, ms": "" if part.limit is None else f"{part.limit * 1e3:.4g}",
            "GFLOP": "not counted" if part.flops is None else f"{part.flops / 1e9:.4g}",
            "kept, MB": f"{part.kept / 1e6:.4g}",
        }
        for part in profiled.parts
    ]
    emit(rows, False, "Parts of a training step")
    say("limit: least time at the measured limits; kept: what the forward pass keeps for the backward pass.")


def schema(
    kind: Annotated[
        str,
        typer.Argument(
            help="sweep, search or recipe.", autocompletion=completion.one_of(("sweep", "search", "recipe"))
        ),
    ],
) -> None:
    """Print the JSON schema of a kind of YAML file, with which editors complete and check it."""
    from crossfold.sweeps import schemas

    if kind not in schemas.KINDS:
        known = list(schemas.KINDS)
        raise UserError(f"unknown kind {kind!r}{did_you_mean(kind, known)}", f"one of {', '.join(known)}")
    emit(schemas.schema(kind), True)


KINDS = {
    "systems": "fusion systems, for `systems:` of a sweep",
    "corpora": "layouts of data that Crossfold reads",
    "recipes": "ways to train and to evaluate, for `recipe:` of a sweep",
    "sweeps": "grids and searches that ship, for `crossfold run` and `crossfold search`",
    "tables": "tables of the papers, for `crossfold report`",
    "extractors": "features, for --audio, --visual and --text of `crossfold prepare`",
    "backbones": "networks that a recipe trains, for `backbones:` of a recipe",
    "weights": "pretrained weights: which file goes where, and whether it is there",
}
"""What `crossfold list` lists."""


def list_(
    kind: Annotated[
        str | None,
        typer.Argument(
            help=f"One of {', '.join(KINDS)}; without it, these are listed.",
            show_default=False,
            autocompletion=completion.one_of(KINDS),
        ),
    ] = None,
    as_json: options.Json = False,
    plugin: options.Plugin = None,
    workspace: options.Workspace = None,
    weights: options.Weights = None,
    diff: Annotated[
        tuple[str, str] | None,
        typer.Option(help="Two recipes: the fields in which they differ.", metavar="A B", show_default=False),
    ] = None,
) -> None:
    """List what there is to choose from."""
    from crossfold.platform.edge.terminal import encoder_rows, recipe_rows, system_rows

    if kind is None:
        if diff is not None:
            raise UserError("--diff compares recipes", "crossfold list recipes --diff A B")
        emit([{"list": name, "what it shows": about} for name, about in KINDS.items()], as_json, "What can be listed")
        return
    if kind not in KINDS:
        raise UserError(f"unknown kind {kind!r}{did_you_mean(kind, KINDS)}", f"one of {', '.join(KINDS)}")
    if diff is not None:
        if kind != "recipes":
            raise UserError(f"--diff compares recipes, not {kind}", "crossfold list recipes --diff A B")
        emit(recipe_rows.difference_rows(*diff), as_json, f"{diff[0]} against {diff[1]}")
        for name in diff if not as_json else ():
            if left_out := recipe_rows.left_out_rows(name):
                emit(left_out, as_json, f"what the code of {name} does and it does not repeat")
        return
    rows: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "systems": system_rows.system_list,
        "corpora": _corpora,
        "recipes": recipe_rows.recipe_list,
        "sweeps": _sweeps,
        "tables": _tables,
        "extractors": encoder_rows.extractor_rows,
        "backbones": encoder_rows.backbone_rows,
        "weights": lambda: encoder_rows.weights_rows(workspace, weights),
    }
    emit(rows[kind](), as_json, kind.capitalize())


def _corpora() -> list[dict[str, Any]]:
    from crossfold.datasets.corpora.registry import CORPORA

    return [
        {"name": name, "description": entry.description, "layout": entry.layout, "needs": entry.needs}
        for name in CORPORA
        for entry in [CORPORA.get(name)]
    ]


def _sweeps() -> list[dict[str, Any]]:
    from crossfold.sweeps.sweep_files import Sweep, load, shipped_sweeps

    return [
        {
            "name": name,
            "kind": "grid" if isinstance(sweep, Sweep) else "search",
            "corpus": sweep.corpus if isinstance(sweep.corpus, str) else "synthetic with doses",
            "recipe": sweep.recipe,
        }
        for name in shipped_sweeps()
        for sweep in [load(name)]
    ]


def _tables() -> list[dict[str, Any]]:
    from crossfold.reports.tables.published import LEADERBOARD, table_ids, table_spec

    own = {"name": LEADERBOARD, "paper": "", "caption": "Every system that ran, on the corpus it ran on."}
    papers = [table_spec(name) for name in table_ids() if name != LEADERBOARD]
    return [own, *({"name": spec.id, "paper": spec.paper, "caption": spec.caption or spec.title} for spec in papers)]


def cite(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="SWEEP|SYSTEM",
            help="A sweep by file or name, or a system; without it, all that ran in the workspace.",
            autocompletion=completion.sweeps_or_systems,
            show_default=False,
        ),
    ] = None,
    workspace: options.Workspace = None,
    plugin: options.Plugin = None,
) -> None:
    """Print BibTeX of a system, of every system that a sweep runs, or of all that have finished cells."""
    from crossfold.fusion_models.catalogue import find_system, system_names
    from crossfold.sweeps.sweep_files import Search, load, shipped_sweeps

    if what is None:
        space = options.open_workspace(workspace)
        names = sorted({record.cell.system for record in space.records()})
        if not names:
            raise UserError(f"{space} has no finished cell to cite", "name a sweep or a system, or give --workspace")
    elif workspace is not None:
        raise UserError(f"cite takes {what!r} or --workspace", "leave one of them out")
    elif what in system_names():
        names = [what]
    else:
        try:
            asked = load(what)
        except UserError as error:
            if Path(what).is_file() or what in shipped_sweeps():
                raise
            hint = did_you_mean(what, [*system_names(), *shipped_sweeps()])
            remedy = f"{error.remedy}; a system in a file of yours needs --plugin FILE"
            raise UserError(f"{what!r} is no system and no sweep{hint}", remedy) from None
        names = [asked.system] if isinstance(asked, Search) else [variant.system for variant in asked.systems]
    for entry in dict.fromkeys(find_system(name).bibtex for name in names):
        typer.echo(entry + "\n")
