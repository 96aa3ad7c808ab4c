"""One cell from beginning to end: data, model, training, scores, and a folder in the workspace."""

import logging
import traceback
from functools import partial
from time import monotonic

import pandas as pd
import torch
from safetensors.torch import save as to_safetensors

from crossfold.platform.core.cell import Cell
from crossfold.platform.core.errors import Cancelled, DataError, Diverged, UserError
from crossfold.platform.core.outcome import Failure, FailureClass, Outcome, Reporter, Silent
from crossfold.platform.evaluation.evaluate import evaluate, evaluation_of
from crossfold.platform.evaluation.predict import validate
from crossfold.platform.evaluation.scoring import score
from crossfold.platform.execution.environment import code_version, environment
from crossfold.platform.execution.flops import flops_of_window
from crossfold.platform.execution.peak_memory import peak_memory, release_cached_memory
from crossfold.platform.modeling.determinism import arithmetic
from crossfold.platform.modeling.frame_encoder import load_weights
from crossfold.platform.modeling.pretrained_files import weights_folder
from crossfold.platform.training.cell_data import open_data
from crossfold.platform.training.data_parallel import SINGLE_PROCESS, ProcessGroup
from crossfold.platform.training.train import train
from crossfold.platform.workspace.workspace import Workspace

logger = logging.getLogger(__name__)

LOG_TAIL = 4000
"""Characters of a traceback kept in the failure log."""


def attempt_cell(
    cell: Cell,
    workspace: Workspace,
    *,
    reporter: Reporter | None = None,
    attempt: int = 1,
    device: str = "cpu",
    group: ProcessGroup = SINGLE_PROCESS,
) -> Outcome:
    """Runs a cell; an error becomes an entry of the failure log, with its class, and is never raised."""
    started = monotonic()
    try:
        # At a URL the checkpoint of another machine's attempt is fetched first.
        with workspace.sync_checkpoint(cell.cell_id, send=group.first):
            run_cell(cell, workspace, reporter=reporter or Silent(), attempt=attempt, device=device, group=group)
    except Cancelled:
        return Outcome("cancelled", monotonic() - started)
    except Exception as error:  # every class of error ends in the failure log
        failure = Failure(
            cell_id=cell.cell_id,
            label=cell.label,
            kind=classify(error),
            attempt=attempt,
            message=f"{type(error).__name__}: {error}{_hint(error)}",
            log_tail=traceback.format_exc()[-LOG_TAIL:],
        )
    else:
        return Outcome("done", monotonic() - started)
    # Only now that nothing refers to the cell's tensors; others on this GPU may wait for their memory.
    release_cached_memory(device, features=failure.kind == FailureClass.OOM)
    if group.first:
        workspace.record_failure(failure)
    return Outcome("failed", monotonic() - started, failure)


def classify(error: BaseException) -> FailureClass:
    """The class of a failure, which decides whether it is worth another attempt."""
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
    """What to do about an error of torch that does not mention recipes."""
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
    code_version()  # asked before the first cell, as somebody may edit the code while it trains
    if group.world != cell.recipe.devices:
        raise UserError(
            f"the recipe shares each batch over {cell.recipe.devices} devices, and {group.world} run it",
            "run it with `crossfold run` and workers, or with `--set devices=1`",
        )
    with peak_memory(device) as measured, arithmetic(cell, device):
        data = open_data(cell, workspace.local_store(cell.corpus, cell.store), device)
        model = data.new_model().to(device)
        weights = load_weights(model.frames, cell.recipe, weights_folder(workspace=workspace))
        checkpoint = workspace.paths.checkpoint(cell.cell_id)
        trained = train(cell, model, data.training.source, partial(validate, data), reporter, checkpoint, group)
        # The others hold the same weights; one process scores and commits.
        if not group.first:
            return
        model.load_state_dict(trained.best_state)
        result, parts = evaluate(data, evaluation_of(cell), model)
        flops = flops_of_window(model, data.reported.source)
        peak = measured()
    progress = trained.progress
    costs = {"parameters": sum(p.numel() for p in model.parameters()), "flops_per_window": flops}
    committed = workspace.commit(
        cell,
        result={
            "status": "done",
            "cell_id": cell.cell_id,
            "selection": {
                "best_epoch": progress.best_epoch + 1,
                "epochs": progress.epoch,
                "best_ccc": progress.best_ccc,
                "end": trained.end,
            },
            "model": costs | ({"weights": weights} if weights else {}),
            **score(result.predictions, data.store),
            **parts,
        },
        curve=pd.DataFrame(progress.curve),
        predictions=result.predictions,
        env={
            "attempt": attempt,
            "device": device,
            "determinism": cell.recipe.determinism,
            **trained.precision.facts(),
            "train_seconds": progress.seconds,
            "seconds": monotonic() - started,
            **environment(),
            **({"peak_memory": peak} if peak is not None else {}),
            **({"title": data.system_title} if data.system_title is not None else {}),
        },
        weights=to_safetensors({name: t.cpu().contiguous() for name, t in trained.best_state.items()}),
    )
    if not committed:
        logger.info("cell %s was finished by another attempt first", cell.cell_id)
