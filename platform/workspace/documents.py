"""The JSON files next to the cells: what they hold, for those who read them here and for `merge`, which takes others'.

A file that holds something else is named in a sentence, never a traceback.
"""

import contextlib
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from crossfold.platform.core.errors import DataError
from crossfold.platform.core.layout import WorkspacePaths


class _Document(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class _Target(_Document):
    ccc: float


class Ensemble(_Document):
    """A file of `ensembles/`."""

    members: list[str] = Field(min_length=1)
    metrics: dict[str, _Target]


class _Column(_Document):
    metrics: dict[str, _Target]
    videos: dict[str, dict[str, list[float]]]


class _Post(_Document):
    columns: dict[str, _Column] | None = None


class _Stress(_Document):
    kind: str
    modality: str
    strength: float
    used: bool
    metrics: dict[str, _Target]
    left_out: dict[str, list[float]] | None = None


class Rescored(_Document):
    """A file of `rescored/`: another evaluation of a finished cell."""

    evaluation: dict[str, Any]
    post: _Post | None = None
    stress: list[_Stress] | None = None
    gates: list[dict[str, Any]] | None = None


class Listing(_Document):
    """A file of `sweeps/` or `searches/`, as far as both have it."""

    name: str
    cells: list[str] | None = None


class LaunchedCells(_Document):
    """A file of `sweeps/`, as far as the state of its cells needs it."""

    name: str
    cells: list[str]
    labels: dict[str, dict[str, Any]]


class _Label(_Document):
    system: str
    params: dict[str, Any]
    fold: int
    target: str
    seed: int


class LaunchedSweep(_Document):
    """A file of `sweeps/`: what a launched sweep asked for."""

    name: str
    corpus: str
    store: str
    cells: list[str]
    labels: dict[str, _Label]
    seen: list[str] = []
    """Cells whose reported clips were seen when their parameters or recipe were chosen."""


class FailureDocument(_Document):
    """A file of `failures/`."""

    cell_id: str
    label: str
    kind: str
    attempt: int
    message: str
    at: str


def read_document(path: Path, kind: type[BaseModel], remedy: str) -> dict[str, Any]:
    """The mapping in a file, with at least what `kind` says, as it was written.

    remedy: what a user does about a file that holds something else. Raises `DataError` that names the file.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        kind.model_validate(content)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(map(str, problem["loc"]))
        raise DataError(
            f"{path} is not what Crossfold wrote: {where or 'the file'}: {problem['msg']}", remedy
        ) from error
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:100]
        raise DataError(f"{path} is not what Crossfold wrote: {reason}", remedy) from error
    return content


def seen_cells(paths: WorkspacePaths) -> frozenset[str]:
    """The cells of all launched sweeps whose numbers carry the label `seen`; a file that cannot be read names none."""
    found: set[str] = set()
    for path in paths.sweeps.glob("[!.]*.json"):
        with contextlib.suppress(DataError):
            found.update(read_launched(path).get("seen", ()))
    return frozenset(found)


def read_launched(path: Path, kind: type[BaseModel] = LaunchedSweep) -> dict[str, Any]:
    """A file of `sweeps/`, with at least what `kind` says. Raises `DataError` that names the file."""
    return read_document(
        path, kind, "delete it; `crossfold run` with its sweep writes it again, and runs no finished cell"
    )


class SearchDocument(_Document):
    """A file of `searches/`: what a search found."""

    name: str
    group: str | None = None
    """Absent in records of versions that searched one system only."""
    search: dict[str, Any]
    space: dict[str, Any]
    trials: dict[str, int]
    best_params: dict[str, Any]
    best_value: float


def read_search(path: Path) -> dict[str, Any]:
    """A file of `searches/`. Raises `DataError` that names the file."""
    return read_document(path, SearchDocument, "delete it; `crossfold search` writes it again, and runs no trial twice")
