"""From a file that anybody may have made to an RGB image, or to the reason why not.

The limits come before the pixels: bytes are counted before they are read, and the size in the
header is looked at before anything is decoded. What a picture means is then made the same for
every format: upright, 8 bits, three channels, transparency on white, the first frame of many.
Colour profiles are ignored, as in the data sets that published weights were trained on.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from edgewise.data.containers import container_of, open_container
from edgewise.errors import EdgewiseError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")

# The suffixes by which a file says that it is an image. Those of formats that aren't read are here
# too, so that such a file is reported rather than passed over.
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
    | {".heic", ".heif", ".avif", ".jp2", ".jxl"}
)

MAX_BYTES = 256 * 2**20
MAX_PIXELS = 100_000_000
MAX_ASPECT = 100  # resized to a shorter side of 256, a longer strip would need gigabytes

# EXIF tag 0x0112: what undoes each orientation (1 is upright).
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = {UPRIGHT[orientation] for orientation in (5, 6, 7, 8)}


class ImageError(EdgewiseError):
    """A file can't be used as an image; the message is a short reason, without the path."""


def decode(path: Path) -> Image.Image:
    """Reads an image file as upright RGB.

    Raises:
        ImageError: the file is missing, over a limit, damaged, or not an image that is read.
    """
    with quiet_pillow():
        return decode_bytes(read_limited(path))


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Keeps Pillow's warnings (a bent EXIF block, a large image) off the terminal.

    Python's warning filters belong to the whole process, so a pool of threads enters this once,
    around all of its work, and calls `decode_bytes`.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def read_limited(path: Path) -> bytes:
    """The bytes of an ordinary file, or of an image in a container, of at most `MAX_BYTES`.

    Raises:
        ImageError: no such file, not an ordinary one, not readable, or too large.
    """
    inside = container_of(path)
    if inside is None:
        return _read_file(path)
    container, place = inside
    try:
        found = open_container(container).read(place, MAX_BYTES)
    except EdgewiseError as error:
        raise ImageError(str(error)) from None
    return found if isinstance(found, bytes) else _read_file(found)


def _read_file(path: Path) -> bytes:
    try:
        if not path.is_file():  # a pipe or a device would keep us waiting
            raise ImageError("not an ordinary file" if path.exists() else "no such file")
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ImageError(f"{size:,} bytes is over the limit of {MAX_BYTES:,}")
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise ImageError(f"can't be read: {getattr(error, 'strerror', None) or error}") from None


class Encoded:
    """The content of an image file whose header was read. A JPEG's pixels wait for `decode`.

    Attributes:
        size: width and height of the upright image, in pixels.
    """

    def __init__(self, data: bytes) -> None:
        """Reads the header.

        Raises:
            ImageError: it is over a limit, damaged, or not an image that is read.
        """
        if not data:
            raise ImageError("empty file (0 bytes)")
        with _reasons():
            self._image = Image.open(BytesIO(data), formats=FORMATS)
            _check_size(*self._image.size)
            self._waits = isinstance(self._image, JpegImageFile)
            if not self._waits:  # other formats may say at their end which way is up
                self._image.load()
            self._transpose = _transpose(self._image)
            width, height = self._image.size
        self.size = (height, width) if self._transpose in SIDEWAYS else (width, height)

    def decode(self, part: int = 1) -> Image.Image:
        """The upright RGB image; of a JPEG only every `part`-th pixel of a side, which is faster.

        Args:
            part: 1, 2, 4 or 8. JPEG's transform gives means over so many pixels as if they were
                the image's own; other formats are decoded whole.

        Raises:
            ImageError: it is damaged.
        """
        with _reasons():
            if self._waits and part > 1:
                width, height = self._image.size
                self._image.draft(None, (max(1, width // part), max(1, height // part)))
            self._image.load()
            rgb = _to_rgb(self._image)
            return rgb if self._transpose is None else rgb.transpose(self._transpose)


def decode_bytes(data: bytes) -> Image.Image:
    """Decodes the content of an image file to upright RGB; see `decode`."""
    return Encoded(data).decode()


def upright_rgb(image: Image.Image) -> Image.Image:
    """What `decode` gives for a file, of one that a person has opened with Pillow.

    Raises:
        ImageError: it is damaged, or its pixels have no fixed range.
    """
    with _reasons():
        image.load()
        transpose = _transpose(image)
        rgb = _to_rgb(image)
        return rgb if transpose is None else rgb.transpose(transpose)


@contextmanager
def _reasons() -> Iterator[None]:
    """Whatever a decoder raises becomes an `ImageError`."""
    try:
        yield
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(
            "not an image, or one that is not read: JPEG, PNG, WebP, BMP, GIF and TIFF are"
        ) from None
    except Image.DecompressionBombError:  # Pillow's own, wider limit comes before ours
        raise ImageError(f"over the limit of {MAX_PIXELS:,} pixels") from None
    except Exception as error:  # damaged bytes can make a decoder raise almost anything
        raise ImageError(f"damaged: {error}") from None


def check_not_empty(width: int, height: int) -> None:
    """Raises ImageError if a side has no pixel."""
    if min(width, height) < 1:
        raise ImageError(f"{width} x {height} pixels: there is nothing in it")


def _check_size(width: int, height: int) -> None:
    check_not_empty(width, height)
    if width * height > MAX_PIXELS:
        raise ImageError(f"{width} x {height} pixels is over the limit of {MAX_PIXELS:,}")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError(
            f"{width} x {height} pixels: one side is over {MAX_ASPECT} times the other"
        )


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ImageError("floating-point pixels have no fixed range: save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # I;16, I;16B, and I for the 16 bits of older Pillows' PNG
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ImageError("32-bit pixels have no fixed range: save it with 8 or 16 bits")
        grey = ((values + 128) // 257).astype(np.uint8)  # 65535 = 255 * 257; Pillow would clip
        return Image.fromarray(grey).convert("RGB")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _transpose(image: Image.Image) -> Image.Transpose | None:
    """What makes a loaded image upright. Pillow has done so already for TIFF."""
    try:
        return UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a broken EXIF block must not lose the photo
        return None
