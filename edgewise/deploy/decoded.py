"""Image files to pixels, in threads while the network runs; in order, and few at a time."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgewise.data.decode import ImageError, decode_bytes, quiet_pillow, read_limited

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgewise.data.dataset import Sample
    from edgewise.deploy.predictor import Predictor
    from edgewise.preprocess import Preprocess


KEPT_BYTES = 2**27  # of pixels: 890 images of 224 px


@dataclass
class _Kept:
    """Pixels of samples by their SHA-256, all for one `Preprocess`."""

    preprocess: Preprocess | None = None
    pixels: dict[str, NDArray[np.uint8]] = field(default_factory=dict)
    bytes: int = 0

    def of(self, image: Path | Sample, preprocess: Preprocess) -> Decoded | None:
        if isinstance(image, Path) or preprocess != self.preprocess:
            return None
        pixels = self.pixels.get(image.sha256)
        return None if pixels is None else Decoded(image.path, pixels)

    def add(self, image: Path | Sample, preprocess: Preprocess, decoded: Decoded) -> None:
        if isinstance(image, Path) or not image.sha256 or decoded.pixels is None:
            return
        if preprocess != self.preprocess:
            self.preprocess, self.pixels, self.bytes = preprocess, {}, 0
        if image.sha256 not in self.pixels and self.bytes + decoded.pixels.nbytes <= KEPT_BYTES:
            self.pixels[image.sha256] = decoded.pixels
            self.bytes += decoded.pixels.nbytes


_kept: ContextVar[_Kept | None] = ContextVar("pixels that are kept", default=None)


@contextmanager
def decoded_once() -> Iterator[None]:
    """Within it samples are decoded once, as far as `KEPT_BYTES` go.

    Calibration, golden inputs and the check of each file look at the same ones, and to decode a
    photo of many megapixels takes longer than to classify it.
    """
    if _kept.get():
        yield
        return
    token = _kept.set(_Kept())
    try:
        yield
    finally:
        _kept.reset(token)


@dataclass(frozen=True)
class Decoded:
    """One file: its pixels, uint8 (size, size, 3), or else the reason why there are none."""

    path: Path
    pixels: NDArray[np.uint8] | None
    error: str = ""


def decode_batches(
    images: Iterable[Path | Sample], preprocess: Preprocess, batch: int
) -> Iterator[list[Decoded]]:
    """Decodes files in lists of `batch`, in their order; a file that can't be read has an `error`.

    So has a sample that holds other bytes than those that were labelled. Memory holds the pixels of
    three batches at most, however many images there are.
    """
    threads = min(os.cpu_count() or 1, 8)  # Pillow lets go of Python's lock
    remaining, kept = iter(images), _kept.get()
    with quiet_pillow(), ThreadPoolExecutor(threads) as pool:

        def begin(count: int) -> Iterator[tuple[Path | Sample, Decoded | Future[Decoded]]]:
            for image in islice(remaining, count):
                known = kept.of(image, preprocess) if kept else None
                yield image, known or pool.submit(_decode, image, preprocess)

        waiting = deque(begin(2 * batch))
        while waiting:
            ready = []
            for image, found in (waiting.popleft() for _ in range(min(batch, len(waiting)))):
                if isinstance(found, Future):
                    found = found.result()
                    if kept:
                        kept.add(image, preprocess, found)
                ready.append(found)
            waiting.extend(begin(batch))
            yield ready


def answers(predictor: Predictor, decoded: list[Decoded]) -> list[NDArray[np.float32] | None]:
    """The probabilities (classes,) of each file that has pixels, None for the others."""
    pixels = [item.pixels for item in decoded if item.pixels is not None]
    rows = iter(predictor.probabilities(np.stack(pixels)) if pixels else ())
    return [None if item.pixels is None else next(rows) for item in decoded]


def _decode(image: Path | Sample, preprocess: Preprocess) -> Decoded:
    path = image if isinstance(image, Path) else image.path
    try:
        data = read_limited(image) if isinstance(image, Path) else image.read()
        return Decoded(path, preprocess.pixels(decode_bytes(data)))
    except ImageError as error:
        return Decoded(path, None, str(error))
