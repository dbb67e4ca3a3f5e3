"""The few modules that all families share, their parts named by role."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgewise.spec import Block, Conv

ACTIVATION: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "hard_swish": nn.Hardswish,
    "silu": nn.SiLU,
    "sigmoid": nn.Sigmoid,
    "hard_sigmoid": nn.Hardsigmoid,
}


class Conv2d(nn.Conv2d):
    """A convolution that keeps ceil(side / stride), with odd kernels and a choice of padding.

    `same = True` pads as TensorFlow's "SAME": where the total is odd, as it is at stride 2 on an
    even side, the extra line goes below and to the right. The default pads all sides alike. Both
    give the same shapes, so weights trained with the one run with the other and are silently wrong.
    """

    same = False

    def __init__(
        self,
        in_chans: int,
        out: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        bias: bool = False,
    ) -> None:
        super().__init__(
            in_chans, out, kernel, stride, padding=kernel // 2, groups=groups, bias=bias
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, out, ceil(H / stride), ceil(W / stride))."""
        if not self.same or self.stride[0] == 1:
            return super().forward(x)
        kernel, stride = self.kernel_size[0], self.stride[0]
        total = [max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in x.shape[2:]]
        top, left = total[0] // 2, total[1] // 2
        x = F.pad(x, (left, total[1] - left, top, total[0] - top))
        return F.conv2d(x, self.weight, self.bias, self.stride, groups=self.groups)


class ConvNorm(nn.Sequential):
    """Convolution -> batch norm -> activation; `act=None` leaves it linear.

    (N, in_chans, H, W) -> (N, out, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(
        self,
        in_chans: int,
        out: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        act: str | None = None,
    ) -> None:
        super().__init__()
        self.conv = Conv2d(in_chans, out, kernel, stride, groups)
        self.norm = nn.BatchNorm2d(out)
        if act is not None:
            self.act = activation(act)

    @classmethod
    def of(cls, in_chans: int, conv: Conv) -> ConvNorm:
        """The module for a `Conv` of a spec."""
        return cls(in_chans, conv.out, conv.kernel, conv.stride, act=conv.act)


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate worked out from the means of all (arXiv 1709.01507).

    (N, C, H, W) -> the same shape. `squeezed` is the width of the bottleneck, in channels.
    """

    def __init__(self, channels: int, squeezed: int, act: str, gate: str) -> None:
        super().__init__()
        self.reduce = Conv2d(channels, squeezed, 1, bias=True)
        self.act = activation(act)
        self.expand = Conv2d(squeezed, channels, 1, bias=True)
        self.gate = activation(gate, inplace=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        scale = x.mean((2, 3), keepdim=True)
        gate: Tensor = self.gate(self.expand(self.act(self.reduce(scale))))
        return x * gate


class DropPath(nn.Module):
    """In training, drops the whole branch of a sample (stochastic depth, arXiv 1603.09382).

    Kept branches are divided by the probability of being kept, so that the mean is unchanged.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        """(N, ...) -> (N, ...)."""
        if not self.training or self.probability == 0:
            return x
        kept = 1 - self.probability
        mask = torch.empty(x.shape[0], 1, 1, 1, dtype=x.dtype, device=x.device).bernoulli_(kept)
        return x * (mask / kept)


class InvertedResidual(nn.Module):
    """The one block of MobileNet V1-V3 and EfficientNet, with parts left out.

    [expand 1x1] -> depthwise k x k -> [squeeze-excite] -> project 1x1 [+ input]. MobileNetV1's
    depthwise separable convolution has no expand, no skip and an activation on the projection
    (arXiv 1704.04861, figure 3); V2's has them the other way round (1801.04381, figure 3b);
    V3 and EfficientNet add squeeze-excite (1905.02244, figure 4; 1905.11946, table 1).

    (N, in_chans, H, W) -> (N, block.out, ceil(H / block.stride), ceil(W / block.stride)).
    """

    def __init__(
        self,
        in_chans: int,
        block: Block,
        squeeze_act: str = "relu",
        gate: str = "sigmoid",
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        wide = block.expand or in_chans
        self.expand = ConvNorm(in_chans, wide, act=block.act) if block.expand else nn.Identity()
        self.depthwise = ConvNorm(
            wide, wide, block.kernel, block.stride, groups=wide, act=block.act
        )
        self.squeeze = (
            SqueezeExcite(wide, block.squeeze, squeeze_act, gate)
            if block.squeeze
            else nn.Identity()
        )
        self.project = ConvNorm(wide, block.out, act=None if block.linear else block.act)
        self.drop_path = DropPath(drop_path)
        self.skip = block.skip

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_chans, H, W) -> (N, out, H / stride, W / stride), rounded up."""
        y: Tensor = self.project(self.squeeze(self.depthwise(self.expand(x))))
        return x + self.drop_path(y) if self.skip else y


def activation(name: str, inplace: bool = True) -> nn.Module:
    """The module for an activation's name, one of `edgewise.spec.ACTIVATIONS`.

    In place by default: the norm before it needs its input, not its output, for the gradient.
    """
    if name == "sigmoid":
        return nn.Sigmoid()
    return ACTIVATION[name](inplace=inplace)
