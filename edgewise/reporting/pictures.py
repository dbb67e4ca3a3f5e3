"""Small copies of the user's pictures, inside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from edgewise.data.decode import ImageError, decode_bytes, quiet_pillow, read_limited

SIDE = 96  # pixels
ORANGE, STRENGTH = (255, 110, 0), 0.75  # what a map is drawn in, and how much of the grey it hides


def thumbnail(path: Path) -> str | None:
    """The centre square of an image as a `data:` URI of a JPEG of at most 96 x 96 pixels.

    The centre square, since that is about what the network is shown. None if the image can't be
    read any more: the report of an old run must still open.
    """
    try:
        image = decode_bytes(read_limited(path))
    except ImageError:
        return None
    return data_uri(image)


def data_uri(image: Image.Image) -> str:
    """The centre square of an RGB image as a JPEG of at most 96 x 96 pixels."""
    side = min(SIDE, *image.size)
    buffer = io.BytesIO()
    square = ImageOps.fit(image, (side, side), Image.Resampling.BICUBIC)
    square.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def heated(image: Image.Image, heat: NDArray[np.float32]) -> Image.Image:
    """The image in grey, with orange over it where `heat` (h, w), from 0 to 1, is high.

    The image's own colours would be mistaken for those of the map.
    """
    cells = Image.fromarray((255 * STRENGTH * heat).astype(np.uint8))
    mask = cells.resize(image.size, Image.Resampling.BILINEAR)
    grey = image.convert("L").convert("RGB")
    return Image.composite(Image.new("RGB", image.size, ORANGE), grey, mask)


def thumbnails(paths: Iterable[Path]) -> dict[Path, str | None]:
    """A thumbnail for each path; decoding releases Python's lock, so threads share the work."""
    unique = list(dict.fromkeys(paths))
    with quiet_pillow(), ThreadPoolExecutor() as pool:
        return dict(zip(unique, pool.map(thumbnail, unique), strict=True))
