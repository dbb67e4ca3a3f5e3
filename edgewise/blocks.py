"""The few blocks that all families share, their parts named by role.

All take and give maps (N, C, H, W) and work by themselves, in any `nn.Sequential`. The keyword
arguments of a block are the fields of its row in `edgewise.spec`, which explains them. Stride 2
halves the sides, rounded up. The layers that they are made of are in `edgewise.layers`.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from edgewise.errors import UsageError
from edgewise.layers import (
    ACTIVATION,
    GRN,
    Conv2d,
    ConvNorm,
    Depthwise,
    DropPath,
    LayerNorm2d,
    LayerScale,
    Linear,
    Pointwise,
    SqueezeExcite,
    shape_of,
)


class DepthwiseSeparable(nn.Sequential):
    """Depthwise, then pointwise (MobileNetV1, arXiv 1704.04861, figure 3).

    About 1/out + 1/kernel^2 of the MACs of the standard convolution that it stands for.
    (N, in_chans, H, W) -> (N, out, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(
        self,
        in_chans: int,
        out: int,
        kernel: int = 3,
        stride: int = 1,
        dilation: int = 1,
        act: str = "relu6",
    ) -> None:
        super().__init__(
            Depthwise(in_chans, kernel, stride, dilation, act), Pointwise(in_chans, out, act)
        )


class InvertedResidual(nn.Module):
    """The one block of MobileNet V1-V4 and EfficientNet, with parts left out.

    [start depthwise] -> [expand] -> [depthwise] -> [squeeze-excite] -> project [x layer scale]
    [+ input, where stride and channels allow it].

    MobileNetV1's depthwise separable convolution has no expand, no skip and an activation on the
    projection (arXiv 1704.04861, figure 3); V2's has them the other way round (1801.04381, figure
    3b); V3 and EfficientNet add squeeze-excite (1905.02244, figure 4; 1905.11946, table 1).
    `FusedMBConv` and `UIB` are the two others. `expand` and `squeeze` are channels, and 0 leaves
    them out, as it does `kernel` and `start`.

    (N, in_chans, H, W) -> (N, out, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(
        self,
        in_chans: int,
        out: int,
        kernel: int = 3,
        stride: int = 1,
        expand: int = 0,
        *,
        expand_kernel: int = 1,
        expand_rank: int = 0,
        start: int = 0,
        squeeze: int = 0,
        squeeze_act: str = "relu",
        gate: str = "sigmoid",
        act: str = "relu6",
        linear: bool = True,
        skip: bool = True,
        layer_scale: float = 0.0,
        dilation: int = 1,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        if stride > 1 and max(kernel, start, expand and expand_kernel) <= 1:
            raise UsageError("a stride needs kernel, start or expand_kernel to be larger than 1")
        wide = expand or in_chans
        none = nn.Identity()  # has no state, so one serves for every part left out
        # The stride sits on the depthwise convolution, else on the start one, else on expand.
        of_start, of_expand = (1, 1) if kernel else (stride, 1) if start else (1, stride)
        self.start = Depthwise(in_chans, start, of_start, dilation, act="") if start else none
        self.expand = (
            ConvNorm(in_chans, wide, expand_kernel, of_expand, dilation, rank=expand_rank, act=act)
            if expand
            else none
        )
        self.depthwise = Depthwise(wide, kernel, stride, dilation, act) if kernel else none
        self.squeeze = SqueezeExcite(wide, squeeze, squeeze_act, gate) if squeeze else none
        self.project = Pointwise(wide, out, act="" if linear else act)
        self.layer_scale = LayerScale(out, layer_scale) if layer_scale else none
        self.drop_path = DropPath(drop_path)
        self.skip = skip and stride == 1 and in_chans == out

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.depthwise(self.expand(self.start(x)))
        y = self.layer_scale(self.project(self.squeeze(y)))
        return x + self.drop_path(y) if self.skip else y


class FusedMBConv(InvertedResidual):
    """k x k expansion instead of 1x1 and depthwise (EfficientNetV2, arXiv 2104.00298, figure 2).

    (N, in_chans, H, W) -> (N, out, ceil(H / stride), ceil(W / stride)). `expand` is a ratio.
    """

    def __init__(
        self, in_chans: int, out: int, kernel: int = 3, stride: int = 1, expand: float = 4.0
    ) -> None:
        wide = round(in_chans * expand)
        super().__init__(
            in_chans, out, kernel=0, stride=stride, expand=wide, expand_kernel=kernel, act="silu"
        )


class UIB(InvertedResidual):
    """Universal inverted bottleneck (MobileNetV4, arXiv 2404.10518, figure 4), in its four forms.

    (start, kernel) sides of the two depthwise convolutions, 0 for none: (0, k) inverted bottleneck,
    (k, 0) ConvNeXt-like, (k, k) extra depthwise, (0, 0) feed-forward. `expand` is a ratio.

    (N, in_chans, H, W) -> (N, out, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(
        self,
        in_chans: int,
        out: int,
        start: int = 0,
        kernel: int = 3,
        stride: int = 1,
        expand: float = 4.0,
    ) -> None:
        wide = round(in_chans * expand)
        super().__init__(in_chans, out, kernel, stride, expand=wide, start=start, act="relu")


class MobileMQA(nn.Module):
    """Mobile multi-query attention (MobileNetV4, arXiv 2404.10518, section 3.2) + input.

    Each head has its own queries; keys and values are one head that all share, on a map that a
    strided depthwise convolution made smaller. softmax(Q K^T / sqrt(dim)) V, then 1x1.

    (N, in_chans, H, W) -> the same shape; `dim` is channels per head.
    """

    def __init__(
        self,
        in_chans: int,
        heads: int,
        dim: int,
        kv_stride: int = 1,
        *,
        dilation: int = 1,
        layer_scale: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.BatchNorm2d(in_chans)
        self.query = Conv2d(in_chans, heads * dim)
        self.key, self.value = (
            nn.Sequential(
                *([Depthwise(in_chans, 3, kv_stride, dilation, act="")] if kv_stride > 1 else []),
                Conv2d(in_chans, dim),
            )
            for _ in range(2)
        )
        self.project = Conv2d(heads * dim, in_chans)
        self.layer_scale = LayerScale(in_chans, layer_scale) if layer_scale else nn.Identity()
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(x)
        height, width = shape_of(x)[2:]
        query = self.query(y).flatten(2).unflatten(1, (self.heads, -1))
        key, value = (part(y).flatten(2).unsqueeze(1) for part in (self.key, self.value))
        # (N, heads, H W, dim) on (N, 1, h w, dim): one key and one value for all heads.
        y = F.scaled_dot_product_attention(
            *(t.transpose(2, 3).contiguous() for t in (query, key, value))
        )
        wide = self.project.in_channels
        y = self.project(y.transpose(2, 3).reshape(-1, wide, height, width))
        total: Tensor = x + self.drop_path(self.layer_scale(y))
        return total


class ConvNeXtBlock(nn.Module):
    """[downsample] -> (depthwise -> norm -> expand -> [GRN] -> project [x layer scale]) + input.

    ConvNeXt (arXiv 2201.03545, figure 4) has the layer scale, V2 (2301.00808, figure 5) the GRN.
    Linear layers on channels-last maps, as in the authors' code. The downsampling before a stage is
    layer norm and a 2x2 convolution.

    (N, in_chans, H, W) -> (N, out, H // stride, W // stride).
    """

    def __init__(
        self,
        in_chans: int,
        out: int,
        kernel: int = 7,
        stride: int = 1,
        expand: int = 0,
        *,
        act: str = "gelu",
        grn: bool = False,
        layer_scale: float = 0.0,
        downsample: bool = False,
        dilation: int = 1,
        first_dilation: int = 1,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        expand = expand or 4 * out
        self.downsample: nn.Module = nn.Identity()
        if downsample or stride > 1 or in_chans != out:
            conv = Conv2d(in_chans, out, 2, stride, first_dilation, bias=True)
            self.downsample = nn.Sequential(LayerNorm2d(in_chans), conv)
        # First of the branch's tensors, as it is in all published checkpoints.
        self.layer_scale = LayerScale(out, layer_scale) if layer_scale else nn.Identity()
        self.depthwise = Conv2d(out, out, kernel, 1, dilation, groups=out, bias=True)
        self.norm = nn.LayerNorm(out)
        self.expand = Linear(out, expand)
        self.act = ACTIVATION[act]()
        self.grn = GRN(expand) if grn else nn.Identity()
        self.project = Linear(expand, out)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = self.downsample(x)
        y: Tensor = self.norm(self.depthwise(x).permute(0, 2, 3, 1))  # (N, H, W, C)
        y = self.act(self.expand(y)).permute(0, 3, 1, 2)
        y = self.project(self.grn(y).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        total: Tensor = x + self.drop_path(self.layer_scale(y))
        return total


class ResidualBlock(nn.Module):
    """ResNet's block (arXiv 1512.03385, figure 5): plain, or a bottleneck of `hidden` channels.

    The bottleneck has the stride on its 3x3 convolution, as in torchvision's weights, not on the
    1x1 before it as in the paper. `project` puts a 1x1 convolution on the shortcut.

    (N, in_chans, H, W) -> (N, out, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(
        self,
        in_chans: int,
        out: int,
        stride: int = 1,
        hidden: int = 0,
        *,
        project: bool = False,
        dilation: int = 1,
        first_dilation: int = 1,
        first_rank: int = 0,
        rank: int = 0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        if hidden:
            self.body = nn.Sequential(
                ConvNorm(in_chans, hidden, 1, act="relu"),
                ConvNorm(hidden, hidden, 3, stride, first_dilation, rank=first_rank, act="relu"),
                ConvNorm(hidden, out, 1),
            )
        else:
            self.body = nn.Sequential(
                ConvNorm(in_chans, out, 3, stride, first_dilation, rank=first_rank, act="relu"),
                ConvNorm(out, out, 3, 1, dilation, rank=rank),
            )
        project = project or stride > 1 or in_chans != out
        self.shortcut = ConvNorm(in_chans, out, 1, stride) if project else nn.Identity()
        self.drop_path = DropPath(drop_path)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(self.shortcut(x) + self.drop_path(self.body(x)))
        return y
