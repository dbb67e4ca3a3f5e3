"""Where a network saw what speaks for a class: Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391).

The last map before the pooling still knows where things are. Each of its channels is weighed with
the mean gradient of the class's logit over the map, the channels are summed, and what speaks
against the class is cut off. Where the head is just a pooling and a classifier, the weights are the
classifier's own, which is the older CAM (Zhou et al. 2016, arXiv 1512.04150).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgewise.errors import UsageError
from edgewise.model import Model


def grad_cam(
    model: Model, pixels: NDArray[np.uint8], classes: Sequence[int]
) -> NDArray[np.float32]:
    """A map for each image of what speaks for one class in it.

    Args:
        model: put into evaluation mode, on the CPU.
        pixels: uint8 (N, H, W, 3), as `model.preprocess.pixels` makes them.
        classes: N indices of classes, one for each image.

    Returns:
        Maps (N, h, w), with h and w those of the network's last map. The largest value of each is
        1, or 0 where nothing speaks for the class. Maps of different images or classes can't be
        compared: each has its own scale.

    Raises:
        UsageError: not a class for each image, or no such class.
    """
    if len(classes) != len(pixels):
        raise UsageError(f"{len(pixels)} images need as many classes, not {len(classes)}")
    if not all(0 <= index < len(model.labels) for index in classes):
        raise UsageError(f"classes must be from 0 to {len(model.labels) - 1}, not {list(classes)}")
    network, last = model.network.eval(), []

    def cut(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        """Starts the graph here: no gradient is needed before the last map."""
        last.append(output.detach().requires_grad_())
        return last[0]

    with torch.no_grad():
        features = network.features(model.preprocess.normalise(torch.from_numpy(pixels)))[-1]
    hook = network.head.conv.register_forward_hook(cut)  # an identity in heads without one
    try:
        with torch.enable_grad():
            logits = network.head(features)
            chosen = logits[torch.arange(len(pixels)), torch.tensor(classes)].sum()
            (gradient,) = torch.autograd.grad(chosen, last[0])
    finally:
        hook.remove()
    weights = gradient.mean((2, 3), keepdim=True)  # (N, C, 1, 1)
    maps = (weights * last[0].detach()).sum(1).relu()  # (N, h, w)
    largest = maps.amax((1, 2), keepdim=True)
    result: NDArray[np.float32] = (maps / largest.where(largest > 0, 1.0)).numpy()
    return result
