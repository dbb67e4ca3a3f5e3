"""Channels of like size, and answers that stay."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from int8_graphs import LABELS, SIZE, answers, batches, pixels_of, session
from numpy.typing import NDArray
from onnx import numpy_helper
from small import small_model

from edgewise.deploy.onnx import graph_of
from edgewise.deploy.quantize_equalise import equalise, streams
from edgewise.deploy.quantize_layers import layers_of


def test_equalising_keeps_the_answers_and_evens_the_channels() -> None:
    model = small_model("mobilenet_v2", LABELS, SIZE)
    proto, pixels = graph_of(model), pixels_of(model, 8)
    # A bottleneck whose channels differ, undone behind it.
    layers = {layer.name: layer for layer in layers_of(proto)}
    project, expand = layers["stages.1.0.project.conv"], layers["stages.2.0.expand.conv"]
    factors = np.logspace(-2, 2, len(project.rows), dtype=np.float32)
    _multiply(proto, project.weight, factors[:, None, None, None])
    _multiply(proto, project.bias, factors)
    _multiply(proto, expand.weight, 1 / factors[None, :, None, None])
    assert len(streams(proto)) >= 4
    before, exact = _spread(proto, pixels), answers(proto, pixels)
    equalise(proto, batches(pixels))
    assert _spread(proto, pixels) < before / 10
    assert np.abs(answers(proto, pixels) - exact).max() < 1e-4


def test_nothing_is_equalised_across_a_bound_or_a_norm() -> None:
    for name in ("convnext_atto", "mobilenet_v3_small"):
        proto = graph_of(small_model(name, LABELS, SIZE))
        makers = {out: node.op_type for node in proto.graph.node for out in node.output}
        for stream in streams(proto):
            assert {makers[name] for name in stream.maps} <= {"Conv", "Add"}


def _multiply(proto: Any, name: str, factors: NDArray[np.float32]) -> None:
    """Of an initialiser."""
    tensor = next(item for item in proto.graph.initializer if item.name == name)
    values = numpy_helper.to_array(tensor) * factors
    tensor.CopyFrom(numpy_helper.from_array(values, name))


def _spread(proto: Any, pixels: NDArray[np.uint8]) -> float:
    """The loudest over the quietest channel of the map that stages.2.0.expand reads."""
    layer = next(item for item in layers_of(proto) if item.name == "stages.2.0.expand.conv")
    wider = onnx.ModelProto()
    wider.CopyFrom(proto)
    wider.graph.output.append(onnx.ValueInfoProto(name=layer.input))
    (values,) = session(wider).run([layer.input], {"pixels": pixels})
    sizes = np.abs(np.asarray(values)).max((0, 2, 3))
    return float(sizes.max() / sizes.min())
