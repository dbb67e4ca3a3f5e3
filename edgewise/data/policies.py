"""RandAugment, TrivialAugment and AutoAugment: which operations are applied to an image.

Their operations have a strength from -1 to 1, over the ranges of AutoAugment (Cubuk et al., arXiv
1805.09501, table 6). Those that move an image turn about its centre, and fill with a colour.

RandAugment's magnitudes above 10 go past these ends, except where little would be left to see:

- Colour, contrast, brightness and sharpness never fall below the low end, 0.1 (as in timm; the
  factors of EfficientNetV2's authors, 0.1 + 1.8 s, aren't lower either: google/automl,
  efficientnetv2/autoaugment.py).
- Posterize never keeps fewer than the 4 bits of its end (theirs keeps 4 s, so more past it).
- Translation stays at its end, 45 % of an image. Theirs is 100 s pixels, which are 50, 53 and 66 %
  of an image at the last magnitudes and sizes of V2-S, M and L; two such could leave nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

Colour = tuple[int, int, int]
Affine = tuple[float, float, float, float, float, float]

STRONGEST = 10  # the magnitude at which a strength is 1
MAX_MAGNITUDE = 30  # EfficientNetV2's go up to 25: past the end of the ranges
OPERATIONS_PER_IMAGE = 2
STEPS = 30  # of TrivialAugment's strengths
BILINEAR = Image.Resampling.BILINEAR


@dataclass(frozen=True)
class Operation:
    """An operation on an image.

    Attributes:
        amount: of a strength, in the operation's own unit: degrees, a factor, a number of bits ...
        apply: an image, such an amount, and the colour to fill with -> an image of the same size.
    """

    amount: Callable[[float], float]
    apply: Callable[[Image.Image, Any, Colour], Image.Image]

    def __call__(self, image: Image.Image, strength: float, fill: Colour) -> Image.Image:
        """The image after the operation at that strength."""
        return self.apply(image, self.amount(strength), fill)


@dataclass(frozen=True)
class Policy:
    """A rule for which operations an image gets.

    Attributes:
        draw: a magnitude and a generator -> the (name, strength) of each operation, in order.
    """

    draw: Callable[[int, np.random.Generator], Iterator[tuple[str, float]]]

    def __call__(
        self, image: Image.Image, magnitude: int, fill: Colour, random: np.random.Generator
    ) -> Image.Image:
        """The image after the operations that are drawn for it."""
        for name, strength in self.draw(magnitude, random):
            image = OPERATIONS_OF_PAIRS[name](image, strength, fill)
        return image


def randaugment(magnitude: int, random: np.random.Generator) -> Iterator[tuple[str, float]]:
    """Two of fourteen operations, all at one magnitude (Cubuk et al., arXiv 1909.13719)."""
    names = tuple(OPERATIONS)
    for _ in range(OPERATIONS_PER_IMAGE):
        name = names[random.integers(len(names))]
        yield name, _sign(random) * magnitude / STRONGEST


def trivialaugment(magnitude: int, random: np.random.Generator) -> Iterator[tuple[str, float]]:
    """One operation at any strength: there is nothing to tune (arXiv 2103.10158, "RA" space).

    `magnitude` is not used.
    """
    names = tuple(OPERATIONS)
    name = names[random.integers(len(names))]
    yield name, _sign(random) * int(random.integers(STEPS + 1)) / STEPS


def autoaugment(magnitude: int, random: np.random.Generator) -> Iterator[tuple[str, float]]:
    """A pair of operations that was searched for on ImageNet (arXiv 1805.09501, table 9).

    Each has its probability and magnitude; `magnitude` is not used.
    """
    for name, probability, level in IMAGENET[random.integers(len(IMAGENET))]:
        if random.random() < probability:
            yield name, _sign(random) * level / STRONGEST


POLICIES = {draw.__name__: Policy(draw) for draw in (randaugment, trivialaugment, autoaugment)}


def _sign(random: np.random.Generator) -> int:
    return 1 if random.random() < 0.5 else -1


def _rotation(degrees: float, width: int, height: int) -> Affine:
    """The sampling of Pillow's `rotate`, which rounds as this does."""
    angle = -math.radians(degrees % 360)
    cos, sin = round(math.cos(angle), 15), round(math.sin(angle), 15)
    x, y = width / 2, height / 2
    return cos, sin, cos * -x + sin * -y + x, -sin, cos, -sin * -x + cos * -y + y


# (a, b, c, d, e, f) of an amount and an image's width and height: a pixel is sampled at
# x' = a x + b y + c and y' = d x + e y + f, in pixels from the image's corner.
AFFINE: dict[str, Callable[[float, int, int], Affine]] = {
    "rotate": _rotation,
    "shear x": lambda slope, width, height: (1, slope, -slope * height / 2, 0, 1, 0),
    "shear y": lambda slope, width, height: (1, 0, 0, slope, 1, -slope * width / 2),
    "translate x": lambda part, width, height: (1, 0, round(part * width), 0, 1, 0),
    "translate y": lambda part, width, height: (1, 0, 0, 0, 1, round(part * height)),
}


def _affine(name: str, most: float, strongest: float = math.inf) -> Operation:
    def apply(image: Image.Image, amount: float, fill: Colour) -> Image.Image:
        data = AFFINE[name](amount, *image.size)
        return image.transform(image.size, Image.Transform.AFFINE, data, BILINEAR, fillcolor=fill)

    return Operation(lambda strength: most * max(-strongest, min(strongest, strength)), apply)


def _enhanced(kind: type[Any]) -> Operation:
    """Pillow's factor: 1 leaves an image as it is, 0 takes all of its colour (or the like) away."""
    return Operation(
        lambda strength: max(0.1, 1 + 0.9 * strength),
        lambda image, factor, fill: kind(image).enhance(factor),
    )


def _plain(change: Callable[[Image.Image], Image.Image]) -> Operation:
    """It has no strength."""
    return Operation(lambda strength: 0.0, lambda image, amount, fill: change(image))


# What a strength in [-1, 1] does. Operations with one direction look at its size only.
OPERATIONS: dict[str, Operation] = {
    "identity": _plain(lambda image: image),
    "auto contrast": _plain(ImageOps.autocontrast),
    "equalize": _plain(ImageOps.equalize),
    "rotate": Operation(
        lambda strength: 30 * strength,
        lambda image, degrees, fill: image.rotate(degrees, BILINEAR, fillcolor=fill),
    ),
    "shear x": _affine("shear x", 0.3),
    "shear y": _affine("shear y", 0.3),
    "translate x": _affine("translate x", 150 / 331, 1),  # the paper: 150 pixels of 331
    "translate y": _affine("translate y", 150 / 331, 1),
    "solarize": Operation(
        lambda strength: max(0, round(256 * (1 - abs(strength)))),
        lambda image, threshold, fill: ImageOps.solarize(image, threshold),
    ),
    "posterize": Operation(
        lambda strength: 8 - round(4 * min(1, abs(strength))),
        lambda image, bits, fill: ImageOps.posterize(image, bits),
    ),
    "color": _enhanced(ImageEnhance.Color),
    "contrast": _enhanced(ImageEnhance.Contrast),
    "brightness": _enhanced(ImageEnhance.Brightness),
    "sharpness": _enhanced(ImageEnhance.Sharpness),
}

# AutoAugment's, and not RandAugment's.
OPERATIONS_OF_PAIRS = OPERATIONS | {"invert": _plain(ImageOps.invert)}

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
