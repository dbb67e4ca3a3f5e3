"""Cached images are Pillow's own smaller copies, from disk and from memory, in every process."""

from __future__ import annotations

import hashlib
import pickle
import shutil
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch.multiprocessing  # noqa: F401  (teaches ForkingPickler to share tensors)
from photos import picture
from PIL import Image, ImageOps

from edgewise.data import cache as module
from edgewise.data.augment import Augment
from edgewise.data.cache import ImageCache, cache_side, open_cache
from edgewise.data.dataset import Sample
from edgewise.data.loader import View, training_batches
from edgewise.errors import EdgewiseError
from edgewise.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess

SIDE = 80


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sample, ...]:
    """Two photos, one of them upright by its EXIF block only, and a small picture."""
    root = tmp_path_factory.mktemp("photos")
    Image.fromarray(skimage.data.chelsea()).save(root / "cat.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(skimage.data.coffee()).save(root / "cup.jpg", exif=exif)
    picture(1).save(root / "small.png")  # 40 x 30
    return tuple(
        Sample(path, label, hashlib.sha256(path.read_bytes()).hexdigest())
        for label, path in enumerate(sorted(root.iterdir()))
    )


def expected(samples: tuple[Sample, ...]) -> list[Image.Image]:
    images = [ImageOps.exif_transpose(Image.open(s.path)).convert("RGB") for s in samples]
    sizes = [(120, 80), (80, 120), (40, 30)]  # of 451 x 300, 400 x 600 and 40 x 30
    return [
        i.resize(size, Image.Resampling.BILINEAR) for i, size in zip(images, sizes, strict=True)
    ]


def same(cache: ImageCache, images: list[Image.Image]) -> bool:
    return all(
        np.array_equal(np.asarray(cache.image(i)), np.asarray(image))
        for i, image in enumerate(images)
    )


@pytest.mark.parametrize("on_disk", [False, True])
def test_images_are_pillows_own(samples: tuple[Sample, ...], tmp_path: Path, on_disk: bool) -> None:
    cache = open_cache(samples, SIDE, "bilinear", tmp_path if on_disk else None, 2)
    assert same(cache, expected(samples))
    assert len(list(tmp_path.iterdir())) == on_disk


def test_the_side_that_is_kept() -> None:
    assert cache_side(128, 1.0) == 128
    assert cache_side(128, 0.81) == 143  # 128 / 0.9 = 142.2: no crop has to be enlarged
    assert cache_side(128, 0.08) == 160


@pytest.mark.parametrize("on_disk", [False, True])
def test_workers_share_it(samples: tuple[Sample, ...], tmp_path: Path, on_disk: bool) -> None:
    cache = open_cache(samples, SIDE, "bilinear", tmp_path if on_disk else None, 1)
    assert len(bytes(ForkingPickler.dumps(cache))) < 2000  # of 60,000 bytes of pixels
    if on_disk:
        assert same(pickle.loads(pickle.dumps(cache)), expected(samples))
    preprocess = Preprocess(64, 1.0, "bilinear", IMAGENET_MEAN, IMAGENET_STD)
    view = View(preprocess, Augment(magnitude=5))
    batches = [
        [pixels.numpy() for pixels, _ in training_batches(
            samples, lambda epoch: view, batch=2, workers=workers, seed=0, epochs=range(1),
            cache=cache,
        )]
        for workers in (0, 2)
    ]  # fmt: skip
    assert all((one == two).all() for one, two in zip(*batches, strict=True))


def test_it_is_made_once(
    samples: tuple[Sample, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_cache(samples, SIDE, "bilinear", tmp_path, 1)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(module, "decode_bytes", None)
        assert same(open_cache(samples, SIDE, "bilinear", tmp_path, 1), expected(samples))
    for cut in (0, 10, 100, len(whole) - 1):
        file.write_bytes(whole[:cut])
        assert same(open_cache(samples, SIDE, "bilinear", tmp_path, 1), expected(samples))
        assert file.read_bytes() == whole
    file.rename(file.with_suffix(".unfinished"))  # as a killed run leaves it
    file.with_suffix(".unfinished").write_bytes(b"x" * (len(whole) + 10))
    open_cache(samples, SIDE, "bilinear", tmp_path, 1)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [whole]


@pytest.mark.parametrize("stopped", [False, True])
def test_two_runs_fill_it_at_once(
    samples: tuple[Sample, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped: bool
) -> None:
    """The other one is faster, or it is stopped and removes what is not finished."""
    small = module._small

    def while_another_does(*arguments: Any) -> Image.Image:
        monkeypatch.setattr(module, "_small", small)
        if stopped:
            (file,) = tmp_path.iterdir()
            file.unlink()
        else:
            open_cache(samples, SIDE, "bilinear", tmp_path, 1)
        return small(*arguments)

    monkeypatch.setattr(module, "_small", while_another_does)
    assert same(open_cache(samples, SIDE, "bilinear", tmp_path, 1), expected(samples))
    assert [file.suffix for file in tmp_path.iterdir()] == [".u8"]
    monkeypatch.setattr(module, "decode_bytes", None)
    assert same(open_cache(samples, SIDE, "bilinear", tmp_path, 1), expected(samples))


def test_other_images_sides_and_orders_are_other_files(
    samples: tuple[Sample, ...], tmp_path: Path
) -> None:
    turned = samples[::-1]
    assert same(open_cache(samples, SIDE, "bilinear", tmp_path, 1), expected(samples))
    assert same(open_cache(turned, SIDE, "bilinear", tmp_path, 1), expected(samples)[::-1])
    open_cache(samples, SIDE + 1, "bilinear", tmp_path, 1)
    open_cache(samples, SIDE, "bicubic", tmp_path, 1)
    assert len(list(tmp_path.iterdir())) == 4


def test_a_file_is_renamed_when_nothing_maps_it_any_more(
    samples: tuple[Sample, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows renames no other."""
    maps, rename, mapped = Path("/proc/self/maps"), Path.replace, []
    if not maps.exists():
        pytest.skip("Linux tells what is mapped")

    def note(path: Path, target: Path) -> Path:
        mapped.append(str(path) in maps.read_text())
        return rename(path, target)

    monkeypatch.setattr(Path, "replace", note)
    open_cache(samples, SIDE, "bilinear", tmp_path, 1)
    assert mapped == [False]


def test_too_little_room(
    samples: tuple[Sample, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = 3 * (120 * 80 + 80 * 120 + 40 * 30)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=pixels - 1))
    with pytest.raises(EdgewiseError, match=rf"takes {pixels:,} bytes.* {pixels - 1:,} free"):
        open_cache(samples, SIDE, "bilinear", None, 1)
    needed = pixels + 3 * 3 * 8
    with pytest.raises(EdgewiseError, match=rf"takes {needed:,} bytes.* has {pixels - 1:,} left"):
        open_cache(samples, SIDE, "bilinear", tmp_path, 1)
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fills_up(
    samples: tuple[Sample, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "posix_fallocate", full)
    with pytest.raises(EdgewiseError, match=r"can't write the cache of .* bytes .*No space left"):
        open_cache(samples, SIDE, "bilinear", tmp_path, 1)
    assert not list(tmp_path.iterdir())


def test_a_photo_that_is_gone(samples: tuple[Sample, ...], tmp_path: Path) -> None:
    gone = (*samples, Sample(tmp_path / "gone.png", 0, ""))
    with pytest.raises(EdgewiseError, match=r"gone.png could be read .* not now: no such file"):
        open_cache(gone, SIDE, "bilinear", tmp_path / "cache", 1)


def test_a_photo_of_other_bytes(samples: tuple[Sample, ...], tmp_path: Path) -> None:
    other = (*samples, Sample(samples[0].path, 0, "0" * 64))
    with pytest.raises(EdgewiseError, match="not now: it holds other bytes than when the run"):
        open_cache(other, SIDE, "bilinear", tmp_path / "cache", 1)
