"""One cell from beginning to end: data, model, training, scores, and a folder in the workspace."""

import os
import platform as host
from typing import TYPE_CHECKING, Any

import pandas as pd

from crossfold.platform.core.cell import Cell
from crossfold.platform.core.errors import DataError, UserError
from crossfold.platform.core.outcome import Failure, FailureClass

if TYPE_CHECKING:
    pass
import importlib.metadata
import logging
import traceback
from functools import lru_cache, partial
from time import monotonic

import torch
from safetensors.torch import save as to_safetensors

from crossfold.datasets.batches import gpu_cache
from crossfold.platform.core.errors import Cancelled, Diverged
from crossfold.platform.core.evaluation_config import Evaluation
from crossfold.platform.core.files import utc_now
from crossfold.platform.core.outcome import Outcome, Reporter, Silent
from crossfold.platform.core.seeds import weight_seed
from crossfold.platform.evaluation.evaluate import evaluate
from crossfold.platform.evaluation.predict import validate
from crossfold.platform.evaluation.scoring import score
from crossfold.platform.execution.flops import flops_of_window
from crossfold.platform.execution.peak_memory import peak_memory, release_cached_memory
from crossfold.platform.modeling.determinism import arithmetic
from crossfold.platform.modeling.emotion_model import EmotionModel
from crossfold.platform.modeling.frame_encoder import load_weights
from crossfold.platform.modeling.pretrained import weights_folder
from crossfold.platform.training.cell_data import open_data
from crossfold.platform.training.data_parallel import SINGLE_PROCESS, ProcessGroup
from crossfold.platform.training.train import Trained, train
from crossfold.platform.workspace.workspace import Workspace


def describe_machine() -> dict[str, Any]:
    """Host facts for `env.json`; no secrets, no environment variables."""
    return {"host": host.node(), "system": host.platform(), "python": host.python_version(), "cores": os.cpu_count()}


logger = logging.getLogger(__name__)

LOG_TAIL = 4000
"""Characters of a traceback kept in the failure ledger."""


def attempt_cell(
    cell: Cell,
    workspace: Workspace,
    *,
    reporter: Reporter | None = None,
    attempt: int = 1,
    device: str = "cpu",
    group: ProcessGroup = SINGLE_PROCESS,
) -> Outcome:
    """Runs a cell; trouble becomes a classed entry of the failure ledger, never an exception."""
    started = monotonic()
    try:
        with workspace.sync_checkpoint(cell.cell_id, send=group.first):
            run_cell(cell, workspace, reporter=reporter or Silent(), attempt=attempt, device=device, group=group)
    except Cancelled:
        return Outcome("cancelled", monotonic() - started)
    except Exception as error:  # every class of trouble ends in the ledger
        failure = Failure(
            cell_id=cell.cell_id,
            label=cell.label,
            kind=classify(error),
            attempt=attempt,
            message=f"{type(error).__name__}: {error}{_hint(error)}",
            log_tail=traceback.format_exc()[-LOG_TAIL:],
            at=utc_now(),
        )
    else:
        return Outcome("done", monotonic() - started)
    # Only now that nothing refers to the cell's tensors; others on this GPU may wait for their memory.
    if failure.kind == FailureClass.OOM:
        gpu_cache.clear()
    release_cached_memory(device)
    if group.first:
        workspace.record_failure(failure)
    return Outcome("failed", monotonic() - started, failure)


def classify(error: BaseException) -> FailureClass:
    """The class of a failure, which decides whether it is worth another try."""
    if isinstance(error, Diverged):
        return FailureClass.DIVERGED
    # On the CPU torch reports exhausted memory as a plain RuntimeError.
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error):
        return FailureClass.OOM
    if isinstance(error, DataError | UserError):
        return FailureClass.DATA
    if isinstance(error, OSError | torch.AcceleratorError):
        return FailureClass.INFRA
    return FailureClass.CODE


def _hint(error: Exception) -> str:
    """What to do about a refusal of torch's that says nothing of our recipes."""
    if "deterministic implementation" in str(error) or "deterministic behavior was enabled" in str(error).lower():
        return "; on this device the cell cannot be `determinism: strict`: use `--set determinism=fast`"
    return ""


def run_cell(
    cell: Cell,
    workspace: Workspace,
    *,
    reporter: Reporter,
    attempt: int,
    device: str,
    group: ProcessGroup = SINGLE_PROCESS,
) -> None:
    """Trains and scores a cell and commits its folder. Everything but `env.json` depends on the cell alone.

    group: this process among those that share the cell's batches; the first one scores and commits.
    """
    started = monotonic()
    if group.world != cell.recipe.devices:
        raise UserError(
            f"the recipe shares each batch over {cell.recipe.devices} devices, and {group.world} are at work",
            "run it with `crossfold run` and workers, or with `--set devices=1`",
        )
    with peak_memory(device) as measured, arithmetic(cell.recipe, weight_seed(cell), device):
        data = open_data(cell, workspace.local_store(cell.corpus, cell.store), device)
        model = data.new_model().to(device)
        weights = load_weights(model.frames, cell.recipe, weights_folder(workspace=workspace))
        checkpoint = workspace.scratch(cell.cell_id) / "last.pt"
        trained = train(cell, model, data.training.source, partial(validate, data), reporter, checkpoint, group)
        if not group.first:
            return
        model.load_state_dict(trained.best_state)
        # Nobody looks more closely at the inner cells of a search than the search does.
        evaluation = cell.recipe.evaluation if cell.inner is None else Evaluation()
        seen, parts = evaluate(data, evaluation, model)
        flops = flops_of_window(model, data.reported.source)
        peak = measured()
    committed = workspace.commit(
        cell,
        result=_result(cell, trained, model, weights, flops) | score(seen.predictions, data.store) | parts,
        curve=pd.DataFrame(trained.progress.curve),
        predictions=seen.predictions,
        env=_environment(cell, device, attempt, trained.progress.seconds, monotonic() - started)
        | ({"peak_memory": peak} if peak is not None else {}),
        weights=to_safetensors({name: t.cpu().contiguous() for name, t in trained.best_state.items()}),
    )
    if not committed:
        logger.info("cell %s was finished by another attempt first", cell.cell_id)


def _result(
    cell: Cell, trained: Trained, model: EmotionModel, weights: dict[str, Any], flops: int | None
) -> dict[str, object]:
    costs = {"parameters": sum(p.numel() for p in model.parameters()), "flops_per_window": flops}
    return {
        "status": "done",
        "cell_id": cell.cell_id,
        "selection": {
            "best_epoch": trained.progress.best_epoch + 1,
            "epochs": trained.progress.epoch,
            "best_ccc": trained.progress.best_ccc,
            "end": trained.end,
        },
        "model": costs | ({"weights": weights} if weights else {}),
    }


def _environment(cell: Cell, device: str, attempt: int, train_seconds: float, seconds: float) -> dict[str, object]:
    return {
        "finished_at": utc_now(),
        "attempt": attempt,
        "device": device,
        "determinism": cell.recipe.determinism,
        "precision": cell.recipe.precision,
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
