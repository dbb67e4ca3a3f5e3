"""Reads and decodes every image once, before hours are spent on them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from edgewise.data.decode import ImageError, decode_bytes, quiet_pillow, read_limited
from edgewise.progress import track


@dataclass(frozen=True)
class Check:
    """What was seen of a file.

    Attributes:
        sha256: of its bytes; of its name if they can't be read.
        reason: why it can't be used, or "".
    """

    sha256: str
    reason: str


def check_images(paths: Sequence[Path], workers: int) -> list[Check]:
    """A `Check` for each path, made in threads: Pillow and hashlib let go of Python's lock."""
    pool = ThreadPoolExecutor(max(1, workers))
    try:
        with quiet_pillow():
            return list(track(pool.map(_check, paths), "checking images", len(paths)))
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C waits only for the images already begun


def _check(path: Path) -> Check:
    sha256 = hashlib.sha256(path.name.encode()).hexdigest()
    try:
        data = read_limited(path)
        sha256 = hashlib.sha256(data).hexdigest()
        decode_bytes(data)
    except ImageError as error:
        return Check(sha256, str(error))
    return Check(sha256, "")
