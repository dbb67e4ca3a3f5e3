"""What there is to know of each image file, from one full decode in a worker process."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from edgewise.data.decode import FORMATS, ImageError, decode_bytes, quiet_pillow, read_limited

CHUNK = 64  # files that a worker is given at once
GRID = 12  # side of the small grey copy that near duplicates are compared by


@dataclass(frozen=True, slots=True)
class Facts:
    """Of one file. If it can't be used, `reason` says why and the rest is 0.

    Attributes:
        sha256: of its bytes, 32 of them; empty if they can't be read.
        width: of the upright image, in pixels.
        height: likewise.
        mode: Pillow's name for how its pixels are stored, such as "RGB", "CMYK" or "P".
        spread: standard deviation of its grey values, 0..255; near 0 it is blank.
        hash: 64 bits of which neighbouring place is the lighter one (dHash).
        small: a grey copy of 12 x 12 pixels, as bytes.
        reason: why it can't be used, or "".
    """

    sha256: bytes = b""
    width: int = 0
    height: int = 0
    mode: str = ""
    spread: float = 0.0
    hash: int = 0
    small: bytes = b""
    reason: str = ""


def gather(paths: Sequence[Path], workers: int) -> Iterator[Facts]:
    """The facts of each path, in order, from as many processes; 0 does the work in this one."""
    if workers == 0:
        with quiet_pillow():
            yield from map(facts_of, paths)
        return
    with ProcessPoolExecutor(workers, initializer=_quiet) as pool:
        try:
            yield from pool.map(facts_of, paths, chunksize=CHUNK)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _quiet() -> None:
    quiet_pillow().__enter__()  # for as long as the process lives


def facts_of(path: Path) -> Facts:
    """Reads and decodes one file."""
    try:
        data = read_limited(path)
    except ImageError as error:
        return Facts(reason=str(error))
    sha256 = hashlib.sha256(data).digest()
    try:
        image = decode_bytes(data)
    except ImageError as error:
        return Facts(sha256, reason=str(error))
    with Image.open(BytesIO(data), formats=FORMATS) as header:
        mode = header.mode
    grey = image.convert("L")
    small = np.asarray(grey.resize((GRID, GRID), Image.Resampling.BOX))
    spread = float(np.asarray(grey.resize((64, 64), Image.Resampling.BOX)).std())
    return Facts(sha256, image.width, image.height, mode, spread, dhash(grey), small.tobytes())


def dhash(grey: Image.Image) -> int:
    """64 bits: whether each of 8 x 8 places is darker than its right neighbour.

    It hardly changes when an image is resized, compressed or made lighter.
    """
    values = np.asarray(grey.resize((9, 8), Image.Resampling.BOX)).astype(np.int16)
    bits = (values[:, 1:] > values[:, :-1]).ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")
