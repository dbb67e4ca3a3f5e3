"""A recipe goes to JSON and back, and names the setting at fault."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgewise.errors import UsageError
from edgewise.training.recipe import Recipe
from edgewise.training.start import preprocess_of, resolve


def test_round_trip(tmp_path: Path) -> None:
    recipe = Recipe("photos/日本", epochs=3, lr=0.1, imgsz=None, flip=False, pretrained=True)
    recipe.write(tmp_path / "recipe.json")
    assert Recipe.read(tmp_path / "recipe.json") == recipe


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("epochs", -1),
        ("epochs", 2.5),
        ("epochs", True),
        ("batch", "32"),
        ("lr", -0.1),
        ("lr", float("nan")),
        ("label_smoothing", 1),
        ("seed", None),
        ("flip", 1),
        ("model", 3),
        ("imgsz", 8),
    ],
)
def test_bad_value_is_named(tmp_path: Path, setting: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"^recipe: {setting}: must be "):
        Recipe(**{"data": "photos", setting: value})
    Recipe("photos").write(tmp_path / "recipe.json")
    stored = json.loads((tmp_path / "recipe.json").read_text())
    (tmp_path / "recipe.json").write_text(json.dumps({**stored, setting: value}))
    with pytest.raises(UsageError, match=f"recipe.json: {setting}: must be "):
        Recipe.read(tmp_path / "recipe.json")


@pytest.mark.parametrize(
    ("edit", "says"),
    [({"data": None}, "data: is missing"), ({"speed": 1}, "speed: no such field")],
)
def test_missing_or_unknown_setting_is_named(
    tmp_path: Path, edit: dict[str, Any], says: str
) -> None:
    path = tmp_path / "recipe.json"
    Recipe("photos").write(path)
    stored = json.loads(path.read_text())
    for key, value in edit.items():
        if value is None:
            del stored[key]
        else:
            stored[key] = value
    path.write_text(json.dumps(stored))
    with pytest.raises(UsageError, match=f"recipe.json: {says}"):
        Recipe.read(path)


def test_a_recipe_of_an_earlier_version_has_the_defaults_of_what_is_new(tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    Recipe("photos", epochs=3).write(path)
    stored = json.loads(path.read_text())
    del stored["optimizer"], stored["schedule"], stored["clip"]
    path.write_text(json.dumps(stored))
    assert Recipe.read(path) == Recipe("photos", epochs=3)


def test_resolved_recipe_has_no_gaps() -> None:
    resolved = resolve(Recipe("photos", "efficientnet_b3", pretrained=False, device="cpu"))
    assert resolved.pretrained is False
    assert (resolved.imgsz, resolved.device) == (224, "cpu")
    assert resolved.workers is not None


def test_model_without_weights_says_that_it_starts_from_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    resolve(Recipe("photos", "convnext_v2_atto", device="cpu"))
    assert "convnext_v2_atto starts from nothing" in capsys.readouterr().out
    with pytest.raises(UsageError, match="forbid commercial use"):
        resolve(Recipe("photos", "convnext_v2_atto", pretrained=True, device="cpu"))


def test_input_is_normalised_as_the_pretrained_weights_want() -> None:
    recipe = resolve(Recipe("photos", "efficientnet_lite0", imgsz=96, device="cpu"))
    preprocess = preprocess_of(recipe)
    assert (preprocess.size, preprocess.crop) == (96, 1.0)
    assert (preprocess.mean[0], preprocess.std[0]) == (127, 128)  # tensorflow/tpu's Lite


@pytest.mark.parametrize(("device", "named"), [("gpu", "gpu"), ("cuda:77", "cuda:77")])
def test_device_that_is_not_there(device: str, named: str) -> None:
    with pytest.raises(UsageError, match=f"device '{named}'.*--device cpu"):
        resolve(Recipe("photos", "mobilenet_v1", pretrained=False, device=device))
