"""The workspace: the folder that holds the truth. Cells appear in it whole or not at all."""

import glob
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from crossfold.platform.core.cell import Cell
from crossfold.platform.core.errors import DataError, UserError, did_you_mean
from crossfold.platform.core.files import json_bytes, publish_folder, temporary_folder, write_json
from crossfold.platform.core.layout import CELL_FILES, RECORD, WorkspacePaths
from crossfold.platform.core.outcome import Failure, FailureClass
from crossfold.platform.workspace.cell_record import CellRecord
from crossfold.platform.workspace.integrity import damage_of, describe_files
from crossfold.platform.workspace.predictions import Predictions, write_predictions
from crossfold.platform.workspace.remote.filesystem import is_url
from crossfold.platform.workspace.store_cache import node_store

if TYPE_CHECKING:
    from crossfold.platform.workspace.remote.mirror import Mirror


def saved_ensembles(workspace: "Workspace") -> dict[frozenset[str], dict[str, Any]]:
    """Metrics per target of every ensemble that was scored, by the ids of its members."""
    found = {}
    for path in sorted(workspace.paths.ensembles.glob("*.json")):
        kept = json.loads(path.read_text())
        found[frozenset(kept["members"])] = kept["metrics"]
    return found


class Workspace:
    """Stores, cells, failures, trackers and reports under one folder (architecture, section 3).

    One at a URL has its folder on this machine, which follows the place (`workspace_mirror`).
    """

    def __init__(self, root: Path, mirror: "Mirror | None" = None) -> None:
        """`root` need not exist yet; folders are made when something is written."""
        self.root = root.resolve()
        self.paths = WorkspacePaths(self.root)
        self.mirror = mirror

    @classmethod
    def at(cls, place: Path | str | None = None) -> "Workspace":
        """A folder or a URL, else `CROSSFOLD_HOME`, else `./.crossfold`. Nothing is contacted or brought here."""
        named = str(place or os.environ.get("CROSSFOLD_HOME") or ".crossfold")
        if not is_url(named):
            return cls(Path(named))
        from crossfold.platform.workspace.remote.mirror import Mirror

        mirror = Mirror(named)
        return cls(mirror.root, mirror)

    @classmethod
    def locate(cls, given: Path | str | None = None) -> "Workspace":
        """`--workspace`, else `CROSSFOLD_HOME`, else `./.crossfold`; from a URL, what is new there is here after it.

        What an earlier command could not send is sent. Raises `UserError` where a URL cannot be used.
        """
        space = cls.at(given)
        if space.mirror is not None:
            space.mirror.open()
        return space

    @property
    def address(self) -> str:
        """What `--workspace` takes to come here, on any machine: the folder, or the URL."""
        return str(self.root) if self.mirror is None else self.mirror.files.url

    def __str__(self) -> str:
        """For people: the folder, or the URL without a password."""
        return str(self.root) if self.mirror is None else self.mirror.files.shown

    @property
    def _fetch(self) -> Callable[[str, str], None] | None:
        return None if self.mirror is None else self.mirror.fetch_file

    def refresh(self) -> None:
        """Brings what is new at the URL; a folder is always as new as it can be."""
        if self.mirror is not None:
            self.mirror.refresh()

    def download_all(self) -> None:
        """Has everything here that is at the URL: stores, and cells with their large files. Raises `UserError`."""
        if self.mirror is not None:
            self.mirror.files.check()
            self.mirror.pull()
            self.download_cells(self.finished())
            for name in sorted(self.mirror.store_names()):
                self.find_store(*name.rsplit("-", 1))

    def download_cells(self, cell_ids: Iterable[str]) -> None:
        """Has the large files of some finished cells here."""
        for cell_id in sorted(cell_ids) if self.mirror is not None else ():
            record = self.read_exactly(cell_id)
            for name in CELL_FILES:
                record.file(name)

    def finished_among(self, cell_ids: Iterable[str]) -> set[str]:
        """Those of some cells that are finished; a URL is not asked for the others all the time."""
        asked = set(cell_ids)
        here = {cell_id for cell_id in asked if self.paths.cell(cell_id).is_dir()}
        return here if self.mirror is None else here | self.mirror.finished_among(asked - here)

    def expect(self, cell_id: str) -> None:
        """A finished cell will be put into `cells/` by other means than `commit`."""
        if self.mirror is not None:
            self.mirror.expect(cell_id)

    def settle(self, seconds: float = 60.0) -> None:
        """Before a worker leaves: waits until a URL has what it wrote, so long at most; it stays here anyway."""
        if self.mirror is not None:
            self.mirror.settle(seconds)

    def sync_checkpoint(self, cell_id: str, *, send: bool = True) -> AbstractContextManager[None]:
        """While a cell runs: its checkpoint comes from the URL and goes there; `send` is false for a helper."""
        return nullcontext() if self.mirror is None else self.mirror.sync_checkpoint(cell_id, send=send)

    def local_store(self, corpus: str, content_hash: str) -> Path:
        """The folder of a store on this machine, fetched if it must be; see `node_store`."""
        remote = None if self.mirror is None else f"{self.mirror.files.url}/stores"
        return node_store(self.paths.stores, self.paths.store(corpus, content_hash).name, remote)

    def find_store(self, corpus: str, content_hash: str | None = None) -> Path:
        """The one store of a corpus; with several, the hash must say which."""
        stores = sorted(path for path in self.paths.stores.glob("[!.]*-*") if (path / "manifest.json").is_file())
        if self.mirror is not None:
            stores = sorted({*stores, *(self.paths.stores / name for name in self.mirror.store_names())})
        found = [path for path in stores if path.name.rpartition("-")[0] == corpus]
        if content_hash is not None:
            found = [path for path in found if path.name.rpartition("-")[2].startswith(content_hash)]
        if not found:
            known = {path.name.rpartition("-")[0] for path in stores}
            raise UserError(
                f"no feature store of corpus {corpus!r}"
                + (f" with hash {content_hash!r}" if content_hash else "")
                + f" in {self}/stores{did_you_mean(corpus, known - {corpus}) if known else ''}",
                f"correct its name, or run `crossfold prepare {corpus} --root DIR` first",
            )
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise UserError(
                f"corpus {corpus!r} has {len(found)} feature stores in {self}/stores: {names}",
                "say which with `store: <hash>` in the sweep, or `--set store=<hash>`",
            )
        return found[0] if self.mirror is None else self.local_store(*found[0].name.rsplit("-", 1))

    def finished(self) -> set[str]:
        """Identities of all finished cells, by one listing."""
        if not self.paths.cells.is_dir():
            return set()
        with os.scandir(self.paths.cells) as entries:
            return {entry.name for entry in entries if not entry.name.startswith(".")}

    def read(self, cell_id: str) -> CellRecord:
        """One finished cell; a wrong or abbreviated id answers with the nearest right one."""
        finished = self.finished()
        matches = [name for name in finished if name.startswith(cell_id)]
        if len(matches) != 1:
            problem = f"no finished cell {cell_id!r}" if not matches else f"{cell_id!r} begins {len(matches)} cells"
            raise UserError(
                problem + did_you_mean(cell_id, finished if len(finished) < 50 else ()), "see `crossfold status`"
            )
        path = self.paths.cell(matches[0])
        return CellRecord(
            path,
            Cell.model_validate_json((path / "cell.json").read_text()),
            json.loads((path / "result.json").read_text()),
            self._fetch,
        )

    def records(self) -> Iterator[CellRecord]:
        """All finished cells, in the order of their identities."""
        for cell_id in sorted(self.finished()):
            yield self.read_exactly(cell_id)

    def read_exactly(self, cell_id: str) -> CellRecord:
        """One finished cell by its full id, without a listing."""
        path = self.paths.cell(cell_id)
        if self.mirror is not None and not path.is_dir():
            self.mirror.fetch_cells([cell_id])
        try:
            cell = Cell.model_validate_json((path / "cell.json").read_text())
            result = json.loads((path / "result.json").read_text())
            return CellRecord(path, cell, result, self._fetch)
        except (OSError, ValueError) as error:
            damage = damage_of(path)
            if damage is None:
                raise
            raise DataError(
                f"the finished cell {cell_id} is damaged: {damage}",
                "`crossfold run` with its sweep sets it aside and computes it again",
            ) from error

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
            yield json.loads(path.read_text())

    def commit(
        self,
        cell: Cell,
        *,
        result: Mapping[str, Any],
        curve: pd.DataFrame,
        predictions: Predictions,
        env: Mapping[str, Any],
        weights: bytes,
    ) -> bool:
        """Writes a cell beside its place and renames it; False if another attempt was first.

        Everything but `env.json` depends on the cell alone, so two attempts write the same bytes.
        """
        with temporary_folder(self.paths.cells, cell.cell_id) as draft:
            (draft / "cell.json").write_bytes(json_bytes(cell.model_dump(mode="json")))
            (draft / "result.json").write_bytes(json_bytes(result))
            curve.to_parquet(draft / "curve.parquet", index=False)
            write_predictions(draft / "predictions.npz", predictions)
            (draft / "best.safetensors").write_bytes(weights)
            (draft / "env.json").write_bytes(json_bytes(dict(env) | {RECORD: describe_files(draft)}))
            if self.mirror is not None:
                self.mirror.expect(cell.cell_id)
            try:
                publish_folder(draft, self.paths.cell(cell.cell_id))
            except FileExistsError:
                return False
        shutil.rmtree(self.paths.scratch(cell.cell_id), ignore_errors=True)
        if self.mirror is not None:
            self.mirror.send_soon(cell.cell_id)
        return True

    def forget(self, cell_id: str) -> None:
        """Removes a finished cell and its failures, so that the next run computes it again."""
        doomed = self.paths.cell(cell_id)
        aside = doomed.with_name(f".{cell_id}-forgotten")
        shutil.rmtree(aside, ignore_errors=True)
        if doomed.is_dir():
            doomed.rename(aside)
            shutil.rmtree(aside, ignore_errors=True)
        shutil.rmtree(self.paths.scratch(cell_id), ignore_errors=True)
        if self.mirror is not None:
            self.mirror.withdraw(cell_id)
        for record in (*self.paths.failures.glob(f"{cell_id}-*.json"), *self.paths.rescored.glob(f"*/{cell_id}.json")):
            self._drop(record)

    def move_aside(self, cell_id: str) -> Path | None:
        """Moves a finished cell out of the way for a re-run; `restore` returns it if the re-run does not finish."""
        place, aside = self.paths.cell(cell_id), self.paths.cells / f".{cell_id}-aside"
        if not place.is_dir():
            return None
        shutil.rmtree(aside, ignore_errors=True)
        if self.mirror is not None:
            self.mirror.withdraw(cell_id)
        place.rename(aside)
        return aside

    def restore(self, cell_id: str, aside: Path) -> None:
        """Ends a re-run: the new result stays, or the old one returns."""
        if self.paths.cell(cell_id).is_dir():
            shutil.rmtree(aside, ignore_errors=True)
            for stale in self.paths.rescored.glob(f"*/{cell_id}.json"):
                self._drop(stale)
        else:
            aside.rename(self.paths.cell(cell_id))
        if self.mirror is not None:
            self.mirror.replace(cell_id)

    def _drop(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        if self.mirror is not None:
            self.mirror.files.remove(path.relative_to(self.root).as_posix())

    def record_failure(self, failure: Failure) -> Path:
        """Adds one failed try to the ledger. A failure is never a result."""
        self.paths.failures.mkdir(parents=True, exist_ok=True)
        stamp = failure.at.replace(":", "").replace("-", "")
        path = self.paths.failures / f"{failure.cell_id}-{failure.attempt}-{stamp}.json"
        write_json(path, asdict(failure))
        if self.mirror is not None:
            self.mirror.send_notes()
        return path

    def failures_of(self, cell_id: str = "") -> list[Failure]:
        """The ledger of one cell, or of all, oldest first."""
        found = []
        for path in self.paths.failures.glob(f"{glob.escape(cell_id)}*.json"):
            data = json.loads(path.read_text())
            found.append(Failure(**(data | {"kind": FailureClass(data["kind"])})))
        return sorted(found, key=lambda failure: failure.at)
