"""Training images decoded once, a little larger than they are trained on, on disk or in memory.

Random crops then come from the smaller copy. One that keeps four fifths of each side or more has as
many pixels there as it is trained on; a smaller one is enlarged.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from edgewise.data.dataset import Sample
from edgewise.data.decode import (
    FORMATS,
    ImageError,
    decode_bytes,
    quiet_pillow,
    read_limited,
)
from edgewise.errors import EdgewiseError
from edgewise.preprocess import INTERPOLATIONS
from edgewise.progress import track

LARGER = 1.25  # times the training size: the shorter side that is kept at most
FIELDS = 3  # of the index: where an image begins, its height, its width
MEMORY = Path("/proc/meminfo")
SHARED_MEMORY = Path("/dev/shm")
VERSION = "1"


class ImageCache:
    """Decoded images, which the processes that load them share.

    Pickled, one on disk is its path, and one in memory is torch's handle of it.
    """

    def __init__(
        self, index: NDArray[np.int64], pixels: torch.Tensor | None, path: Path | None
    ) -> None:
        """Not to be called; see `open_cache`."""
        self.index, self._tensor, self._path = index, pixels, path
        self._pixels: NDArray[np.uint8] = (
            pixels.numpy()
            if pixels is not None
            else np.memmap(str(path), np.uint8, "r", offset=index.nbytes)
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return ImageCache, (self.index, self._tensor, self._path)

    def image(self, number: int) -> Image.Image:
        """An image by its sample's number: RGB."""
        start, height, width = self.index[number].tolist()
        pixels = self._pixels[start : start + height * width * 3]
        return Image.fromarray(pixels.reshape(height, width, 3))


def cache_side(size: int, crop_scale: float) -> int:
    """The shorter side to keep, in pixels.

    Args:
        size: the largest that is trained on.
        crop_scale: the smallest part of an image's area that a crop keeps.
    """
    return math.ceil(size * min(LARGER, 1 / math.sqrt(crop_scale)))


def open_cache(
    samples: Sequence[Sample], side: int, interpolation: str, folder: Path | None, workers: int
) -> ImageCache:
    """A cache of samples, in their order; made, unless `folder` has it.

    Args:
        samples: the images, of the same contents as when they were checked.
        side: shorter side to keep; smaller images stay as they are.
        interpolation: see `INTERPOLATIONS`.
        folder: where to keep it on disk; None keeps it in memory.
        workers: threads that decode.

    Raises:
        EdgewiseError: there is too little room; the message says how much it takes. Or an image
            can't be read any more, or holds other bytes.
    """
    parts = [VERSION, str(side), interpolation, *(sample.sha256 for sample in samples)]
    path = folder and folder / f"{hashlib.sha256(' '.join(parts).encode()).hexdigest()[:32]}.u8"
    if path and (index := _whole_index(path, len(samples))) is not None:
        return ImageCache(index, None, path)
    shapes = _in_threads(samples, lambda sample: _shape(sample, side), "measuring", workers)
    index = np.zeros((len(samples), FIELDS), np.int64)
    index[:, 1:] = shapes
    sizes = 3 * index[:, 1] * index[:, 2]
    index[1:, 0] = np.cumsum(sizes)[:-1]
    total = int(sizes.sum())

    def fill(pixels: NDArray[np.uint8]) -> None:
        def one(number: int) -> None:
            image = _small(samples[number], side, interpolation)
            index[number, 1:] = image.height, image.width  # an upright photo may lie on its side
            start = index[number, 0]
            pixels[start : start + sizes[number]] = np.asarray(image).reshape(-1)

        _in_threads(range(len(samples)), one, "caching", workers)

    if path is None:
        _check_memory(total)
        tensor = torch.empty(total, dtype=torch.uint8)
        tensor.share_memory_()  # type: ignore[no-untyped-call]
        fill(tensor.numpy())
        return ImageCache(index, tensor, None)
    _make_file(path, index, total, fill)
    return ImageCache(index, None, path)


def _make_file(
    path: Path, index: NDArray[np.int64], total: int, fill: Callable[[NDArray[np.uint8]], None]
) -> None:
    """Writes index and pixels beside `path`, then renames. Two runs at once write the same bytes.

    A file that a killed run left is taken over.
    """
    needed = index.nbytes + total
    unfinished = path.with_suffix(".unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        there = unfinished.stat().st_size if unfinished.exists() else 0
        free = shutil.disk_usage(path.parent).free + there
        if free < needed:
            raise EdgewiseError(
                f"the cache takes {needed:,} bytes, but {path.parent} has {free:,} left. Free some "
                "space, set $EDGEWISE_CACHE to a folder on another disk, or train with --cache none"
            )
        with unfinished.open("a+b") as file:  # kept open, as the other run may rename it meanwhile
            if hasattr(os, "posix_fallocate"):  # or a disk that fills up would end the process
                os.posix_fallocate(file.fileno(), 0, needed)
            file.truncate(needed)
            whole = np.memmap(file, np.uint8, "r+", shape=needed)
            fill(whole[index.nbytes :])
            whole[: index.nbytes] = index.reshape(-1).view(np.uint8)
            whole.flush()
            del whole  # Windows renames no file that is mapped
            os.fsync(file.fileno())
        with suppress(FileNotFoundError):  # the other run has renamed it
            unfinished.replace(path)
        if not path.exists():  # or was stopped, and removed it
            _make_file(path, index, total, fill)
    except OSError as error:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise EdgewiseError(
            f"can't write the cache of {needed:,} bytes in {path.parent}: "
            f"{error.strerror or error}. Train with --cache none, or set $EDGEWISE_CACHE to "
            "another folder."
        ) from error
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def _whole_index(path: Path, count: int) -> NDArray[np.int64] | None:
    """The index of a cache file, or None if there is none or it was cut off."""
    try:
        index = np.fromfile(path, np.int64, count * FIELDS).reshape(count, FIELDS)
        size = path.stat().st_size
    except (OSError, ValueError):
        return None
    whole = index.nbytes + 3 * int((index[:, 1] * index[:, 2]).sum())
    return index if size == whole else None


def _check_memory(total: int) -> None:
    places = {}
    if MEMORY.exists():
        lines = dict(line.split(":") for line in MEMORY.read_text().splitlines())
        places["memory"] = int(lines["MemAvailable"].split()[0]) * 1024
    if SHARED_MEMORY.exists():
        places[str(SHARED_MEMORY)] = shutil.disk_usage(SHARED_MEMORY).free
    for place, free in places.items():
        if free < total:
            raise EdgewiseError(
                f"the cache takes {total:,} bytes, but there are {free:,} free in {place}. "
                "Train with --cache disk, or with a smaller --imgsz."
            )


def _in_threads(
    items: Sequence[Any], work: Callable[[Any], Any], what: str, workers: int
) -> list[Any]:
    pool = ThreadPoolExecutor(max(1, workers))
    try:
        with quiet_pillow():
            return list(track(pool.map(work, items), f"{what} images", len(items)))
    finally:
        pool.shutdown(cancel_futures=True)


def _shape(sample: Sample, side: int) -> tuple[int, int]:
    """(height, width) of the copy, from the header alone; or the two the other way round."""
    try:
        with Image.open(BytesIO(read_limited(sample.path)), formats=FORMATS) as image:
            width, height = _smaller(image.size, side)
    except (EdgewiseError, OSError) as error:
        raise _gone(sample, error) from None
    return height, width


def _small(sample: Sample, side: int, interpolation: str) -> Image.Image:
    try:
        image = decode_bytes(sample.read())
    except ImageError as error:
        raise _gone(sample, error) from None
    size = _smaller(image.size, side)
    return image if size == image.size else image.resize(size, INTERPOLATIONS[interpolation])


def _smaller(size: tuple[int, int], side: int) -> tuple[int, int]:
    scale = min(1.0, side / min(size))
    return round(size[0] * scale), round(size[1] * scale)


def _gone(sample: Sample, error: Exception) -> EdgewiseError:
    return EdgewiseError(
        f"{sample.path} could be read when the data was checked, but not now: {error}. "
        "Put it back as it was, or start a new run on the data as it is."
    )
