"""A small model whose answers differ from picture to picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from photos import picture
from torch import nn

from edgewise.families import variant
from edgewise.layers import LayerScale
from edgewise.model import Model
from edgewise.network import build
from edgewise.preprocess import Preprocess
from edgewise.spec import AnyBlock


def first_of_each_kind(stage: tuple[AnyBlock, ...]) -> tuple[AnyBlock, ...]:
    """Such as the convolutional block and the attention of a hybrid's stage."""
    kinds: dict[type, AnyBlock] = {}
    for block in stage:
        kinds.setdefault(type(block), block)
    return tuple(kinds.values())


def small_model(name: str, labels: tuple[str, ...], size: int, width: float = 0.25) -> Model:
    """The first block of each kind in each stage; unlike pictures have unlike answers."""
    spec = variant(name).spec(width, classes=len(labels))
    spec = replace(spec, stages=tuple(first_of_each_kind(stage) for stage in spec.stages))
    torch.manual_seed(0)
    network = build(spec)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
        elif isinstance(module, LayerScale):  # 1e-5 at first, which hides what comes before it
            nn.init.uniform_(module.weight, 0.1, 1.0)
    preprocess = Preprocess(size, 0.9, "bicubic", (127.0,) * 3, (64.0,) * 3)
    pixels = np.stack([preprocess.pixels(picture(seed)) for seed in range(16)])
    with torch.no_grad():  # logits of mean 0 and standard deviation 2 over these pictures
        logits = network.eval()(preprocess.normalise(torch.from_numpy(pixels)))
        factor = 2 / logits.std(0)
        network.head.classifier.weight.mul_(factor[:, None])
        network.head.classifier.bias.copy_(-logits.mean(0) * factor)
    return Model(network, preprocess, labels)
