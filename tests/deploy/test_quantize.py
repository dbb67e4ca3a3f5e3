"""int8 graphs, held to the runtimes that read them."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from int8_graphs import LABELS, SIZE, answers, batches, exported, pixels_of, session
from onnx import numpy_helper
from small import small_model
from torch import nn

from edgewise.deploy.onnx import graph_of
from edgewise.deploy.openvino import own_graph
from edgewise.deploy.quantize import Calibrated, calibrate
from edgewise.deploy.quantize_keep import int8_graph
from edgewise.deploy.quantize_layers import constants, layers_of
from edgewise.errors import EdgewiseError
from edgewise.libraries import openvino_core
from edgewise.model import Model


def test_layers_have_the_names_of_the_modules(made: tuple[Model, Any, Calibrated]) -> None:
    model, _, calibrated = made
    expected = {
        name: tuple(module.weight.shape)
        for name, module in model.network.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    }
    found = {layer.name: layer for layer in calibrated.layers}
    assert found.keys() == expected.keys()
    for name, layer in found.items():
        assert len(layer.rows) == expected[name][0]
        assert layer.rows.size == np.prod(expected[name])


def test_int8_is_nearer_to_float_than_onnxruntimes_own(
    made: tuple[Model, Any, Calibrated], tmp_path: Path
) -> None:
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    model, proto, calibrated = made
    fed = iter([{"pixels": batch} for batch in batches(pixels_of(model, 24))])
    reader = SimpleNamespace(get_next=lambda: next(fed, None))
    onnx.save(proto, tmp_path / "float.onnx")
    quantize_static(
        tmp_path / "float.onnx",
        tmp_path / "theirs.onnx",
        reader,
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=["Conv", "Gemm", "MatMul", "Add", "Clip", "Relu"],
    )
    pixels = pixels_of(model, 40, first=1000)
    exact = answers(proto, pixels)
    ours = answers(calibrated.quantized(), pixels) - exact
    theirs = answers(onnx.load(tmp_path / "theirs.onnx"), pixels) - exact
    assert 1e-8 < np.square(ours).mean() < 0.9 * np.square(theirs).mean()


def test_openvino_answers_so_too(made: tuple[Model, Any, Calibrated], tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    model, proto, calibrated = made
    onnx.save(calibrated.quantized(), tmp_path / "m.onnx")
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino_core().compile_model(tmp_path / "m.onnx", "CPU", settings)
    pixels = pixels_of(model, 40, first=1000)
    exact = answers(proto, pixels)
    in_onnxruntime = np.square(answers(calibrated.quantized(), pixels) - exact).mean()
    in_openvino = np.square(np.array(compiled(pixels)[0]) - exact).mean()
    assert 0 < in_openvino < 1.5 * in_onnxruntime


def test_every_convolution_computes_in_integers(
    made: tuple[Model, Any, Calibrated], tmp_path: Path
) -> None:
    """Says ONNX Runtime: it puts an integer operator in the place of each."""
    model, _, calibrated = made
    session(calibrated.quantized(), tmp_path / "m.onnx")
    kinds = [node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node]
    convolutions = [m for m in model.network.modules() if isinstance(m, nn.Conv2d)]
    assert kinds.count("QLinearConv") == len(convolutions)
    assert "Conv" not in kinds
    assert "QGemm" in kinds and "Gemm" not in kinds


def test_openvino_computes_a_layer_and_what_follows_as_one(
    made: tuple[Model, Any, Calibrated], tmp_path: Path
) -> None:
    """Says OpenVINO: convolutions are integer kernels, and no activation is one of its own."""
    pytest.importorskip("openvino")
    model, proto, calibrated = made
    fused = replace(calibrated, fuses=True)
    onnx.save(own_graph(fused.quantized()), tmp_path / "m.onnx")
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino_core().compile_model(tmp_path / "m.onnx", "CPU", settings)
    nodes = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    kinds = [(node["layerType"].value, node["runtimePrecision"].value) for node in nodes]
    convolutions = [precision for kind, precision in kinds if "Convolution" in kind]
    count = sum(isinstance(module, nn.Conv2d) for module in model.network.modules())
    assert len(convolutions) == count
    assert sum(precision in ("i8", "u8") for precision in convolutions) == count
    assert not {"Swish", "HSwish", "Sigmoid"} & {kind for kind, _ in kinds}
    pixels = pixels_of(model, 40, first=1000)
    exact = answers(proto, pixels)
    in_onnxruntime = np.square(answers(calibrated.quantized(), pixels) - exact).mean()
    in_openvino = np.square(np.array(compiled(pixels)[0]) - exact).mean()
    assert 0 < in_openvino < 1.2 * in_onnxruntime


def test_a_network_that_is_kept_in_float_is_the_float_network(
    made: tuple[Model, Any, Calibrated],
) -> None:
    model, proto, calibrated = made
    pixels = pixels_of(model, 8)
    kept = calibrated.quantized([layer.name for layer in calibrated.layers])
    assert not {"QuantizeLinear", "DequantizeLinear"} & {n.op_type for n in kept.graph.node}
    assert np.abs(answers(kept, pixels) - answers(proto, pixels)).max() < 1e-4


def test_the_graph_that_was_given_is_left_alone(lite: tuple[Model, Any, Calibrated]) -> None:
    model, proto, calibrated = lite
    before = graph_of(model).SerializeToString(deterministic=True)
    assert proto.SerializeToString(deterministic=True) == before
    again = calibrate(proto, batches(pixels_of(model, 24)))
    first, second = (
        c.quantized().SerializeToString(deterministic=True) for c in (calibrated, again)
    )
    assert first == second


def test_weights_are_integers_of_8_bits(lite: tuple[Model, Any, Calibrated]) -> None:
    _, _, calibrated = lite
    values = constants(calibrated.quantized())
    for layer in calibrated.layers:
        integers = values[f"{layer.weight}_integers"]
        assert integers.dtype == np.int8
        assert 64 <= np.abs(integers.astype(int)).max() <= 127
        assert layer.weight not in values  # nor are the floats shipped


def test_a_constant_that_several_layers_share_is_changed_for_each_alone() -> None:
    model = small_model("convnext_atto", LABELS, SIZE)  # its new biases are all 0
    proto, pixels = graph_of(model), pixels_of(model, 24)
    layers = layers_of(proto)
    assert len({layer.name for layer in layers}) == len(layers)
    exact = np.log(answers(proto, pixels))
    short = np.log(answers(calibrate(proto, batches(pixels)).quantized(), pixels))
    assert np.corrcoef(exact.ravel(), short.ravel())[0, 1] > 0.98


def test_bad_input_is_named(lite: tuple[Model, Any, Calibrated]) -> None:
    model, proto, _ = lite
    none = np.zeros((0, SIZE, SIZE, 3), np.uint8)
    with pytest.raises(EdgewiseError, match="needs images"):
        int8_graph(proto, none, None)
    with pytest.raises(EdgewiseError, match="needs images"):
        calibrate(proto, [])
    broken = copy.deepcopy(proto)
    weight = next(t for t in broken.graph.initializer if t.name == "network.stem.conv.weight")
    values = numpy_helper.to_array(weight).copy()
    values[0] = np.nan
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    with pytest.raises(EdgewiseError, match="not finite"):
        calibrate(broken, batches(pixels_of(model, 4)))
    with pytest.raises(EdgewiseError, match="no convolution or matrix"):
        calibrate(exported(nn.Softmax(1), torch.zeros(2, 3)), [np.zeros((2, 3), np.float32)])
