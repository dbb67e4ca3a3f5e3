"""Every public block in somebody else's `nn.Sequential`."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from edgewise import blocks, layers

ROOMS = {layers.__name__, blocks.__name__}
b = SimpleNamespace(
    **vars(layers), **{k: v for k, v in vars(blocks).items() if k not in vars(layers)}
)

# Each takes 8 channels; with the channels that it gives, and what its stride makes of a side.
HALF_UP, HALF_DOWN, SAME = (lambda n: -(-n // 2)), (lambda n: n // 2), (lambda n: n)
BLOCKS = {
    "standard": (lambda: b.Conv2d(8, 12, 3, stride=2), 12, HALF_UP),
    "standard, dilated": (lambda: b.Conv2d(8, 12, 5, dilation=2), 12, SAME),
    "patches": (lambda: b.Conv2d(8, 12, 2, stride=2), 12, HALF_DOWN),
    "even kernel": (lambda: b.Conv2d(8, 12, 4), 12, SAME),
    "conv norm": (lambda: b.ConvNorm(8, 8, norm="layer", act="gelu", skip=True), 8, SAME),
    "conv norm, separated": (lambda: b.ConvNorm(8, 12, 3, 2, rank=2, act="relu"), 12, HALF_UP),
    "separated": (
        lambda: b.Separated(b.Conv2d(24, 24, 3, groups=24), b.Conv2d(24, 12, bias=True), rank=3),
        12,
        SAME,
    ),
    "depthwise": (lambda: b.Depthwise(8, 5, stride=2), 8, HALF_UP),
    "pointwise": (lambda: b.Pointwise(8, 12), 12, SAME),
    "separable": (lambda: b.DepthwiseSeparable(8, 12, stride=2), 12, HALF_UP),
    "separable, dilated": (lambda: b.DepthwiseSeparable(8, 12, dilation=3), 12, SAME),
    "inverted residual": (lambda: b.InvertedResidual(8, 8, expand=24, squeeze=4), 8, SAME),
    "inverted residual, strided": (
        lambda: b.InvertedResidual(8, 12, 5, 2, 24, squeeze=2, gate="hard_sigmoid"),
        12,
        HALF_UP,
    ),
    "fused mbconv": (lambda: b.FusedMBConv(8, 12, stride=2), 12, HALF_UP),
    "inverted bottleneck": (lambda: b.UIB(8, 12, 0, 3, stride=2), 12, HALF_UP),
    "convnext-like": (lambda: b.UIB(8, 12, 3, 0, stride=2), 12, HALF_UP),
    "extra depthwise": (lambda: b.UIB(8, 12, 3, 5, stride=2), 12, HALF_UP),
    "feed-forward": (lambda: b.UIB(8, 8, 0, 0), 8, SAME),
    "squeeze-excite": (lambda: b.SqueezeExcite(8, 2), 8, SAME),
    "attention": (lambda: b.MobileMQA(8, heads=2, dim=4), 8, SAME),
    "attention, strided": (lambda: b.MobileMQA(8, 2, 4, kv_stride=2, layer_scale=0.1), 8, SAME),
    "convnext": (lambda: b.ConvNeXtBlock(8, 8, layer_scale=0.1, drop_path=0.5), 8, SAME),
    "convnext v2": (lambda: b.ConvNeXtBlock(8, 8, grn=True), 8, SAME),
    "convnext, strided": (lambda: b.ConvNeXtBlock(8, 12, stride=2, downsample=True), 12, HALF_DOWN),
    "residual": (lambda: b.ResidualBlock(8, 12, 2, project=True), 12, HALF_UP),
    "residual bottleneck": (lambda: b.ResidualBlock(8, 8, hidden=4), 8, SAME),
    "layer norm": (lambda: b.LayerNorm2d(8), 8, SAME),
    "layer scale": (lambda: b.LayerScale(8, 0.1), 8, SAME),
    "grn": (lambda: b.GRN(8), 8, SAME),
    "drop path": (lambda: b.DropPath(0.5), 8, SAME),
    "max pool": (lambda: b.MaxPool(), 8, HALF_DOWN),
    "max pool, overlapping": (lambda: b.MaxPool(3, 2), 8, HALF_UP),
}


def sequential(name: str) -> nn.Sequential:
    """The block between two layers that are not ours."""
    make, channels, _ = BLOCKS[name]
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 8, 1), make(), nn.Conv2d(channels, 5, 1))
    for module in layers.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        if isinstance(module, b.GRN):
            nn.init.normal_(module.weight)
    return layers.eval()


def images(height: int = 9, width: int = 6) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(3, 3, height, width)


def test_every_public_block_is_here() -> None:
    ours = {
        name
        for name, value in vars(b).items()
        if isinstance(value, type) and value.__module__ in ROOMS and not name.startswith("_")
    }
    used = {type(make()).__name__ for make, _, _ in BLOCKS.values()}
    assert used | {"Linear"} == ours  # a layer of vectors: the heads' classifier


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize(("height", "width"), [(8, 8), (9, 6), (7, 13), (2, 3)])
def test_shapes_are_those_of_the_docstring(name: str, height: int, width: int) -> None:
    _, _, side = BLOCKS[name]
    with torch.inference_mode():
        assert sequential(name)(images(height, width)).shape == (3, 5, side(height), side(width))


@pytest.mark.parametrize("name", BLOCKS)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    torch.manual_seed(0)
    layers = sequential(name).train()
    layers(images()).square().sum().backward()
    assert [n for n, p in layers.named_parameters() if p.grad is None] == []
    assert all(p.grad.isfinite().all() for p in layers.parameters())


@pytest.mark.parametrize("name", BLOCKS)
@torch.inference_mode()
def test_channels_last_gives_the_same(name: str) -> None:
    layers, x = sequential(name), images()
    expected = layers(x)
    answer = layers.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    assert torch.allclose(answer, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", BLOCKS)
@torch.inference_mode()
def test_bfloat16_autocast_gives_nearly_the_same(name: str) -> None:
    layers, x = sequential(name), images()
    expected = layers(x)
    with torch.autocast("cpu", torch.bfloat16):
        answer = layers(x)
    assert answer.dtype == torch.bfloat16
    # bfloat16 has 8 bits: 1/256 an operation, and a few of them on top of each other.
    assert (answer - expected).abs().max() < 0.03 * expected.abs().max()


@pytest.mark.parametrize("name", BLOCKS)
def test_export_keeps_batch_and_sides_free(name: str) -> None:
    layers = sequential(name)
    axes = {
        0: torch.export.Dim("n"),
        2: torch.export.Dim("h", min=4),
        3: torch.export.Dim("w", min=4),
    }
    program = torch.export.export(layers, (images(),), dynamic_shapes=(axes,), strict=False)
    x = images(7, 10)[:2]
    with torch.inference_mode():
        assert torch.allclose(program.module()(x), layers(x), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_all_blocks_compile_into_one_graph() -> None:
    network = nn.ModuleList(sequential(name) for name in BLOCKS if name != "drop path")
    for module in network.modules():
        if isinstance(module, b.DropPath):
            module.probability = 0.0

    def forward(x: torch.Tensor) -> list[torch.Tensor]:
        return [layers(x) for layers in network]

    x = images()
    compiled = torch.compile(forward, backend="aot_eager", fullgraph=True)
    for ours, theirs in zip(compiled(x), forward(x), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5)
