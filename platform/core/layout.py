"""The names of everything in a workspace; the layout at a URL is the same."""

import os
import re
from pathlib import Path
from urllib.parse import unquote

from crossfold.platform.core.files import path_inside

CELL_FILES = ("cell.json", "result.json", "curve.parquet", "predictions.npz", "env.json", "best.safetensors")
"""What the folder of a finished cell holds."""
CELL_ID = re.compile(r"[0-9a-f]{16}")
PREDICTIONS_SHA256 = "predictions_sha256"
"""The key of `env.json` in exported results, whose cells lack their predictions."""
RECORD = "files"
"""Key of `env.json` under which a commit writes the size of each file of its cell, and the hash of the numbers."""
HASHED = "result.json"
"""The file whose content is hashed: small, and read by every table. Of the others the size is compared, so that one
second is enough for thousands of cells."""


def sqlite_uri(path: Path) -> str:
    """The address of a database by its path, in which SQLAlchemy would read `%20` as a blank."""
    return f"sqlite:///{str(path).replace('%', '%25').replace('?', '%3F')}"


def sqlite_path(uri: str) -> Path:
    """The path of a database by its address, the inverse of `sqlite_uri`."""
    return Path(unquote(uri.removeprefix("sqlite:///").partition("?")[0]))


def cache_folder() -> Path:
    """Where this machine keeps what can be made again: `CROSSFOLD_CACHE`, else `crossfold` in the user's cache folder.

    Raises `RuntimeError` where the user has no home folder.
    """
    if chosen := os.environ.get("CROSSFOLD_CACHE"):
        return Path(chosen).resolve()
    return (Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "crossfold").resolve()


class WorkspacePaths:
    """Where everything in a workspace is. Nothing is created or read here."""

    def __init__(self, root: Path) -> None:
        self.root = root

        # Results, which count.
        self.stores = root / "stores"
        """Feature stores, one folder `<corpus>-<hash>` each."""
        self.cells = root / "cells"
        """Finished cells, one folder `<cell_id>` each."""
        self.failures = root / "failures"
        """The failure log: one JSON file for each failed attempt."""
        self.rescored = root / "rescored"
        """Finished cells evaluated in another way: `<evaluation>/<cell_id>.json` (docs/results.md)."""
        self.ensembles = root / "ensembles"
        """Scores of averaged predictions, one file for each set of cells."""
        self.searches = root / "searches"
        """What each search found: `<name>.json`, and its trials as `<name>.parquet`."""
        self.sweeps = root / "sweeps"
        """The resolved sweeps that were launched, for `status` and for reports."""
        self.reports = root / "reports"
        """Where `crossfold report` writes."""

        # What was launched, and how far it came.
        self.launches = root / "launches"
        self.unfinished = root / "unfinished"
        """Cells that were begun and are not in `cells`, one JSON file each."""
        self.running = root / "running"
        """Checkpoint and log of each running cell, one folder `<cell_id>` each."""
        self.status = root / "status"
        """The state of each running sweep, for `crossfold status`."""
        self.driver_lease = root / "driver.json"
        self.driver_claim = root / "driver.claim"
        self.driver_lock = root / "driver.lock"
        self.fleet = root / "fleet"
        """What Ray Train keeps while a fleet runs."""
        self.tune = root / "tune"
        """What Ray Tune keeps while a search runs."""
        self.optuna = root / "optuna.db"

        # Costs that were measured, for forecasts.
        self.durations = root / "forecast.json"
        self.startup = root / "startup.json"
        self.memory = root / "memory.json"
        self.gpu_memory = root / "gpu-memory.json"

        # MLflow.
        self.mlflow = root / "mlflow.db"
        self.mlflow_artifacts = root / "mlflow-artifacts"
        self.mlflow_runs = root / "mlflow-runs.jsonl"
        """Which run each cell has in which tracking server."""
        self.mlflow_pending = root / "mlflow-pending"
        """A file for each sweep of which MLflow may lack something."""

        # Inputs that are kept here unless another place is given.
        self.corpora = root / "corpora"
        self.weights = root / "weights"

        # What was moved out of the way.
        self.damaged = root / "damaged"
        self.conflicts = root / "conflicts"
        """Cells of other workspaces that differ from ours: `<cell_id>/<workspace>` (`crossfold merge`)."""
        self.gone = root / "gone"
        """Cells that somebody removed at the URL."""

        # Of a workspace at a URL, on this machine.
        self.outbox = root / "outbox"
        """Cells that are still to be sent, one empty file `<cell_id>` each."""
        self.replaced = root / "replaced"
        """Notes that a cell was computed again, so that other machines fetch it again."""
        self.sent_stores = self.stores / ".sent"
        self.synced = root / "followed.json"
        """Size, time and version of each document when both ends were last the same."""
        self.synced_lock = root / "followed.lock"

    @property
    def mlflow_uri(self) -> str:
        """The tracking URI of the local database."""
        return sqlite_uri(self.mlflow)

    def cell(self, cell_id: str) -> Path:
        """The folder of one finished cell."""
        return path_inside(self.cells, cell_id)

    def scratch(self, cell_id: str) -> Path:
        """Where a running cell keeps its checkpoint; removed when the cell is committed."""
        return path_inside(self.running, cell_id)

    def checkpoint(self, cell_id: str) -> Path:
        """The checkpoint of a running cell."""
        return self.scratch(cell_id) / "last.pt"

    def log(self, cell_id: str) -> Path:
        """What the worker of a running cell writes to standard error."""
        return self.scratch(cell_id) / "log.txt"

    def store(self, corpus: str, content_hash: str) -> Path:
        """The folder of one feature store."""
        return path_inside(self.stores, f"{corpus}-{content_hash}")

    def status_of(self, sweep: str) -> Path:
        """The state of a running sweep, under the sweep's name without characters that file systems refuse."""
        return self.status / f"{re.sub(r'[^A-Za-z0-9._-]', '_', sweep)}.json"

    def pending_in_mlflow(self, sweep: str) -> Path:
        """A file that is there while MLflow may lack something of a sweep that the workspace has."""
        return path_inside(self.mlflow_pending, re.sub(r"[^A-Za-z0-9._+-]", "_", sweep))
