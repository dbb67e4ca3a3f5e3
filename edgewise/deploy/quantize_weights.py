"""Weights as integers, rounded so that a layer's answers change least.

Rounding each weight to the nearest integer is best for the weight and not for the sum. Here the
weights of a sum are rounded one after the other, and what one was moved by is made up for by those
that are still to come, as far as their inputs go together (optimal brain compression, arXiv
2208.11580; in this order and by a Cholesky factor: GPTQ, arXiv 2210.17323). What is left of the
sum's mean goes into the bias (bias correction, arXiv 1906.04721, section 4.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgewise.deploy.quantize_layers import Layer
from edgewise.deploy.quantize_observe import Moments
from edgewise.int8 import LARGEST, PAIR, SMALLEST, partners_of, scales_of

DAMPING = 0.01  # of the inputs' mean variance: trust in what few images say ends somewhere
MORE_DAMPING = 10.0  # times as much, where that does not do
COLUMNS = 128  # that are rounded before the rest hears of it


@dataclass(frozen=True)
class Rounded:
    """A layer in int8: weight ≈ integers * scales.

    Attributes:
        integers: int8 (out, terms), symmetric around 0.
        scales: float32 (out,).
        shift: float32 (out,), to be added to the bias.
    """

    integers: NDArray[np.int8]
    scales: NDArray[np.float32]
    shift: NDArray[np.float32]


def round_layer(layer: Layer, moments: Moments | None, least: NDArray[np.float64]) -> Rounded:
    """The integers for a layer's weights.

    Args:
        layer: the layer.
        moments: of its inputs; None where the weights learned to be rounded each by itself, to the
            nearest: then they are, and nothing makes up for it.
        least: (out,), what the scales may not fall below.
    """
    rows = torch.from_numpy(layer.rows).double()
    by_group = rows.reshape(layer.groups, -1, rows.shape[1])
    partners = _partners(layer)
    largest = scales_of(by_group, partners)
    least_of_group = torch.from_numpy(least).clamp(min=SMALLEST).reshape(largest.shape)
    scales = torch.maximum(largest, least_of_group).float().double()  # as the file has them
    if moments is None:
        inputs = torch.eye(rows.shape[1], dtype=rows.dtype).expand(layer.groups, -1, -1)
    else:
        inputs = _free_of_bias(layer, moments)
    integers = round_together(by_group, scales, inputs, LARGEST, partners)
    return _rounded(layer, by_group, integers, scales, moments)


def round_pinned(layer: Layer, moments: Moments) -> Rounded:
    """The same for a file whose quantiser takes the largest weight of a channel for 127 scales.

    It is one here, whatever is left of it to make up for by the others; and no sum of two is bound,
    since the kernels of such files (XNNPACK's) add products in 32 bits.
    """
    rows = torch.from_numpy(layer.rows).double()
    by_group = rows.reshape(layer.groups, -1, rows.shape[1])
    free = partners_of(1, rows.shape[1])
    scales = scales_of(by_group, free).clamp(min=SMALLEST).float().double()
    integers = round_together(by_group, scales, _free_of_bias(layer, moments), LARGEST, free)
    largest = by_group.abs().argmax(2, keepdim=True)
    integers.scatter_(2, largest, LARGEST * by_group.gather(2, largest).sign())
    return _rounded(layer, by_group, integers, scales, moments)


def _free_of_bias(layer: Layer, moments: Moments) -> Tensor:
    """A bias takes up what the inputs' mean does; without one, the weights must."""
    return moments.centred() if layer.shiftable else moments.second


def _rounded(
    layer: Layer, rows: Tensor, integers: Tensor, scales: Tensor, moments: Moments | None
) -> Rounded:
    """The rows are (groups, out, terms), as the integers; the scales (groups, out)."""
    shift = torch.zeros(scales.numel(), dtype=rows.dtype)
    if moments and layer.shiftable:
        lost = rows - integers * scales[:, :, None]
        shift = torch.einsum("got,gt->go", lost, moments.first).reshape(-1)
    whole = integers.reshape(len(shift), -1).numpy().astype(np.int8)
    return Rounded(whole, scales.reshape(-1).float().numpy(), shift.float().numpy())


def _partners(layer: Layer) -> Tensor:
    terms = int(layer.rows.shape[1])
    channels = layer.shape[1] if layer.is_conv else terms
    return partners_of(channels, terms // channels)


def round_together(
    rows: Tensor, scales: Tensor, covariance: Tensor, top: int, partners: Tensor
) -> Tensor:
    """Integers from -top to top, by groups; those of a row make up for each other.

    Args:
        rows: (groups, out, terms), the weights.
        scales: (groups, out).
        covariance: of the inputs, (groups, terms, terms).
        top: the largest integer.
        partners: see `partners_of`: the integers of two terms add up to -128 to 128.
    """
    terms = rows.shape[2]
    variance = covariance.diagonal(dim1=1, dim2=2)
    order = variance.argsort(dim=1, descending=True, stable=True)  # the loudest input first
    rows = rows.gather(2, order[:, None].expand_as(rows)).clone()
    factor = _factor(covariance, variance, order)
    ranks = _ranks(order)
    others = [ranks[:, partner].gather(1, order) for partner in partners]
    integers = torch.zeros(*rows.shape[:2], terms + 1, dtype=rows.dtype)  # the last: no weight
    for start in range(0, terms, COLUMNS):
        block = slice(start, min(start + COLUMNS, terms))
        errors = torch.zeros_like(rows[:, :, block])
        for column in range(block.start, block.stop):
            weights = rows[:, :, column]
            whole = (weights / scales).round().clamp(-top, top)
            low, high = torch.full_like(whole, -PAIR), torch.full_like(whole, PAIR)
            for other in others:
                at = other[:, column, None, None].expand(-1, rows.shape[1], 1)
                beside = integers.gather(2, at)[:, :, 0]  # 0 if it is still to come
                low, high = torch.maximum(low, -PAIR - beside), torch.minimum(high, PAIR - beside)
            whole = whole.clamp(low, high)
            integers[:, :, column] = whole
            error = (weights - whole * scales) / factor[:, column, column, None]
            rows[:, :, column : block.stop] -= (
                error[:, :, None] * factor[:, column, None, column : block.stop]
            )
            errors[:, :, column - start] = error
        rows[:, :, block.stop :] -= errors @ factor[:, block, block.stop :]
    integers = integers[:, :, :terms]
    return torch.zeros_like(integers).scatter(2, order[:, None].expand_as(integers), integers)


def _ranks(order: Tensor) -> Tensor:
    """(groups, terms + 1): where each term comes in the order, and behind all what is no term."""
    return torch.cat([order.argsort(1), torch.full_like(order[:, :1], order.shape[1])], 1)


def _factor(covariance: Tensor, variance: Tensor, order: Tensor) -> Tensor:
    """The upper Cholesky factor of the inverse, in that order of the inputs.

    A covariance that is small beside the square of its mean has lost its digits: rounding may leave
    it without a factor, and it is damped until it has one.
    """
    covariance = covariance.gather(1, order[:, :, None].expand_as(covariance))
    covariance = covariance.gather(2, order[:, None].expand_as(covariance))
    damping = (DAMPING * variance.mean(1)).clamp(min=SMALLEST)
    while True:
        damped = covariance + torch.diag_embed(damping[:, None].expand_as(variance))
        lower, none = torch.linalg.cholesky_ex(damped)
        inverse = torch.cholesky_inverse(lower)
        factor, none_of_inverse = torch.linalg.cholesky_ex(inverse, upper=True)
        without = (none != 0) | (none_of_inverse != 0)
        if not without.any():
            return cast(Tensor, factor)
        damping = torch.where(without, MORE_DAMPING * damping, damping)
