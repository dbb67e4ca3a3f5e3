"""RandAugment, TrivialAugment and AutoAugment: which operations are applied to an image.

Their operations have a strength from -1 to 1, over the ranges of AutoAugment (Cubuk et al., arXiv
1805.09501, table 6). Those that move an image turn about its centre, and fill with a colour.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

Colour = tuple[int, int, int]
Operation = Callable[[Image.Image, float, Colour], Image.Image]

STRONGEST = 10  # the magnitude at which a strength is 1
MAX_MAGNITUDE = 30  # EfficientNetV2's go up to 25: past the end of the ranges
OPERATIONS_PER_IMAGE = 2
STEPS = 30  # of TrivialAugment's strengths
BILINEAR = Image.Resampling.BILINEAR


def randaugment(
    image: Image.Image, magnitude: int, fill: Colour, random: np.random.Generator
) -> Image.Image:
    """Two of fourteen operations, all at one magnitude (Cubuk et al., arXiv 1909.13719)."""
    names = tuple(OPERATIONS)
    for _ in range(OPERATIONS_PER_IMAGE):
        operation = OPERATIONS[names[random.integers(len(names))]]
        image = operation(image, _sign(random) * magnitude / STRONGEST, fill)
    return image


def trivialaugment(
    image: Image.Image, magnitude: int, fill: Colour, random: np.random.Generator
) -> Image.Image:
    """One operation at any strength: there is nothing to tune (arXiv 2103.10158, "RA" space).

    `magnitude` is not used.
    """
    names = tuple(OPERATIONS)
    operation = OPERATIONS[names[random.integers(len(names))]]
    return operation(image, _sign(random) * random.integers(STEPS + 1) / STEPS, fill)


def autoaugment(
    image: Image.Image, magnitude: int, fill: Colour, random: np.random.Generator
) -> Image.Image:
    """A pair of operations that was searched for on ImageNet (arXiv 1805.09501, table 9).

    Each has its probability and magnitude; `magnitude` is not used.
    """
    for name, probability, level in IMAGENET[random.integers(len(IMAGENET))]:
        if random.random() < probability:
            image = OPERATIONS_OF_PAIRS[name](image, _sign(random) * level / STRONGEST, fill)
    return image


POLICIES = {policy.__name__: policy for policy in (randaugment, trivialaugment, autoaugment)}


def _sign(random: np.random.Generator) -> int:
    return 1 if random.random() < 0.5 else -1


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


def _enhanced(kind: type[Any]) -> Operation:
    """Pillow's factor: 1 leaves an image as it is, 0 takes all of its colour (or the like) away."""
    return lambda image, strength, fill: kind(image).enhance(max(0.0, 1 + 0.9 * strength))


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
        image, max(0, round(256 * (1 - abs(strength))))
    ),
    "posterize": lambda image, strength, fill: ImageOps.posterize(
        image, max(1, 8 - round(4 * abs(strength)))
    ),
    "color": _enhanced(ImageEnhance.Color),
    "contrast": _enhanced(ImageEnhance.Contrast),
    "brightness": _enhanced(ImageEnhance.Brightness),
    "sharpness": _enhanced(ImageEnhance.Sharpness),
}

# AutoAugment's, and not RandAugment's.
OPERATIONS_OF_PAIRS = OPERATIONS | {"invert": lambda image, strength, fill: ImageOps.invert(image)}

IMAGENET: tuple[tuple[tuple[str, float, int], ...], ...] = (
    (("posterize", 0.4, 8), ("rotate", 0.6, 9)),
    (("solarize", 0.6, 5), ("auto contrast", 0.6, 5)),
    (("equalize", 0.8, 8), ("equalize", 0.6, 3)),
    (("posterize", 0.6, 7), ("posterize", 0.6, 6)),
    (("equalize", 0.4, 7), ("solarize", 0.2, 4)),
    (("equalize", 0.4, 4), ("rotate", 0.8, 8)),
    (("solarize", 0.6, 3), ("equalize", 0.6, 7)),
    (("posterize", 0.8, 5), ("equalize", 1.0, 2)),
    (("rotate", 0.2, 3), ("solarize", 0.6, 8)),
    (("equalize", 0.6, 8), ("posterize", 0.4, 6)),
    (("rotate", 0.8, 8), ("color", 0.4, 0)),
    (("rotate", 0.4, 9), ("equalize", 0.6, 2)),
    (("equalize", 0.0, 7), ("equalize", 0.8, 8)),
    (("invert", 0.6, 4), ("equalize", 1.0, 8)),
    (("color", 0.6, 4), ("contrast", 1.0, 8)),
    (("rotate", 0.8, 8), ("color", 1.0, 2)),
    (("color", 0.8, 8), ("solarize", 0.8, 7)),
    (("sharpness", 0.4, 7), ("invert", 0.6, 8)),
    (("shear x", 0.6, 5), ("equalize", 1.0, 9)),
    (("color", 0.4, 0), ("equalize", 0.6, 3)),
    (("equalize", 0.4, 7), ("solarize", 0.2, 4)),
    (("solarize", 0.6, 5), ("auto contrast", 0.6, 5)),
    (("invert", 0.6, 4), ("equalize", 1.0, 8)),
    (("color", 0.6, 4), ("contrast", 1.0, 8)),
    (("equalize", 0.8, 8), ("equalize", 0.6, 3)),
)
