"""From a decoded image to a network's input, in one place for training, evaluation and export.

It has two halves. `pixels` turns an image into a square of bytes and runs outside of every exported
graph; `normalise` turns bytes into numbers and runs inside of it. This rule travels with the
weights, as `preprocess.json` in a model folder and as metadata in every artefact.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from PIL import Image
from pydantic import Field

from edgewise.validation import from_plain, one_of, record

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

INTERPOLATIONS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


_AboveZero = Annotated[float, Field(gt=0)]


@record()
class Preprocess:
    """How an image becomes an input.

    Attributes:
        size: height and width of the input, in pixels.
        crop: the part of the resized shorter side that the centre crop keeps, in (0, 1].
        interpolation: "bilinear" or "bicubic", both with anti-aliasing (Pillow's).
        mean: per channel, in units of pixel values 0..255.
        std: per channel, in units of pixel values 0..255.
        colour: the order of the channels; only "RGB".
    """

    size: Annotated[int, Field(ge=1)]
    crop: Annotated[float, Field(gt=0, le=1)]
    interpolation: Annotated[str, one_of(*INTERPOLATIONS)]
    mean: tuple[float, float, float]
    std: tuple[_AboveZero, _AboveZero, _AboveZero]
    colour: Literal["RGB"] = "RGB"

    def pixels(self, image: Image.Image) -> NDArray[np.uint8]:
        """An RGB image of any size -> uint8 (size, size, 3).

        The shorter side is resized to size / crop, then the centre square is taken. Sides are cut
        to whole pixels and offsets rounded, as in torchvision and timm.
        """
        shorter = int(self.size / self.crop)
        width, height = (shorter * side // min(image.size) for side in image.size)
        resized = image.resize((width, height), INTERPOLATIONS[self.interpolation])
        left, top = round((width - self.size) / 2), round((height - self.size) / 2)
        square = resized.crop((left, top, left + self.size, top + self.size))
        return np.array(square, dtype=np.uint8)  # a copy: torch wants it writable

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 (N, H, W, 3) -> float32 (N, 3, H, W), (value - mean) / std."""
        import torch

        mean = torch.tensor(self.mean, dtype=torch.float32, device=pixels.device)
        std = torch.tensor(self.std, dtype=torch.float32, device=pixels.device)
        # Plane by plane: where neighbours have constants of their own, ONNX Runtime takes about as
        # long for this as for all of a small network.
        planes = pixels.permute(0, 3, 1, 2).to(torch.float32)
        return (planes - mean.reshape(3, 1, 1)) / std.reshape(3, 1, 1)

    def to_json(self) -> dict[str, Any]:
        """A dictionary of plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> Preprocess:
        """The inverse of `to_json`.

        Raises:
            UsageError: a key is missing, unknown or out of range.
        """
        return from_plain(cls, value, "preprocess")


IMAGENET_MEAN = (123.675, 116.28, 103.53)  # 255 * (.485, .456, .406)
IMAGENET_STD = (58.395, 57.12, 57.375)  # 255 * (.229, .224, .225)
