"""Plug-ins of your own: `crossfold new` writes a first version, `crossfold check` runs the contract tests."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from crossfold.platform.edge.cli import options
from crossfold.platform.edge.terminal.console import emit, out, say

NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="Its name in sweeps and files: small letters, digits and _.")
]
OutOption = Annotated[Path, typer.Option("--out", help="The folder for the file.", metavar="DIR")]


def system(name: NameArgument, folder: OutOption = Path()) -> None:
    """Write NAME.py: a fusion model of your own that runs as it is, with comments that say what to change."""
    from crossfold.platform.edge.diagnostics.starters import write_starter

    path = shlex.quote(str(write_starter("system", name, folder)))
    say(
        f"{path}: the system {name}, ready to run",
        f"next: crossfold check --plugin {path}",
        f"then: crossfold run demo --plugin {path} --set name={name} --set 'systems=[concat, {name}, {name}+dca]'",
    )


def corpus(name: NameArgument, folder: OutOption = Path()) -> None:
    """Write NAME.py: a reader of data in a layout of your own, with comments that say what to change.

    A folder with `manifest.csv` needs none: `crossfold prepare manifest --root DIR` reads it.
    """
    from crossfold.platform.edge.diagnostics.starters import write_starter

    path = shlex.quote(str(write_starter("corpus", name, folder)))
    say(
        f"{path}: the corpus {name}, ready to read",
        f"next: crossfold check --plugin {path} --root DIR",
        f"then: crossfold prepare {name} --root DIR --plugin {path}",
    )


def check(
    plugin: Annotated[list[Path], typer.Option("--plugin", help="A Python file to check.", show_default=False)],
    root: Annotated[
        Path | None, typer.Option(help="A data folder for its corpus, to check clips, labels and folds too.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Check your own system, backbone or corpus: shapes, masks, determinism. It exits with 2 if a rule is broken."""
    from crossfold.platform.edge.diagnostics.plugin_contract import check_plugin

    if root is not None:
        options.check_folder(root, "its corpus")
    found = [entry for path in plugin for entry in check_plugin(path, root)]
    rows = [
        {
            "what": entry.what,
            "rule": entry.rule,
            "state": "broken" if entry.problem else "ok",
            "problem": entry.problem,
            "what to do": entry.remedy,
        }
        for entry in found
    ]
    emit(rows, as_json, "Contracts")
    broken = sum(bool(entry.problem) for entry in found)
    if not as_json:
        out.print(f"{len(found)} rules, {broken} broken")
    if broken:
        raise typer.Exit(2)
