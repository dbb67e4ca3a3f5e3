"""Pixels as OpenVINO reads them: the same answers, with nothing to do before the first layer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from int8_graphs import LABELS, SIZE, answers, batches, exported, pixels_of
from small import small_model
from torch import nn

from edgewise.deploy.onnx import graph_of, to_bytes
from edgewise.deploy.onnx_pixels import in_rows
from edgewise.deploy.openvino import own_graph
from edgewise.deploy.quantize import Calibrated, calibrate
from edgewise.deploy.quantize_entry import entry_of, in_openvino
from edgewise.libraries import openvino_core
from edgewise.model import Model
from edgewise.preprocess import IMAGENET_MEAN, IMAGENET_STD

# Whole, halved (of TensorFlow's networks) and any means.
MEANS = ((127.0,) * 3, (64.0,) * 3), ((127.5,) * 3, (127.5,) * 3), (IMAGENET_MEAN, IMAGENET_STD)


def model_of(name: str, mean: tuple[float, ...], std: tuple[float, ...]) -> Model:
    model = small_model(name, LABELS, SIZE)
    return replace(model, preprocess=replace(model.preprocess, mean=mean, std=std))


def compiled(proto: Any, images: int = -1) -> Any:
    """In OpenVINO: for one image our runner compiles it anew."""
    core = openvino_core()
    model = core.read_model(to_bytes(proto))
    model.reshape([images, SIZE, SIZE, 3])
    return core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def until_first_layer(proto: Any) -> list[tuple[str, str]]:
    """What OpenVINO does with one image, as far as the first convolution: kinds and precisions."""
    graph = compiled(proto, images=1).get_runtime_model()
    done = [node.get_rt_info() for node in graph.get_ordered_ops()]
    kinds = [(node["layerType"].value, node["runtimePrecision"].value) for node in done]
    nothing = ("Const", "Reshape", "Reorder")  # names of the same bytes, in the same places
    kinds = [(kind, precision) for kind, precision in kinds if kind not in nothing]
    return kinds[: [kind for kind, _ in kinds].index("Convolution") + 1]


@pytest.mark.parametrize("images", [1, 3])
def test_rows_are_the_same_numbers(lite: tuple[Model, Any, Calibrated], images: int) -> None:
    _, proto, _ = lite
    rows = in_rows(proto)
    assert [node.op_type for node in rows.graph.node][:2] == ["Reshape", "Cast"]
    pixels = np.random.default_rng(0).integers(0, 256, (images, SIZE, SIZE, 3), dtype=np.uint8)
    np.testing.assert_array_equal(answers(rows, pixels), answers(proto, pixels))


def test_a_graph_without_pixels_is_left_alone() -> None:
    proto = exported(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()), torch.zeros(2, 3, 8, 8))
    assert in_rows(proto) is proto
    assert in_openvino(proto) is proto
    calibrated = calibrate(proto, [np.random.default_rng(0).random((2, 3, 8, 8), np.float32)])
    assert calibrated.entry is None


@pytest.mark.parametrize("name", ["efficientnet_lite0", "convnext_atto", "mobilenet_v4_conv_small"])
def test_openvino_normalises_no_planes(name: str) -> None:
    pytest.importorskip("openvino")
    model = model_of(name, IMAGENET_MEAN, IMAGENET_STD)
    proto = graph_of(model)
    own = own_graph(proto)
    assert [kind for kind, _ in until_first_layer(own)] == ["Input", "Subgraph", "Convolution"]
    pixels = pixels_of(model, 8)
    found = np.array(compiled(own)(pixels)[0])
    assert np.abs(found - answers(proto, pixels)).max() < 1e-4


@pytest.mark.parametrize(("mean", "std"), MEANS)
@pytest.mark.parametrize("name", ["efficientnet_lite0", "convnext_atto"])
def test_openvino_reads_bytes(name: str, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    """The first layer computes in integers from the graph's input, and is no farther from float
    than behind pixels that were normalised and put into bytes again.
    """
    pytest.importorskip("openvino")
    model = model_of(name, mean, std)
    proto = graph_of(model)
    calibrated = replace(calibrate(proto, batches(pixels_of(model, 24))), fuses=True)
    own = own_graph(calibrated.quantized())
    pads = [("Pad", "u8"), ("Subgraph", "u8")]  # with a whole mean; the layer does it itself else
    padded = mean == (127.0,) * 3 and name == "efficientnet_lite0"
    first, *others = until_first_layer(own)
    assert first == ("Input", "u8")
    assert others == [*pads * padded, ("Convolution", "u8")]
    pixels = pixels_of(model, 40, first=1000)
    # What comes after the first layer costs more, so all but that one is left in float.
    others = [layer.name for layer in calibrated.layers[1:]]
    exact = answers(proto, pixels)
    own = np.array(compiled(own_graph(calibrated.quantized(others)))(pixels)[0])
    before = answers(replace(calibrated, entry=None).quantized(others), pixels)
    errors = [float(np.square(found - exact).mean()) for found in (own, before)]
    assert 0 < errors[0] < 1.1 * errors[1]


@pytest.mark.parametrize("mean", [-1.0, 255.0])
def test_means_that_no_byte_is_near_have_no_entry(
    lite: tuple[Model, Any, Calibrated], mean: float
) -> None:
    model, _, _ = lite
    far = replace(model, preprocess=replace(model.preprocess, mean=(mean, 100.0, 100.0)))
    proto = graph_of(far)
    before = to_bytes(proto)
    assert entry_of(proto) is None
    assert to_bytes(proto) == before


def test_both_runtimes_answer_as_the_graph_is_written(lite: tuple[Model, Any, Calibrated]) -> None:
    """ONNX Runtime takes it before OpenVINO's own operator is in it: it tells what int8 costs."""
    pytest.importorskip("openvino")
    model, proto, calibrated = lite
    first, *others = (layer.name for layer in calibrated.layers)
    assert first.startswith("stem")
    graph = replace(calibrated, fuses=True).quantized(others)
    own = own_graph(graph)
    assert [node.op_type for node in own.graph.node].count("FakeQuantize") == 1
    pixels = pixels_of(model, 16, first=1000)
    written = answers(graph, pixels, plain=True)
    found = np.array(compiled(own)(pixels)[0])
    assert np.abs(found - written).max() < 1e-4 < np.abs(written - answers(proto, pixels)).max()


def test_a_first_layer_in_float_reads_rows(lite: tuple[Model, Any, Calibrated]) -> None:
    _, _, calibrated = lite
    graph = replace(calibrated, fuses=True).quantized(["stem"])
    own = own_graph(graph)
    assert [node.op_type for node in own.graph.node][:4] == ["Reshape", "Cast", "Sub", "Reshape"]
    onnx.checker.check_model(own, full_check=True)
