"""The layers that the blocks of all families are made of.

All take and give maps (N, C, H, W) and work by themselves, in any `nn.Sequential`. Stride 2 halves
the sides, rounded up.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgewise.errors import UsageError

ACTIVATION: dict[str, Callable[[], nn.Module]] = {
    # In place: the norm before it needs its input, not its output, for the gradient.
    "relu": lambda: nn.ReLU(inplace=True),
    "relu6": lambda: nn.ReLU6(inplace=True),
    "hard_swish": lambda: nn.Hardswish(inplace=True),
    "silu": lambda: nn.SiLU(inplace=True),
    "gelu": nn.GELU,
    "sigmoid": nn.Sigmoid,
    "hard_sigmoid": nn.Hardsigmoid,
    "": nn.Identity,
}


class Conv2d(nn.Conv2d):
    """A convolution that keeps ceil(side / stride), with a choice of padding.

    `same = True` pads as TensorFlow's "SAME": where the total is odd, as it is at stride 2 on an
    even side, the extra line goes below and to the right. The default pads all sides alike. Both
    give the same shapes, so weights trained with the one run with the other and are silently wrong.

    An even kernel cuts patches: at a stride of its own size it keeps floor(side / stride). At
    stride 1 it pads below and to the right, so that the outputs of the patches are among its own.
    """

    same = False

    def __init__(
        self,
        in_chans: int,
        out: int,
        kernel: int = 1,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = False,
    ) -> None:
        padding = dilation * (kernel // 2) if kernel % 2 else 0
        super().__init__(in_chans, out, kernel, stride, padding, dilation, groups, bias)

    def reset_parameters(self) -> None:
        """Weights normal with the variance of 2 / fan-out, as in the papers' code; biases 0."""
        fan_out = self.kernel_size[0] ** 2 * self.out_channels // self.groups
        _normal(self, math.sqrt(2.0 / fan_out))

    def forward(self, x: Tensor) -> Tensor:
        odd, stride = self.kernel_size[0] % 2 == 1, self.stride[0]
        reach = self.dilation[0] * (self.kernel_size[0] - 1)
        if not odd and stride == 1:
            x = F.pad(x, (0, reach, 0, reach))
        elif odd and stride > 1 and self.same:
            total = [
                max((-(-n // stride) - 1) * stride + reach + 1 - n, 0) for n in shape_of(x)[2:]
            ]
            top, left = total[0] // 2, total[1] // 2
            x = F.pad(x, (left, total[1] - left, top, total[0] - top))
        else:
            return super().forward(x)
        return F.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class Separated(nn.Module):
    """A dense convolution as a sum of depthwise separable ones: as many as its `rank`.

    The input is repeated `rank` times, so that every runtime's kernel for depthwise convolutions
    fits: groups with several outputs each were seen to take up to 2.6 times as long.

    (N, in_chans, H, W) -> what `pointwise` gives. `depthwise` has rank * in_chans channels, the
    second copy of the input after the first. `pointwise` has a bias, also where a norm follows: an
    approximation loses some of the mean, and there it is put back.
    """

    def __init__(self, depthwise: nn.Conv2d, pointwise: nn.Conv2d, rank: int) -> None:
        super().__init__()
        self.rank, self.depthwise, self.pointwise = rank, depthwise, pointwise

    def forward(self, x: Tensor) -> Tensor:
        copies = torch.cat([x] * self.rank, 1) if self.rank > 1 else x
        y: Tensor = self.pointwise(self.depthwise(copies))
        return y


def shape_of(x: Tensor) -> list[int]:
    """The lengths of (N, C, H, W); in a traced graph, the plain numbers of this input.

    There arithmetic with them would become a part of the graph, which not all converters can work
    out: pnnx rounds -15 // 2 up.
    """
    tracing: bool = torch._C._get_tracing_state() is not None
    return [int(side) if tracing else side for side in x.shape]


class Linear(nn.Linear):
    """(N, ..., in_features) -> (N, ..., out_features); it begins as in the papers' code."""

    def reset_parameters(self) -> None:
        """Weights normal with a standard deviation of 0.01; biases 0."""
        _normal(self, 0.01)


def _normal(layer: nn.Conv2d | nn.Linear, std: float) -> None:
    if layer.weight.is_meta:
        return  # there is nothing to fill, and PyTorch takes a millisecond for it
    nn.init.normal_(layer.weight, std=std)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


class LayerNorm2d(nn.LayerNorm):
    """Layer norm over the channels of each pixel: (N, C, H, W) -> (N, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class DropPath(nn.Module):
    """In training, drops the whole branch of a sample (stochastic depth, arXiv 1603.09382).

    Kept branches are divided by the probability of being kept, so that the mean is unchanged.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        if not 0 <= probability < 1:
            raise UsageError(f"the probability to drop must be in [0, 1), not {probability}")
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.probability == 0:
            return x
        kept = 1 - self.probability
        mask = x.new_empty(x.shape[0], *[1] * (x.ndim - 1)).bernoulli_(kept)
        return x * (mask / kept)


class LayerScale(nn.Module):
    """A learned factor for each channel, small at first (arXiv 2103.17239)."""

    def __init__(self, channels: int, start: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), start))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight.reshape(1, -1, 1, 1)


class ConvNorm(nn.Module):
    """Convolution -> norm -> activation [+ input].

    `norm` is "batch", "layer" or "none". The convolution has a bias unless batch norm follows,
    which would take it away again with the mean. `act=""` leaves it linear. With a `rank`, a dense
    convolution is `Separated`.

    (N, in_chans, H, W) -> (N, out, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(
        self,
        in_chans: int,
        out: int,
        kernel: int = 3,
        stride: int = 1,
        dilation: int = 1,
        *,
        groups: int = 1,
        rank: int = 0,
        act: str = "",
        norm: str = "batch",
        skip: bool = False,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.conv: nn.Module
        if rank:
            wide = rank * in_chans
            depthwise = Conv2d(wide, wide, kernel, stride, dilation, groups=wide)
            self.conv = Separated(depthwise, Conv2d(wide, out, bias=True), rank)
        else:
            bias = norm != "batch"
            self.conv = Conv2d(in_chans, out, kernel, stride, dilation, groups, bias)
        norms = {"batch": nn.BatchNorm2d, "layer": LayerNorm2d, "none": nn.Identity}
        self.norm = norms[norm](out)
        self.act = ACTIVATION[act]()
        self.drop_path = DropPath(drop_path)
        self.skip = skip and stride == 1 and in_chans == out

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(self.norm(self.conv(x)))
        return x + self.drop_path(y) if self.skip else y


class Depthwise(ConvNorm):
    """One kernel a channel, then batch norm and activation: (N, C, H, W) -> (N, C, ., .)."""

    def __init__(
        self, channels: int, kernel: int = 3, stride: int = 1, dilation: int = 1, act: str = "relu6"
    ) -> None:
        super().__init__(channels, channels, kernel, stride, dilation, groups=channels, act=act)


class Pointwise(ConvNorm):
    """1x1 convolution, batch norm and activation: (N, in_chans, H, W) -> (N, out, H, W)."""

    def __init__(self, in_chans: int, out: int, act: str = "relu6") -> None:
        super().__init__(in_chans, out, kernel=1, act=act)


class MaxPool(nn.MaxPool2d):
    """Max pooling with the sides of `Conv2d`: (N, C, H, W) -> (N, C, ., .)."""

    def __init__(self, kernel: int = 2, stride: int = 2, dilation: int = 1) -> None:
        before = dilation * (kernel // 2) if kernel % 2 else 0
        after = before or (dilation * (kernel - 1) if stride == 1 else 0)
        # PyTorch itself pads alike on all sides, and no more than half of a kernel undilated.
        native = before == after and dilation == 1
        super().__init__(kernel, stride, before if native else 0, dilation)
        self.edges = None if native else (before, after) * 2

    def forward(self, x: Tensor) -> Tensor:
        if self.edges:
            x = F.pad(x, self.edges, value=-math.inf)
        pooled: Tensor = super().forward(x)
        return pooled


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate worked out from the means of all (arXiv 1709.01507).

    (N, C, H, W) -> the same shape. `squeezed` is the width of the bottleneck, in channels.
    """

    def __init__(
        self, channels: int, squeezed: int, act: str = "relu", gate: str = "sigmoid"
    ) -> None:
        super().__init__()
        self.reduce = Conv2d(channels, squeezed, bias=True)
        self.act = ACTIVATION[act]()
        self.expand = Conv2d(squeezed, channels, bias=True)
        self.gate = ACTIVATION[gate]()

    def forward(self, x: Tensor) -> Tensor:
        scale = x.mean((2, 3), keepdim=True)
        gate: Tensor = self.gate(self.expand(self.act(self.reduce(scale))))
        return x * gate


class GRN(nn.Module):
    """Global response normalisation (ConvNeXt V2, arXiv 2301.00808, algorithm 1).

    Each channel is multiplied by its L2 norm over the map, divided by the mean of all channels'
    norms, then scaled, shifted and added to the input: the identity at first.
    (N, C, H, W) -> (N, C, H, W).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.scaled(x, places=(2, 3), channels=1)

    def scaled(self, x: Tensor, places: int | tuple[int, ...], channels: int) -> Tensor:
        """The same for a map of another layout: which dimensions are its places and channels."""
        size: Tensor = x.norm(dim=places, keepdim=True)
        relative = size / (size.mean(channels, keepdim=True) + 1e-6)
        shape = [1] * x.ndim
        shape[channels] = -1
        weight, bias = self.weight.reshape(shape), self.bias.reshape(shape)
        return weight * (x * relative) + bias + x
