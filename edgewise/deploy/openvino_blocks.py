"""Blocks rewritten for OpenVINO: the same answers, in operators that it has a fast kernel for."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import Tensor, nn

from edgewise.blocks import ConvNeXtBlock
from edgewise.layers import GRN, LayerNorm2d

N = TypeVar("N", bound=nn.Module)


# OpenVINO takes a layer norm of (N, H, W, C) apart into several passes over the map. That of
# (N, H * W, C), "rows" here, has a kernel; and GRN then needs no transposed map.


class LayerNormOfRows(LayerNorm2d):
    """A `LayerNorm2d` on rows."""

    def forward(self, x: Tensor) -> Tensor:
        return _map(nn.LayerNorm.forward(self, _rows(x)), x)


class ConvNeXtBlockOfRows(ConvNeXtBlock):
    """A `ConvNeXtBlock` on rows behind its depthwise convolution."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.downsample(x)
        rows: Tensor = self.act(self.expand(self.norm(_rows(self.depthwise(x)))))
        if isinstance(self.grn, GRN):
            rows = self.grn.scaled(rows, places=1, channels=2)
        y = _map(self.project(rows), x)
        total: Tensor = x + self.drop_path(self.layer_scale(y))
        return total


REWRITTEN = {LayerNorm2d: LayerNormOfRows, ConvNeXtBlock: ConvNeXtBlockOfRows}


def _rows(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, H * W, C)."""
    return x.flatten(2).transpose(1, 2)


def _map(rows: Tensor, like: Tensor) -> Tensor:
    """(N, H * W, C) -> (N, C, H, W)."""
    turned: Tensor = rows.transpose(1, 2)
    return turned.reshape(like.shape)


def rewritten(network: N) -> N:
    """The network with such parts rewritten; the very same if it has none of them.

    Names and weights of its layers stay what they are; the answers differ by rounding.
    """
    if not any(type(module) in REWRITTEN for module in network.modules()):
        return network
    copied = copy.deepcopy(network)
    for module in copied.modules():
        # Only `forward` is another.
        module.__class__ = REWRITTEN.get(type(module), type(module))
    return copied
