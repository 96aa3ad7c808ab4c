"""One cell from beginning to end: data, model, training, scores, and a folder in the workspace."""

import importlib.metadata
import logging
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from time import monotonic

import pandas as pd
import torch
from safetensors.torch import save as to_safetensors

from crossfold.datasets.partitions import Fold, hold_out, inner_fold
from crossfold.datasets.store import FeatureStore
from crossfold.datasets.windows import WindowSource, cut
from crossfold.platform.contracts import Cell, Failure, FailureClass, Outcome, Reporter, Silent
from crossfold.platform.errors import Cancelled, DataError, Diverged, UserError
from crossfold.platform.evaluation import Split, pooled_ccc, predict, score
from crossfold.platform.model import EmotionModel, build_model, modalities_of
from crossfold.platform.results import Workspace, describe_machine, utc_now
from crossfold.platform.seeds import weight_seed
from crossfold.platform.training import Trained, train

logger = logging.getLogger(__name__)

LOG_TAIL = 4000
"""Characters of a traceback kept in the failure ledger."""


def attempt_cell(
    cell: Cell, workspace: Workspace, *, reporter: Reporter | None = None, attempt: int = 1, device: str = "cpu"
) -> Outcome:
    """Runs a cell; trouble becomes a classed entry of the failure ledger, never an exception."""
    started = monotonic()
    try:
        run_cell(cell, workspace, reporter=reporter or Silent(), attempt=attempt, device=device)
    except Cancelled:
        return Outcome("cancelled", monotonic() - started)
    except Exception as error:  # every class of trouble ends in the ledger
        failure = Failure(
            cell_id=cell.cell_id,
            label=cell.label,
            kind=classify(error),
            attempt=attempt,
            message=f"{type(error).__name__}: {error}",
            log_tail=traceback.format_exc()[-LOG_TAIL:],
            at=utc_now(),
        )
        workspace.record_failure(failure)
        return Outcome("failed", monotonic() - started, failure)
    return Outcome("done", monotonic() - started)


def classify(error: BaseException) -> FailureClass:
    """The class of a failure, which decides whether it is worth another try."""
    if isinstance(error, Diverged):
        return FailureClass.DIVERGED
    # On the CPU torch reports exhausted memory as a plain RuntimeError.
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error):
        return FailureClass.OOM
    if isinstance(error, DataError | UserError):
        return FailureClass.DATA
    if isinstance(error, OSError):
        return FailureClass.INFRA
    return FailureClass.CODE


def run_cell(cell: Cell, workspace: Workspace, *, reporter: Reporter, attempt: int, device: str) -> None:
    """Trains and scores a cell and commits its folder. Everything but `env.json` depends on the cell alone."""
    started = monotonic()
    with _strict(weight_seed(cell)):
        store = _open_store(workspace.store_path(cell.corpus, cell.store))
        fold, selecting = splits(cell, store)
        modalities = modalities_of(cell)
        model = build_model(cell, {m: store.width(m) for m in modalities}).to(device)
        source = _source(cell, store, fold.train, modalities, device)
        selection = Split(selecting, _source(cell, store, selecting, modalities, device))
        reported = Split(fold.validation, _source(cell, store, fold.validation, modalities, device))
        _refuse_unlabelled(cell, store, {"train on": fold.train, "select by": selecting, "report": fold.validation})
        for windows in (source, selection.source, reported.source):
            if len(windows) == 0:
                raise DataError(
                    f"fold {cell.fold}: no frame of a split has all of {', '.join(store.targets)}, and `invalid: drop` "
                    "leaves out the rest",
                    "use `invalid: mask`",
                )

        def validate(candidate: EmotionModel) -> dict[str, float]:
            return pooled_ccc(predict(candidate, selection, store, cell.targets, cell.recipe.batch))

        checkpoint = workspace.scratch(cell.cell_id) / "last.pt"
        trained = train(cell, model, source, validate, reporter, checkpoint)
        model.load_state_dict(trained.best_state)
        predictions = predict(model, reported, store, cell.targets, cell.recipe.batch)
    committed = workspace.commit(
        cell,
        result=_result(cell, trained, model) | score(predictions, store),
        curve=pd.DataFrame(trained.progress.curve),
        predictions=predictions,
        env=_environment(device, attempt, trained.progress.seconds, monotonic() - started),
        weights=to_safetensors({name: t.cpu().contiguous() for name, t in trained.best_state.items()}),
    )
    if not committed:
        logger.info("cell %s was finished by another attempt first", cell.cell_id)


def splits(cell: Cell, store: FeatureStore) -> tuple[Fold, tuple[str, ...]]:
    """The fold a cell trains on and reports, and the clips that pick its best epoch."""
    fold = store.fold(cell.fold)
    if cell.inner is not None:
        fold = inner_fold(store.clips, fold, cell.inner.index, cell.inner.of)
    if cell.recipe.selection == "held_out":
        return hold_out(store.clips, fold, cell.recipe.held_out)
    return fold, fold.validation


def _source(
    cell: Cell, store: FeatureStore, clips: tuple[str, ...], modalities: tuple[str, ...], device: str
) -> WindowSource:
    recipe = cell.recipe
    windows = cut(store, clips, length=recipe.window, hop=recipe.hop, invalid=recipe.invalid)
    return WindowSource(store, windows, fold=cell.fold, modalities=modalities, targets=cell.targets, device=device)


def _refuse_unlabelled(cell: Cell, store: FeatureStore, roles: Mapping[str, tuple[str, ...]]) -> None:
    """Every target has a labelled frame in each split, or nothing is trained."""
    for role, clips in roles.items():
        for target in cell.targets:
            column = store.targets.index(target)
            if not any(store.valid[store.rows(name), column].any() for name in clips):
                raise DataError(
                    f"fold {cell.fold} has no labelled frame of {target} to {role} in {len(clips)} clips",
                    "check the labels",
                )


def _result(cell: Cell, trained: Trained, model: EmotionModel) -> dict[str, object]:
    return {
        "status": "done",
        "cell_id": cell.cell_id,
        "selection": {
            "best_epoch": trained.progress.best_epoch + 1,
            "epochs": trained.progress.epoch,
            "best_ccc": trained.progress.best_ccc,
        },
        "model": {"parameters": sum(p.numel() for p in model.parameters())},
    }


def _environment(device: str, attempt: int, train_seconds: float, seconds: float) -> dict[str, object]:
    return {
        "finished_at": utc_now(),
        "attempt": attempt,
        "device": device,
        "train_seconds": train_seconds,
        "seconds": seconds,
        "machine": describe_machine(),
        "versions": versions(),
    }


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """Versions of what can change a number."""
    names = ("crossfold", "torch", "numpy", "ray")
    return {name: importlib.metadata.version(name) for name in names}


@lru_cache(maxsize=2)
def _open_store(path: Path) -> FeatureStore:
    """Stores never change, so a worker opens each once."""
    return FeatureStore(path)


@contextmanager
def _strict(seed: int) -> Iterator[None]:
    """Same cell, same bytes: one thread, deterministic kernels, and a generator of the cell's own."""
    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            yield
    finally:
        torch.use_deterministic_algorithms(deterministic)
        torch.set_num_threads(threads)
