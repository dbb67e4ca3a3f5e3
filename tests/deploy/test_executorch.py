"""A `.pte` file is the model, in ExecuTorch's own runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from in_format import NETWORKS, opened, pictures, right_answer, written
from torch import nn

from edgewise.deploy.executorch import lowered
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


def test_bytes_reach_no_further_than_a_relu6() -> None:
    """What comes before the bound is far larger here, as in a trained stem."""
    from executorch.runtime import Runtime

    torch.manual_seed(0)
    layer = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU6(inplace=True)).eval()
    with torch.no_grad():
        layer[0].weight.mul_(100)
    images = torch.randn(16, 1, 3, 16, 16).unbind()
    program, outside = lowered(layer, (images[0],), iter(images))
    assert not outside
    with torch.no_grad():
        right = layer(images[0])
    (answer,) = Runtime.get().load_program(program).load_method("forward").execute([images[0]])
    assert 0 < right.mean() < 6
    assert (answer - right).square().mean() < 0.005 * right.var()
