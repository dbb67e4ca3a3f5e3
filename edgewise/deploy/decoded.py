"""Image files to pixels, in threads while the network runs; in order, and few at a time."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
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
    remaining = iter(images)
    with quiet_pillow(), ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[Decoded]] = deque(
            pool.submit(_decode, image, preprocess) for image in islice(remaining, 2 * batch)
        )
        while waiting:
            ready = [waiting.popleft().result() for _ in range(min(batch, len(waiting)))]
            waiting.extend(
                pool.submit(_decode, image, preprocess) for image in islice(remaining, batch)
            )
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
