"""Every kind of file, against values worked out from the file and not by our decoder."""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from photos import picture, png_bomb
from PIL import Image

from edgewise.data import decode as module
from edgewise.data.decode import IMAGE_SUFFIXES, ImageError, decode

ORIENTATION = 0x0112


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def pixels(path: Path) -> np.ndarray:
    image = decode(path)
    assert image.mode == "RGB"
    return np.asarray(image)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "webp", "gif", "jpg"])
def test_formats(tmp_path: Path, suffix: str) -> None:
    photo = skimage.data.chelsea()
    options = {"lossless": True} if suffix == "webp" else {}
    path = save(tmp_path / f"cat.{suffix}", Image.fromarray(photo), **options)
    difference = np.abs(pixels(path).astype(int) - photo).mean()
    assert difference <= {"jpg": 5, "gif": 15}.get(suffix, 0)


# The picture as the camera stored it, for each orientation of the EXIF standard (its table of the
# "0th row" and "0th column"), from the picture as a person sees it.
STORED = {
    1: lambda seen: seen,
    2: lambda seen: seen[:, ::-1],
    3: lambda seen: seen[::-1, ::-1],
    4: lambda seen: seen[::-1],
    5: lambda seen: seen.transpose(1, 0, 2),
    6: lambda seen: np.rot90(seen, 1),  # turned a quarter clockwise to be seen
    7: lambda seen: seen[::-1, ::-1].transpose(1, 0, 2),
    8: lambda seen: np.rot90(seen, -1),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tiff", "webp", "jpg"])
def test_exif_orientation(tmp_path: Path, orientation: int, suffix: str) -> None:
    seen = np.zeros((32, 48, 3), np.uint8)
    seen[:16, :16], seen[:16, 32:], seen[16:, :16] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options = {"jpg": {"quality": 100, "subsampling": 0}, "webp": {"lossless": True}}
    path = save(
        tmp_path / f"turned.{suffix}",
        Image.fromarray(np.ascontiguousarray(STORED[orientation](seen))),
        exif=exif,
        **options.get(suffix, {}),
    )
    assert pixels(path).shape == seen.shape
    assert np.abs(pixels(path).astype(int) - seen).max() <= (3 if suffix == "jpg" else 0)


def test_broken_exif_keeps_the_photo(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    photo = Image.fromarray(skimage.data.chelsea())
    good = save(tmp_path / "good.jpg", photo, exif=exif).read_bytes()
    plain = np.asarray(Image.open(io.BytesIO(good)).convert("RGB"))
    at = good.index(b"Exif\0\0")
    bad = tmp_path / "bad.jpg"
    for offset in range(6, 27):  # the block has 32 bytes
        bad.write_bytes(good[: at + offset] + b"\xff" * 6 + good[at + offset + 6 :])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            shape = pixels(bad).shape
        assert shape in (plain.shape, (plain.shape[1], plain.shape[0], 3))


@pytest.mark.parametrize("suffix", ["png", "webp", "jpg"])
@pytest.mark.parametrize("block", [b"Exif\0\0rubbish", b"Exif\0\0MM\0*\0", b"Exif\0\0"])
def test_exif_of_rubbish_keeps_the_photo(tmp_path: Path, suffix: str, block: bytes) -> None:
    path = save(tmp_path / f"photo.{suffix}", picture(0), exif=block)
    assert np.abs(pixels(path).astype(int) - np.asarray(picture(0))).mean() < 15


def test_grey_and_one_bit(tmp_path: Path) -> None:
    grey = np.array([[0, 7, 200, 255]], np.uint8)
    path = save(tmp_path / "grey.png", Image.fromarray(grey))
    assert (pixels(path) == grey[..., None]).all()
    path = save(tmp_path / "bit.png", Image.fromarray(grey).convert("1", dither=0))
    assert pixels(path)[0, :, 0].tolist() == [0, 0, 255, 255]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_on_white(tmp_path: Path, mode: str) -> None:
    image = Image.new("RGBA", (4, 1))
    image.putdata([(100, 100, 100, alpha) for alpha in (0, 51, 128, 255)])
    path = save(tmp_path / "alpha.png", image.convert(mode))
    expected = [round(100 * a / 255 + 255 * (1 - a / 255)) for a in (0, 51, 128, 255)]
    assert np.abs(pixels(path)[0, :, 1] - np.array(expected)).max() <= 1


@pytest.mark.parametrize("transparency", [1, bytes([255, 0])])
def test_palette_with_transparency(tmp_path: Path, transparency: int | bytes) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([0, 1])
    path = save(tmp_path / "palette.png", image, transparency=transparency)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pixels(path).tolist() == [[[10, 20, 30], [255, 255, 255]]]


def test_colour_key(tmp_path: Path) -> None:
    image = Image.new("RGB", (2, 1), (1, 2, 3))
    image.putpixel((1, 0), (9, 9, 9))
    path = save(tmp_path / "key.png", image, transparency=(9, 9, 9))
    assert pixels(path).tolist() == [[[1, 2, 3], [255, 255, 255]]]


@pytest.mark.parametrize("suffix", ["tiff", "jpg"])
def test_cmyk(tmp_path: Path, suffix: str) -> None:
    image = Image.new("CMYK", (16, 16), (255, 0, 0, 0))  # cyan
    path = save(tmp_path / f"cyan.{suffix}", image)
    assert np.abs(pixels(path).astype(int) - (0, 255, 255)).max() <= 3


SIXTEEN = [0, 128, 129, 257, 32_896, 65_278, 65_535]
EIGHT = [0, 0, 1, 1, 128, 254, 255]  # x / 257, rounded


@pytest.mark.parametrize(
    ("name", "mode", "kind"),
    [("a.png", "I;16", "<u2"), ("b.tiff", "I;16", "<u2"), ("c.tiff", "I;16B", ">u2"),
     ("d.tiff", "I", "<i4")],
)  # fmt: skip
def test_sixteen_bits(tmp_path: Path, name: str, mode: str, kind: str) -> None:
    data = np.array(SIXTEEN, kind).tobytes()
    path = save(tmp_path / name, Image.frombytes(mode, (len(SIXTEEN), 1), data))
    assert Image.open(path).mode == mode
    assert pixels(path)[0].tolist() == [[value] * 3 for value in EIGHT]


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime")]
    for name in ("a.gif", "b.png", "c.webp", "d.tiff"):
        extra = {"lossless": True} if name == "c.webp" else {}
        path = save(
            tmp_path / name, frames[0], save_all=True, append_images=frames[1:], **extra
        )  # fmt: skip
        assert (pixels(path) == (255, 0, 0)).all()


def test_phone_jpeg_with_two_pictures(tmp_path: Path) -> None:
    path = tmp_path / "phone.jpg"
    picture(0).save(path, "MPO", save_all=True, append_images=[picture(1)])
    assert np.abs(pixels(path).astype(int) - np.asarray(picture(0))).mean() < 10


@pytest.mark.parametrize("name", ["قطة.png", "猫.png", "🐈 é.png"])
def test_names_in_any_script(tmp_path: Path, name: str) -> None:
    path = save(tmp_path / name, picture(1))
    assert (pixels(path) == np.asarray(picture(1))).all()


def photo_bytes(kind: str) -> bytes:
    file = io.BytesIO()
    picture(0, 200, 150).save(file, kind)
    return file.getvalue()


def tiff(mode: str, value: float) -> bytes:
    file = io.BytesIO()
    Image.new(mode, (5, 5), value).save(file, "TIFF")
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"this is not a picture", "not an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
        (photo_bytes("ICO"), "not an image, or one that is not read"),
        (photo_bytes("JPEG")[:1500], "truncated"),
        (photo_bytes("PNG")[:500], "truncated"),
        (photo_bytes("BMP")[:-100], "truncated"),
        (png_bomb(30_000, 30_000), "over the limit of 100,000,000 pixels"),
        (png_bomb(10_001, 10_001), "10001 x 10001 pixels is over the limit of 100,000,000"),
        (png_bomb(50_000, 400), "one side is over 100 times the other"),
        (tiff("F", 0.5), "floating-point"),
        (tiff("I", 70_000), "32-bit"),
        (tiff("I", -1), "32-bit"),
    ],
)
def test_refused_with_a_reason(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ImageError, match=reason):
            decode(path)
    assert path.read_bytes() == data


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no such file"):
        decode(tmp_path / "gone.jpg")
    with pytest.raises(ImageError, match="can't be read"):
        decode(tmp_path / ("long" * 100 + ".jpg"))
    with pytest.raises(ImageError, match="not an ordinary file"):
        decode(tmp_path)
    os.mkfifo(tmp_path / "pipe.jpg")  # opening it would wait for ever
    with pytest.raises(ImageError, match="not an ordinary file"):
        decode(tmp_path / "pipe.jpg")


def test_limit_on_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "photo.png", picture(0))
    monkeypatch.setattr(module, "MAX_BYTES", 100)
    with pytest.raises(ImageError, match="bytes is over the limit of 100"):
        decode(path)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP"])
def test_damaged_bytes_never_raise_anything_else(tmp_path: Path, kind: str) -> None:
    good = np.frombuffer(photo_bytes(kind), np.uint8)
    random = np.random.default_rng(0)
    path = tmp_path / "damaged.jpg"
    for _ in range(150):
        bad = good[: random.integers(1, len(good) + 1)].copy()
        where = random.integers(0, min(len(bad), random.choice([60, 10**6])), 4)
        bad[where] = random.integers(0, 256, 4)
        path.write_bytes(bad.tobytes())
        try:
            assert decode(path).mode == "RGB"
        except ImageError as error:
            assert str(error)


def test_suffixes_cover_the_formats() -> None:
    read = {s for s, kind in Image.registered_extensions().items() if kind in module.FORMATS}
    assert read - {".apng", ".dib"} <= IMAGE_SUFFIXES
