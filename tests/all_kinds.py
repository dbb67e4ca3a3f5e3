"""One small network of each kind of block, as a trained one might be."""

from __future__ import annotations

from dataclasses import replace

import torch

from edgewise.families import variant
from edgewise.network import Network, build
from edgewise.timing.subject import randomise

SIZE = 64  # pixels
FAMILIES = (
    "mobilenet_v1",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "mobilenet_v4_conv_small",
    "mobilenet_v4_hybrid_medium",
    "efficientnet_b0",
    "efficientnet_v2_s",
    "convnext_atto",
    "convnext_v2_atto",
    "resnet18",
    "resnet50",
    "vgg16",
)


def small_network(name: str) -> Network:
    """Up to five blocks a stage at a quarter of the width, with seven classes, in eval mode."""
    spec = variant(name).spec(0.25, classes=7)
    spec = replace(spec, stages=tuple(stage[:5] for stage in spec.stages))
    torch.manual_seed(0)
    network = build(spec)
    with torch.no_grad():
        randomise(network, images(8))
    return network


def images(count: int, seed: int = 1) -> torch.Tensor:
    """(count, 3, SIZE, SIZE)."""
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))
