"""Recipes from files, by name and as words; and the published ones."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from edgewise.errors import UsageError
from edgewise.families import variant
from edgewise.training.defaults import check, check_first_stage
from edgewise.training.recipe import Recipe
from edgewise.training.recipe_file import (
    FOLDER,
    laid_over,
    parse_settings,
    read_settings,
    recipe_names,
)
from edgewise.weights.pretrained import resolve

# Batch, epochs, optimiser, peak rate and published top-1, from the sources that the files name.
PUBLISHED = {
    "mobilenet_v1": (4096, 500, "sgd", 0.256, "72.33"),
    "mobilenet_v2": (4096, 500, "sgd", 0.256, "72.72"),
    "mobilenet_v3_large": (4096, 700, "adamw", 0.004, "75.7"),
    "mobilenet_v3_small": (4096, 1000, "rmsprop-tf", 0.01, "67.5"),
    "mobilenet_v4_conv_small": (4096, 9600, "adamw", 0.002, "73.8"),
    "mobilenet_v4_conv_medium": (4096, 500, "adamw", 0.004, "79.9"),
    "efficientnet_b0": (4096, 350, "rmsprop-tf", 0.256, "77.1"),
    "efficientnet_b0_adamw": (4096, 3600, "adamw", 0.002, "78.6"),
    "efficientnet_v2_s": (4096, 350, "rmsprop-tf", 0.256, "83.9"),
    "efficientnet_v2_m": (4096, 350, "rmsprop-tf", 0.256, "85.1"),
    "efficientnet_v2_l": (4096, 350, "rmsprop-tf", 0.256, "85.7"),
    "convnext_tiny": (4096, 300, "adamw", 0.004, "82.1"),
    "convnext_base_384": (512, 31, "adamw", 5e-5, "85.1"),
    "convnext_v2_atto": (1024, 600, "adamw", 8e-4, "76.7"),
    "convnext_v2_tiny": (1024, 300, "adamw", 3.2e-3, "83.0"),
}
# And their data.
MEASURED = dict.fromkeys(
    (
        "efficientnet_lite0_digits",
        "mobilenet_v3_small_digits",
        "mobilenet_v4_conv_small_digits",
    ),
    "demo/digits",
)
FINE_TUNED = ("convnext_base_384", "convnext_v2_atto", "convnext_v2_tiny")


@pytest.mark.parametrize("name", sorted({*recipe_names()} - {*MEASURED}))
def test_every_published_recipe_is_one_and_says_where_it_is_from(name: str) -> None:
    recipe = Recipe("imagenet", **read_settings(name))
    check(recipe)
    check_first_stage(recipe)
    network = variant(resolve(recipe.model).name).name
    assert name.startswith(network) and recipe.pretrained is (name in FINE_TUNED)
    batch, epochs, optimizer, rate, top1 = PUBLISHED[name]
    assert (recipe.batch, recipe.epochs, recipe.optimizer, recipe.lr) == (
        *(batch, epochs, optimizer, rate),
    )
    header = (FOLDER / f"{name}.toml").read_text(encoding="utf-8")
    comments = [line for line in header.splitlines() if line.startswith("#")]
    assert top1 in " ".join(comments[:2])
    assert f"edgewise train imagenet/ --recipe {name}" in header
    for part in ("# Source:", "# Hardware:"):
        assert any(line.startswith(part) for line in comments)


@pytest.mark.parametrize("name", MEASURED)
def test_a_recipe_of_ours_says_what_it_gave(name: str) -> None:
    recipe = Recipe(MEASURED[name], **read_settings(name))
    assert name.startswith(variant(resolve(recipe.model).name).name)
    header = (FOLDER / f"{name}.toml").read_text(encoding="utf-8")
    assert f"edgewise train {MEASURED[name]} --recipe {name}" in header
    assert len(re.findall(r"\b\d\d\.\d\b", header)) >= 4  # the mean, and that of three seeds
    assert re.search(r"# Hardware:  .*\d minutes", header)


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('model = "mobilenet_v2"\nlr = 1e-2  # high\nflip = false\n')
    assert read_settings(str(tmp_path / "mine.toml")) == {
        "model": "mobilenet_v2",
        "lr": 0.01,
        "flip": False,
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("lr = = 3", r"mine\.toml is not TOML"),
        ("learning_rate = 0.1", r"mine\.toml: unknown setting 'learning_rate'. Nearest: "),
        (None, r"can't read the recipe .*mine\.toml: No such file"),
    ],
)
def test_a_bad_file(tmp_path: Path, text: str | None, says: str) -> None:
    if text is not None:
        (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(UsageError, match=says):
        read_settings(str(tmp_path / "mine.toml"))


def test_words() -> None:
    words = ["epochs=5", "lr=1e-3", "flip=false", "model=mobilenet_v2", "imgsz=null", "data=a=b"]
    settings: dict[str, Any] = parse_settings(words)
    assert settings == {
        "epochs": 5,
        "lr": 0.001,
        "flip": False,
        "model": "mobilenet_v2",
        "imgsz": None,
        "data": "a=b",
    }
    python = ["lr=.01", "mixup=.2", "cutmix=+1.", "flip=False", "epochs=1e2", "teacher=None"]
    recipe = Recipe("photos", **parse_settings([*python, "qat=True", "erase=1E-1"]))
    assert (recipe.lr, recipe.mixup, recipe.cutmix, recipe.erase) == (0.01, 0.2, 1.0, 0.1)
    assert (recipe.flip, recipe.epochs, recipe.teacher, recipe.qat) == (False, 100, None, True)
    assert parse_settings(["data=007", "model=2024"]) == {"data": "007", "model": "2024"}
    with pytest.raises(UsageError, match="Nearest: optimizer"):
        parse_settings(["optimiser=sgd"])
    with pytest.raises(UsageError, match="'photos' is not a setting such as epochs=5"):
        parse_settings(["photos"])
    with pytest.raises(UsageError, match="recipe: epochs: must be a valid integer"):
        Recipe("photos", **parse_settings(["epochs=many"]))
    with pytest.raises(UsageError, match=r"unknown recipe 'convnext_tin'\. Nearest: convnext_tiny"):
        read_settings("convnext_tin")


@pytest.mark.parametrize(
    ("name", "imgsz", "training", "first"),
    [
        ("convnext_v2_atto", 96, 96, None),
        ("convnext_v2_atto", 100, 100, None),  # of an equal size, equal
        ("efficientnet_v2_s", 192, 152, 64),  # 300 and 128 of 384
        ("efficientnet_v2_s", 384, 300, 128),
        ("efficientnet_v2_s", 32, 24, 16),
    ],
)
def test_another_size_keeps_a_recipes_ratios(
    name: str, imgsz: int, training: int, first: int | None
) -> None:
    below, above = read_settings(name), {"imgsz": imgsz}
    recipe = Recipe("photos", **laid_over(below, above))
    assert (recipe.imgsz, recipe.train_imgsz, recipe.first_imgsz) == (imgsz, training, first)
    told = Recipe("photos", **laid_over(below, above | {"train_imgsz": 80}))
    assert (told.train_imgsz, told.first_imgsz) == (80, first)
