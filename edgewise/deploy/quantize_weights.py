"""Weights as integers, rounded so that a layer's answers change least.

Rounding each weight to the nearest integer is best for the weight and not for the sum. Here the
weights of a sum are rounded one after the other, and what one was moved by is made up for by those
that are still to come, as far as their inputs go together (optimal brain compression, arXiv
2208.11580; in this order and by a Cholesky factor: GPTQ, arXiv 2210.17323). What is left of the
sum's mean goes into the bias (bias correction, arXiv 1906.04721, section 4.2).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgewise.deploy.quantize_layers import Layer
from edgewise.deploy.quantize_observe import Moments

DAMPING = 0.01  # of the inputs' mean variance: trust in what few images say ends somewhere
COLUMNS = 128  # that are rounded before the rest hears of it
SMALLEST = 1e-12


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


def round_layer(layer: Layer, moments: Moments, bits: int, least: NDArray[np.float64]) -> Rounded:
    """The integers for a layer's weights.

    Args:
        layer: the layer.
        moments: of its inputs.
        bits: of the integers: 8, or 7 for kernels that add two products in 16 bits.
        least: (out,), what the scales may not fall below.
    """
    rows = torch.from_numpy(layer.rows).double()
    top = 2 ** (bits - 1) - 1
    scales = torch.maximum(rows.abs().amax(1) / top, torch.from_numpy(least).clamp(min=SMALLEST))
    scales = scales.float().double()  # as the file has them
    by_group = rows.reshape(layer.groups, -1, rows.shape[1])
    # A bias takes up what the inputs' mean does; without one, the weights must.
    inputs = moments.centred() if layer.shiftable else moments.second
    integers = round_together(by_group, scales.reshape(layer.groups, -1), inputs, top)
    integers = integers.reshape(rows.shape)
    lost = (rows - integers * scales[:, None]).reshape(by_group.shape)
    shift = torch.einsum("got,gt->go", lost, moments.first).reshape(-1)
    shift = shift if layer.shiftable else torch.zeros_like(shift)
    return Rounded(integers.numpy().astype(np.int8), scales.float().numpy(), shift.float().numpy())


def round_together(rows: Tensor, scales: Tensor, covariance: Tensor, top: int) -> Tensor:
    """Integers from -top to top, by groups; those of a row make up for each other.

    Args:
        rows: (groups, out, terms), the weights.
        scales: (groups, out).
        covariance: of the inputs, (groups, terms, terms).
        top: the largest integer.
    """
    terms = rows.shape[2]
    variance = covariance.diagonal(dim1=1, dim2=2)
    order = variance.argsort(dim=1, descending=True, stable=True)  # the loudest input first
    rows = rows.gather(2, order[:, None].expand_as(rows)).clone()
    factor = _factor(covariance, variance, order)
    integers = torch.zeros_like(rows)
    for start in range(0, terms, COLUMNS):
        block = slice(start, min(start + COLUMNS, terms))
        errors = torch.zeros_like(rows[:, :, block])
        for column in range(block.start, block.stop):
            weights = rows[:, :, column]
            integers[:, :, column] = (weights / scales).round().clamp(-top, top)
            error = weights - integers[:, :, column] * scales
            error = error / factor[:, column, column, None]
            rows[:, :, column : block.stop] -= (
                error[:, :, None] * factor[:, column, None, column : block.stop]
            )
            errors[:, :, column - start] = error
        rows[:, :, block.stop :] -= errors @ factor[:, block, block.stop :]
    return torch.zeros_like(integers).scatter(2, order[:, None].expand_as(integers), integers)


def _factor(covariance: Tensor, variance: Tensor, order: Tensor) -> Tensor:
    """The upper Cholesky factor of the inverse, in that order of the inputs."""
    terms = covariance.shape[1]
    damping = (DAMPING * variance.mean(1)).clamp(min=SMALLEST)
    damped = covariance + damping[:, None, None] * torch.eye(terms, dtype=covariance.dtype)
    damped = damped.gather(1, order[:, :, None].expand_as(damped))
    damped = damped.gather(2, order[:, None].expand_as(damped))
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    factor: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor
