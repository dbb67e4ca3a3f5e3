"""The moving average of a network's weights: what is evaluated and kept."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def moving_average(network: nn.Module, decay: float) -> AveragedModel:
    """A copy of `network` for `AveragedModel.update_parameters`, batch-norm statistics included.

    After update t it holds d * average + (1 - d) * network with d = min(decay, (1 + t) / (10 + t)):
    early on it forgets the initial weights fast, so that a short run has an average of its own
    (the `num_updates` rule of TensorFlow's ExponentialMovingAverage).
    """

    def update(averages: list[Tensor], values: list[Tensor], updates: Tensor | int) -> None:
        t = int(updates)
        if averages[0].is_floating_point():
            torch._foreach_lerp_(averages, values, 1 - min(decay, (1 + t) / (10 + t)))
        else:  # batch norm's count of batches
            torch._foreach_copy_(averages, values)

    return AveragedModel(network, multi_avg_fn=update, use_buffers=True)  # type: ignore[arg-type]
