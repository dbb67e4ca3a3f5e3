"""Random views of a training image: a resized crop, a flip, other light, operations, a hole."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from edgewise.data.decode import Encoded
from edgewise.data.policies import MAX_MAGNITUDE, OPERATIONS, OPERATIONS_OF_PAIRS, POLICIES, Colour
from edgewise.errors import UsageError, unknown
from edgewise.preprocess import INTERPOLATIONS, Preprocess

RATIO = (3 / 4, 4 / 3)  # width / height of a crop
HOLE = (0.02, 1 / 3)  # the least and the most part of the area that random erasing takes
HOLE_RATIO = (0.3, 1 / 0.3)
LIGHT = ("brightness", "contrast", "color")

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Changes:
    """What is to happen to one image after its crop and flip.

    Attributes:
        steps: the name and the amount of each operation in `OPERATIONS_OF_PAIRS`, in order.
        hole: (left, top, right, bottom) of the box that noise covers at last, if any.
        seed: of the noise.
    """

    steps: tuple[tuple[str, float], ...]
    hole: Box | None = None
    seed: int = 0


@dataclass(frozen=True)
class Augment:
    """What may happen to a training image.

    Attributes:
        flip: mirror half of the images; not for digits, text, or anything with a handedness.
        policy: "randaugment", "trivialaugment" or "autoaugment"; "none" for none of them.
        magnitude: of RandAugment, 0 (off) to 30; 10 is the end of AutoAugment's ranges.
        scale: the smallest and the largest part of the image's area that a crop keeps.
        erase: the probability that a box of noise covers a part of the image (random erasing,
            arXiv 1708.04896).
        jitter: by which part brightness, contrast and saturation change at most, 0 (off) to 1.
    """

    flip: bool = True
    policy: str = "randaugment"
    magnitude: int = 0
    scale: tuple[float, float] = (0.35, 1.0)
    erase: float = 0.0
    jitter: float = 0.0

    def __post_init__(self) -> None:
        if self.policy not in (*POLICIES, "none"):
            raise unknown("policy", self.policy, (*POLICIES, "none"))
        if not 0 <= self.magnitude <= MAX_MAGNITUDE:
            raise UsageError(
                f"magnitude must be a whole number of 0 (off) to {MAX_MAGNITUDE}, "
                f"not {self.magnitude}"
            )
        low, high = self.scale
        if not 0 < low <= high <= 1:
            raise UsageError(
                f"scale must be two parts of the area such as 0.35 1, not {low} {high}"
            )
        if not 0 <= self.erase <= 1:
            raise UsageError(f"erase must be a probability, not {self.erase}")
        if not 0 <= self.jitter <= 1:
            raise UsageError(f"jitter must be 0 (off) to 1, not {self.jitter}")

    def pixels(
        self, source: Image.Image | Encoded, preprocess: Preprocess, random: np.random.Generator
    ) -> NDArray[np.uint8]:
        """An RGB image of any size -> uint8 (size, size, 3): the random `Preprocess.pixels`.

        One that is not decoded yet is decoded no finer than the crop needs.

        Raises:
            ImageError: it is damaged.
        """
        view = self._view(source, preprocess, random)
        if self.jitter:
            view = relit(view, self.jitter, random)
        if self._operates():
            view = POLICIES[self.policy](view, self.magnitude, fill_of(preprocess), random)
        pixels = np.array(view, dtype=np.uint8)
        if self.erase and random.random() < self.erase:
            erase(pixels, preprocess, random)
        return pixels

    def planned(
        self, source: Image.Image | Encoded, preprocess: Preprocess, random: np.random.Generator
    ) -> tuple[NDArray[np.uint8], Changes]:
        """The crop and flip of `pixels`, and what is still to be done to come to its result.

        The draws are the same as those of `pixels`, but for the noise, of which only a seed is
        drawn.

        Raises:
            ImageError: it is damaged.
        """
        view = self._view(source, preprocess, random)
        steps = light(self.jitter, random) if self.jitter else []
        if self._operates():
            drawn = POLICIES[self.policy].draw(self.magnitude, random)
            steps += ((name, OPERATIONS_OF_PAIRS[name].amount(much)) for name, much in drawn)
        hole, seed = None, 0
        if self.erase and random.random() < self.erase:
            hole = hole_box(view.size, random)
            seed = int(random.integers(2**63))
        return np.array(view, dtype=np.uint8), Changes(tuple(steps), hole, seed)

    def _view(
        self, source: Image.Image | Encoded, preprocess: Preprocess, random: np.random.Generator
    ) -> Image.Image:
        box = crop_box(source.size, self.scale, random)
        view = _crop(source, box, preprocess.size, INTERPOLATIONS[preprocess.interpolation])
        return ImageOps.mirror(view) if self.flip and random.random() < 0.5 else view

    def _operates(self) -> bool:
        return self.policy != "none" and bool(self.magnitude or self.policy != "randaugment")


def fill_of(preprocess: Preprocess) -> Colour:
    """The colour of what comes into an image from outside of it: the data's mean."""
    red, green, blue = (round(value) for value in preprocess.mean)
    return red, green, blue


def _crop(source: Image.Image | Encoded, box: Box, size: int, resampling: int) -> Image.Image:
    """The box of the source as a square of `size` pixels."""
    left, top, right, bottom = box
    image, across, down = source, 1.0, 1.0
    if isinstance(image, Encoded):
        room = min(right - left, bottom - top) / size
        image = image.decode(next((part for part in (8, 4, 2) if part <= room), 1))
        across, down = (now / whole for now, whole in zip(image.size, source.size, strict=True))
    scaled = (left * across, top * down, right * across, bottom * down)
    return image.resize((size, size), resampling, box=scaled)


def crop_box(size: tuple[int, int], scale: tuple[float, float], random: np.random.Generator) -> Box:
    """A random (left, top, right, bottom): uniform in area, log-uniform in aspect ratio.

    An image too long for ten tries gives the widest or tallest allowed crop of its centre. After
    "Going deeper with convolutions" (arXiv 1409.4842, section 6).
    """
    whole_width, whole_height = size
    for _ in range(10):
        area = random.uniform(*scale) * whole_width * whole_height
        ratio = math.exp(random.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        width, height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < width <= whole_width and 0 < height <= whole_height:
            left = int(random.integers(whole_width - width + 1))
            top = int(random.integers(whole_height - height + 1))
            return left, top, left + width, top + height
    width = max(1, min(whole_width, round(whole_height * RATIO[1])))
    height = max(1, min(whole_height, round(whole_width / RATIO[0])))
    left, top = (whole_width - width) // 2, (whole_height - height) // 2
    return left, top, left + width, top + height


def light(jitter: float, random: np.random.Generator) -> list[tuple[str, float]]:
    """Another light: brightness, contrast and saturation, each with its factor, in a random order.

    The factors are from 1 - jitter to 1 + jitter (A. Howard, arXiv 1312.5402).
    """
    factors = random.uniform(1 - jitter, 1 + jitter, len(LIGHT))
    return [(LIGHT[i], float(factors[i])) for i in random.permutation(len(LIGHT))]


def relit(image: Image.Image, jitter: float, random: np.random.Generator) -> Image.Image:
    """The image in a random other light; see `light`."""
    for name, factor in light(jitter, random):
        image = OPERATIONS[name].apply(image, factor, (0, 0, 0))  # none of them fills
    return image


def hole_box(size: tuple[int, int], random: np.random.Generator) -> Box | None:
    """A random (left, top, right, bottom) in an image of (width, height), as random erasing's.

    None if the box is larger than the image in ten tries.
    """
    width, height = size
    for _ in range(10):
        area = random.uniform(*HOLE) * height * width
        ratio = math.exp(random.uniform(math.log(HOLE_RATIO[0]), math.log(HOLE_RATIO[1])))
        tall, wide = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < tall < height and 0 < wide < width:
            top = int(random.integers(height - tall + 1))
            left = int(random.integers(width - wide + 1))
            return left, top, left + wide, top + tall
    return None


def erase(pixels: NDArray[np.uint8], preprocess: Preprocess, random: np.random.Generator) -> None:
    """Fills a random box of uint8 (H, W, 3) with noise of the data's mean and deviation, in place.

    If there is no such box, see `hole_box`, nothing changes.
    """
    height, width = pixels.shape[:2]
    hole = hole_box((width, height), random)
    if hole is None:
        return
    left, top, right, bottom = hole
    shape = (bottom - top, right - left, 3)
    noise = random.standard_normal(shape, np.float32)  # faster than float64
    noise *= np.array(preprocess.std, np.float32)
    noise += np.array(preprocess.mean, np.float32) + 0.5  # what follows rounds down
    pixels[top:bottom, left:right] = noise.clip(0, 255)
