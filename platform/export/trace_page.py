"""A page of one clip: its film, and below it traces, gates and attention, with a line at the time that is played."""

import base64
import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from crossfold.platform.core.files import write_bytes
from crossfold.platform.export.traces import Joined

MOST_EMBEDDED = 16 * 2**20
"""Bytes of a film that the page holds; a larger one is linked."""
_TEMPLATE = "trace_page.html.j2"
_PLAYED = {".mp4": "video/mp4", ".m4v": "video/mp4", ".webm": "video/webm", ".wav": "audio/wav", ".mp3": "audio/mpeg"}


def write_page(path: Path, joined: Joined, title: str, by: str, film: Path | None) -> None:
    """Writes the page, whole or not at all; it loads nothing but a film that is too large to be inside.

    title: the name of the clip; by: what predicted it; film: the video or sound, None where there is none.
    """
    data = json.dumps(_data(joined), allow_nan=False).replace("<", "\\u003c")
    template = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True).get_template(_TEMPLATE)
    page = template.render(title=title, by=by, film=_film(film, path), data=Markup(data))  # escaped above
    write_bytes(path, page.encode())


def _film(film: Path | None, page: Path) -> Markup:
    kind = _PLAYED.get(film.suffix.lower()) if film is not None and film.is_file() else None
    if film is None or kind is None:
        return Markup("")
    if film.stat().st_size <= MOST_EMBEDDED:
        source = f"data:{kind};base64,{base64.b64encode(film.read_bytes()).decode()}"
    else:
        source = quote(os.path.relpath(film.resolve(), page.parent.resolve()))
    tag = kind.partition("/")[0]
    return Markup('<{0} id="film" controls src="{1}"></{0}>').format(tag, source)


def _data(joined: Joined) -> dict[str, Any]:
    traces = [
        {
            "name": target.name,
            "unit": target.unit,
            "range": [target.low, target.high],
            "mean": _numbers(joined.mean[:, t]),
            "spread": _numbers(joined.spread[:, t]) if joined.members[t] > 1 else None,
            "members": joined.members[t],
        }
        for t, target in enumerate(joined.targets)
    ]
    seconds = joined.axis.times
    maps = joined.maps
    return {
        "seconds": _numbers(seconds),
        "traces": traces,
        "gates": [
            {"name": f"{gate}, {modality}", "weight": _numbers(w)} for (gate, modality), w in joined.gates.items()
        ],
        "maps": [
            {"name": f"{kind}: {query} attends to {key}", "rows": [_numbers(row) for row in np.atleast_2d(values)]}
            for (kind, query, key), values in maps.maps.items()
        ],
        "mapped": [float(seconds[maps.start]), float(seconds[min(maps.stop, len(seconds)) - 1])],
    }


def _numbers(values: np.ndarray) -> list[float | None]:
    """JSON has no number for what is none."""
    return [round(float(value), 5) if np.isfinite(value) else None for value in values]
