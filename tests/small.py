"""A small model whose answers differ from picture to picture."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from photos import picture
from torch import nn

from edgewise.families import variant
from edgewise.layers import LayerScale
from edgewise.model import Model
from edgewise.network import build
from edgewise.preprocess import Preprocess
from edgewise.spec import AnyBlock, Spec


def first_of_each_kind(
    spec: Spec, kind: Callable[[AnyBlock], Hashable] = type, stages: int | None = None
) -> Spec:
    """The first block of each kind in each of the stages, such as the convolutional block and the
    attention of a hybrid's.
    """
    kept = []
    for stage in spec.stages[:stages]:
        kinds: dict[Hashable, AnyBlock] = {}
        for block in stage:
            kinds.setdefault(kind(block), block)
        kept.append(tuple(kinds.values()))
    return replace(spec, stages=tuple(kept))


def small_model(
    name: str, labels: tuple[str, ...], size: int, width: float = 0.25, stages: int | None = None
) -> Model:
    """The first block of each kind in each of the stages; unlike pictures have unlike answers."""
    spec = first_of_each_kind(variant(name).spec(width, classes=len(labels)), stages=stages)
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


def write_onnx(model: Model, path: Path) -> None:
    """The model as `edgewise export` writes it."""
    from edgewise.deploy.onnx import graph_of, to_bytes

    path.write_bytes(to_bytes(graph_of(model)))


# One of each family, and of each kind of block.
FAMILIES = (
    "mobilenet_v1",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "mobilenet_v4_conv_small",
    "mobilenet_v4_hybrid_medium",
    "efficientnet_b0",
    "efficientnet_lite0",
    "efficientnet_v2_b0",
    "convnext_atto",
    "convnext_v2_atto",
    "resnet18",
)


def pictures(model: Model, count: int = 4) -> NDArray[np.uint8]:
    """Inputs of the model, uint8 (count, size, size, 3)."""
    return np.stack([model.preprocess.pixels(picture(seed)) for seed in range(count)])
