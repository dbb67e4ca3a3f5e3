"""Random views of a training image: a resized crop, a flip, and RandAugment.

RandAugment (Cubuk et al., arXiv 1909.13719) applies two of fourteen operations, all at one
magnitude of 0..10. Its ranges are those of AutoAugment (arXiv 1805.09501, table 6). The affine
operations turn about the image's centre and fill with the mean colour of the preprocessing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from edgewise.errors import UsageError
from edgewise.preprocess import INTERPOLATIONS, Preprocess

Colour = tuple[int, int, int]
Operation = Callable[[Image.Image, float, Colour], Image.Image]

MAX_MAGNITUDE = 10
OPERATIONS_PER_IMAGE = 2
RATIO = (3 / 4, 4 / 3)  # width / height of a crop
BILINEAR = Image.Resampling.BILINEAR


@dataclass(frozen=True)
class Augment:
    """What may happen to a training image.

    Attributes:
        flip: mirror half of the images; not for digits, text, or anything with a handedness.
        randaugment: magnitude of RandAugment, 0 (off) to 10.
        scale: the smallest and the largest part of the image's area that a crop keeps.
    """

    flip: bool = True
    randaugment: int = 0
    scale: tuple[float, float] = (0.35, 1.0)

    def __post_init__(self) -> None:
        if not 0 <= self.randaugment <= MAX_MAGNITUDE:
            raise UsageError(
                f"randaugment must be a whole number of 0 (off) to {MAX_MAGNITUDE}, "
                f"not {self.randaugment}"
            )
        low, high = self.scale
        if not 0 < low <= high <= 1:
            raise UsageError(
                f"scale must be two parts of the area such as 0.35 1, not {low} {high}"
            )

    def pixels(
        self, image: Image.Image, preprocess: Preprocess, random: np.random.Generator
    ) -> NDArray[np.uint8]:
        """An RGB image of any size -> uint8 (size, size, 3): the random `Preprocess.pixels`."""
        box = crop_box(image.size, self.scale, random)
        size = (preprocess.size, preprocess.size)
        view = image.crop(box).resize(size, INTERPOLATIONS[preprocess.interpolation])
        if self.flip and random.random() < 0.5:
            view = ImageOps.mirror(view)
        if self.randaugment:
            red, green, blue = (round(value) for value in preprocess.mean)
            view = _randaugment(view, self.randaugment, (red, green, blue), random)
        return np.asarray(view, dtype=np.uint8)


def crop_box(
    size: tuple[int, int], scale: tuple[float, float], random: np.random.Generator
) -> tuple[int, int, int, int]:
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


def _randaugment(
    image: Image.Image, magnitude: int, fill: Colour, random: np.random.Generator
) -> Image.Image:
    names = tuple(OPERATIONS)
    for _ in range(OPERATIONS_PER_IMAGE):
        operation = OPERATIONS[names[random.integers(len(names))]]
        sign = 1 if random.random() < 0.5 else -1
        image = operation(image, sign * magnitude / MAX_MAGNITUDE, fill)
    return image


def _affine(
    image: Image.Image,
    across: tuple[float, float, float],
    down: tuple[float, float, float],
    fill: Colour,
) -> Image.Image:
    """Samples at x' = a x + b y + c and y' = d x + e y + f, in pixels from the image's corner."""
    return image.transform(
        image.size, Image.Transform.AFFINE, (*across, *down), BILINEAR, fillcolor=fill
    )


def _shear_x(image: Image.Image, strength: float, fill: Colour) -> Image.Image:
    slope = 0.3 * strength
    return _affine(image, (1, slope, -slope * image.height / 2), (0, 1, 0), fill)


def _shear_y(image: Image.Image, strength: float, fill: Colour) -> Image.Image:
    slope = 0.3 * strength
    return _affine(image, (1, 0, 0), (slope, 1, -slope * image.width / 2), fill)


def _translate_x(image: Image.Image, strength: float, fill: Colour) -> Image.Image:
    shift = round(150 / 331 * image.width * strength)  # the paper: 150 pixels of 331
    return _affine(image, (1, 0, shift), (0, 1, 0), fill)


def _translate_y(image: Image.Image, strength: float, fill: Colour) -> Image.Image:
    shift = round(150 / 331 * image.height * strength)
    return _affine(image, (1, 0, 0), (0, 1, shift), fill)


# name: what a strength in [-1, 1] does. Operations with one direction look at its size only.
OPERATIONS: dict[str, Operation] = {
    "identity": lambda image, strength, fill: image,
    "auto contrast": lambda image, strength, fill: ImageOps.autocontrast(image),
    "equalize": lambda image, strength, fill: ImageOps.equalize(image),
    "rotate": lambda image, strength, fill: image.rotate(30 * strength, BILINEAR, fillcolor=fill),
    "shear x": _shear_x,
    "shear y": _shear_y,
    "translate x": _translate_x,
    "translate y": _translate_y,
    "solarize": lambda image, strength, fill: ImageOps.solarize(
        image, round(256 * (1 - abs(strength)))
    ),
    "posterize": lambda image, strength, fill: ImageOps.posterize(
        image, 8 - round(4 * abs(strength))
    ),
    "color": lambda image, strength, fill: ImageEnhance.Color(image).enhance(1 + 0.9 * strength),
    "contrast": lambda image, strength, fill: ImageEnhance.Contrast(image).enhance(
        1 + 0.9 * strength
    ),
    "brightness": lambda image, strength, fill: ImageEnhance.Brightness(image).enhance(
        1 + 0.9 * strength
    ),
    "sharpness": lambda image, strength, fill: ImageEnhance.Sharpness(image).enhance(
        1 + 0.9 * strength
    ),
}
