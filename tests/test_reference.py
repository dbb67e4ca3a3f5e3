"""The NumPy reference against PyTorch in float64, on shapes that hypothesis thinks of."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from torch.nn import functional as F

from edgewise import blocks, reference
from edgewise.errors import UsageError

small = some.integers(1, 3)
seeds = some.integers(0, 2**32 - 1)
eagerly = settings(max_examples=60, deadline=None, derandomize=True)


def both(name: str) -> tuple[Callable[..., np.ndarray], ...]:
    """The loops and the arrays of one definition."""
    return getattr(reference, f"{name}_loops"), getattr(reference, name)


def same(ours: np.ndarray, theirs: torch.Tensor) -> None:
    assert ours.dtype == np.float64
    assert ours.shape == tuple(theirs.shape)
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-12, atol=1e-12)


@some.composite
def convolutions(draw: some.DrawFn) -> dict[str, int]:
    """Stride, padding, dilation, kernel and a map that is at least as large as the kernel."""
    numbers = {name: draw(small) for name in ("n", "stride", "dilation", "kh", "kw")}
    numbers["padding"] = draw(some.integers(0, 3))
    for side, kernel in (("h", "kh"), ("w", "kw")):
        reach = numbers["dilation"] * (numbers[kernel] - 1) + 1 - 2 * numbers["padding"]
        numbers[side] = draw(some.integers(max(1, reach), max(1, reach) + 4))
    return numbers


def how(numbers: dict[str, int]) -> dict[str, int]:
    return {name: numbers[name] for name in ("stride", "padding", "dilation")}


def normal(seed: int, *shapes: tuple[int, ...]) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.standard_normal(shape) for shape in shapes]


def tensors(*arrays: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(array) for array in arrays]


@eagerly
@given(convolutions(), small, small, small, seeds)
def test_grouped_and_standard_convolution(
    of: dict[str, int], groups: int, ins: int, outs: int, seed: int
) -> None:
    x, kernels = normal(
        seed,
        (of["n"], groups * ins, of["h"], of["w"]),
        (groups * outs, ins, of["kh"], of["kw"]),
    )
    expected = F.conv2d(*tensors(x, kernels), **how(of), groups=groups)
    for grouped in both("grouped_conv"):
        same(grouped(x, kernels, groups, **how(of)), expected)
    if groups == 1:
        for conv in both("conv"):
            same(conv(x, kernels, **how(of)), expected)


@eagerly
@given(convolutions(), small, small, seeds)
def test_depthwise_pointwise_and_separable_convolution(
    of: dict[str, int], chans: int, outs: int, seed: int
) -> None:
    x, spatial, mixing = normal(
        seed,
        (of["n"], chans, of["h"], of["w"]),
        (chans, 1, of["kh"], of["kw"]),
        (outs, chans, 1, 1),
    )
    tx, t_spatial, t_mixing = tensors(x, spatial, mixing)
    middle = F.conv2d(tx, t_spatial, **how(of), groups=chans)
    for depthwise in both("depthwise_conv"):
        same(depthwise(x, spatial, **how(of)), middle)
    for pointwise in both("pointwise_conv"):
        same(pointwise(x, mixing), F.conv2d(tx, t_mixing))
    for separable in both("separable_conv"):
        same(separable(x, spatial, mixing, **how(of)), F.conv2d(middle, t_mixing))


@eagerly
@given(small, small, small, small, some.sampled_from([1e-5, 1e-3]), seeds)
def test_batch_norm(n: int, chans: int, height: int, width: int, eps: float, seed: int) -> None:
    x, weight, bias, mean, root = normal(seed, (n, chans, height, width), *[(chans,)] * 4)
    variance = root**2
    t = tensors(x, mean, variance, weight, bias)
    for norm in both("batch_norm"):
        same(norm(x, weight, bias, mean, variance, eps), F.batch_norm(*t, eps=eps))
        if n * height * width > 1:  # PyTorch trains on no single pixel
            trained = F.batch_norm(t[0], None, None, t[3], t[4], training=True, eps=eps)
            batch = x.mean((0, 2, 3)), x.var((0, 2, 3))
            same(norm(x, weight, bias, *batch, eps), trained)


@eagerly
@given(some.lists(some.floats(-20, 20), min_size=1, max_size=20))
def test_h_swish(values: list[float]) -> None:
    x = np.array(values)
    for h_swish in both("h_swish"):
        same(h_swish(x), F.hardswish(torch.from_numpy(x)))


@eagerly
@given(small, small, small, small, small, seeds)
def test_squeeze_excite(
    n: int, chans: int, squeezed: int, height: int, width: int, seed: int
) -> None:
    x, reduce, expand = normal(
        seed, (n, chans, height, width), (squeezed, chans), (chans, squeezed)
    )
    module = blocks.SqueezeExcite(chans, squeezed).double()
    state = {"reduce.weight": reduce, "expand.weight": expand}
    for name, value in state.items():
        module.get_parameter(name).data = torch.from_numpy(value)[..., None, None]
    for squeeze_excite in both("squeeze_excite"):
        same(squeeze_excite(x, reduce, expand), module(torch.from_numpy(x)))


@eagerly
@given(small, small, small, small, seeds)
def test_grn(n: int, chans: int, height: int, width: int, seed: int) -> None:
    x, weight, bias = normal(seed, (n, chans, height, width), (chans,), (chans,))
    module = blocks.GRN(chans).double()
    module.weight.data, module.bias.data = tensors(weight, bias)
    for grn in both("grn"):
        same(grn(x, weight, bias), module(torch.from_numpy(x)))


@eagerly
@given(small, small, small, small, small, small, seeds)
def test_multi_query_attention(
    n: int, heads: int, queries: int, keys: int, dim: int, width: int, seed: int
) -> None:
    query, key, value = normal(seed, (n, heads, queries, dim), (n, keys, dim), (n, keys, width))
    t_query, t_key, t_value = tensors(query, key, value)
    expected = F.scaled_dot_product_attention(
        t_query, *(t[:, None].expand(-1, heads, -1, -1) for t in (t_key, t_value))
    )
    for attention in both("multi_query_attention"):
        same(attention(query, key, value), expected)


def test_the_reference_is_mobile_mqas_attention() -> None:
    """The whole block, with the reference's own convolutions and norm around the attention."""
    torch.manual_seed(0)
    block = blocks.MobileMQA(6, heads=2, dim=4, kv_stride=2).double().eval()
    for module in block.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                tensor.data.uniform_(0.5, 1.5)
    x = torch.randn(2, 6, 5, 4, dtype=torch.float64)

    def norm(values: np.ndarray, module: torch.nn.BatchNorm2d) -> np.ndarray:
        tensors = (module.weight, module.bias, module.running_mean, module.running_var)
        return reference.batch_norm(values, *(t.detach().numpy() for t in tensors), module.eps)

    def kernels(module: torch.nn.Module) -> np.ndarray:
        return module.weight.detach().numpy()

    y = norm(x.numpy(), block.norm)
    query = reference.pointwise_conv(y, kernels(block.query))
    query = query.reshape(2, 2, 4, -1).swapaxes(2, 3)
    shared = []
    for strided, pointwise in (block.key, block.value):
        small = reference.depthwise_conv(y, kernels(strided.conv), stride=2, padding=1)
        mixed = reference.pointwise_conv(norm(small, strided.norm), kernels(pointwise))
        shared.append(mixed.reshape(2, 4, -1).swapaxes(1, 2))
    heads = reference.multi_query_attention(query, *shared).swapaxes(2, 3).reshape(2, 8, 5, 4)
    same(x.numpy() + reference.pointwise_conv(heads, kernels(block.project)), block(x))


@pytest.mark.parametrize(
    ("shape", "groups", "message"),
    [
        ((4, 3, 3, 3), 1, "don't fit 4 channels in 1 groups"),
        ((4, 2, 3, 3), 3, "don't fit 4 channels in 3 groups"),
        ((3, 2, 3, 3), 2, "don't fit 4 channels in 2 groups"),
        ((4, 2, 9, 3), 2, "doesn't fit a map of"),
    ],
)
def test_kernels_that_do_not_fit_are_refused(
    shape: tuple[int, ...], groups: int, message: str
) -> None:
    for grouped in both("grouped_conv"):
        with pytest.raises(UsageError, match=message):
            grouped(np.zeros((1, 4, 8, 8)), np.zeros(shape), groups)
