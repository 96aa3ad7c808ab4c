"""`crossfold report`, and `crossfold power`, which forecasts from the same numbers."""

import contextlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crossfold.platform.core.errors import UserError
from crossfold.platform.edge.cli import options
from crossfold.platform.edge.terminal import completion
from crossfold.platform.edge.terminal.console import counted, emit, out, say

if TYPE_CHECKING:
    from crossfold.platform.workspace.workspace import Workspace
    from crossfold.reports.build import Report

_ALL = "html,md,tex,csv"
MOST_PATHS = 6
"""More tables than these are printed as a number and a folder."""


def report(
    tables: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TABLE|SWEEP...",
            help="Tables to build, all of them if left out; sweeps that were launched, by name or file, whose cells "
            "alone are reported; or workspaces to --join.",
            autocompletion=completion.tables_or_sweeps,
        ),
    ] = None,
    workspace: options.Workspace = None,
    format_: Annotated[str, typer.Option("--format", help="Comma-separated: html, md, tex, csv.")] = _ALL,
    out_folder: Annotated[Path | None, typer.Option("--out", help="Folder; else <workspace>/reports.")] = None,
    charts: Annotated[
        bool, typer.Option("--charts/--no-figures", help="Whether the page has charts; without them it is small.")
    ] = True,
    figures: Annotated[
        Path | None, typer.Option(help="Also write each chart as a file into this folder.", metavar="DIR")
    ] = None,
    figure_format: Annotated[str, typer.Option(help="Comma-separated: svg, png, pdf.")] = "svg",
    figure_width: Annotated[
        str, typer.Option(help="page: with title and origin; one, two: columns of a paper (3.5, 7.16 inches).")
    ] = "page",
    media: Annotated[
        Path | None,
        typer.Option(
            help="A corpus's folder: embed faces and sound of the clips shown, people included.", metavar="DIR"
        ),
    ] = None,
    table: Annotated[
        str | None,
        typer.Option(
            help="Print one table alone; with --format txt, csv, md or tex.",
            metavar="NAME",
            autocompletion=completion.tables,
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(help="For --table: heads of the columns to keep, comma-separated, in order.", metavar="HEADS"),
    ] = None,
    diff: Annotated[
        str | None,
        typer.Option(help="Compare with an earlier workspace: what moved, beyond noise or not.", metavar="WORKSPACE"),
    ] = None,
    join: Annotated[
        bool, typer.Option("--join", help="One leaderboard of the workspaces that are named: report --join A B.")
    ] = False,
    site: Annotated[
        Path | None,
        typer.Option(help="Also write a folder for a web server, with an address for each number.", metavar="DIR"),
    ] = None,
    serve: Annotated[
        bool, typer.Option("--serve", help="Serve the page here and refresh it while cells finish.")
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="For --serve; 0 takes any.")] = 8765,
    plugin: options.Plugin = None,
) -> None:
    """Build the tables and the leaderboard from finished cells. It never trains and never needs a GPU."""
    from crossfold.reports.build import build_report, take_table
    from crossfold.reports.compare import write_site
    from crossfold.reports.page.image_export import check_export, export_figures
    from crossfold.reports.tables.summary import leaderboard_rows, leaderboard_title

    if join:
        _join(tables or [], out_folder)
        return
    if plugin:
        _use_titles()
    wanted = tuple(_sweep_name(name) for name in tables or ())
    space = options.open_workspace(workspace)
    if diff is not None:
        _diff(diff, space, out_folder or space.paths.reports)
        return
    if media is not None and not media.is_dir():
        raise UserError(f"--media {media}: no such folder", "give the folder that --root of prepare named")
    if serve:
        _serve(space, port, wanted, charts, media)
        return
    if table is not None:
        form = "txt" if format_ == _ALL else format_
        typer.echo(take_table(space, table, form, _listed(columns)), nl=False)
        return
    if columns is not None:
        raise UserError("--columns chooses the columns of one table, and none is named", "add --table NAME")
    formats = tuple(part.strip() for part in format_.split(",") if part.strip())
    if not formats:
        raise UserError(f"--format {format_!r} names no format", "give some of html, md, tex, csv")
    kinds = tuple(part.strip() for part in figure_format.split(",") if part.strip())
    if figures is not None:
        if "html" not in formats or not charts:
            raise UserError("--figures writes the charts of the page, and there is none", "leave html in --format")
        check_export(kinds, figure_width)
    built = build_report(space, tables=wanted, formats=formats, out=out_folder, figures=charts, media=media)
    for board in built.leaderboards:
        emit(leaderboard_rows(board), False, leaderboard_title(board))
    out.print(built.summary)
    if site is not None:
        written = write_site(built, site)
        say(f"{counted(len(written), 'file')} in {site}: {site / 'index.html'}")
    _print_files(built.paths, space, sent=out_folder is None)
    if figures is not None and built.page is not None:
        written = export_figures(built.page, figures, kinds, built.page.date, figure_width)
        say(f"{len(written)} figures in {figures}")


def power(
    sweep: Annotated[
        str,
        typer.Argument(
            metavar="SWEEP", help="A sweep that has run to its end, by name or file.", autocompletion=completion.sweeps
        ),
    ],
    gain: Annotated[float, typer.Option(help="The true gain in CCC that is to be seen.")] = 0.01,
    over: Annotated[
        str | None, typer.Option("--pair", help="Two systems, as rjca+dca,rjca; else the typical pair.", metavar="A,B")
    ] = None,
    workspace: options.Workspace = None,
    as_json: options.Json = False,
) -> None:
    """Forecast how likely a gain is to be seen, and which seeds, folds and videos that takes, from finished runs."""
    from crossfold.reports.power import forecast_power
    from crossfold.reports.stats.formatting import percent, power_text

    pair = _listed(over)
    if over is not None and len(pair) != 2:
        raise UserError(f"--pair {over!r} does not name two systems", "write --pair rjca+dca,rjca")
    found = forecast_power(options.open_workspace(workspace), _sweep_name(sweep), gain, pair)
    if as_json:
        emit(found.as_dict(), True)
        return
    for each in found.targets:
        ran = each.design
        videos = "+".join(map(str, ran.videos))
        say(
            f"{each.corpus}, recipe {each.recipe}, {each.target}: {counted(ran.folds, 'fold')} of {videos} videos, "
            f"{counted(ran.seeds, 'seed')}; "
            + (f"mean over {each.pairs} pairs" if each.pairs > 1 else "one pair")
            + f"; p is corrected for {each.comparisons} comparisons",
            "  the standard deviation of a gain in CCC is "
            + ", ".join(f"{sd:.4f} {_BETWEEN[name]}" for name, sd in each.sd.items()),
            f"  a true gain of {gain:g} has a power of {power_text(each.power)}; "
            + (
                f"one of {each.smallest_gain:.3f} has a power of 80 %"
                if each.smallest_gain
                else "not even a gain of 1 has a power of 80 %"
                if ran.judged
                else "no gain has any, because verdicts take three seeds and three videos of each fold"
            ),
        )
    needs = [
        {
            "recipe": each.recipe,
            "target": each.target,
            **{f"{name} alone": _needed(number) for name, number in each.needed.items()},
            **{f"videos with {plan['seeds']} seeds": _needed(plan["videos"]) for plan in each.plans},
        }
        for each in found.targets
    ]
    emit(needs, False, f"What gives a gain of {gain:g} a power of 80 % (videos: of each fold)")
    rows = [
        {
            "claim": each["claim"],
            "comparison": each["comparison"],
            "target": each["target"],
            "printed": f"{each['printed_gain']:+.3f}",
            "power of the paper": f"{percent(each['chance'])} [{100 * each['low']:.0f}, {100 * each['high']:.0f}]",
        }
        for each in found.printed
    ]
    if rows:
        emit(rows, False, "The power of each printed gain with what the paper ran (docs/statistics.md)")


_BETWEEN = {
    "videos": "between videos",
    "seeds": "between seeds",
    "interaction": "for their interaction",
    "folds": "between folds",
}
"""Source of variance -> how it is printed."""


def _needed(number: int | None) -> str:
    return "more than 10,000" if number is None else f"{number:,}"


def _diff(before: str, after: "Workspace", folder: Path) -> None:
    from crossfold.platform.workspace.workspace import Workspace
    from crossfold.reports.compare import report_difference

    other = Workspace.at(before)
    other.download_all()
    _say(report_difference(other, after, folder))


def _join(names: Sequence[str], folder: Path | None) -> None:
    from crossfold.platform.workspace.workspace import Workspace
    from crossfold.reports.compare import join_reports

    spaces = {name: Workspace.at(name) for name in dict.fromkeys(names)}
    for space in spaces.values():
        space.download_all()
    _say(join_reports(spaces, folder or Path.cwd()))


def _say(report: "Report") -> None:
    typer.echo(report.summary)
    for path in report.paths:
        say(str(path))


def _listed(text: str | None) -> tuple[str, ...]:
    """The parts between commas; a comma within brackets is part of a head."""
    return tuple(part.strip() for part in re.split(r",(?![^\[(]*[\])])", text or "") if part.strip())


def _use_titles() -> None:
    """Lets the report print the titles of the systems that plug-ins registered."""
    from crossfold.fusion_models.catalogue import own_title, systems
    from crossfold.reports.results.systems import LOADED_TITLES

    LOADED_TITLES.update({name: title for name in systems if (title := own_title(name)) is not None})


def _sweep_name(given: str) -> str:
    """A table or sweep by its name; the file of a sweep stands for the name in it."""
    from crossfold.sweeps.sweep_files import load

    return load(given).name if Path(given).suffix in (".yaml", ".yml") and Path(given).is_file() else given


def _print_files(paths: Sequence[Path], space: "Workspace", *, sent: bool) -> None:
    """The page by its path, and tables by theirs unless they are many."""
    tables = [path for path in paths if path.suffix != ".html"]
    many = len(tables) > MOST_PATHS
    for path in paths:
        if not many or path.suffix == ".html":
            say(str(path))
    if many:
        kinds = ", ".join(sorted({path.suffix for path in tables}))
        say(f"{len(tables)} tables ({kinds}) in {tables[0].parent}")
    if sent and space.mirror is not None:
        say(f"all of it is also at {space}/reports")


def _serve(space: "Workspace", port: int, tables: Sequence[str], charts: bool, media: Path | None) -> None:
    from crossfold.reports.build import choose
    from crossfold.reports.serve import ReportServer

    choose(space, tables)
    server = ReportServer(space, port, tables, figures=charts, media=media)
    say(f"report of {space}: {server.url}", "It looks for finished cells every few seconds. Ctrl-C ends it.")
    with contextlib.suppress(KeyboardInterrupt):
        server.run()
