"""What Crossfold has to offer: `crossfold list`, `explain`, `cite`."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from crossfold.platform.core.errors import UserError
from crossfold.platform.edge.cli.options import JsonOption, PluginOption
from crossfold.platform.edge.terminal.console import emit, out
from crossfold.platform.edge.terminal.recipe_rows import recipe_facts

if TYPE_CHECKING:
    from crossfold.fusion_models.system import System
    from crossfold.platform.core.base_model import FrozenModel
from pathlib import Path

from crossfold.platform.core.errors import did_you_mean
from crossfold.platform.edge.cli.options import WeightsOption, WorkspaceOption
from crossfold.platform.edge.terminal.encoder_rows import backbone_rows, extractor_rows, weights_rows
from crossfold.platform.edge.terminal.recipe_rows import difference_rows, recipe_list

DEFAULT_WIDTHS = {"audio": 128, "visual": 512, "text": 768}
"""d_m of 001 and 002: VGGish, ResNet-50, BERT."""


def explain(
    system: Annotated[
        str | None, typer.Argument(help="A system, such as hgrjca or ca+dca.", show_default=False)
    ] = None,
    width: Annotated[
        list[str] | None, typer.Option("--width", help="modality=width, such as audio=64.", show_default=False)
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="parameter=value, such as iterations=2; of a recipe, field=value.", show_default=False
        ),
    ] = None,
    frames: Annotated[int, typer.Option(min=2, help="L, frames of a window.")] = 300,
    recipe: Annotated[
        str | None, typer.Option(help="Explain a recipe instead, such as rjcma2024+released.", show_default=False)
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
    improves: Annotated[int, typer.Option(help="Recipe: epochs in which the validation CCC is taken to rise.")] = 10,
    as_json: JsonOption = False,
    plugin: PluginOption = None,
) -> None:
    """What a system computes, or, with --recipe, how its training runs and where every value comes from."""
    from crossfold.fusion_models.catalogue import find_system
    from crossfold.platform.core.registry import load_plugin

    for path in plugin or ():
        load_plugin(path)
    if (system is None) == (recipe is None):
        raise UserError("explain takes a system or a recipe", "crossfold explain hgrjca, or explain --recipe rjcma2024")
    if recipe is not None:
        said = recipe_facts(recipe, _values(set_), windows, corpus_frames, improves)
        if as_json:
            emit(said, True)
        else:
            _print_recipe(said)
        return
    assert system is not None
    found = find_system(system)
    params = found.params.parse(_values(set_), f"--set of {system}")
    facts = describe(found, params, DEFAULT_WIDTHS | _widths(width), frames)
    if as_json:
        emit(facts, True)
        return
    _print(facts)


def describe(system: "System", params: "FrozenModel", widths: dict[str, int], frames: int) -> dict[str, Any]:
    """Everything `explain` says, as plain data. Runs one window through a freshly built module."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from crossfold.fusion_models.catalogue import documentation
    from crossfold.fusion_models.system import Features

    modalities = system.modalities_for(params)
    used = {m: widths[m] for m in modalities}
    with torch.random.fork_rng(), torch.no_grad():
        fusion = system.build(params, used, frames).eval()
        x = {m: torch.randn(1, frames, d) for m, d in used.items()}
        notes: dict[str, torch.Tensor] = {}
        with FlopCounterMode(display=False) as counter:
            z_BLZ = fusion(Features(x, torch.ones(1, frames, dtype=torch.bool)), notes)
    shapes = [{"name": f"X_{m}", "kind": "input", "shape": [frames, d]} for m, d in used.items()]
    shapes += [{"name": n, "kind": "weight", "shape": list(p.shape)} for n, p in fusion.named_parameters()]
    shapes += [{"name": n, "kind": "intermediate", "shape": list(v.shape[1:])} for n, v in notes.items()]
    shapes.append({"name": "Z", "kind": "output", "shape": list(z_BLZ.shape[1:])})
    context = system.context(params)
    unseen = any(isinstance(module, torch.nn.LSTM) for module in fusion.modules())
    return {
        "system": system.name,
        "title": system.title,
        "source": system.source,
        "modalities": list(modalities),
        "about": documentation(system.name),
        "equations": system.equations.splitlines(),
        "shapes": shapes,
        "parameters": sum(p.numel() for p in fusion.parameters()),
        "flops_per_window": counter.get_total_flops(),
        "flops_note": "torch's counter does not see LSTM kernels" if unseen else "",
        "streams": context is not None,
        "switches": _switches(system, params),
        "released": dict(system.released),
        "bibtex": system.bibtex,
    }


def _switches(system: "System", params: "FrozenModel") -> list[dict[str, Any]]:
    """Every parameter; `departs` where its value is not the resolved reading of the print."""
    fields = type(params).model_fields
    given = params.model_dump(mode="json")
    resolved = system.params().model_dump(mode="json")
    return [
        {
            "switch": name,
            "value": given[name],
            "default": resolved[name],
            "departs": given[name] != resolved[name],
            "about": " ".join((info.description or "").split()),
        }
        for name, info in fields.items()
    ]


def _print(facts: dict[str, Any]) -> None:
    out.print(facts["system"], style="bold", end="")
    out.print(f": {facts['title']} ({facts['source']})", soft_wrap=True)
    out.print(facts["about"], style="dim")
    out.print("\nEquations", style="bold")
    for line in facts["equations"]:
        out.print(f"  {line}", soft_wrap=True)
    rows = [{**row, "shape": " x ".join(map(str, row["shape"]))} for row in facts["shapes"]]
    emit(rows, False, "Shapes of one window")
    note = f" ({facts['flops_note']})" if facts["flops_note"] else ""
    out.print(f"{facts['parameters']:,} parameters, {facts['flops_per_window']:,} FLOPs a window{note}")
    out.print("Predicts streams." if facts["streams"] else "Sees the whole window, so it predicts no streams.")
    if facts["switches"]:
        emit(
            [{**row, "departs": "departs" if row["departs"] else ""} for row in facts["switches"]],
            False,
            "Switches, against the resolved reading of the print",
        )
    if facts["released"]:
        listed = ", ".join(f"{key}={value}" for key, value in facts["released"].items())
        out.print(f"variant=released: {listed}", soft_wrap=True)
    out.print(facts["bibtex"], soft_wrap=True)


def _print_recipe(facts: dict[str, Any]) -> None:
    out.print(facts["recipe"], style="bold", end="")
    out.print(f": {facts['windows']:,} windows, {facts['steps_per_epoch']:,} steps an epoch")
    out.print(f"Assumed: {facts['assumption']}.", style="dim")
    emit(facts["schedule"], False, "Schedule")
    out.print("Learning rate", style="bold", end="")
    out.print(" at the end of each epoch; | where a stage begins")
    for line in facts["plot"]:
        out.print(line, highlight=False, soft_wrap=True)
    out.print(f"Ends after {len(facts['epochs'])} epochs: {facts['end']}.")
    emit(facts["fields"], False, "Fields, and where their values come from")


def _widths(given: list[str] | None) -> dict[str, int]:
    widths = {}
    for text in given or ():
        modality, _, number = text.partition("=")
        if modality not in DEFAULT_WIDTHS or not number.isdecimal() or int(number) < 1:
            raise UserError(f"--width {text!r} is not modality=width", f"modalities: {', '.join(DEFAULT_WIDTHS)}")
        widths[modality] = int(number)
    return widths


def _values(given: list[str] | None) -> dict[str, Any]:
    import yaml

    values = {}
    for text in given or ():
        key, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"--set {text!r} has no '='", "write --set parameter=value")
        values[key] = yaml.safe_load(value)
    return values


KINDS = ("systems", "corpora", "recipes", "sweeps", "tables", "extractors", "backbones", "weights")


def list_(
    kind: Annotated[str, typer.Argument(help=f"{', '.join(KINDS[:-1])} or {KINDS[-1]}")],
    as_json: JsonOption = False,
    plugin: PluginOption = None,
    workspace: WorkspaceOption = None,
    weights: WeightsOption = None,
    diff: Annotated[
        tuple[str, str] | None,
        typer.Option("--diff", help="Two recipes: the fields in which they differ.", metavar="A B", show_default=False),
    ] = None,
) -> None:
    """What there is to choose from."""
    from crossfold.platform.core.registry import load_plugin

    for path in plugin or ():
        load_plugin(path)
    if kind not in KINDS:
        raise UserError(f"unknown kind {kind!r}{did_you_mean(kind, KINDS)}", f"one of {', '.join(KINDS)}")
    if diff is not None:
        if kind != "recipes":
            raise UserError(f"--diff compares recipes, not {kind}", "crossfold list recipes --diff A B")
        emit(difference_rows(*diff), as_json, f"{diff[0]} against {diff[1]}")
        return
    rows = weights_rows(workspace, weights) if kind == "weights" else _LISTERS[kind]()
    emit(rows, as_json, kind.capitalize())


def _systems() -> list[dict[str, Any]]:
    from crossfold.fusion_models.catalogue import find_system, system_names, systems

    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "title": system.title,
            "modalities": "+".join(system.modalities),
            "paper and equations": system.source,
            "parameters": list(system.params.model_fields),
        }
        for name in system_names()
        for system in [find_system(name)]
    ]
    blank = dict.fromkeys(("modalities", "paper and equations", "parameters"))
    return rows + [{"name": n, "title": f"unavailable: {why}", **blank} for n, why in systems.unavailable.items()]


def _corpora() -> list[dict[str, Any]]:
    from crossfold.datasets.corpora.registry import CORPORA

    return [
        {"name": name, "description": entry.description, "layout": entry.layout, "needs": entry.needs}
        for name in CORPORA
        for entry in [CORPORA.get(name)]
    ]


def _sweeps() -> list[dict[str, Any]]:
    from crossfold.sweeps.sweep_files import Search, load, shipped_sweeps

    rows = []
    for name in shipped_sweeps():
        sweep = load(name)
        kind = "search" if isinstance(sweep, Search) else "grid"
        rows.append({"name": name, "kind": kind, "corpus": sweep.corpus, "recipe": sweep.recipe})
    return rows


def _tables() -> list[dict[str, Any]]:
    from crossfold.reports.tables.published import LEADERBOARD, table_ids, table_spec

    own = {"name": LEADERBOARD, "paper": "", "caption": "Every system that ran, on the corpus it ran on."}
    papers = [table_spec(name) for name in table_ids() if name != LEADERBOARD]
    return [own, *({"name": spec.id, "paper": spec.paper, "caption": spec.caption} for spec in papers)]


_LISTERS = {
    "systems": _systems,
    "corpora": _corpora,
    "recipes": recipe_list,
    "sweeps": _sweeps,
    "tables": _tables,
    "extractors": extractor_rows,
    "backbones": backbone_rows,
}


def cite(
    what: Annotated[str, typer.Argument(metavar="SWEEP|SYSTEM", help="A sweep by file or name, or a system.")],
    plugin: PluginOption = None,
) -> None:
    """BibTeX of a system, or of every system a sweep runs."""
    from crossfold.platform.core.registry import load_plugin

    for path in plugin or ():
        load_plugin(path)
    from crossfold.fusion_models.catalogue import find_system, system_names
    from crossfold.sweeps.sweep_files import Search, load, shipped_sweeps

    if what in system_names():
        names = [what]
    else:
        try:
            asked = load(what)
        except UserError as error:
            if Path(what).is_file() or what in shipped_sweeps():
                raise
            hint = did_you_mean(what, [*system_names(), *shipped_sweeps()])
            raise UserError(f"{what!r} is no system and no sweep{hint}", error.remedy) from None
        names = [asked.system] if isinstance(asked, Search) else [variant.system for variant in asked.systems]
    for entry in dict.fromkeys(find_system(name).bibtex for name in names):
        typer.echo(entry + "\n")
