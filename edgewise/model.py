"""A network together with what it takes to use it: its preprocessing and its labels."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from edgewise.network import Network
from edgewise.preprocess import Preprocess


@dataclass(frozen=True)
class Model:
    """What a model folder holds.

    Attributes:
        network: logits (N, classes) from float (N, 3, H, W).
        preprocess: the rule from an image to that input.
        labels: a name for each class, in the order of the logits.
        int8_ranges: the lowest and the highest input of each layer, by the layer's name, with which
            the network learned to compute in int8. Empty if it never did.
    """

    network: Network
    preprocess: Preprocess
    labels: tuple[str, ...]
    int8_ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict, hash=False)


def cooled(model: Model, temperature: float) -> Model:
    """A copy whose logits are divided by `temperature`: its classifier's weights are."""
    network = copy.deepcopy(model.network)
    with torch.no_grad():
        for parameter in network.head.classifier.parameters():
            parameter.div_(temperature)
    return replace(model, network=network)


class Classifier(nn.Module):
    """uint8 (N, H, W, 3) pixels -> probabilities (N, classes): the function that is shipped.

    `predict`, `eval`, every export and `verify` run this one module, so that none of them can
    normalise in another way than the rest.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.network = model.network
        self.preprocess = model.preprocess

    def forward(self, pixels: Tensor) -> Tensor:
        """uint8 (N, H, W, 3) -> float32 (N, classes), each row summing to 1."""
        logits: Tensor = self.network(self.preprocess.normalise(pixels))
        return torch.softmax(logits, dim=1)
