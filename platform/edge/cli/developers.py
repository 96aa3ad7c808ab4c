"""For people who write code: `crossfold new` writes a first plug-in, `crossfold check` runs the contract tests on it,
`crossfold bench` measures the speed of Crossfold."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crossfold.platform.edge.cli import options
from crossfold.platform.edge.terminal.console import emit, out, say

if TYPE_CHECKING:
    from crossfold.platform.edge.diagnostics.benchmarks import Figure, Ratio

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


def bench(
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json",
            help="Where the results are kept; else a dated file in the cache folder.",
            show_default=False,
        ),
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(help="Measure nothing; show what moved between two results.", metavar="A B", show_default=False),
    ] = None,
    only: Annotated[
        str | None, typer.Option(help="Only benchmarks with this in their name, such as startup.", show_default=False)
    ] = None,
) -> None:
    """Measure how fast Crossfold is next to named rivals on this machine, in a clone of the repository.

    Each ratio is the time of the rival over that of Crossfold, with the quartiles of interleaved turns. Where the
    limit of this machine was measured in the same run, the share of it is shown, too. It exits with 1 if a benchmark
    does not pass. All benchmarks take about an hour on two cores; what is measured is kept after each.
    """
    from crossfold.platform.core.errors import UserError
    from crossfold.platform.core.files import utc_now, write_json
    from crossfold.platform.core.layout import cache_folder
    from crossfold.platform.edge.diagnostics import benchmarks

    if compare is not None:
        if json_file is not None or only is not None:
            raise UserError(
                f"--compare measures nothing, so {'--json' if only is None else '--only'} has no meaning with it",
                "leave it out, or measure first: crossfold bench --json FILE",
            )
        before, after = (benchmarks.read_run(path) for path in compare)
        shown = [
            {
                **row,
                "before": _ratio(row["before"]),
                "after": _ratio(row["after"]),
                "change": _change(row["change"]),
            }
            for row in benchmarks.comparison_rows(before, after)
        ]
        emit(shown, False, _TITLE)
        figures = [
            {**row, **{when: _figure(row[when]) for when in ("before", "after")}, "change": _change(row["change"])}
            for row in benchmarks.figure_rows(before, after)
        ]
        if figures:
            emit(figures, False, "Figures without a rival, whose noise is not known")
        processors, loads = ([run.machine.get(fact) for run in (before, after)] for fact in ("processor", "load"))
        if processors[0] != processors[1]:
            say(f"The processors differ: {processors[0]}, and {processors[1]}.")
        say(f"Load of the machine: {loads[0]}, and {loads[1]}.")
        return
    place = json_file or cache_folder() / "benchmarks" / f"{utc_now().replace(':', '')}.json"
    if place.is_dir():
        raise UserError(f"--json {place} is a folder", "name a file, such as bench.json")
    place.parent.mkdir(parents=True, exist_ok=True)
    say(f"kept after each benchmark in {place}")
    measured = benchmarks.run_benchmarks(only, lambda run: write_json(place, run.as_json()))
    rows = [
        {
            "name": each.name,
            "rival": each.rival,
            "ratio": _ratio(each),
            "turns": each.turns,
            "own": f"{each.own:.4g} {each.unit}",
            "of the limit": _share(each.share),
            "goal": "" if each.goal is None else f"{each.goal:.3g}",
        }
        for each in measured.ratios
    ]
    if rows:
        emit(rows, False, _TITLE)
    absolute = [
        {"name": each.name, "figure": _figure(each), "of the limit": _share(each.share), "why no rival": each.why}
        for each in measured.figures
    ]
    if absolute:
        emit(absolute, False, "Figures without a rival")
    say(
        *(f"failed: {name}" for name in measured.failed), f"kept in {place}; crossfold bench --compare A B compares two"
    )
    if measured.failed:
        raise typer.Exit(1)


_TITLE = "Times of the rival over those of Crossfold: above 1, Crossfold takes less"


def _ratio(found: "Ratio | None") -> str:
    if found is None:
        return ""
    return f"{found.ratio:.3g} ({found.low:.3g} to {found.high:.3g})" if found.spread else f"{found.ratio:.3g}"


def _figure(found: "Figure | None") -> str:
    return "" if found is None else f"{found.value:.4g} {found.unit}"


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"


def _change(change: float | None) -> str:
    return "" if change is None else f"{change:+.0%}"
