"""The parts of these networks in NumPy, from the definition, each written twice.

The functions that end in `_loops` are there to be read: one sum, one index a line, as slow as can
be. Those without are the same sums over whole arrays. Both are oracles for the modules of
`edgewise.blocks`; nothing here needs torch.

Maps are (N, C, H, W). The kernels of a convolution are (out, C / groups, height, width); all
convolutions raise a UsageError if they don't fit the map. Results are float64.
"""

from __future__ import annotations

import math
from itertools import product

import numpy as np
from numpy.typing import NDArray

from edgewise.errors import UsageError

Array = NDArray[np.float64]

# ---- Convolutions, as loops ----


def conv_loops(
    x: Array, kernels: Array, stride: int = 1, padding: int = 0, dilation: int = 1
) -> Array:
    """A standard convolution: every output channel sees every input channel.

    y[n, o, i, j] = sum over c, u, v of kernels[o, c, u, v] *
                    x[n, c, i * stride + u * dilation, j * stride + v * dilation]

    where x has `padding` lines of zeros on each side. (N, C, H, W) and (out, C, kh, kw) ->
    (N, out, (H + 2 padding - dilation (kh - 1) - 1) // stride + 1, the same of W and kw).
    """
    height, width = _sides(x, kernels, stride, padding, dilation)
    x = _pad(x, padding)
    outs, chans, kernel_height, kernel_width = kernels.shape
    y = np.zeros((len(x), outs, height, width))
    for n, o, i, j in np.ndindex(y.shape):
        for c, u, v in product(range(chans), range(kernel_height), range(kernel_width)):
            pixel = x[n, c, i * stride + u * dilation, j * stride + v * dilation]
            y[n, o, i, j] += kernels[o, c, u, v] * pixel
    return y


def grouped_conv_loops(
    x: Array, kernels: Array, groups: int, stride: int = 1, padding: int = 0, dilation: int = 1
) -> Array:
    """Channels in `groups` equal parts, and a standard convolution for each: `conv_loops` says how.

    (N, C, H, W) and (out, C / groups, kh, kw) -> (N, out, ., .).
    """
    _sides(x, kernels, stride, padding, dilation, groups)
    ins, outs = x.shape[1] // groups, len(kernels) // groups
    parts = []
    for g in range(groups):
        part, own = x[:, g * ins : (g + 1) * ins], kernels[g * outs : (g + 1) * outs]
        parts.append(conv_loops(part, own, stride, padding, dilation))
    return np.concatenate(parts, axis=1)


def depthwise_conv_loops(
    x: Array, kernels: Array, stride: int = 1, padding: int = 0, dilation: int = 1
) -> Array:
    """One kernel a channel: each output channel sees its own input channel, and no other.

    The sum of `conv_loops` without the sum over c. (N, C, H, W) and (C, 1, kh, kw) -> (N, C, ., .).
    """
    height, width = _sides(x, kernels, stride, padding, dilation, groups=x.shape[1])
    x = _pad(x, padding)
    y = np.zeros((len(x), len(kernels), height, width))
    for n, c, i, j in np.ndindex(y.shape):
        for u, v in np.ndindex(kernels.shape[2:]):
            pixel = x[n, c, i * stride + u * dilation, j * stride + v * dilation]
            y[n, c, i, j] += kernels[c, 0, u, v] * pixel
    return y


def pointwise_conv_loops(x: Array, kernels: Array) -> Array:
    """A 1x1 convolution: each pixel by itself, its channels mixed. The same matrix for all pixels.

    (N, C, H, W) and (out, C, 1, 1) -> (N, out, H, W).
    """
    _sides(x, kernels)
    y = np.zeros((len(x), len(kernels), *x.shape[2:]))
    for n, o, i, j in np.ndindex(y.shape):
        for c in range(x.shape[1]):
            y[n, o, i, j] += kernels[o, c, 0, 0] * x[n, c, i, j]
    return y


def separable_conv_loops(
    x: Array, first: Array, second: Array, stride: int = 1, padding: int = 0, dilation: int = 1
) -> Array:
    """First the pixels of each channel, then the channels of each pixel.

    (N, C, H, W), (C, 1, kh, kw) and (out, C, 1, 1) -> (N, out, ., .).
    """
    return pointwise_conv_loops(depthwise_conv_loops(x, first, stride, padding, dilation), second)


# ---- The same convolutions over whole arrays ----


def conv(x: Array, kernels: Array, stride: int = 1, padding: int = 0, dilation: int = 1) -> Array:
    """`conv_loops` at once: one sum of products over all windows."""
    windows = _windows(x, kernels, stride, padding, dilation)
    return _sum("ncijuv,ocuv->noij", windows, kernels)


def grouped_conv(
    x: Array, kernels: Array, groups: int, stride: int = 1, padding: int = 0, dilation: int = 1
) -> Array:
    """`grouped_conv_loops` at once: the channels get an axis for the groups."""
    windows = _windows(x, kernels, stride, padding, dilation, groups)
    n, chans, height, width, *kernel = windows.shape
    windows = windows.reshape(n, groups, chans // groups, height, width, *kernel)
    own = kernels.reshape(groups, -1, *kernels.shape[1:])
    y = _sum("ngcijuv,gocuv->ngoij", windows, own)
    return y.reshape(n, len(kernels), height, width)


def depthwise_conv(
    x: Array, kernels: Array, stride: int = 1, padding: int = 0, dilation: int = 1
) -> Array:
    """`depthwise_conv_loops` at once."""
    windows = _windows(x, kernels, stride, padding, dilation, groups=x.shape[1])
    return _sum("ncijuv,cuv->ncij", windows, kernels[:, 0])


def pointwise_conv(x: Array, kernels: Array) -> Array:
    """`pointwise_conv_loops` at once: a matrix product."""
    _sides(x, kernels)
    return _sum("ncij,oc->noij", x, kernels[:, :, 0, 0])


def separable_conv(
    x: Array, first: Array, second: Array, stride: int = 1, padding: int = 0, dilation: int = 1
) -> Array:
    """`separable_conv_loops` at once."""
    return pointwise_conv(depthwise_conv(x, first, stride, padding, dilation), second)


# ---- Norms, activations, gates, attention ----


def batch_norm_loops(
    x: Array, weight: Array, bias: Array, mean: Array, variance: Array, eps: float = 1e-5
) -> Array:
    """Each channel minus its mean, over its standard deviation; then the learned scale and shift.

    In training mean and variance are those of the batch, the (biased) ones of all pixels of a
    channel; in use they are constants, and so the norm can be folded into the convolution before
    it. (N, C, H, W) and four times (C,) -> (N, C, H, W).
    """
    y = np.zeros(x.shape)
    for n, c, i, j in np.ndindex(x.shape):
        normal = (x[n, c, i, j] - mean[c]) / math.sqrt(variance[c] + eps)
        y[n, c, i, j] = weight[c] * normal + bias[c]
    return y


def batch_norm(
    x: Array, weight: Array, bias: Array, mean: Array, variance: Array, eps: float = 1e-5
) -> Array:
    """`batch_norm_loops` at once, as it is folded: one factor and one shift a channel."""
    factor = weight / np.sqrt(variance + eps)
    return x * _channel(factor) + _channel(bias - mean * factor)


def h_swish_loops(x: Array) -> Array:
    """x times the straight line from 0 at -3 to 1 at 3; any shape."""
    y = np.zeros(x.shape)
    for at in np.ndindex(x.shape):
        y[at] = x[at] * min(max(float(x[at]) + 3, 0.0), 6.0) / 6
    return y


def h_swish(x: Array) -> Array:
    """`h_swish_loops` at once."""
    return x * np.clip(x + 3, 0, 6) / 6


def squeeze_excite_loops(x: Array, reduce: Array, expand: Array) -> Array:
    """Each channel times a gate in 0..1 that depends on the means of all channels.

    The gate is sigmoid(expand relu(reduce means)); biases are left out. (N, C, H, W), (S, C) and
    (C, S) -> (N, C, H, W).
    """
    y = np.zeros(x.shape)
    for n in range(len(x)):
        means = [sum(channel.flat) / channel.size for channel in x[n]]
        hidden = [max(0.0, sum(row[c] * mean for c, mean in enumerate(means))) for row in reduce]
        for c, row in enumerate(expand):
            total = sum(row[s] * value for s, value in enumerate(hidden))
            y[n, c] = x[n, c] / (1 + math.exp(-total))
    return y


def squeeze_excite(x: Array, reduce: Array, expand: Array) -> Array:
    """`squeeze_excite_loops` at once: two matrix products on one vector an image."""
    hidden = np.maximum(x.mean((2, 3)) @ reduce.T, 0)
    gates: Array = 1 / (1 + np.exp(-hidden @ expand.T))
    return x * gates[:, :, None, None]


def grn_loops(x: Array, weight: Array, bias: Array, eps: float = 1e-6) -> Array:
    """Each channel times its norm over the mean of all channels' norms; scale, shift, + input.

    (N, C, H, W) and two times (C,) -> (N, C, H, W).
    """
    y = np.zeros(x.shape)
    for n in range(len(x)):
        norms = [math.sqrt(sum(pixel**2 for pixel in channel.flat)) for channel in x[n]]
        mean = sum(norms) / len(norms)
        for c, i, j in np.ndindex(x.shape[1:]):
            relative = norms[c] / (mean + eps)
            y[n, c, i, j] = weight[c] * x[n, c, i, j] * relative + bias[c] + x[n, c, i, j]
    return y


def grn(x: Array, weight: Array, bias: Array, eps: float = 1e-6) -> Array:
    """`grn_loops` at once."""
    norms: Array = np.sqrt((x**2).sum((2, 3), keepdims=True))
    relative: Array = norms / (norms.mean(1, keepdims=True) + eps)
    return _channel(weight) * x * relative + _channel(bias) + x


def multi_query_attention_loops(query: Array, key: Array, value: Array) -> Array:
    """Every head has its own queries; all heads share one set of keys and one of values.

    A query's answer is the mean of the values, each weighed by softmax(query . key / sqrt(dim)).
    (N, heads, queries, dim), (N, keys, dim) and (N, keys, width) -> (N, heads, queries, width).
    """
    y = np.zeros((*query.shape[:3], value.shape[2]))
    for n, h, q in np.ndindex(y.shape[:3]):
        scores = [float(query[n, h, q] @ one) / math.sqrt(len(one)) for one in key[n]]
        powers = [math.exp(score - max(scores)) for score in scores]  # no overflow
        for k, power in enumerate(powers):
            y[n, h, q] += power / sum(powers) * value[n, k]
    return y


def multi_query_attention(query: Array, key: Array, value: Array) -> Array:
    """`multi_query_attention_loops` at once."""
    scores = _sum("nhqd,nkd->nhqk", query, key) / math.sqrt(key.shape[2])
    powers: Array = np.exp(scores - scores.max(-1, keepdims=True))
    return _sum("nhqk,nkw->nhqw", powers / powers.sum(-1, keepdims=True), value)


# ---- What they share ----


def _pad(x: Array, padding: int) -> Array:
    """Zeros on all four sides."""
    return np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))


def _sum(indices: str, *arrays: Array) -> Array:
    """The sum of products that `indices` says, in Einstein's notation."""
    total: Array = np.einsum(indices, *arrays, optimize=True)
    return total


def _channel(values: Array) -> Array:
    """(C,) -> (1, C, 1, 1)."""
    return values[None, :, None, None]


def _windows(
    x: Array, kernels: Array, stride: int, padding: int, dilation: int, groups: int = 1
) -> Array:
    """What the kernel sees at each place: (N, C, out height, out width, kh, kw), without copies."""
    _sides(x, kernels, stride, padding, dilation, groups)
    reach = tuple(dilation * (side - 1) + 1 for side in kernels.shape[2:])
    every = np.lib.stride_tricks.sliding_window_view(_pad(x, padding), reach, axis=(2, 3))
    return every[:, :, ::stride, ::stride, ::dilation, ::dilation]


def _sides(
    x: Array, kernels: Array, stride: int = 1, padding: int = 0, dilation: int = 1, groups: int = 1
) -> tuple[int, int]:
    """Height and width of the result."""
    chans, outs = x.shape[1], len(kernels)
    if groups < 1 or chans % groups or outs % groups or kernels.shape[1] != chans // groups:
        raise UsageError(
            f"kernels of shape {kernels.shape} don't fit {chans} channels in {groups} groups"
        )
    spans = [
        side + 2 * padding - dilation * (kernel - 1) - 1
        for side, kernel in zip(x.shape[2:], kernels.shape[2:], strict=True)
    ]
    if min(spans) < 0:
        raise UsageError(
            f"a kernel of {kernels.shape[2:]} with dilation {dilation} doesn't fit a map of "
            f"{x.shape[2:]} with {padding} lines of padding"
        )
    return spans[0] // stride + 1, spans[1] // stride + 1
