"""`edgewise data show`: the tiles are the pixels that evaluation and training would use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from commandline import edgewise
from numpy.typing import NDArray
from photos import picture, write_photos
from PIL import Image

from edgewise.data.dataset import load_dataset
from edgewise.reporting import preview
from edgewise.training.defaults import fit
from edgewise.training.recipe import Recipe
from edgewise.training.start import resolve

SIDE = 32
FACTOR = 4  # to 128 pixels
PLAIN = ("imgsz=32", "model=tiny", "pretrained=false", "policy=none", "crop_scale=1", "flip=false")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three classes with a square picture each, of whose crops only the whole is large enough."""
    for seed, label in enumerate(("ant", "bee", "cat")):
        (tmp_path / "photos" / label).mkdir(parents=True)
        picture(seed, SIDE, SIDE).save(tmp_path / "photos" / label / "1.png")
    return tmp_path / "photos"


def tiles(grid: Path, lines: int = 1) -> NDArray[np.uint8]:
    """(rows, columns, SIDE, SIDE, 3) by the places that the picture's layout has."""
    sheet = np.asarray(Image.open(grid))
    wide, tall = SIDE * FACTOR + preview.MARGIN, SIDE * FACTOR + lines * preview.LINE
    return np.array(
        [
            [
                sheet[preview.LINE + y * tall :, x * wide + preview.MARGIN * (2 if x else 1) :][
                    : SIDE * FACTOR : FACTOR, : SIDE * FACTOR : FACTOR
                ]
                for x in range(7)
            ]
            for y in range(3)
        ]
    )


def show(photos: Path, *settings: str, lines: int = 1) -> NDArray[np.uint8]:
    out = photos.parent / "grid.png"
    said = edgewise("data", "show", photos, *PLAIN, *settings, "-o", out)
    assert said.status == 0, said.errors
    assert said.output == f"3 images in {out}\n"
    return tiles(out, lines)


def test_without_augmentation_all_are_the_image(photos: Path) -> None:
    shown = show(photos)
    for row in range(3):
        for tile in shown[row]:
            assert (tile == np.asarray(picture(row, SIDE, SIDE))).all()


def test_flip(photos: Path) -> None:
    shown = show(photos, "flip=true")
    mirrored = 0
    for row in range(3):
        plain = np.asarray(picture(row, SIDE, SIDE))
        assert (shown[row][0] == plain).all()
        for tile in shown[row][1:]:
            assert (tile == plain).all() or (tile == plain[:, ::-1]).all()
            mirrored += int((tile == plain[:, ::-1]).all())
    assert 3 < mirrored < 15


def test_mixup_is_a_sum_of_two_of_them(photos: Path) -> None:
    shown = show(photos, "mixup=1", lines=2).astype(float)
    plain = np.array([np.asarray(picture(row, SIDE, SIDE)) for row in range(3)], dtype=float)
    mixed = 0
    for row in range(3):
        for tile in shown[row][1:]:
            weights, *_ = np.linalg.lstsq(plain.reshape(3, -1).T, tile.ravel(), rcond=None)
            assert weights.sum() == pytest.approx(1, abs=0.02)
            assert np.abs(np.tensordot(weights, plain, 1) - tile).max() < 2
            assert weights.min() < 0.02  # the third has no part
            mixed += int(weights.max() < 0.98)
    assert mixed > 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("magnitudes=3",), "unknown setting 'magnitudes'. Nearest: magnitude"),
        (("imgsz=4",), "imgsz"),
        (("--recipe", "no_such"), "unknown recipe 'no_such'"),
        (("-o", "photos/ant/1.png/grid.png"), "can't write photos/ant/1.png/grid.png"),
    ],
)
def test_wrong_calls(
    photos: Path, arguments: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos.parent)
    said = edgewise("data", "show", photos, *arguments)
    assert said.status in (1, 2) and message in said.errors


def test_a_batch_and_a_rate_that_training_finds(photos: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('lr = "find"\n')
    shown = show(photos, "batch=auto", "--recipe", str(recipe))
    assert (shown == show(photos)).all()


@pytest.mark.parametrize(("count", "magnitude"), [(600, 2), (850, 5)])
@pytest.mark.parametrize("above", ["", "train"])
def test_the_strength_is_what_training_chooses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, above: str, count: int, magnitude: int
) -> None:
    """By the images that are left once validation and test are taken: 840 of 1,200."""
    root = write_photos(tmp_path / "photos" / above, {"a": count, "b": count})
    if above:
        write_photos(root.parent / "val", {"a": 2, "b": 2}, first=5000)
        magnitude = 5  # all are left
    drawn: list[Recipe] = []

    def draw(rows: object, recipe: Recipe) -> Image.Image:
        drawn.append(recipe)
        return Image.new("RGB", (8, 8))

    monkeypatch.setattr(preview, "_draw", draw)
    data = str(tmp_path / "photos")
    asked = Recipe(data, "tiny", pretrained=False, imgsz=32, device="cpu", workers=0)
    preview.write_preview(asked, tmp_path / "grid.png")
    chosen = fit(resolve(asked), load_dataset(Path(data), workers=1))
    assert drawn[0].magnitude == chosen.magnitude == magnitude


def test_nothing_that_can_be_read(photos: Path) -> None:
    for file in photos.glob("*/*"):
        file.write_bytes(b"")
    said = edgewise("data", "show", photos, *PLAIN)
    assert said.status == 2 and "no training image can be read" in said.errors
