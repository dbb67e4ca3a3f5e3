"""What the first convolution of an int8 graph reads in OpenVINO: the bytes of the pixels.

With 1 / std in the layer's weights and each channel's mean as the zero of its bytes, pixels need
neither be normalised nor rounded again. And OpenVINO has a faster kernel for three channels with a
zero each than for three with one. At 224 px on a Xeon with AMX what was 35 + 25 + 34 + 228
microseconds (planes, normalised, channels last again, the layer) became 114, in a network of one
millisecond. Zeros that are all the same are one, and get the other kernel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewise.deploy.onnx_pixels import pixels_of
from edgewise.deploy.quantize_layers import Layer, constants, consumers, layers_of

LEVELS = 255
OPENVINO = "org.openvinotoolkit"  # the domain of its own operators in ONNX


@dataclass(frozen=True)
class Entry:
    """The first convolution's input, pixels less their mean, and how it is written in bytes.

    Attributes:
        name: of the tensor.
        layer: the name of the only layer that reads it.
        mean: float32 (3,), as the graph has it.
        zeros: uint8 (3,), whole numbers near it that are not all the same.
    """

    name: str
    layer: str
    mean: NDArray[np.float32]
    zeros: NDArray[np.uint8]

    @property
    def planes(self) -> NDArray[np.float32]:
        """The zeros as a graph subtracts them from planes."""
        return self.zeros.astype(np.float32).reshape(-1, 1, 1)

    def shift(self, weights: NDArray[np.float32]) -> NDArray[np.float32]:
        """What the layer's biases need, float32 (out,), as means are no whole numbers.

        Padding is then not 0, but the difference: half a step of a pixel, or one in one channel.

        Args:
            weights: float32 (out, 3, height, width).
        """
        shift: NDArray[np.float32] = weights.sum((2, 3)) @ (self.zeros - self.mean)
        return shift


def entry_of(proto: Any) -> Entry | None:
    """The entry of a float graph that takes pixels, whose division by std goes into the weights.

    Args:
        proto: an `onnx.ModelProto`. It is changed, unless it takes no pixels or other layers than
            one convolution read them; then there is no entry.
    """
    pixels = pixels_of(proto)
    if pixels is None or [node.op_type for node in pixels.nodes[2:]] != ["Sub", "Div"]:
        return None
    *_, mean, division = pixels.nodes
    layer = next((item for item in layers_of(proto) if item.input == pixels.end), None)
    others = len(consumers(proto)[pixels.end]) - 1
    if layer is None or not layer.is_conv or layer.groups != 1 or others:
        return None
    _divide(proto, layer, pixels.constants[pixels.end])
    (reader,) = consumers(proto)[pixels.end]
    name = reader.input[0] = mean.output[0]
    proto.graph.node.remove(division)
    subtracted = pixels.constants[name]
    return Entry(name, layer.name, subtracted, _zeros(subtracted))


def _zeros(mean: NDArray[np.float32]) -> NDArray[np.uint8]:
    nearest = np.clip(np.round(mean), 0, LEVELS)
    if (nearest == nearest[0]).all():  # as of TensorFlow's networks; the kernel is the slow one
        nearest[-1] += 1 if mean[-1] >= nearest[-1] < LEVELS else -1
    return nearest.astype(np.uint8)


def _divide(proto: Any, layer: Layer, std: NDArray[np.float32]) -> None:
    """Divides a layer's weights, instead of its inputs."""
    import onnx

    (weight,) = (item for item in proto.graph.initializer if item.name == layer.weight)
    divided = onnx.numpy_helper.to_array(weight) / std[:, None, None]
    weight.CopyFrom(onnx.numpy_helper.from_array(divided, layer.weight))


def in_openvino(proto: Any) -> Any:
    """An int8 graph with its entry in OpenVINO's own operator; itself where it has no entry.

    Behind QuantizeLinear and DequantizeLinear of a zero for each channel, it would compute the
    layer in float.

    Args:
        proto: an `onnx.ModelProto`; it is not changed. ONNX Runtime can't run what is returned.
    """
    import onnx

    values = constants(proto)
    into_bytes = {
        at: values[node.input[2]]
        for at, node in enumerate(proto.graph.node)
        if node.op_type == "QuantizeLinear"
    }
    at = next((at for at, zeros in into_bytes.items() if zeros.ndim), None)
    if at is None:
        return proto
    changed = onnx.ModelProto()
    changed.CopyFrom(proto)
    graph = changed.graph
    zeros = into_bytes[at].astype(np.float32).reshape(-1, 1, 1)
    ends = {"pixels_least": -zeros, "pixels_most": LEVELS - zeros}
    for name, value in ends.items():
        graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    inputs, outputs = [graph.node[at].input[0], *ends, *ends], list(graph.node[at + 1].output)
    operator = onnx.helper.make_node(
        "FakeQuantize", inputs, outputs, domain=OPENVINO, levels=LEVELS + 1
    )
    graph.node[at].CopyFrom(operator)
    del graph.node[at + 1]
    changed.opset_import.append(onnx.helper.make_opsetid(OPENVINO, 1))
    return changed
