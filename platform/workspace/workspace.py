"""The workspace: the folder that holds all results. A cell appears in it whole or not at all."""

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossfold.platform.core.cell import Cell
from crossfold.platform.core.errors import UserError, did_you_mean
from crossfold.platform.core.files import json_bytes, path_inside, publish_folder, temporary_folder, write_json
from crossfold.platform.core.layout import CELL_FILES, RECORD, WorkspacePaths
from crossfold.platform.core.outcome import Failure, FailureClass
from crossfold.platform.workspace.cell_record import CellRecord, read_cell
from crossfold.platform.workspace.documents import Ensemble, FailureDocument, Rescored, read_document
from crossfold.platform.workspace.integrity import describe_files
from crossfold.platform.workspace.predictions import Predictions, write_predictions
from crossfold.platform.workspace.remote.checkpoint_sync import sync_checkpoint
from crossfold.platform.workspace.remote.filesystem import is_url
from crossfold.platform.workspace.remote.store_sync import remote_stores
from crossfold.platform.workspace.store_cache import fold_rule_of, node_store

if TYPE_CHECKING:
    import pandas as pd

    from crossfold.platform.workspace.remote.mirror import Mirror


RESCORE_AGAIN = "delete it, and score the cell again with `crossfold rescore`"


def saved_ensembles(workspace: "Workspace") -> dict[frozenset[str], dict[str, Any]]:
    """Metrics per target of every ensemble that was scored, by the ids of its members."""
    found = {}
    for path in sorted(workspace.paths.ensembles.glob("*.json")):
        saved = read_document(path, Ensemble, "delete it; the next `crossfold run` of its sweep writes it again")
        found[frozenset(saved["members"])] = saved["metrics"]
    return found


class Workspace:
    """Stores, cells, failures and all else that `paths` names.

    One at a URL has a copy in a folder of this machine, which `mirror` keeps up to date.
    """

    def __init__(self, root: Path, mirror: "Mirror | None" = None) -> None:
        """root: need not exist yet; folders are made when something is written."""
        self.root = root.resolve()
        self.paths = WorkspacePaths(self.root)
        self.mirror = mirror

    @classmethod
    def at(cls, place: Path | str | None = None) -> "Workspace":
        """A folder or a URL, else `CROSSFOLD_HOME`, else `./.crossfold`. Contacts nothing.

        Raises `UserError` for a URL of another scheme than s3, gs and file.
        """
        named = str(place or os.environ.get("CROSSFOLD_HOME") or ".crossfold")
        if "\0" in named:
            raise UserError(f"workspace {named!r} holds a NUL character, which no path may", "name a folder")
        if not is_url(named):
            # Of an environment file or between quotes the shell leaves `~` as it is.
            folder = Path(named)
            with suppress(RuntimeError):  # `~name` of a user that this machine does not have
                folder = folder if folder.exists() else folder.expanduser()
            return cls(folder)
        from crossfold.platform.workspace.remote.mirror import Mirror

        mirror = Mirror(named)
        return cls(mirror.root, mirror)

    @classmethod
    def locate(cls, given: Path | str | None = None) -> "Workspace":
        """As `at`; of a URL it sends what an earlier command could not, and fetches what is new.

        Raises `UserError` where a URL cannot be used.
        """
        space = cls.at(given)
        if space.mirror is not None:
            space.mirror.open()
        return space

    @property
    def address(self) -> str:
        """What `--workspace` takes on any machine: the folder, or the URL."""
        return str(self.root) if self.mirror is None else self.mirror.files.url

    def __str__(self) -> str:
        """For people: the folder, or the URL without a password."""
        return str(self.root) if self.mirror is None else self.mirror.files.shown

    # Of a workspace at a URL; in a folder these have nothing to do.

    def refresh(self) -> None:
        """Fetches what is new at the URL."""
        if self.mirror is not None:
            self.mirror.refresh()

    def download_all(self) -> None:
        """Fetches everything: stores, and cells with their large files. Raises `UserError`."""
        if self.mirror is not None:
            self.mirror.files.check()
            self.mirror.pull()
            self.download_cells(self.finished())
            for name in sorted(remote_stores(self.mirror.files)):
                self.find_store(*name.rsplit("-", 1))

    def download_cells(self, cell_ids: Iterable[str]) -> None:
        """Fetches the large files of some finished cells."""
        for cell_id in sorted(cell_ids) if self.mirror is not None else ():
            record = self.read_exactly(cell_id)
            for name in CELL_FILES:
                record.file(name)

    def expect_commit(self, cell_id: str) -> None:
        """Notes that a cell is about to be put into `cells/`, so that it is sent even if this process dies then."""
        if self.mirror is not None:
            self.mirror.cells.expect_commit(cell_id)

    def flush_uploads(self, seconds: float = 60.0) -> None:
        """Waits, at most so long, until what this process wrote is sent. What is not stays here for a later command."""
        if self.mirror is not None:
            self.mirror.flush_uploads(seconds)

    def sync_checkpoint(self, cell_id: str, *, send: bool = True) -> AbstractContextManager[None]:
        """Fetches the checkpoint of a cell and sends it while the block runs; see `checkpoint_sync`."""
        return (
            nullcontext() if self.mirror is None else sync_checkpoint(self.mirror.files, self.paths, cell_id, send=send)
        )

    # Stores

    def local_store(self, corpus: str, content_hash: str) -> Path:
        """The folder of a store on this machine, fetched if it must be; see `node_store`."""
        remote = None if self.mirror is None else f"{self.mirror.files.url}/stores"
        return node_store(self.paths.stores, self.paths.store(corpus, content_hash).name, remote)

    def find_store(self, corpus: str, content_hash: str | None = None) -> Path:
        """The one store of a corpus, on this machine. Raises `UserError` where there is none.

        content_hash: its beginning; needed where the corpus has several stores.
        """
        names = {manifest.parent.name for manifest in self.paths.stores.glob("[!.]*-*/manifest.json")}
        if self.mirror is not None:
            names |= remote_stores(self.mirror.files)
        stores = sorted(name.rpartition("-")[::2] for name in names)
        found = [store for store in stores if store[0] == corpus and store[1].startswith(content_hash or "")]
        if not found:
            known = {name for name, _ in stores}
            raise UserError(
                f"no feature store of corpus {corpus!r}"
                + (f" with hash {content_hash!r}" if content_hash else "")
                + f" in {self}/stores{did_you_mean(corpus, known - {corpus}) if known else ''}",
                f"correct its name, or run `crossfold prepare {corpus} --root DIR` first",
            )
        if len(found) > 1:
            listed = ", ".join(f"{'-'.join(s)}{_folds_in_words(self.paths.store(*s))}" for s in found)
            raise UserError(
                f"corpus {corpus!r} has {len(found)} feature stores in {self}/stores: {listed}",
                "say which with `store: <hash>` in the sweep, or `--set store=<hash>`",
            )
        return self.paths.store(*found[0]) if self.mirror is None else self.local_store(*found[0])

    # Cells

    def finished(self) -> set[str]:
        """Identities of all finished cells, by one listing."""
        if not self.paths.cells.is_dir():
            return set()
        with os.scandir(self.paths.cells) as entries:
            return {entry.name for entry in entries if not entry.name.startswith(".")}

    def finished_among(self, cell_ids: Iterable[str]) -> set[str]:
        """Those of some cells that are finished; a URL is asked for the others, but not each time."""
        asked = set(cell_ids)
        here = {cell_id for cell_id in asked if self.paths.cell(cell_id).is_dir()}
        return here if self.mirror is None else here | self.mirror.finished_among(asked - here)

    def read(self, beginning: str) -> CellRecord:
        """One finished cell by the beginning of its id. Raises `UserError` with the nearest id, or `DataError`."""
        finished = self.finished()
        matches = [name for name in finished if name.startswith(beginning)]
        if len(matches) != 1:
            problem = f"no finished cell {beginning!r}" if not matches else f"{beginning!r} begins {len(matches)} cells"
            raise UserError(
                problem + did_you_mean(beginning, finished if len(finished) < 50 else ()), "see `crossfold status`"
            )
        return self.read_exactly(matches[0])

    def records(self) -> Iterator[CellRecord]:
        """All finished cells, in the order of their identities."""
        for cell_id in sorted(self.finished()):
            yield self.read_exactly(cell_id)

    def read_exactly(self, cell_id: str) -> CellRecord:
        """One finished cell by its full id, without a listing. Raises `DataError` where it is damaged."""
        path = self.paths.cell(cell_id)
        if self.mirror is None:
            return read_cell(path)
        if not path.is_dir():
            self.mirror.cells.fetch([cell_id])
        return read_cell(path, self.mirror.cells.fetch_file)

    def committed_evaluation(self, cell_id: str) -> dict[str, Any] | None:
        """`post` and `stress` that a finished cell was committed under; None from before there were any."""
        recipe = json.loads((self.paths.cell(cell_id) / "cell.json").read_text())["recipe"]
        return {key: recipe[key] for key in ("post", "stress")} if {"post", "stress"} <= recipe.keys() else None

    def evaluations(self, record: CellRecord) -> Iterator[dict[str, Any]]:
        """`evaluation`, `post`, `stress`, `spans`, `gates` of a cell: as committed, then each way it was rescored."""
        committed = self.committed_evaluation(record.cell_id)
        if committed is not None and "stress" in record.result:
            yield {"evaluation": committed} | {key: record.result[key] for key in ("post", "stress", "spans", "gates")}
        for path in sorted(self.paths.rescored.glob(f"*/{record.cell_id}.json")):
            yield read_document(path, Rescored, RESCORE_AGAIN)

    def commit(
        self,
        cell: Cell,
        *,
        result: Mapping[str, Any],
        curve: "pd.DataFrame",
        predictions: Predictions,
        env: Mapping[str, Any],
        weights: bytes,
    ) -> bool:
        """Writes a cell, whole or not at all; false if another attempt was first.

        Everything but `env.json` depends on the cell alone, so two attempts write the same bytes.
        """
        with temporary_folder(self.paths.cells, cell.cell_id) as draft:
            (draft / "cell.json").write_bytes(json_bytes(cell.model_dump(mode="json")))
            (draft / "result.json").write_bytes(json_bytes(result))
            curve.to_parquet(draft / "curve.parquet", index=False)
            write_predictions(draft / "predictions.npz", predictions)
            (draft / "best.safetensors").write_bytes(weights)
            (draft / "env.json").write_bytes(json_bytes({**env, RECORD: describe_files(draft)}))
            self.expect_commit(cell.cell_id)
            try:
                publish_folder(draft, self.paths.cell(cell.cell_id))
            except FileExistsError:
                return False
        shutil.rmtree(self.paths.scratch(cell.cell_id), ignore_errors=True)
        if self.mirror is not None:
            self.mirror.send_soon(cell.cell_id)
        return True

    def move_aside(self, cell_id: str) -> Path | None:
        """Moves a finished cell out of the way for a re-run; `restore` returns it if the re-run does not finish."""
        place, aside = self.paths.cell(cell_id), self.paths.cells / f".{cell_id}-aside"
        if not place.is_dir():
            return None
        shutil.rmtree(aside, ignore_errors=True)
        if self.mirror is not None:
            self.mirror.cells.withdraw(cell_id)
        place.rename(aside)
        return aside

    def restore(self, cell_id: str, aside: Path) -> None:
        """Ends a re-run: the new result stays, or the old one returns."""
        if self.paths.cell(cell_id).is_dir():
            shutil.rmtree(aside, ignore_errors=True)
            for stale in self.paths.rescored.glob(f"*/{cell_id}.json"):
                stale.unlink(missing_ok=True)
                if self.mirror is not None:
                    self.mirror.files.remove(stale.relative_to(self.root).as_posix())
        else:
            aside.rename(self.paths.cell(cell_id))
        if self.mirror is not None:
            self.mirror.replace(cell_id)

    # Failures

    def record_failure(self, failure: Failure) -> Path:
        """Adds one failed attempt to the failure log. A failure is never a result."""
        stamp = failure.at.replace(":", "").replace("-", "")
        path = path_inside(self.paths.failures, f"{failure.cell_id}-{failure.attempt}-{stamp}.json")
        write_json(path, asdict(failure))
        if self.mirror is not None:
            self.mirror.send_documents()
        return path

    def failures_of(self, cell_id: str = "") -> list[Failure]:
        """The failure log of one cell, or of all, oldest first."""
        # Not by a pattern of the cell, as Python keeps each pattern that it compiled, and a search has thousands.
        paths = (path for path in self.paths.failures.glob("*.json") if path.name.startswith(cell_id))
        logs = (read_document(path, FailureDocument, "delete it; it logs one failed attempt") for path in paths)
        found = [Failure(**(data | {"kind": FailureClass(data["kind"])})) for data in logs]
        return sorted(found, key=lambda failure: failure.at)


def _folds_in_words(store: Path) -> str:
    rule = fold_rule_of(store)
    return f" (folds {rule})" if rule else ""


def corpora_of(workspace: Workspace) -> set[str]:
    """The corpora that have a store in a workspace."""
    return {path.parent.name.rpartition("-")[0] for path in workspace.paths.stores.glob("*/manifest.json")}
