"""What a trained model costs to use."""

import numpy as np
import torch
from torch import nn

from crossfold.datasets.batches.source import WindowSource
from crossfold.platform.modeling.emotion_model import EmotionModel


@torch.no_grad()
def flops_of_window(model: EmotionModel, source: WindowSource) -> int | None:
    """Floating-point operations of one prediction of the first window, backbones and heads included.

    None for models with recurrent layers, whose kernels torch's counter does not see.
    """
    # It imports Triton, for which the first step of training need not wait.
    from torch.utils.flop_counter import FlopCounterMode

    if any(isinstance(module, nn.RNNBase) for module in model.modules()):
        return None
    model.eval()
    # One window is enough: each costs the same.
    batch = source.batch(np.zeros(1, np.int64))
    with FlopCounterMode(display=False) as counter:
        model(batch.x, batch.real)
    return int(counter.get_total_flops())
