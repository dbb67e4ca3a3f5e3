"""Mixup (arXiv 1710.09412) and CutMix (1905.04899): each image with another of its batch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Mixing:
    """What is done to a batch. With both, each batch has one of them, by a toss of a coin.

    Attributes:
        mixup: alpha of the Beta(alpha, alpha) that a share is drawn from; 0 is off.
        cutmix: likewise.
    """

    mixup: float = 0.0
    cutmix: float = 0.0

    def mix(
        self, images: Tensor, labels: Tensor, classes: int, random: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """A batch and what it shows.

        The other of image i is image N - 1 - i; the batch's order is random already.

        Args:
            images: float (N, C, H, W), normalised.
            labels: int64 (N,).
            classes: how many there are.
            random: where share, place and coin come from.

        Returns:
            The images, and the part of each class in them, (N, classes).
        """
        targets = F.one_hot(labels, classes).to(images.dtype)
        cuts = self.cutmix > 0 and (self.mixup == 0 or random.random() < 0.5)
        alpha = self.cutmix if cuts else self.mixup
        if alpha == 0:
            return images, targets
        kept = float(random.beta(alpha, alpha))
        others = images.flip(0)
        if cuts:
            height, width = images.shape[2:]
            top, bottom, left, right = cut(height, width, 1 - kept, random)
            images = images.clone()
            images[:, :, top:bottom, left:right] = others[:, :, top:bottom, left:right]
            kept = 1 - (bottom - top) * (right - left) / (height * width)
        else:
            images = torch.lerp(others, images, kept)
        return images, torch.lerp(targets.flip(0), targets, kept)


def cut(
    height: int, width: int, part: float, random: np.random.Generator
) -> tuple[int, int, int, int]:
    """(top, bottom, left, right) of a box with `part` of the area, of the image's form.

    Its centre is anywhere; what hangs over an edge is cut off, as in the paper's code.
    """
    side = math.sqrt(part)
    tall, wide = int(height * side), int(width * side)
    middle, centre = int(random.integers(height)), int(random.integers(width))
    top, left = middle - tall // 2, centre - wide // 2
    return max(top, 0), min(top + tall, height), max(left, 0), min(left + wide, width)
