"""The blocks of the papers by hand: a few channels, exact numbers."""

from __future__ import annotations

import math

import pytest
import torch
from by_hand import by_hand, fill, image, line, run
from torch import nn

from edgewise.blocks import (
    UIB,
    ConvNeXtBlock,
    DepthwiseSeparable,
    FusedMBConv,
    InvertedResidual,
    MobileMQA,
    ResidualBlock,
)
from edgewise.errors import UsageError


@pytest.mark.parametrize(
    ("stride", "dilation", "expected"),
    [
        # Depthwise: 3 6 9 12 9, and left minus right 0 2 0 -2 0, which ReLU makes 0 2 0 0 0.
        (1, 1, [3, 2, 9, 12, 9]),  # the first minus twice the second
        (2, 1, [3, 9, 9]),
        # Two pixels to each side: 4 6 9 6 8, and 1 0 0 0 -1.
        (1, 2, [2, 6, 9, 6, 8]),
        (2, 2, [2, 9, 8]),
    ],
)
def test_depthwise_separable_by_hand(stride: int, dilation: int, expected: list[int]) -> None:
    block = by_hand(DepthwiseSeparable(2, 1, 3, stride, dilation, act="relu"))
    fill(block[0].conv.weight, *line((1, 1, 1), (1, 0, -1)))
    fill(block[1].conv.weight, 1, -2)
    assert run(block, image([1, 2, 3, 4, 5], [1, 0, -1, 0, 1])) == [expected]


def test_depthwise_separable_clips_at_six_twice() -> None:
    # Both by default, as in MobileNetV1's code: 9 is cut to 6, half of it is 3; -1 and 0 are 0.
    block = by_hand(DepthwiseSeparable(1, 3))
    fill(block[0].conv.weight, *line((0, 1, 0)))
    fill(block[1].conv.weight, 1 / 2, 2, -1)
    assert run(block, image([9, -1])) == [[3, 0], [6, 0], [0, 0]]


def test_a_separable_convolution_costs_what_the_paper_says() -> None:
    # 3 -> 64 channels, 3x3: 9 * 3 + 3 * 64 weights, and two scales and shifts.
    weights = 27 + 2 * 3 + 192 + 2 * 64
    for block in (DepthwiseSeparable(3, 64), InvertedResidual(3, 64, linear=False, skip=False)):
        assert sum(p.numel() for p in block.parameters()) == weights


def test_inverted_residual_clips_at_six_and_ends_linear() -> None:
    # Expanded to 7 -14 and -1 2; clipped 6 0 and 0 2; depthwise 2 x: clipped 6 0 and 0 4;
    # projected -(a + b) = -6 -4, negative and still there; plus the input.
    block = by_hand(InvertedResidual(1, 1, expand=2))
    fill(block.expand.conv.weight, 7, -1)
    fill(block.depthwise.conv.weight, *line((0, 2, 0), (0, 2, 0)))
    fill(block.project.conv.weight, -1, -1)
    assert run(block, image([1, -2])) == [[-5, -6]]


def test_inverted_residual_squeezes_before_it_projects() -> None:
    # Depthwise 2 4, whose mean is 3; half of it, 3/2; hard sigmoid 3/4: 3/2 3; projected by -1.
    block = by_hand(InvertedResidual(1, 1, squeeze=1, gate="hard_sigmoid", act="relu"))
    fill(block.depthwise.conv.weight, *line((0, 1, 0)))
    fill(block.squeeze.reduce.weight, 1)
    fill(block.squeeze.expand.weight, 1 / 2)
    fill(block.project.conv.weight, -1)
    assert run(block, image([2, 4])) == [[2 - 3 / 2, 4 - 3]]


def test_inverted_residual_scales_its_branch_only() -> None:
    block = by_hand(InvertedResidual(1, 1, kernel=0, layer_scale=0.5))
    fill(block.project.conv.weight, 3)
    assert run(block, image([2, -4])) == [[2 + 3, -4 - 6]]


@pytest.mark.parametrize(("stride", "out"), [(2, 1), (1, 2)])
def test_inverted_residual_has_no_skip_where_shapes_change(stride: int, out: int) -> None:
    block = by_hand(InvertedResidual(1, out, stride=stride, act="relu"))
    fill(block.depthwise.conv.weight, *line((0, 1, 0)))
    fill(block.project.conv.weight, *[-1] * out)
    assert run(block, image([1, 2, 3])) == [[-1, -2, -3][::stride]] * out


def test_fused_mbconv_by_hand() -> None:
    # With L = ln 3: SiLU(L) = 3/4 L and SiLU(-L) = -L / 4. Expanded by a 3x3 convolution to the
    # pixel, L 0, and minus its left neighbour, 0 -L; both added, and the input.
    x = math.log(3)
    block = by_hand(FusedMBConv(1, 1, expand=2))
    fill(block.expand.conv.weight, *line((0, 1, 0), (-1, 0, 0)))
    fill(block.project.conv.weight, 1, 1)
    assert run(block, image([x, 0]))[0] == pytest.approx([x + 3 / 4 * x, -x / 4], rel=1e-6)


def test_fused_mbconv_has_its_stride_on_the_expansion() -> None:
    block = by_hand(FusedMBConv(1, 1, stride=2, expand=2))
    fill(block.expand.conv.weight, *line((0, 0, 100), (0, 0, -100)))  # SiLU: 100 x and 0
    fill(block.project.conv.weight, -1, 1)
    assert run(block, image([1, 2, 3])) == [[-200, 0]]


@pytest.mark.parametrize(
    ("start", "kernel", "stride", "expected"),
    [
        # On 1 -2 3. Start: sums of three, -1 2 1, and no activation. Expanded by 1 and -1, ReLU:
        # 0 2 1 and 1 0 0. Middle: sums 2 3 3, and left minus self -1 1 0, ReLU 0 1 0.
        # Projected by -1 and -2: -2 -5 -3. Plus the input.
        (3, 3, 1, [-1, -7, 0]),  # extra depthwise
        (0, 3, 1, [0, -6, -4]),  # inverted bottleneck: 1 0 3, 0 2 0; 1 4 3, 0 0 2; -1 -4 -7
        (3, 0, 1, [-1, -4, 2]),  # ConvNeXt-like: 0 2 1, 1 0 0; -2 -2 -1
        (0, 0, 1, [0, -6, 0]),  # feed-forward: 1 0 3, 0 2 0; -1 -4 -3
        # The stride keeps the first and third of the middle's outputs, else of the start's.
        (3, 3, 2, [-2, -3]),
        (0, 3, 2, [-1, -7]),
        (3, 0, 2, [-2, -1]),
    ],
)
def test_uib_in_its_four_forms(start: int, kernel: int, stride: int, expected: list[int]) -> None:
    block = by_hand(UIB(1, 1, start, kernel, stride, expand=2))
    if start:
        fill(block.start.conv.weight, *line((1, 1, 1)))
    fill(block.expand.conv.weight, 1, -1)
    if kernel:
        fill(block.depthwise.conv.weight, *line((1, 1, 1), (1, -1, 0)))
    fill(block.project.conv.weight, -1, -2)
    assert run(block, image([1, -2, 3])) == [expected]


def test_a_stride_with_nothing_to_carry_it_is_refused() -> None:
    """A 1x1 convolution with a stride would not look at three of four pixels."""
    with pytest.raises(UsageError, match="a stride needs"):
        UIB(1, 1, start=0, kernel=0, stride=2)


def attention(kv_stride: int, layer_scale: float = 0.0) -> nn.Module:
    """Two heads of 4 channels. Keys and values are channels 0 and 1, a head's query channel 2.

    The first head asks with 2 in one of its four channels, so its scores are 2 k / sqrt(4) = k; the
    second asks with 0. The two heads are put into channels 0 and 1, their difference into 2.
    """
    block = by_hand(MobileMQA(3, heads=2, dim=4, kv_stride=kv_stride, layer_scale=layer_scale))
    nothing = (0, 0, 0) * 3
    fill(block.query.weight, 0, 0, 2, *nothing, 0, 0, 0, *nothing)
    fill(block.key[-1].weight, 1, 0, 0, *nothing)
    fill(block.value[-1].weight, 0, 1, 0, *nothing)
    first, second = (1, 0, 0, 0, 0, 0, 0, 0), (0, 0, 0, 0, 1, 0, 0, 0)
    fill(
        block.project.weight, *first, *second, *(a - b for a, b in zip(first, second, strict=True))
    )
    return block


def test_mobile_mqa_by_hand() -> None:
    # Keys 0 and ln 2: the first head weighs 1 : 2, the second 1 : 1. Values 6 and 12: 10 and 9.
    k = math.log(2)
    x = image([0, k], [6, 12], [1, 1])
    expected = [[0 + 10, k + 10], [6 + 9, 12 + 9], [1 + 1, 1 + 1]]
    for answer, numbers in zip(run(attention(1), x), expected, strict=True):
        assert answer == pytest.approx(numbers, rel=1e-6)
    expected = [[0 + 5, k + 5], [6 + 4.5, 12 + 4.5], [1.5, 1.5]]
    for answer, numbers in zip(run(attention(1, layer_scale=0.5), x), expected, strict=True):
        assert answer == pytest.approx(numbers, rel=1e-6)


def test_mobile_mqa_norms_what_it_attends_to_but_not_its_input() -> None:
    # The norm shifts the values to 106 and 112.
    block = attention(1)
    fill(block.norm.bias, 0, 100, 0)
    _, second, difference = run(block, image([0, math.log(2)], [6, 12], [1, 1]))
    assert second == pytest.approx([6 + 109, 12 + 109], rel=1e-6)
    assert difference == pytest.approx([1 + 1, 1 + 1], rel=1e-4)  # 110 - 109


def test_mobile_mqa_strides_its_keys_and_values_but_not_its_queries() -> None:
    # Keys and values are of pixels 0 and 2 alone, values are doubled: 12 and 24, so 20 and 18. The
    # last two pixels ask with 0, and get 18 from the first head too.
    k = math.log(2)
    block = attention(2)
    fill(block.key[0].conv.weight, *line(*[(0, 1, 0)] * 3))
    fill(block.value[0].conv.weight, *line(*[(0, 2, 0)] * 3))
    x = image([0, 50, k, 50], [6, 99, 12, 99], [1, 1, 0, 0])
    first, second, difference = run(block, x)
    assert first == pytest.approx([20, 70, k + 18, 68], rel=1e-6)
    assert second == pytest.approx([24, 117, 30, 117], rel=1e-6)
    assert difference == pytest.approx([3, 3, 0, 0], abs=1e-5)


def convnext_block(**options: bool | float) -> nn.Module:
    """On 3 1 and 1 5. Depthwise: 3 1; left neighbour + 2: 2 3. Layer norm: 1 -1 and -1 1.

    Expanded to 100 a and 50 b + 10, beyond where GELU differs from ReLU: 100 0 and 0 60. Projected
    to a + 2 b + 5 and b - 5: 105 125 and -5 55.
    """
    block = by_hand(ConvNeXtBlock(2, 2, expand=2, **options))
    fill(block.depthwise.weight, *line((0, 0, 0, 1, 0, 0, 0), (0, 0, 1, 0, 0, 0, 0)))
    fill(block.depthwise.bias, 0, 2)
    fill(block.expand.weight, 100, 0, 0, 50)
    fill(block.expand.bias, 0, 10)
    fill(block.project.weight, 1, 2, 0, 1)
    fill(block.project.bias, 5, -5)
    return block


def test_convnext_block_by_hand() -> None:
    x = image([3, 1], [1, 5])
    assert run(convnext_block(), x) == [[3 + 105, 1 + 125], [1 - 5, 5 + 55]]
    scaled = [[3 + 52.5, 1 + 62.5], [1 - 2.5, 5 + 27.5]]
    assert run(convnext_block(layer_scale=0.5), x) == scaled


def test_convnext_v2_block_by_hand() -> None:
    # GRN before the projection: norms 100 and 60, mean 80, so 5/4 and 3/4; x + 4 x N is 600 and
    # 240. Projected: 605 485 and -5 235.
    block = convnext_block(grn=True)
    fill(block.grn.weight, 4, 4)
    first, second = run(block, image([3, 1], [1, 5]))
    assert first == pytest.approx([3 + 605, 1 + 485], rel=1e-6)
    assert second == pytest.approx([1 - 5, 5 + 235], rel=1e-6)


def test_convnext_downsamples_after_its_norm() -> None:
    # Layer norm makes 1 -1 of each pixel, channel 0 is larger in two of the first four; a patch's
    # sum of channel 0 is 1 + 1 - 1 - 1 + bias 7, and of the second 4 + 7. The fifth column is cut.
    block = by_hand(ConvNeXtBlock(2, 1, stride=2, downsample=True))
    block.norm.eps = 1.0  # over one channel: 0 / 0 without it
    fill(block.downsample[1].weight, 1, 1, 1, 1, 0, 0, 0, 0)
    fill(block.downsample[1].bias, 7)
    nn.init.zeros_(block.project.weight)
    one = torch.tensor([[5.0, 1, 6, 6, 0], [1.0, 5, 6, 6, 0]])
    x = torch.stack([one, torch.full((2, 5), 3.0)])[None]
    assert run(block, x) == [[7, 11]]


@pytest.mark.parametrize(
    ("hidden", "stride", "expected"),
    [
        # On 1 -2 3. Sums of three -1 2 1, ReLU 0 2 1; minus that; plus the input; ReLU.
        (0, 1, [1, 0, 2]),
        (0, 2, [2, 5]),  # 0 1; 0 -1; plus 2 x of the first and third pixel
        # 1 0 3 and 0 2 0; sums 1 4 3 and left neighbour 0 0 2; a - 2 b is 1 4 -1; plus the input.
        (2, 1, [2, 2, 2]),
        (2, 2, [3, 5]),  # 1 -1 plus 2 6: the 3x3 convolution has the stride, not the 1x1
    ],
)
def test_residual_block_by_hand(hidden: int, stride: int, expected: list[int]) -> None:
    block = by_hand(ResidualBlock(1, 1, stride, hidden, project=stride > 1))
    if hidden:
        sums, none, left = (1, 1, 1), (0, 0, 0), (1, 0, 0)
        kernels = [(1, -1), line(sums, none, none, left), (1, -2)]
    else:
        kernels = [line((1, 1, 1)), line((0, -1, 0))]
    for layer, kernel in zip(block.body, kernels, strict=True):
        fill(layer.conv.weight, *kernel)
    if stride > 1:
        fill(block.shortcut.conv.weight, 2)
    assert run(block, image([1, -2, 3])) == [expected]


def test_residual_block_dilates_its_two_convolutions() -> None:
    # Plain: the first sums the pixel and its neighbours, the second those two pixels away.
    block = by_hand(ResidualBlock(1, 1, first_dilation=1, dilation=2))
    for layer in block.body:
        fill(layer.conv.weight, *line((1, 0, 1)))
    # 1 0 0 0 0 -> 0 1 0 0 0 -> 0 0 0 1 0, plus the input.
    assert run(block, image([1, 0, 0, 0, 0])) == [[1, 0, 0, 1, 0]]
