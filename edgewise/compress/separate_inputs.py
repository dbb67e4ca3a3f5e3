"""What a network's convolutions are given on real images: means and covariances."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from edgewise.layers import Conv2d
from edgewise.measure.profile_trace import worked_out

Model = TypeVar("Model", bound=nn.Module)
PIXELS = 1024  # of each image, drawn for each layer: neighbours tell nearly the same
BATCH = 8  # images at a time: their patches take as many times the memory as the kernel's area


class Moments:
    """The first and second moments of the numbers under a convolution's kernel.

    Args:
        conv: the convolution, with stride, padding and dilation.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        area, channels = math.prod(conv.kernel_size), conv.in_channels
        self.shape = area, channels
        self.count = 0
        # In double precision: a mean far from 0 would leave nothing of a variance in single.
        self.sum = conv.weight.new_zeros(area * channels, dtype=torch.double)
        self.products = self.sum.new_zeros(area * channels, area * channels)
        # The kernel that gives the number at each of its places: the patches, by the same padding.
        self.patches = depthwise_like(conv, area)
        places = torch.eye(area, dtype=conv.weight.dtype).repeat_interleave(channels, 0)
        with torch.no_grad():
            self.patches.weight.copy_(places.reshape(self.patches.weight.shape))
        self.random = torch.Generator().manual_seed(0)

    def add(self, x: Tensor) -> None:
        """The input of one call, (N, in_chans, H, W)."""
        copies = torch.cat([x] * self.shape[0], 1)
        numbers = self.patches(copies).flatten(2)  # (N, K I, H W)
        drawn = torch.randperm(numbers.shape[2], generator=self.random)[:PIXELS]
        rows = numbers[:, :, drawn.to(x.device)].double().transpose(1, 2).flatten(0, 1)
        self.count += len(rows)
        self.sum += rows.sum(0)
        self.products += rows.T @ rows

    def mean(self) -> Tensor:
        """(K, I)."""
        return (self.sum / self.count).reshape(self.shape)

    def covariance(self) -> Tensor:
        """(K, I, K, I)."""
        mean = self.mean().flatten()
        square = self.products / self.count - mean[:, None] * mean
        return square.reshape(*self.shape, *self.shape)


def input_moments(model: nn.Module, names: Iterable[str], images: Tensor) -> dict[str, Moments]:
    """Of the named convolutions, in evaluation mode. The model is as it was afterwards.

    Args:
        model: takes a batch of images.
        names: of its convolutions, each of which the images must reach.
        images: (N, C, H, W), as the model takes them.
    """
    model = copied(model).eval()
    moments = {}
    for name in names:
        conv = model.get_submodule(name)
        assert isinstance(conv, nn.Conv2d)
        moments[name] = Moments(conv)
        conv.register_forward_pre_hook(_adds_to(moments[name]))
    with torch.inference_mode():
        for batch in torch.split(images, BATCH):
            model(batch)
    return moments


def copied(model: Model) -> Model:
    """A deep copy, also of a module that keeps what its last forward pass gave."""
    memo: dict[int, Any] = {id(kept): kept.detach().clone() for kept in worked_out(model)}
    return copy.deepcopy(model, memo)


def _adds_to(moments: Moments) -> Any:
    return lambda _conv, inputs: moments.add(inputs[0])


def depthwise_like(conv: nn.Conv2d, rank: int) -> nn.Conv2d:
    """A fresh depthwise convolution of `rank` copies of the input, with the stride and padding,
    type and device of `conv`.
    """
    wide, (height, width) = rank * conv.in_channels, conv.kernel_size
    layer: nn.Conv2d
    if isinstance(conv, Conv2d):  # its padding may be TensorFlow's
        layer = Conv2d(wide, wide, height, conv.stride[0], conv.dilation[0], wide)
        layer.same = conv.same
    else:
        layer = nn.Conv2d(
            wide,
            wide,
            (height, width),
            conv.stride,  # type: ignore[arg-type]  # a pair, as are the next two
            conv.padding,  # type: ignore[arg-type]
            conv.dilation,  # type: ignore[arg-type]
            groups=wide,
            bias=False,
            padding_mode=conv.padding_mode,
        )
    return layer.to(conv.weight)
