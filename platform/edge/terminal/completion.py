"""What a shell completes after names of the command line: systems, corpora, recipes, sweeps, cells, conditions.

A key press waits for it, so nothing here imports torch or pandas, or reads a table of names; those names stand here.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import typer

SYSTEMS = (
    "ca", "ca+dca", "ca_2stage", "ca_2stage+dca", "concat", "grjca", "hgrjca", "hgrjca_v1", "jca", "jca+dca",
    "jca_additive", "jca_additive+dca", "jmt", "leader_follower", "lstm", "lstm_transformer", "rjca", "rjca+dca",
    "rjcma", "rjcma+dca", "self_attention", "tca", "tca+dca", "tcn_transformer", "transformer", "unimodal_audio",
    "unimodal_text", "unimodal_visual",
)  # fmt: skip
"""Those of Crossfold (`fusion_models.catalogue.system_names`)."""
LAYOUTS = ("affwild2", "huggingface", "manifest", "puppets", "recola", "synthetic")
"""Those of Crossfold (`corpora.registry.CORPORA`)."""
RECIPES = (
    "ca2021", "ca2021+released", "ca2021_audio", "ca2021_audio+features", "ca2021_visual", "ca2021_visual+features",
    "dca2024", "dca2024+released", "demo", "dose", "grjca2025", "grjca2025+features", "grjca2025+released",
    "grjca2025+released+features", "grjca2025_v1", "grjca2025_v1+features", "grjca2025_v1+released",
    "grjca2025_v1+released+features", "rjcma2024", "rjcma2024+features", "rjcma2024+released",
    "rjcma2024+released+features",
)  # fmt: skip
"""Those of Crossfold (`recipe_files.shipped_recipes`)."""
TABLES = (
    "leaderboard", "dca-t1", "dca-t2", "dca-t3", "dca-s1", "dca-s2", "dca-s3", "grjca-t1", "grjca-t2", "grjca-t3",
    "grjca-s1", "rjcma-t1", "rjcma-t2", "rjcma-t3", "rjcma-t4", "rjcma-s1", "rjcma-s2", "grjca1-t1", "ca-t1", "ca-t2",
    "ca-t3", "ca-t4",
)  # fmt: skip
"""Those of a report (`reports.tables.published.table_ids`)."""
CONDITIONS: Mapping[str, tuple[str, ...]] = {
    "system": SYSTEMS,
    "fold": tuple(map(str, range(6))),
    "target": ("valence", "arousal"),
    "seed": ("0", "1", "2"),
    "selection": ("reported", "held_out"),
}
"""The axes of `--only` that every sweep has, and usual values."""
_PACKAGE = Path(__file__).resolve().parents[3]


def systems(incomplete: str) -> list[str]:
    """Systems of Crossfold."""
    return beginning(incomplete, SYSTEMS)


def layouts(incomplete: str) -> list[str]:
    """Layouts of data that Crossfold reads."""
    return beginning(incomplete, LAYOUTS)


def corpora(context: typer.Context, incomplete: str) -> list[str]:
    """Corpora with a store in the workspace."""
    return beginning(incomplete, (name.rpartition("-")[0] for name in _names(context, "stores")))


def recipes(incomplete: str) -> list[str]:
    """Recipes that ship."""
    return beginning(incomplete, RECIPES)


def tables(incomplete: str) -> list[str]:
    """Tables of a report."""
    return beginning(incomplete, TABLES)


def sweeps(context: typer.Context, incomplete: str) -> list[str]:
    """Sweeps that ship, those that were launched, and YAML files."""
    if (condition := _broken_condition(os.environ)) is not None:
        return [found.partition("=")[2] for found in conditions(condition)]
    shipped = (path.stem for path in (_PACKAGE / "sweeps").rglob("*.yaml") if path.parent.name != "recipes")
    launched = (name.removesuffix(".json") for name in _names(context, "sweeps") if name.endswith(".json"))
    return beginning(incomplete, (*shipped, *launched)) + _files(incomplete, ".yaml")


def cells(context: typer.Context, incomplete: str) -> list[str]:
    """Finished cells of the workspace."""
    return beginning(incomplete, _names(context, "cells"))


def sweeps_or_cells(context: typer.Context, incomplete: str) -> list[str]:
    """What `export` takes."""
    return united(sweeps(context, incomplete), cells(context, incomplete))


def tables_or_sweeps(context: typer.Context, incomplete: str) -> list[str]:
    """What `report` takes."""
    return united(tables(incomplete), sweeps(context, incomplete))


def sweeps_or_systems(context: typer.Context, incomplete: str) -> list[str]:
    """What `cite` takes."""
    return united(sweeps(context, incomplete), systems(incomplete))


def predictors(context: typer.Context, incomplete: str) -> list[str]:
    """What `predict` takes: systems, cells, and folders."""
    folders = [f"{path}/" for path in _paths(incomplete) if path.is_dir()]
    return united(systems(incomplete), cells(context, incomplete), folders)


def conditions(incomplete: str) -> list[str]:
    """`axis=value`, or after a comma one more value."""
    axis, equals, values = incomplete.partition("=")
    if not equals:
        return [f"{name}={value}" for name in beginning(axis, CONDITIONS) for value in CONDITIONS[name]]
    before, comma, last = values.rpartition(",")
    given = before.split(",")
    known = (value for value in CONDITIONS.get(axis, ()) if value not in given)
    return [f"{axis}={before}{comma}{value}" for value in beginning(last, known)]


def one_of(names: Iterable[str]) -> Callable[[str], list[str]]:
    """Completes one of these names."""
    return lambda incomplete: beginning(incomplete, names)


def _broken_condition(environment: Mapping[str, str]) -> str | None:
    """The condition of `--only` that is being typed in bash, which breaks words at each `=`; None where none is.

    To typer, what follows the `=` is then an argument of the command.
    """
    if environment.get("_CROSSFOLD_COMPLETE") != "complete_bash" or "COMP_CWORD" not in environment:
        return None
    words = environment["COMP_WORDS"].split("\n")[: int(environment["COMP_CWORD"]) + 1]
    joined: list[str] = []
    for index, word in enumerate(words):
        if index and "=" in (word, words[index - 1]):
            joined[-1] += word
        else:
            joined.append(word)
    return joined[-1] if "=" in words[-2:] and "--only" in joined else None


def beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    """The names that begin so, in order."""
    return sorted({name for name in names if name.startswith(incomplete)})


def united(*found: list[str]) -> list[str]:
    """Several lists as one, each name once."""
    return list(dict.fromkeys(name for names in found for name in names))


def _names(context: typer.Context, folder: str) -> list[str]:
    """What lies in a folder of the workspace of the command line, as far as it is one of this machine."""
    root = Path(context.params.get("workspace") or os.environ.get("CROSSFOLD_HOME") or ".crossfold")
    if not (root / folder).is_dir():
        return []
    return [path.name for path in (root / folder).iterdir() if not path.name.startswith(".")]


def _paths(incomplete: str) -> list[Path]:
    folder = Path(incomplete).parent if not incomplete.endswith("/") else Path(incomplete)
    if not incomplete or not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if str(path).startswith(incomplete.removeprefix("./")))


def _files(incomplete: str, suffix: str) -> list[str]:
    """Files on the way to one with a suffix."""
    paths = _paths(incomplete)
    return [f"{path}/" if path.is_dir() else str(path) for path in paths if path.is_dir() or path.suffix == suffix]
