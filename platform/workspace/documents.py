"""The JSON files next to the cells: read so that one which is not what Crossfold wrote is named, not a traceback."""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from crossfold.platform.core.errors import DataError

Scores = dict[str, float | None]


class Ensemble(BaseModel):
    """A file of `ensembles/`."""

    members: list[str]
    metrics: dict[str, Scores]


class _Label(BaseModel):
    system: str
    params: dict[str, Any]
    fold: int
    target: str
    seed: int


class Listing(BaseModel):
    """A file of `sweeps/` or `searches/`, as far as both have it."""

    name: str
    cells: list[str] | None = None


class LaunchedCells(BaseModel):
    """A file of `sweeps/`, as far as the state of its cells needs it."""

    name: str
    cells: list[str]
    labels: dict[str, dict[str, Any]]


class LaunchedSweep(BaseModel):
    """A file of `sweeps/`: what a launched sweep asked for."""

    name: str
    corpus: str
    store: str
    cells: list[str]
    labels: dict[str, _Label]


class _Column(BaseModel):
    metrics: dict[str, Scores]
    videos: dict[str, dict[str, list[float]]]


class _Post(BaseModel):
    columns: dict[str, _Column] | None = None


class Rescored(BaseModel):
    """A file of `rescored/`: another evaluation of a finished cell."""

    evaluation: dict[str, Any]
    post: _Post | None = None
    stress: list[dict[str, Any]] | None = None
    gates: list[dict[str, Any]] | None = None


class FailureDocument(BaseModel):
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


def read_launched(path: Path, kind: type[BaseModel] = LaunchedSweep) -> dict[str, Any]:
    """A file of `sweeps/`, with at least what `kind` says. Raises `DataError` that names the file."""
    return read_document(
        path, kind, "delete it; `crossfold run` with its sweep writes it again, and runs no finished cell"
    )
