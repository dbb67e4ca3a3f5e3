"""From a `Spec` to a module: stem, stages, head."""

from __future__ import annotations

from torch import Tensor, nn

from edgewise import blocks
from edgewise import spec as rows
from edgewise.layers import ACTIVATION, Conv2d, ConvNorm, Linear, MaxPool
from edgewise.spec import Block, Spec

MODULES: dict[type[Block], type[nn.Module]] = {
    rows.Conv: ConvNorm,
    rows.Pool: MaxPool,
    rows.MBConv: blocks.InvertedResidual,
    rows.Attention: blocks.MobileMQA,
    rows.ConvNeXt: blocks.ConvNeXtBlock,
    rows.Residual: blocks.ResidualBlock,
}


class Head(nn.Module):
    """[conv 1x1] -> average pool -> [layer norm] -> [hidden layers] -> dropout -> classifier.

    The hidden layer comes after the pooling, on one vector instead of every pixel: that is
    MobileNetV3's efficient last stage (arXiv 1905.02244, figure 5).
    """

    def __init__(self, in_chans: int, spec: Spec) -> None:
        super().__init__()
        head, width = spec.head, in_chans
        self.grid = head.grid
        self.conv: nn.Module = nn.Identity()
        self.norm: nn.Module = nn.Identity()
        if head.conv:
            self.conv, width = ConvNorm(width, head.conv, 1, act=head.act), head.conv
        width *= head.grid**2
        if head.layer_norm:
            self.norm = nn.LayerNorm(width)
        self.hidden = nn.Sequential()
        for hidden in head.hidden:
            if head.hidden_norm:
                conv = ConvNorm(width, hidden, 1, act=head.act)
                self.hidden.extend([nn.Unflatten(1, (width, 1, 1)), conv, nn.Flatten()])
            else:
                self.hidden.extend([Linear(width, hidden), ACTIVATION[head.act]()])
            self.hidden.append(nn.Dropout(head.dropout))
            width = hidden
        self.dropout = nn.Dropout(0.0 if head.hidden else head.dropout)
        self.classifier = Linear(width, spec.classes) if spec.classes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> logits (N, classes), or pooled features (N, width) with 0 classes."""
        x = self.conv(x)
        # nn.AdaptiveAvgPool2d gives the same numbers, but seven more operators in an ONNX graph.
        if self.grid == 1:
            pooled = x.mean((2, 3))
        else:
            pooled = nn.functional.adaptive_avg_pool2d(x, self.grid).flatten(1)
        logits: Tensor = self.classifier(self.dropout(self.hidden(self.norm(pooled))))
        return logits


class Network(nn.Module):
    """An image classifier built from a `Spec`, which it carries as `spec`."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.spec = spec
        self.stem = _module(spec.in_chans, spec.stem, 0.0)
        channels, before, total = spec.stem.out, 0, sum(len(stage) for stage in spec.stages)
        self.stages = nn.ModuleList()
        for stage in spec.stages:
            modules = nn.Sequential()
            for block in stage:
                # Block i of n drops with i/n of the full rate (EfficientNet's code).
                modules.append(_module(channels, block, spec.drop_path * before / total))
                channels, before = block.out, before + 1
            self.stages.append(modules)
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


def _module(in_chans: int, block: Block, drop_path: float) -> nn.Module:
    """The module of a row: its keyword arguments are the row's fields."""
    unused = {rows.Pool: ("out",), rows.Attention: ("out", "stride")}.get(type(block), ())
    numbers = {name: n for name, n in vars(block).items() if name not in ("kind", *unused)}
    if isinstance(block, rows.Pool):
        return MaxPool(**numbers)
    return MODULES[type(block)](in_chans, **numbers, drop_path=drop_path)


def build(spec: Spec) -> Network:
    """Builds the network of a spec with fresh weights, in training mode.

    Initialised as in the papers' code: see `reset_parameters` of `Conv2d` and `Linear`; a network
    with ConvNeXt's blocks with a standard deviation of 0.02.
    """
    network = Network(spec)
    convnext = any(isinstance(block, rows.ConvNeXt) for stage in spec.stages for block in stage)
    for module in network.modules():
        # Padding and epsilon are of the weights, not of the shapes: set in one place.
        if isinstance(module, Conv2d):
            module.same = spec.padding == "same"
        elif isinstance(module, nn.BatchNorm2d):
            module.eps, module.momentum = spec.norm_eps, spec.norm_momentum
        elif isinstance(module, nn.LayerNorm):
            module.eps = spec.norm_eps
        if convnext and isinstance(module, (Conv2d, Linear)) and not module.weight.is_meta:
            nn.init.trunc_normal_(module.weight, std=0.02)
    return network
