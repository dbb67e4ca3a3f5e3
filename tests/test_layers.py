"""The small parts by hand: a few channels, exact numbers. `test_blocks` has the rest."""

from __future__ import annotations

import math
import warnings
from fractions import Fraction

import pytest
import torch
from by_hand import by_hand, fill, image, line, run
from torch import nn

from edgewise.layers import (
    ACTIVATION,
    GRN,
    Conv2d,
    ConvNorm,
    DropPath,
    LayerNorm2d,
    LayerScale,
    MaxPool,
    SqueezeExcite,
)


def test_hard_swish_at_the_papers_points() -> None:
    # x * relu6(x + 3) / 6: arXiv 1905.02244, section 5.2.
    x = torch.tensor([-4.0, -3.0, -1.5, 0.0, 1.0, 3.0, 6.0])
    expected = torch.tensor([0.0, 0.0, -0.375, 0.0, 2 / 3, 3.0, 6.0])
    assert torch.allclose(ACTIVATION["hard_swish"]()(x.clone()), expected, atol=1e-7)


def test_hard_sigmoid_by_hand() -> None:
    # relu6(x + 3) / 6
    answers = ACTIVATION["hard_sigmoid"]()(torch.tensor([-4.0, -1.5, 0.0, 1.5, 4.0]))
    assert answers.tolist() == [0, 1 / 4, 1 / 2, 3 / 4, 1]


def test_squeeze_excite_by_hand() -> None:
    # Means 1 and 3; reduced to 1*1 + 2*3 - 1 = 6 and 1*1 - 1*3 = -2, which ReLU makes 0; expanded
    # to 3/2 and -3; hard sigmoid 3/4 and 0.
    block = SqueezeExcite(2, 2, act="relu", gate="hard_sigmoid")
    fill(block.reduce.weight, 1, 2, 1, -1)
    fill(block.reduce.bias, -1, 0)
    fill(block.expand.weight, 1 / 4, 8, -1 / 2, 8)
    assert run(block, image([0, 2], [2, 4])) == [[0, 3 / 2], [0, 0]]


def test_squeeze_excite_has_a_sigmoid_gate_by_default() -> None:
    # sigmoid(ln 3) = 3 / (1 + 3)
    block = SqueezeExcite(1, 1)
    fill(block.reduce.weight, math.log(3))
    fill(block.expand.weight, 1)
    answer = run(block, image([Fraction(1, 2), Fraction(3, 2)]))[0]
    assert answer == pytest.approx([3 / 8, 9 / 8], rel=1e-6)


def test_grn_by_hand() -> None:
    # Norms 5 and 15, mean 10: 1/2 and 3/2. x + 1 + 2 x / 2 = 2 x + 1; x - 1 + 4 x 3/2 = 7 x - 1.
    block, x = GRN(2), image([3, 4], [0, 15])
    assert run(block, x) == [[3, 4], [0, 15]]  # the identity at first
    fill(block.weight, 2, 4)
    fill(block.bias, 1, -1)
    first, second = run(block, x)
    assert first == pytest.approx([7, 9], rel=1e-6)
    assert second == pytest.approx([-1, 104], rel=1e-6)


def test_grn_has_a_gradient_where_a_map_is_all_zero() -> None:
    x = torch.zeros(1, 2, 3, 3, requires_grad=True)
    block = GRN(2)
    nn.init.ones_(block.weight)
    block(x).sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))


def test_conv_norm_is_convolution_norm_activation_and_input() -> None:
    # Twice the pixel: 2, -4; norm 3 x + 1: 7, -11; ReLU 7, 0; plus the input.
    block = by_hand(ConvNorm(1, 1, 1, act="relu", skip=True))
    fill(block.conv.weight, 2)
    fill(block.norm.weight, 3)
    fill(block.norm.bias, 1)
    assert run(block, image([1, -2])) == [[8, -2]]


def test_only_batch_norm_takes_the_place_of_a_bias() -> None:
    biases = {norm: ConvNorm(2, 2, norm=norm).conv.bias for norm in ("batch", "layer", "none")}
    assert biases["batch"] is None
    assert biases["layer"] is not None and biases["none"] is not None


def test_a_separated_convolution_by_hand() -> None:
    block = by_hand(ConvNorm(2, 1, 3, rank=2))
    # The first copy's sums of three and pixels; the second's left and right neighbours.
    kernels = (1, 1, 1), (0, 1, 0), (1, 0, 0), (0, 0, 1)
    fill(block.conv.depthwise.weight, *line(*kernels))
    fill(block.conv.pointwise.weight, 1, 10, -2, 100)
    fill(block.conv.pointwise.bias, 1)
    # 3 6 5, 0 1 0, 0 1 2, 1 0 0; weighed, and one more.
    assert run(block, image([1, 2, 3], [0, 1, 0])) == [[104, 15, 2]]


def test_layer_norm_is_over_the_channels_of_a_pixel() -> None:
    # Of two channels, the larger becomes 1 and the smaller -1, whatever their values.
    norm = by_hand(LayerNorm2d(2))
    assert run(norm, image([3, 1, 100], [1, 5, 99])) == [[1, -1, 1], [-1, 1, -1]]


def test_layer_scale_has_a_factor_for_each_channel() -> None:
    scale = LayerScale(2, 0.5)
    assert run(scale, image([2, 4], [6, 8])) == [[1, 2], [3, 4]]
    fill(scale.weight, 3, -1)
    assert run(scale, image([2, 4], [6, 8])) == [[6, 12], [-6, -8]]


def test_same_padding_puts_the_odd_line_below_and_right() -> None:
    # TensorFlow's SAME, 3x3 at stride 2 on a side of 4: windows at 0-2 and 2-4, line 4 is zeros.
    conv = Conv2d(1, 1, 3, stride=2)
    nn.init.ones_(conv.weight)
    x = torch.arange(16.0).view(1, 1, 4, 4)
    conv.same = True
    assert conv(x).flatten().tolist() == [45, 39, 66, 50]
    conv.same = False
    assert conv(x).flatten().tolist() == [10, 24, 51, 90]


def test_same_padding_is_symmetric_where_the_total_is_even() -> None:
    # 3x3 at stride 2 on a side of 5: windows at -1 to 1, 1 to 3, 3 to 5, with either padding.
    conv = Conv2d(1, 1, 3, stride=2)
    fill(conv.weight, *line((1, 1, 1)))
    x = torch.tensor([1.0, 2, 3, 4, 5]).view(1, 1, 1, 5).expand(1, 1, 5, 5)
    for conv.same in (False, True):
        assert conv(x)[0, 0].tolist() == [[3, 9, 9]] * 3


@pytest.mark.parametrize("side", range(1, 12))
@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
def test_both_paddings_give_the_same_shape(side: int, kernel: int) -> None:
    conv = Conv2d(1, 1, kernel, stride=2)
    shapes = set()
    for same in (False, True):
        conv.same = same
        shapes.add(conv(torch.zeros(1, 1, side, side)).shape)
    assert shapes == {(1, 1, -(-side // 2), -(-side // 2))}


def test_a_dilated_convolution_sees_every_second_pixel() -> None:
    # 1 + 3, 2 + 4, 1 + 3 + 5, 2 + 4, 3 + 5
    conv = Conv2d(1, 1, 3, dilation=2)
    fill(conv.weight, *line((1, 1, 1)))
    assert run(conv, image([1, 2, 3, 4, 5])) == [[4, 6, 9, 6, 8]]


def test_an_even_kernel_cuts_patches() -> None:
    # 0 to 24 in five lines of five; the fifth line and column are in no whole patch.
    conv = Conv2d(1, 1, 2, stride=2)
    nn.init.ones_(conv.weight)
    x = torch.arange(25.0).view(1, 1, 5, 5)
    patches = [0 + 1 + 5 + 6, 2 + 3 + 7 + 8, 10 + 11 + 15 + 16, 12 + 13 + 17 + 18]
    assert conv(x).flatten().tolist() == patches
    dense = Conv2d(1, 1, 2)
    dense.weight = conv.weight
    assert dense(x).shape == x.shape
    assert dense(x)[..., :4:2, :4:2].flatten().tolist() == patches
    assert dense(x)[0, 0, 4].tolist() == [20 + 21, 21 + 22, 22 + 23, 23 + 24, 24]


def test_a_dilated_even_kernel_keeps_the_sides() -> None:
    # Pixel i and pixel i + 2.
    conv = Conv2d(1, 1, 2, dilation=2)
    fill(conv.weight, 1, 1, 0, 0)
    assert run(conv, image([1, 2, 3, 4, 5])) == [[4, 6, 8, 4, 5]]


def test_max_pool_by_hand() -> None:
    # All are negative: padding with zeros would be the largest.
    x = -torch.tensor([[9.0, 8, 7], [6, 5, 4], [3, 2, 1]]).view(1, 1, 3, 3)
    assert run(MaxPool(2, 2), x) == [[-5]]  # whole windows only
    assert run(MaxPool(2, 1), x) == [[-5, -4, -4, -2, -1, -1, -2, -1, -1]]
    assert run(MaxPool(3, 2), x) == [[-5, -4, -2, -1]]
    assert run(MaxPool(3, 1), x) == [[-5, -4, -4, -2, -1, -1, -2, -1, -1]]


def test_a_dilated_max_pool_sees_every_second_pixel() -> None:
    x = image([-1, -5, -3, -2, -4])
    assert run(MaxPool(3, 1, dilation=2), x) == [[-1, -2, -1, -2, -3]]
    assert run(MaxPool(2, 1, dilation=2), x) == [[-1, -2, -3, -2, -4]]


def test_drop_path_drops_samples_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    dropped = DropPath(0.25).train()(torch.ones(20_000, 2, 1, 1))
    kept = dropped[dropped.sum((1, 2, 3)) > 0]
    assert torch.equal(kept, torch.full_like(kept, 4 / 3))
    assert abs(len(kept) / 20_000 - 0.75) < 0.02  # six standard deviations
    assert torch.equal(DropPath(0.25).eval()(kept), kept)


@pytest.mark.parametrize("shape", [(6, 5), (6, 4, 3), (6, 2, 3, 4)])
def test_drop_path_takes_any_number_of_axes(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    dropped = DropPath(0.5).train()(torch.ones(shape))
    assert dropped.shape == shape
    assert {tuple(sample.unique().tolist()) for sample in dropped} == {(0.0,), (2.0,)}


def test_a_trace_holds_the_same_paddings_numbers_and_not_their_arithmetic() -> None:
    """pnnx works out what is in a trace, and rounds -15 // 2 up: 1 line less on each side."""
    conv = Conv2d(1, 1, 5, 2)
    conv.same = True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the numbers that become constants
        trace = torch.jit.trace(conv, torch.zeros(1, 1, 15, 15), check_trace=False)
    kinds = {node.kind() for node in trace.graph.nodes()}
    assert not kinds & {"aten::floor_divide", "aten::neg", "aten::size"}
    assert trace(torch.zeros(1, 1, 15, 15)).shape == (1, 1, 8, 8)
