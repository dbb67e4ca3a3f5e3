"""A `.pte` file is the model, in ExecuTorch's own runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from in_format import NETWORKS, opened, pictures, right_answer, written

from edgewise.deploy.formats import FORMATS

pytest.importorskip("executorch")
pytest.importorskip("torchao")
pytestmark = pytest.mark.slow  # ten seconds and more for each network
FORMAT = "executorch"


@pytest.mark.parametrize("name", NETWORKS)
def test_answers_are_those_of_pytorch(name: str, tmp_path: Path) -> None:
    job, exported = written(name, FORMAT, "fp32", tmp_path)
    pixels = pictures(job.model, 0, 3)
    answers = exported.probabilities(pixels)
    assert np.abs(answers - right_answer(job.model, pixels)).max() < 1e-4
    outside = " ".join(job.notes)
    assert ("native_layer_norm (stem.norm, stages.0.0.norm ..." in outside) == ("convnext" in name)
    assert ("mul.Scalar (stages.3.1, stages.4.1)" in outside) == ("hybrid" in name)
    assert not outside or "convnext" in name or "hybrid" in name


@pytest.mark.parametrize("name", ["mobilenet_v4_conv_small", "convnext_atto"])
def test_int8_is_calibrated_on_the_pictures_it_is_given(name: str, tmp_path: Path) -> None:
    """Both have what XNNPACK can't do in int8: sides given back to a pooled map, layer norm."""
    job, exported = written(name, FORMAT, "int8", tmp_path)
    pixels = pictures(job.model, 0, 16)
    right = right_answer(job.model, pixels)
    distance = np.abs(exported.probabilities(pixels) - right).mean()
    weights = sum(item.numel() for item in job.model.network.parameters())
    assert weights < job.path.stat().st_size < 2 * weights + 100_000
    assert job.calibration is not None
    job.calibration[:] = 127  # the mean: a map of zeros
    FORMATS[FORMAT].write(job)
    blind = np.abs(opened(job, FORMAT).probabilities(pixels) - right).mean()
    assert distance < 0.08
    assert distance < blind / 2
