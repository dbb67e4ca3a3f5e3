"""NumPy archives: `.npz` files with arrays of images and of labels."""

from __future__ import annotations

import zipfile
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgewise.data.containers import ContainerError, row_number
from edgewise.data.labelled import SPLIT_NAMES
from edgewise.errors import UsageError

IMAGE_KEYS = ("images", "image", "x", "data")
LABEL_KEYS = ("labels", "label", "y", "targets")
NAME_KEYS = ("classes", "class_names", "label_names")
LARGEST_UNPACKED = 4 * 2**30  # bytes of a compressed array, which can't be mapped
LOCAL_HEADER = 30  # bytes of a zip member's header before its name


class Arrays:
    """A `.npz` file. Arrays of `np.savez` are mapped; those of `savez_compressed` are held.

    Attributes:
        pairs: (split or None, key of the images, key of the labels).

    Raises:
        UsageError: it is no whole archive, or its arrays are not images with labels.
    """

    damage = ""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with zipfile.ZipFile(path) as archive:
                self.members = {
                    name.removesuffix(".npy"): archive.getinfo(name) for name in archive.namelist()
                }
        except (zipfile.BadZipFile, OSError) as error:
            raise UsageError(f"{path} is not a NumPy archive, or is cut off: {error}") from None
        self.pairs = self._pairs()
        self.images = {images: self._images(images) for _, images, _ in self.pairs}

    def names(self) -> list[str] | None:
        """The class names that the archive gives, if any.

        Raises:
            UsageError: one is of bytes that are not UTF-8.
        """
        key = next((key for key in NAME_KEYS if key in self.members), None)
        return None if key is None else [str(name) for name in self._plain(key, self._array(key))]

    def labels(self, images: str, labels: str) -> list[int | str]:
        """The label of each image: numbers or names.

        Raises:
            UsageError: they are neither, not one for each image, or of bytes that are not UTF-8.
        """
        values = self._array(labels)
        if values.ndim == 2 and values.shape[1] == 1:  # MedMNIST's
            values = values[:, 0]
        count = len(self.images[images])
        if values.shape != (count,) or values.dtype.kind not in "iuUS":
            raise UsageError(
                f"{self.path}: '{labels}' is {values.dtype} of shape {values.shape}; it must hold "
                f"one whole number or name for each of the {count:,} images of '{images}'"
            )
        return self._plain(labels, values)

    def read(self, inside: str, most: int) -> bytes:
        """A row as the bytes of a BMP file, which holds the same pixels; see `Container.read`."""
        key, _, row = inside.partition("/")
        if key not in self.images:
            raise ContainerError(f"{self.path.name} has no images called '{key}'")
        pixels = self.images[key][row_number(row, len(self.images[key]))]
        if pixels.nbytes > most:
            raise ContainerError(f"{pixels.nbytes:,} bytes is over the limit of {most:,}")
        if pixels.shape[2:] == (1,):
            pixels = pixels[:, :, 0]
        buffer = BytesIO()
        image = Image.fromarray(np.ascontiguousarray(pixels))
        image.save(buffer, "BMP")
        return buffer.getvalue()

    def _pairs(self) -> list[tuple[str | None, str, str]]:
        """The keys that belong together, such as images and labels, or x_train and y_train."""
        lowered = {key.lower(): key for key in self.members}
        pairs: list[tuple[str | None, str, str]] = []
        for prefix, split in (("", None), *SPLIT_NAMES.items()):
            forms = ("{0}",) if split is None else ("{0}_{1}", "{1}_{0}")
            images, labels = (
                next(
                    (
                        lowered[form.format(key, prefix)]
                        for form in forms
                        for key in keys
                        if form.format(key, prefix) in lowered
                    ),
                    None,
                )
                for keys in (IMAGE_KEYS, LABEL_KEYS)
            )
            if images and labels:
                pairs.append((split, images, labels))
        if not pairs:
            raise UsageError(
                f"{self.path} has the arrays {', '.join(self.members)[:200]}: call them images and "
                "labels, or x_train, y_train, x_val, y_val, x_test and y_test"
            )
        return [pair for pair in pairs if pair[0] or len(pairs) == 1]

    def _images(self, key: str) -> NDArray[np.uint8]:
        array = self._array(key)
        grey, colour = array.ndim == 3, array.ndim == 4 and array.shape[3] in (1, 3)
        if array.dtype != np.uint8 or not (grey or colour):
            raise UsageError(
                f"{self.path}: '{key}' is {array.dtype} of shape {array.shape}; images are uint8 "
                "(0 to 255) of shape (N, H, W), (N, H, W, 1) or (N, H, W, 3)"
            )
        return array

    def _array(self, key: str) -> NDArray[Any]:
        """An array: mapped if it is stored as it is, else read."""
        member = self.members[key]
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(member) as file:
                if member.compress_type != zipfile.ZIP_STORED:
                    if member.file_size > LARGEST_UNPACKED:
                        raise UsageError(
                            f"{self.path}: '{key}' is compressed and would take "
                            f"{member.file_size:,} bytes of memory. Save it with np.savez, which "
                            "doesn't compress, so that it can be mapped."
                        )
                    return np.lib.format.read_array(file, allow_pickle=False)
                version = np.lib.format.read_magic(file)
                header = (
                    np.lib.format.read_array_header_1_0
                    if version == (1, 0)
                    else np.lib.format.read_array_header_2_0
                )
                shape, by_columns, kind = header(file)
                inner = file.tell()
            if kind.hasobject:
                raise ValueError("it holds Python objects, which are not read")
            with self.path.open("rb") as raw:
                raw.seek(member.header_offset + LOCAL_HEADER - 4)
                name, extra = np.frombuffer(raw.read(4), "<u2")
            start = member.header_offset + LOCAL_HEADER + int(name) + int(extra) + inner
            order: Literal["F", "C"] = "F" if by_columns else "C"
            mapped: NDArray[Any] = np.memmap(
                self.path, dtype=kind, mode="r", offset=start, shape=shape, order=order
            )
            return mapped
        except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise UsageError(f"{self.path}: can't read the array '{key}': {error}") from None

    def _plain(self, key: str, values: NDArray[Any]) -> list[int | str]:
        """Whole numbers and names; those of an array of bytes are UTF-8."""
        found = values.tolist()
        try:
            return [value.decode() if isinstance(value, bytes) else value for value in found]
        except UnicodeDecodeError as error:
            raise UsageError(
                f"{self.path}: '{key}' has a name that is not UTF-8: {error.object!r}. "
                "Save the names as text, not as bytes."
            ) from None
