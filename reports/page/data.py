"""What the page's script draws, packed into a text that browsers unpack without a library."""

import base64
import gzip
import json
from collections.abc import Mapping, Sequence
from typing import Any

from crossfold.platform.workspace.workspace import Workspace
from crossfold.reports.figures.attention import DIVERGING_MAP, SEQUENTIAL_MAP
from crossfold.reports.page.compose import Page
from crossfold.reports.page.drilldown import drill_data
from crossfold.reports.results.model import Results, Setting


def page_data(page: Page, results: Results, settings: Sequence[Setting], workspace: Workspace | None) -> str:
    """Cells, charts and what an exported figure says of itself, as JSON in gzip in base64.

    The same content gives the same text; `unpacked` reads it back.
    """
    text = json.dumps(
        _contents(page, drill_data(results, settings, workspace)),
        sort_keys=True,
        separators=(",", ":"),
        allow_nan=False,
    )
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def _contents(page: Page, drill: Mapping[str, Any]) -> dict[str, Any]:
    """What the page's script draws: the cells, the charts, and what an exported figure must say of itself."""
    return {
        "drill": drill,
        "compare": {str(block.number): block.compared for block in page.blocks if block.compared},
        "plots": {
            f"plot-{figure.id}-{at}": packed(panel.spec)
            for figure in page.figures
            for at, panel in enumerate(figure.panels, start=1)
        },
        "figures": {
            figure.id: {"label": label, "note": figure.note}
            for label, drawn in (
                *((block.setting.label, block.drawn) for block in page.blocks),
                *((section.label, section.figures) for section in page.searches),
                *([(page.doses.label, page.doses.figures)] if page.doses else []),
            )
            for figure in drawn
        },
    }


def unpacked(page: str) -> dict[str, Any]:
    """The data in a page, as its script reads them."""
    text = page.partition('id="data">')[2].partition("</script>")[0]
    data: dict[str, Any] = json.loads(gzip.decompress(base64.b64decode(text)))
    return data


def packed(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A chart in the form of the page: a row of a map starts with the number of empty cells that are left out."""
    data = []
    for trace in spec["data"]:
        if trace.get("meta") in (DIVERGING_MAP, SEQUENTIAL_MAP):
            rows = []
            for row in trace["z"]:
                full = [at for at, value in enumerate(row) if value is not None] or [0]
                rows.append([full[0], *row[full[0] : full[-1] + 1]])  # only windows on the diagonal have numbers
            trace = {**trace, "z": rows}
        data.append(trace)
    return {**spec, "data": data}
