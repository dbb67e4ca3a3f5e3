"""The cost of single operators of PyTorch, worked by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import edgewise
from edgewise.errors import UsageError
from edgewise.measure.profile_result import Layer, Profile


class Calls(nn.Module):
    """A module that is one function of an image (1, 4, 8, 8)."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def of_function(function: Callable[[Tensor], Tensor]) -> Profile:
    return edgewise.profile(Calls(function), 8, in_chans=4)


def only(profile: Profile, kind: str) -> Layer:
    (layer,) = [layer for layer in profile.layers if layer.kind == kind]
    return layer


@pytest.mark.parametrize(
    ("module", "kind", "macs", "params", "output"),
    [
        # Each output is a sum over in / groups channels of k x k pixels.
        (nn.Conv2d(4, 6, 3, padding=1), "standard", 64 * 6 * 4 * 9, 6 * 4 * 9 + 6, (1, 6, 8, 8)),
        (nn.Conv2d(4, 6, 3, 2, 1), "standard", 16 * 6 * 4 * 9, 6 * 4 * 9 + 6, (1, 6, 4, 4)),
        (nn.Conv2d(4, 6, 3, dilation=2), "standard", 16 * 6 * 36, 6 * 36 + 6, (1, 6, 4, 4)),
        (nn.Conv2d(4, 6, (1, 3), bias=False), "standard", 48 * 6 * 12, 6 * 12, (1, 6, 8, 6)),
        (nn.Conv2d(4, 6, 1, bias=False), "pointwise", 64 * 6 * 4, 24, (1, 6, 8, 8)),
        (nn.Conv2d(4, 6, 3, groups=2), "grouped", 36 * 6 * 2 * 9, 6 * 18 + 6, (1, 6, 6, 6)),
        (nn.Conv2d(4, 4, 3, groups=4), "depthwise", 36 * 4 * 9, 36 + 4, (1, 4, 6, 6)),
        (nn.Conv2d(4, 8, 3, groups=4), "depthwise", 36 * 8 * 9, 72 + 8, (1, 8, 6, 6)),
        (nn.Conv2d(4, 6, 3, padding="same"), "standard", 64 * 216, 222, (1, 6, 8, 8)),
        # Transposed, each input is spread by out / groups kernels.
        (nn.ConvTranspose2d(4, 6, 2, 2), "transposed", 64 * 4 * 6 * 4, 102, (1, 6, 16, 16)),
        (
            nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, 2),
            "transposed",
            64 * 4 * 3 * 9,
            114,
            (1, 6, 16, 16),
        ),
        (nn.Linear(8, 5), "linear", 1 * 4 * 8 * 8 * 5, 45, (1, 4, 8, 5)),
    ],
)
def test_each_layer_by_hand(
    module: nn.Module, kind: str, macs: int, params: int, output: tuple[int, ...]
) -> None:
    profile = edgewise.profile(nn.Sequential(module), 8, in_chans=4)
    layer = only(profile, kind)
    assert (layer.macs, layer.params, layer.output) == (macs, params, output)
    assert (profile.macs, profile.params) == (macs, params)
    assert layer.name == "0"
    outputs = torch.Size(output).numel()
    assert layer.activations == outputs
    assert layer.elementwise == outputs * (getattr(module, "bias", None) is not None)
    assert layer.kernel == module.get_parameter("weight").numel()
    assert layer.moved == 4 * 64 + params + outputs
    assert layer.intensity == macs / (4 * layer.moved)
    with FlopCounterMode(display=False) as counter:
        module(torch.zeros(1, 4, 8, 8))
    assert counter.get_total_flops() == 2 * macs


MATRIX = torch.zeros(8, 5)


@pytest.mark.parametrize(
    ("function", "kind", "macs"),
    [
        (lambda x: x @ MATRIX, "linear", 4 * 8 * 8 * 5),
        (lambda x: torch.einsum("nchw,wo->ncho", x, MATRIX), "linear", 4 * 8 * 8 * 5),
        (lambda x: x[0, 0] @ MATRIX, "linear", 8 * 8 * 5),
        (lambda x: x[0, 0] @ MATRIX[:, 0], "linear", 8 * 8),
        (lambda x: MATRIX.T @ x[0, 0], "linear", 5 * 8 * 8),
        (lambda x: torch.addmm(MATRIX, x[0, 0], MATRIX), "linear", 8 * 8 * 5),
        (lambda x: F.linear(x, MATRIX.T), "linear", 4 * 8 * 8 * 5),
        (lambda x: x @ x.transpose(2, 3), "attention", 4 * 8 * 8 * 8),
        (lambda x: torch.einsum("ncij,ncjk->ncik", x, x), "attention", 4 * 8 * 8 * 8),
        (lambda x: torch.bmm(x[0], x[0]), "attention", 4 * 8 * 8 * 8),
        (lambda x: F.conv2d(x, torch.zeros(6, 4, 3, 3)), "standard", 36 * 6 * 36),
        (lambda x: F.scaled_dot_product_attention(x, x, x), "attention", 2 * 4 * 8 * 8 * 8),
        # One key and value for all four heads, and fewer of them than queries.
        (
            lambda x: F.scaled_dot_product_attention(x, x[:, :1, :3], x[:, :1, :3, :5]),
            "attention",
            4 * 8 * 3 * 8 + 4 * 8 * 3 * 5,
        ),
        (
            lambda x: F.scaled_dot_product_attention(x, x[:, :2], x[:, :2], enable_gqa=True),
            "attention",
            2 * 4 * 8 * 8 * 8,
        ),
    ],
)
def test_functional_calls_by_hand(
    function: Callable[[Tensor], Tensor], kind: str, macs: int
) -> None:
    profile = of_function(function)
    assert only(profile, kind).macs == profile.macs == macs


def test_attention_modules_of_pytorch() -> None:
    """Four projections of (20, 16) by 16 x 16, and two products of 20 x 20 by 16 in all heads."""
    attention = nn.MultiheadAttention(16, 4, batch_first=True)
    x = torch.zeros(1, 20, 16)
    profile = edgewise.profile(attention, inputs=(x, x, x))
    assert profile.macs == 4 * 20 * 16 * 16 + 2 * 20 * 20 * 16
    kinds = {kind.name: kind.macs for kind in profile.kinds}
    assert (kinds["linear"], kinds["attention"]) == (4 * 20 * 256, 2 * 400 * 16)
    assert profile.params == sum(p.numel() for p in attention.parameters())
    assert profile.unread_params == 0


def test_a_recurrent_layer_is_taken_apart() -> None:
    """At each of 5 steps 4 gates of 6 numbers from 3 inputs and 6 states."""
    profile = edgewise.profile(nn.LSTM(3, 6), inputs=(torch.zeros(5, 1, 3),))
    assert profile.macs == 5 * 4 * 6 * (3 + 6)
    assert profile.unread_params == 0


PIXELS = 4 * 64


@pytest.mark.parametrize(
    ("function", "kind", "operations"),
    [
        (F.relu, "elementwise", PIXELS),
        (lambda x: F.relu(x, inplace=True), "elementwise", PIXELS),
        (lambda x: F.hardswish(x.clone(), inplace=True), "elementwise", PIXELS),
        (F.hardswish, "elementwise", PIXELS),
        (F.hardsigmoid, "elementwise", PIXELS),
        (F.gelu, "elementwise", PIXELS),
        (F.silu, "elementwise", PIXELS),
        (F.mish, "elementwise", PIXELS),
        (lambda x: F.prelu(x, torch.ones(4)), "elementwise", PIXELS),
        (lambda x: x + x, "elementwise", PIXELS),
        (lambda x: x * 2, "elementwise", PIXELS),
        (lambda x: x.mean((2, 3), keepdim=True) * x, "elementwise", PIXELS),
        (lambda x: x.softmax(1), "elementwise", 5 * PIXELS),
        (lambda x: x.mean((2, 3)), "pool", PIXELS),
        (lambda x: x.sum(), "pool", PIXELS),
        (lambda x: x.norm(dim=(2, 3)), "pool", 2 * PIXELS),
        (lambda x: x.var(1), "pool", 3 * PIXELS),
        (lambda x: F.max_pool2d(x, 3, 2, 1), "pool", 4 * 16 * 9),
        (lambda x: F.avg_pool2d(x, 2), "pool", 4 * 16 * 4),
        (lambda x: F.adaptive_avg_pool2d(x, 1), "pool", PIXELS),
        # Bins of 8 pixels for 3 outputs: 0-2, 2-5, 5-7, so ten pixels a line.
        (lambda x: F.adaptive_avg_pool2d(x, 3), "pool", 4 * 10 * 10),
        (lambda x: F.layer_norm(x, (8,)), "norm", 4 * PIXELS),
        (lambda x: F.layer_norm(x, (8,), torch.ones(8), torch.ones(8)), "norm", 5 * PIXELS),
        (lambda x: F.group_norm(x, 2, torch.ones(4)), "norm", 5 * PIXELS),
        (lambda x: F.instance_norm(x), "norm", 4 * PIXELS),
        (lambda x: F.batch_norm(x, torch.ones(4), torch.ones(4)), "norm", PIXELS),
        (lambda x: F.batch_norm(x, None, None, training=True), "norm", 4 * PIXELS),
        (
            lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
            "elementwise",
            7 * 4 * PIXELS,
        ),
        (lambda x: F.interpolate(x, scale_factor=2, mode="nearest"), "copy", 0),
        (lambda x: torch.cat([x, x], 1), "copy", 0),
        (lambda x: F.pad(x, (1, 1)), "copy", 0),
        (lambda x: F.pixel_shuffle(x, 2), "copy", 0),
    ],
)
def test_other_operations_by_hand(
    function: Callable[[Tensor], Tensor], kind: str, operations: int
) -> None:
    profile = of_function(function)
    assert only(profile, kind).elementwise == operations
    assert profile.macs == profile.activations == 0
    assert not profile.unknown


def test_a_batch_norm_with_weights_scales_and_shifts() -> None:
    profile = edgewise.profile(nn.BatchNorm2d(4), 8, in_chans=4)
    assert (profile.elementwise, profile.params) == (2 * PIXELS, 8)


def test_views_cost_nothing_and_are_not_listed() -> None:
    views = of_function(lambda x: x.permute(0, 2, 3, 1).flatten(1, 2)[:, 3:].unsqueeze(0))
    assert views.layers == ()
    assert (views.macs, views.elementwise, views.peak_memory) == (0, 0, 4 * PIXELS)


def test_an_unknown_operator_is_listed_with_its_shapes() -> None:
    profile = of_function(lambda x: F.relu(x.sort(-1).values))
    (unknown,) = profile.unknown
    assert (unknown.op, unknown.name) == ("sort", "Calls")
    assert (unknown.inputs, unknown.output) == (((1, 4, 8, 8),), (1, 4, 8, 8))
    assert [kind.name for kind in profile.kinds] == ["elementwise", "unknown"]
    assert profile.elementwise == PIXELS


def test_batch_size_and_channels_are_free() -> None:
    profile = edgewise.profile(nn.Conv2d(7, 2, 3), (10, 6), batch=3, in_chans=7)
    assert profile.inputs == ((3, 7, 10, 6),)
    assert profile.macs == 3 * 8 * 4 * 2 * 63
    assert profile.params == 2 * 63 + 2


@pytest.mark.parametrize("model", ["mobilenet_v2", "gone.onnx"])
def test_what_it_can_not_heed_is_refused(model: str) -> None:
    with pytest.raises(UsageError, match="batch must be 1 or more, not 0"):
        edgewise.profile(model, batch=0)
    with pytest.raises(UsageError, match="inputs are for a module"):
        edgewise.profile(model, inputs=(torch.zeros(1, 3, 16, 16),))


def test_a_network_of_one_dimension_by_example_inputs() -> None:
    profile = edgewise.profile(nn.Conv1d(3, 5, 3), inputs=(torch.zeros(2, 3, 10),))
    assert profile.macs == 2 * 8 * 5 * 9


def test_bytes_of_the_weights() -> None:
    """Kernels are a byte each in int8; two numbers a channel of the norm are four bytes each."""
    profile = edgewise.profile(nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)), 8)
    assert profile.weight_bytes == {"fp32": 4 * 232, "fp16": 2 * 232, "int8": 216 + 4 * 16}


def test_intensity_is_of_the_operators_that_have_macs() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 2, 1, bias=False))
    moved = (3 * 16 + 32 + 8 * 16) + (8 * 16 + 16 + 2 * 16)
    assert edgewise.profile(net, 4).intensity == (16 * 24 + 16 * 16) / (4 * moved)
