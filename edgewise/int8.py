"""The scales of weights in int8: the same where a network learns with them and in the file."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

LARGEST = 127  # of an integer
# Of the sum of two that meet in 16 bits, each times a byte of a map: 255 * 128 < 2**15.
PAIR = 128
SMALLEST = 1e-12  # scale


def scales_of(rows: Tensor, partners: Tensor) -> Tensor:
    """(groups, out, terms) -> (groups, out): the smallest with which no integer is too large, and
    no two that meet; see `partners_of`."""
    largest = rows.abs().amax(2) / LARGEST
    if not len(partners):
        return largest
    padded = torch.cat([rows, torch.zeros_like(rows[:, :, :1])], 2)
    sums = rows[:, :, None] + padded[:, :, partners]
    return torch.maximum(largest, sums.abs().amax((2, 3)) / PAIR)


@cache
def partners_of(channels: int, places: int) -> Tensor:
    """Which products meet in 16 bits, where some processors add them two by two.

    Without VNNI, an x86 processor multiplies bytes two by two and adds each two products in 16
    bits, where they saturate. The kernels of OpenVINO and of ONNX Runtime do so with input
    channels 0 and 1, 2 and 3, ... at the same place of the kernel; of an odd number, ONNX Runtime
    goes on with the first channel at the next place. In depthwise convolutions nothing saturates.

    Args:
        channels: of a sum's inputs; 1 in a depthwise convolution.
        places: of the kernel.

    Returns:
        (ways, terms), the other term of each, or the number of terms where there is none.
    """
    terms = channels * places
    if channels == 1:
        return torch.empty(0, terms, dtype=torch.long)
    term = torch.arange(terms)
    channel, place = term // places, term % places
    ways = [torch.where(channel ^ 1 < channels, (channel ^ 1) * places + place, terms)]
    if channels % 2:
        beside = (place * channels + channel) ^ 1  # counted place by place
        there = beside % channels * places + beside // channels
        ways.append(torch.where(beside < terms, there, terms))
    return torch.stack(ways)
