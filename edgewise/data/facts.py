"""What there is to know of each image file, from one full decode in a worker process."""

from __future__ import annotations

import hashlib
import multiprocessing
import signal
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgewise.data.decode import FORMATS, ImageError, decode_bytes, quiet_pillow, read_limited
from edgewise.errors import EdgewiseError

CHUNK = 16  # files that a worker is given at once
GRID = 16  # side of the small grey copy that near duplicates are compared by
COLOURS = 4  # side of the smaller one in colour


@dataclass(frozen=True, slots=True)
class Facts:
    """Of one file. If it can't be used, `reason` says why and the rest is 0.

    Attributes:
        sha256: of its bytes, 32 of them; zeros if they can't be read.
        width: of the upright image, in pixels.
        height: likewise.
        mode: Pillow's name for how its pixels are stored, such as "RGB", "CMYK" or "P".
        spread: standard deviation of its grey values, 0..255; near 0 it is blank.
        hash: 64 bits of which neighbouring place is the lighter one (dHash).
        small: a grey copy of 16 x 16 pixels, as bytes.
        colours: an RGB copy of 4 x 4 pixels, as bytes.
        reason: why it can't be used, or "".
    """

    sha256: bytes = bytes(32)
    width: int = 0
    height: int = 0
    mode: str = ""
    spread: float = 0.0
    hash: int = 0
    small: bytes = bytes(GRID**2)
    colours: bytes = bytes(3 * COLOURS**2)
    reason: str = ""


class FactTable:
    """The facts of many files, in 360 bytes each.

    Attributes:
        sha256: (N, 4) uint64, the 32 bytes.
        sizes: (N, 2) int32, width and height.
        spread: (N,) float32.
        hash: (N,) uint64.
        small: (N, 256) uint8.
        colours: (N, 16, 3) uint8.
        usable: (N,) bool, whether there is no reason against it.
        modes: the indices of the usable images of each mode that is neither RGB nor grey.
        reasons: why a file can't be used, by its index.
    """

    def __init__(self, facts: Iterable[Facts], count: int) -> None:
        self.sha256 = np.zeros((count, 4), np.uint64)
        self.sizes = np.zeros((count, 2), np.int32)
        self.spread = np.zeros(count, np.float32)
        self.hash = np.zeros(count, np.uint64)
        self.small = np.zeros((count, GRID**2), np.uint8)
        self.colours = np.zeros((count, COLOURS**2, 3), np.uint8)
        self.usable = np.zeros(count, np.bool_)
        self.modes: dict[str, list[int]] = {}
        self.reasons: dict[int, str] = {}
        for index, fact in enumerate(facts):
            self.sha256[index] = np.frombuffer(fact.sha256, np.uint64)
            if fact.reason:
                self.reasons[index] = fact.reason
                continue
            self.usable[index] = True
            self.sizes[index] = fact.width, fact.height
            self.spread[index] = fact.spread
            self.hash[index] = fact.hash
            self.small[index] = np.frombuffer(fact.small, np.uint8)
            self.colours[index].flat = np.frombuffer(fact.colours, np.uint8)
            if fact.mode not in ("RGB", "L"):
                self.modes.setdefault(fact.mode, []).append(index)

    def __len__(self) -> int:
        return len(self.usable)

    def where(self, chosen: NDArray[np.bool_]) -> list[int]:
        """The indices of the usable images for which `chosen` (N,) is true."""
        indices: list[int] = np.flatnonzero(self.usable & chosen).tolist()
        return indices


def gather(paths: Sequence[str], workers: int) -> Generator[Facts, None, None]:
    """The facts of each path, in order, from as many processes; 0 does the work in this one.

    Close it if not all are wanted: that ends the processes.

    Raises:
        EdgewiseError: a process was killed, or died of a file; the message says near which.
    """
    if workers == 0:
        with quiet_pillow():
            yield from map(facts_of, paths)
        return
    done, others = 0, set(multiprocessing.active_children())
    with ProcessPoolExecutor(workers, initializer=_prepare) as pool:
        try:
            for fact in pool.map(facts_of, paths, chunksize=CHUNK):
                yield fact
                done += 1
        except BrokenProcessPool:
            last = paths[min(done + workers * CHUNK, len(paths)) - 1]
            raise EdgewiseError(
                "a process that looked at images was killed, by a person, for want of memory or "
                f"by a file that crashes the decoder. It was at one from {paths[done]} to {last}. "
                "Fewer processes need less memory: --workers 1."
            ) from None
        except BaseException:  # Ctrl-C, or nobody wants the rest: don't wait for what is begun
            for child in set(multiprocessing.active_children()) - others:
                child.terminate()
            pool.shutdown(cancel_futures=True)
            raise


def _prepare() -> None:
    """Ctrl-C reaches every process of the terminal; only the parent should answer it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    quiet_pillow().__enter__()  # for as long as the process lives


def facts_of(path: str) -> Facts:
    """Reads and decodes one file."""
    try:
        data = read_limited(Path(path))
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
    colours = image.resize((COLOURS, COLOURS), Image.Resampling.BOX)
    return Facts(
        sha256,
        image.width,
        image.height,
        mode,
        spread,
        dhash(grey),
        small.tobytes(),
        colours.tobytes(),
    )


def dhash(grey: Image.Image) -> int:
    """64 bits: whether each of 8 x 8 places is darker than its right neighbour.

    It hardly changes when an image is resized, compressed or made lighter.
    """
    values = np.asarray(grey.resize((9, 8), Image.Resampling.BOX)).astype(np.int16)
    bits = (values[:, 1:] > values[:, :-1]).ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")
