"""What is rewritten for OpenVINO answers as the network does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import edgewise
from edgewise.deploy.onnx import to_bytes, to_onnx
from edgewise.deploy.openvino_blocks import (
    ConvNeXtBlockOfRows,
    LayerNormOfRows,
    rewritten,
)
from edgewise.families import variant
from edgewise.libraries import openvino_core
from edgewise.network import Network, build


def lively(name: str, blocks: int | None = None) -> Network:
    """A small network none of whose parameters is zero or one throughout.

    Args:
        blocks: so many in each stage; None for all that it has.
    """
    torch.manual_seed(0)
    spec = variant(name).spec(0.5, classes=5)
    network = build(replace(spec, stages=tuple(stage[:blocks] for stage in spec.stages))).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim < 2:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return network


@pytest.mark.parametrize("name", ["convnext_atto", "convnext_v2_atto"])
def test_the_answers_are_the_networks(name: str) -> None:
    network, images = lively(name), torch.randn(3, 3, 64, 96)
    other = rewritten(network)
    kinds = [type(module) for module in other.modules()]
    assert (kinds.count(ConvNeXtBlockOfRows), kinds.count(LayerNormOfRows)) == (12, 4)
    assert other.state_dict().keys() == network.state_dict().keys()
    with torch.inference_mode():
        torch.testing.assert_close(other(images), network(images), rtol=1e-5, atol=1e-5)
    assert not any(type(module) is ConvNeXtBlockOfRows for module in network.modules())


@pytest.mark.parametrize("name", ["convnext_atto", "convnext_v2_atto"])
def test_openvino_norms_it_in_one_kernel(name: str, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    network, images = lively(name, blocks=1), torch.randn(1, 3, 64, 64)
    norms, found = [], []
    for number, module in enumerate((network, rewritten(network))):
        path = tmp_path / f"{number}.onnx"
        path.write_bytes(to_bytes(to_onnx(module, (images,), "images", "logits")))
        compiled = openvino_core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        nodes = compiled.get_runtime_model().get_ops()
        kinds = [node.get_rt_info()["layerType"].value for node in nodes]
        norms.append((kinds.count("MVN"), kinds.count("RMS")))
        found.append(np.array(compiled(images.numpy())[0]))
    assert norms == [(1, 8), (9, 0)]  # the head's is one of vectors
    np.testing.assert_allclose(found[1], found[0], rtol=1e-3, atol=1e-4)


def test_other_networks_are_left_alone() -> None:
    network = edgewise.create_model("efficientnet_b0", width=0.25)
    assert rewritten(network) is network
