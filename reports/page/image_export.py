"""Single figures as svg, png or pdf, through kaleido and an installed Chrome or Chromium."""

import copy
import importlib.util
import os
import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from crossfold.platform.core.errors import UserError, did_you_mean
from crossfold.platform.core.files import temporary_folder, write_bytes
from crossfold.reports.figures.base import Figure, Panel
from crossfold.reports.figures.charts import MUTED, TRUTH
from crossfold.reports.page.compose import Page

FIGURE_FORMATS = ("svg", "png", "pdf")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
WIDTH = 760
COLUMNS = {"page": 0, "one": 336, "two": 687}
"""Widths in 1/96 inch: with all words of the page, and one and two columns of a paper (3.5 and 7.16 inches)."""
INK, SOFT, RULE, GREY = "#1c1f23", "#5d646d", "#d9dce0", "#cfd3d8"
NOTE_WIDTH = 130
"""The most characters in a line of the note below a figure."""


def check_export(formats: Sequence[str], width: str = "page") -> None:
    """Called before any work: raises `UserError` for an unknown format or width, or without kaleido or a browser."""
    for name in formats:
        if name not in FIGURE_FORMATS:
            raise UserError(
                f"unknown figure format {name!r}{did_you_mean(name, FIGURE_FORMATS)}",
                "give some of " + ", ".join(FIGURE_FORMATS),
            )
    if width not in COLUMNS:
        raise UserError(f"unknown width {width!r}{did_you_mean(width, COLUMNS)}", "give one of " + ", ".join(COLUMNS))
    if importlib.util.find_spec("kaleido") is None:
        raise UserError("single figures need kaleido, which is not installed", "pip install 'crossfold[figures]'")
    if find_browser() is None:
        raise UserError(
            "single figures need Chrome or Chromium, and none was found on PATH",
            "install one, or name its file in BROWSER_PATH; the HTML report needs none",
        )


def find_browser() -> str | None:
    """`BROWSER_PATH`, else the first known browser on PATH."""
    given = os.environ.get("BROWSER_PATH")
    if given:
        return given if Path(given).is_file() else None
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


def export_figures(page: Page, folder: Path, formats: Sequence[str], date: str, width: str = "page") -> list[Path]:
    """Writes every panel of every figure into `folder`, named by the ids of the page; returns the files.

    Each contains its key and the label of an embedded corpus. width: one of `COLUMNS`; `page` adds the title and the
    line about the origin of the numbers, which a paper says in its caption.
    """
    check_export(formats, width)
    import kaleido  # an extra, and slow to import

    # A browser that dies leaves half a file, so it writes into a temporary folder.
    with temporary_folder(folder, "figures") as draft:
        jobs = [
            {
                "fig": standalone(figure, panel, block.setting.label, date, COLUMNS[width]).to_dict(),
                "path": str(draft / f"{figure.id}-{index}.{extension}"),
                "opts": {"format": extension, "scale": 1 if extension != "png" else 300 / 96 if COLUMNS[width] else 2},
            }
            for block in page.blocks
            for figure in block.drawn
            for index, panel in enumerate(figure.panels, start=1)
            for extension in formats
        ]
        # One browser for all figures. By default kaleido loads MathJax from the network, which no figure needs.
        kaleido.write_fig_from_object_sync(jobs, kopts={"path": find_browser(), "mathjax": False, "n": 1})
        drafts = [Path(str(job["path"])) for job in jobs]
        for path in drafts:
            write_bytes(folder / path.name, path.read_bytes())
    return [folder / path.name for path in drafts]


def standalone(figure: Figure, panel: Panel, label: str, date: str, column: int = 0) -> go.Figure:
    """One chart with the title, label, note and keys that surround it on the page.

    column: the width in pixels of a column of a paper, without title and note; 0 for all of them.
    """
    # A copy: the page draws the same chart in its own colours.
    spec: dict[str, Any] = copy.deepcopy({"data": list(panel.spec["data"]), "layout": dict(panel.spec["layout"])})
    layout = spec["layout"]
    for trace in spec["data"]:
        colour = {TRUTH: INK, MUTED: GREY}.get(str(trace.get("meta")))
        if colour:
            trace["line"] = {**(trace.get("line") or {}), "color": colour}
        trace["showlegend"] = bool(trace.get("name"))
    title = figure.title + (f", {panel.title}" if panel.title and panel.title not in figure.title else "")
    words = [*([] if column else [f"<b>{_inert(title)}</b>"]), *([_inert(label)] if label else [])]
    drawn = {str(trace.get("name")) for trace in spec["data"] if trace.get("showlegend")}
    keys = [
        f'<span style="color:{key.colour or INK}">■</span> {_inert(key.name)}'
        for key in (*figure.key, *panel.key)
        if key.name and key.name not in drawn
    ]
    note = [] if column else textwrap.wrap(_inert(f"{figure.note} Made {date}."), NOTE_WIDTH, break_on_hyphens=False)
    in_row = 2 if 0 < column < WIDTH / 2 else 4
    small = [*note, *("   ".join(keys[at : at + in_row]) for at in range(0, len(keys), in_row))]
    words += [f'<span style="font-size:10px">{line}</span>' for line in small]
    above = (12 if column else 40) + 19 * len(words)
    margin = layout["margin"]
    height = int(layout["height"]) + above - int(margin["t"])
    named = sum(bool(trace["showlegend"]) for trace in spec["data"])
    wide = named > 1
    below = 22 * -(-named // (in_row // 2 or 1)) if wide and column else 0  # a legend under the chart
    layout |= {
        "height": height + below,
        "width": column or WIDTH + (180 if wide else 0),
        "margin": margin
        | {"t": above + (24 if layout.get("annotations") else 0), "b": int(margin.get("b", 40)) + below},
        **({"legend": {"orientation": "h", "y": -0.22, "font": {"size": 9}}} if column else {}),
        "paper_bgcolor": "#ffffff",
        "plot_bgcolor": "#ffffff",
        "showlegend": wide,
        "font": {"color": SOFT, "size": 32 / 3 if column else 12, "family": "sans-serif"},
        "title": {"text": "<br>".join(words), "x": 0.01, "xanchor": "left", "y": 1 - 14 / height, "yanchor": "top",
                  "font": {"size": 9 if column else 14, "color": INK}},
        "xaxis": layout["xaxis"] | {"gridcolor": RULE},
        "yaxis": layout["yaxis"] | {"gridcolor": RULE},
    }  # fmt: skip
    return go.Figure(spec)


def _inert(text: str) -> str:
    return text.replace("<", "&lt;")  # plotly reads a few HTML tags
