"""From a `Spec` to a module: stem, stages, head."""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import Tensor, nn

from edgewise.blocks import Conv2d, ConvNorm, InvertedResidual, activation
from edgewise.spec import Spec


class Head(nn.Module):
    """[conv 1x1] -> average pool -> [hidden layer with bias] -> dropout -> classifier.

    The hidden layer comes after the pooling, on one vector instead of every pixel: that is
    MobileNetV3's efficient last stage (arXiv 1905.02244, figure 5).
    """

    def __init__(self, in_chans: int, spec: Spec) -> None:
        super().__init__()
        head, width = spec.head, in_chans
        self.conv: nn.Module = nn.Identity()
        self.hidden: nn.Module = nn.Identity()
        self.classifier: nn.Module = nn.Identity()
        if head.conv:
            self.conv, width = ConvNorm(width, head.conv, act=head.act), head.conv
        if head.hidden:
            self.hidden = nn.Sequential(nn.Linear(width, head.hidden), activation(head.act))
            width = head.hidden
        self.dropout = nn.Dropout(head.dropout)
        if spec.classes:
            self.classifier = nn.Linear(width, spec.classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> logits (N, classes), or pooled features (N, width) with 0 classes."""
        # nn.AdaptiveAvgPool2d gives the same numbers, but seven more operators in an ONNX graph.
        pooled = self.conv(x).mean((2, 3))
        logits: Tensor = self.classifier(self.dropout(self.hidden(pooled)))
        return logits


class Network(nn.Module):
    """An image classifier built from a `Spec`, which it carries as `spec`."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.spec = spec
        self.stem = ConvNorm.of(spec.in_chans, spec.stem)
        rates = _drop_path_rates(spec)
        channels = spec.stem.out
        self.stages = nn.ModuleList()
        for stage in spec.stages:
            blocks = nn.Sequential()
            for block in stage:
                blocks.append(
                    InvertedResidual(channels, block, spec.squeeze_act, spec.gate, next(rates))
                )
                channels = block.out
            self.stages.append(blocks)
        self.head = Head(channels, spec)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_chans, H, W) -> logits (N, classes), or pooled features with 0 classes."""
        logits: Tensor = self.head(self.features(x)[-1])
        return logits

    def features(self, x: Tensor) -> list[Tensor]:
        """The last map of each stride, shallow to deep, before the head.

        Their channels and strides are `spec.features()`.
        """
        maps = []
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


def _drop_path_rates(spec: Spec) -> Iterator[float]:
    """For each block in order: block i of n drops with i/n of the full rate (EfficientNet)."""
    blocks = sum(len(stage) for stage in spec.stages)
    return (spec.drop_path * i / blocks for i in range(blocks))


def build(spec: Spec) -> Network:
    """Builds the network of a spec with fresh weights, in training mode.

    Initialised as in the papers' code: convolutions normal with the variance of 2 / fan-out,
    classifiers normal with standard deviation 0.01, biases 0.
    """
    network = Network(spec)
    for module in network.modules():
        # Padding and epsilon are of the weights, not of the shapes: set in one place.
        if isinstance(module, Conv2d):
            module.same = spec.padding == "same"
            fan_out = module.kernel_size[0] ** 2 * module.out_channels // module.groups
            nn.init.normal_(module.weight, std=math.sqrt(2.0 / fan_out))
        elif isinstance(module, nn.BatchNorm2d):
            module.eps, module.momentum = spec.norm_eps, spec.norm_momentum
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
        if isinstance(module, (Conv2d, nn.Linear)) and module.bias is not None:
            nn.init.zeros_(module.bias)
    return network
