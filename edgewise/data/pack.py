"""Writes labelled images as WebDataset shards: tar files that are read in one go."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from edgewise.data.check import check_images
from edgewise.data.decode import (
    FORMATS,
    IMAGE_SUFFIXES,
    ImageError,
    decode_bytes,
    quiet_pillow,
    read_limited,
)
from edgewise.data.labelled import Labelled
from edgewise.data.scan import scan
from edgewise.data.split import SPLITS, Photo, assign, copies_across_splits, to_carve
from edgewise.data.tar import BLOCK
from edgewise.errors import EdgewiseError, UsageError
from edgewise.files import write_text
from edgewise.progress import bar

ENDINGS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "TIFF": "tiff"}
QUALITY = 95  # of a JPEG that is made smaller
AHEAD = 64  # images that are prepared before they are written
UNSPLIT = "data"  # the name of shards whose images have no split
COPIED = IMAGE_SUFFIXES - {".bmp"}  # of files that are packed as they are


@dataclass(frozen=True)
class Packed:
    """What was written.

    Attributes:
        shards: how many.
        images: how many are in them, by split; "data" for those without one.
        size: of all shards, in bytes.
        left_out: images that can't be used, with reasons.
    """

    shards: int
    images: dict[str, int]
    size: int
    left_out: tuple[tuple[Path, str], ...]


@dataclass(frozen=True)
class _Member:
    image: Labelled
    data: bytes = b""
    ending: str = ""
    reason: str = ""


def pack(source: Path, out: Path, size: int, side: int | None = None, workers: int = 1) -> Packed:
    """Writes the images of `source` into `out/train-000000.tar` ... and the names of the classes.

    Images are in random order, the same each time, and their files are copied as they are, but for
    BMP, which becomes PNG. Those that can't be decoded are left out. `out` appears when all of it
    is written: a kill leaves a hidden folder beside it, which the next call replaces.

    Training takes a split that is missing from the images' bytes. Where packing may change them, it
    writes that split: an image that was tested on is not trained on afterwards.

    Args:
        source: a folder or a file; see `scan`.
        out: the folder to make, which may be there if it is empty.
        size: bytes of a shard at most, unless a single image is larger.
        side: resize the shorter side of larger images to so many pixels; None leaves all as they
            are.
        workers: threads that decode.

    Raises:
        UsageError: `source` has no labelled images, or `out` holds something already or can't be
            replaced, as where a disk is mounted.
        EdgewiseError: the disk is full or can't be written, or no image can be used.
    """
    # The current folder has no name, "."; replaced by another one it would be gone for the shell.
    if not out.name or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise UsageError(f"{out} is there already. Name another folder, or remove it.")
    found = scan(source)
    if found.damage:
        raise EdgewiseError(f"{found.damage[0]}. Put the whole file back.")
    out = out.resolve()  # a folder can't take the place of a link
    if out.exists():
        try:
            out.rmdir()
        except OSError as error:
            raise UsageError(
                f"can't replace the empty folder {out}: {error.strerror}. Name a new one, such as "
                f"{out / 'shards'}."
            ) from error
    staging = out.with_name(f".{out.name}.partial")
    try:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        images: Sequence[Labelled] = found.images
        if side or any(image.path.suffix.lower() not in COPIED for image in images):
            images = _split(images, workers)
        packed = _write_shards(images, found.classes, staging, size, side, workers)
        write_text(staging / "classes.txt", "".join(f"{name}\n" for name in found.classes))
        staging.replace(out)
    except OSError as error:
        raise EdgewiseError(
            f"can't write {out}: {error.strerror or error}. Nothing was left there."
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return packed


def _split(images: Sequence[Labelled], workers: int) -> Sequence[Labelled]:
    """The images with the splits that training takes; see `load_dataset`."""
    carve = to_carve({image.split for image in images})
    if not carve:
        return images
    checks = check_images([image.path for image in images], workers)
    photos = [
        Photo(image.path, image.label, image.split, check.sha256)
        for image, check in zip(images, checks, strict=True)
        if not check.reason
    ]
    copies = copies_across_splits(photos)
    left = [photo for photo in photos if photo not in copies]
    split_of = {photo.path: split for photo, split in zip(left, assign(left, carve), strict=True)}
    trained = {photo.label for photo in left if split_of[photo.path] == "train"}
    if trained != {image.label for image in images}:
        return images  # training would refuse these, and nothing could read the shards
    return [replace(image, split=split_of.get(image.path, image.split)) for image in images]


def _write_shards(
    images: Iterable[Labelled],
    classes: tuple[str, ...],
    folder: Path,
    size: int,
    side: int | None,
    workers: int,
) -> Packed:
    of_split: dict[str, list[Labelled]] = {split: [] for split in (*SPLITS, UNSPLIT)}
    for image in images:
        of_split[image.split or UNSPLIT].append(image)
    left_out: list[tuple[Path, str]] = []
    counts: Counter[str] = Counter()
    shards = 0
    total = sum(map(len, of_split.values()))
    with (
        quiet_pillow(),
        ThreadPoolExecutor(max(1, workers)) as pool,
        bar("packing", total) as steps,
    ):
        for split, members in of_split.items():
            order = np.random.default_rng(0).permutation(len(members))
            writer = _Writer(folder, split, size)
            for start in range(0, len(members), AHEAD):
                some = [members[i] for i in order[start : start + AHEAD]]
                for member in pool.map(partial(_prepare, side=side), some):
                    steps.advance()
                    if member.reason:
                        left_out.append((member.image.path, member.reason))
                        continue
                    writer.add(member, classes.index(member.image.label))
                    counts[split] += 1
            shards += writer.close()
    if not counts:
        raise EdgewiseError(f"no image can be used; {left_out[0][0]}: {left_out[0][1]}")
    written = sum(file.stat().st_size for file in folder.iterdir())
    return Packed(shards, dict(counts), written, tuple(left_out))


def _prepare(image: Labelled, side: int | None) -> _Member:
    """An image's bytes as they are packed, in a worker thread."""
    try:
        data = read_limited(image.path)
        decoded = decode_bytes(data)
    except ImageError as error:
        return _Member(image, reason=str(error))
    with Image.open(io.BytesIO(data), formats=FORMATS) as header:
        # MPO is a JPEG with more pictures behind the first, as many phones write it.
        kind = "JPEG" if header.format == "MPO" else header.format or ""
    if side and min(decoded.size) > side:
        scale = side / min(decoded.size)
        width, height = (max(side, round(length * scale)) for length in decoded.size)
        decoded = decoded.resize((width, height), Image.Resampling.LANCZOS)
        kind = kind if kind == "JPEG" else "PNG"
        data = _encode(decoded, kind)
    elif kind not in ENDINGS:
        kind, data = "PNG", _encode(decoded, "PNG")
    return _Member(image, data, ENDINGS[kind])


def _encode(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"quality": QUALITY} if kind == "JPEG" else {}))
    return buffer.getvalue()


def _padded(size: int) -> int:
    return -(-size // tarfile.RECORDSIZE) * tarfile.RECORDSIZE


class _Writer:
    """The shards of one split, one after the other."""

    def __init__(self, folder: Path, split: str, size: int) -> None:
        self.folder, self.split, self.most = folder, split, size
        self.shards = self.samples = 0
        self.tar: tarfile.TarFile | None = None

    def add(self, member: _Member, label: int) -> None:
        """Adds a sample: `KEY.cls` with the class's number, and the image."""
        contents = {"cls": str(label).encode(), member.ending: member.data}
        needed = sum(BLOCK + -(-len(data) // BLOCK) * BLOCK for data in contents.values())
        if self.tar and _padded(self.tar.offset + needed + 2 * BLOCK) > self.most:
            self.close()
        if self.tar is None:
            self.tar = tarfile.open(  # noqa: SIM115
                self.folder / f"{self.split}-{self.shards:06d}.tar",
                "w",
                format=tarfile.USTAR_FORMAT,
            )
            self.shards += 1
        for ending, data in contents.items():
            info = tarfile.TarInfo(f"{self.samples:09d}.{ending}")  # of 1970, so of the same bytes
            info.size = len(data)
            self.tar.addfile(info, io.BytesIO(data))
        self.samples += 1

    def close(self) -> int:
        """Ends the shard under way; returns how many there are."""
        if self.tar is not None:
            self.tar.close()
            with Path(os.fsdecode(self.tar.name or "")).open("rb+") as file:
                os.fsync(file.fileno())
            self.tar = None
        return self.shards
