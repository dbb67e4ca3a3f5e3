"""What the first convolution of an int8 graph reads in OpenVINO: the bytes of the pixels.

With 1 / std in the layer's weights and each channel's mean as the zero of its bytes, pixels need
neither be normalised nor rounded again. And OpenVINO has a faster kernel for three channels with a
zero each than for three with one. At 224 px on a Xeon with AMX what was 35 + 25 + 34 + 228
microseconds (planes, normalised, channels last again, the layer) became 114, in a network of one
millisecond. Zeros that are all the same are one, and get the other kernel.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewise.deploy.onnx_pixels import pixels_of
from edgewise.deploy.quantize_layers import Layer, attribute, constants, consumers, layers_of

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
        edges: pixels by which the layer pads its input: top, left, bottom, right.
        padding: what a pixel is there, where the layer is not to pad by itself; else None.
    """

    name: str
    layer: str
    mean: NDArray[np.float32]
    zeros: NDArray[np.uint8]
    edges: tuple[int, ...]
    padding: np.uint8 | None

    def shift(self, weights: NDArray[np.float32]) -> NDArray[np.float32]:
        """What the layer's biases need, float32 (out,), as the zeros are not the means.

        Args:
            weights: float32 (out, 3, height, width).
        """
        shift: NDArray[np.float32] = weights.sum((2, 3)) @ (self.zeros - self.mean)
        return shift

    def placed(self, proto: Any) -> Any:
        """The float graph with the zeros in the place of the means, and its images padded.

        Args:
            proto: what `entry_of` has left; it is not changed.
        """
        import onnx

        changed = onnx.ModelProto()
        changed.CopyFrom(proto)
        graph, made = changed.graph, {node.output[0]: node for node in changed.graph.node}
        added = {"pixels_zeros": self.zeros.astype(np.float32).reshape(-1, 1, 1)}
        made[self.name].input[1] = "pixels_zeros"
        if self.padding is not None:
            top, left, bottom, right = self.edges
            added["pixels_edges"] = np.array([0, top, left, 0, 0, bottom, right, 0])
            added["pixels_padding"] = np.array(self.padding)
            takers = consumers(changed)
            (first,), (reader,) = takers[graph.input[0].name], takers[self.name]
            (pads,) = (item for item in reader.attribute if item.name == "pads")
            pads.ints[:] = [0] * len(self.edges)
            inputs = [first.input[0], "pixels_edges", "pixels_padding"]
            first.input[0] = "pixels_padded"
            graph.node.insert(0, onnx.helper.make_node("Pad", inputs, ["pixels_padded"]))
        for name, value in added.items():
            graph.initializer.append(onnx.numpy_helper.from_array(value, name))
        del graph.value_info[:]
        return changed


def entry_of(proto: Any) -> Entry | None:
    """The entry of a float graph that takes pixels, whose division by std goes into the weights.

    Args:
        proto: an `onnx.ModelProto`. It is changed, unless it takes no pixels or other layers than
            one convolution read them; then there is no entry.
    """
    pixels = pixels_of(proto)
    if pixels is None or [node.op_type for node in pixels.nodes[2:]] != ["Sub", "Div"]:
        return None
    *_, subtraction, division = pixels.nodes
    mean = pixels.constants[subtraction.output[0]]
    layer = next((item for item in layers_of(proto) if item.input == pixels.end), None)
    others = len(consumers(proto)[pixels.end]) - 1
    if layer is None or not layer.is_conv or layer.groups != 1 or others:
        return None
    if (mean < 0).any() or (mean >= LEVELS).any():  # no byte is near it
        return None
    weights = _divide(proto, layer, pixels.constants[pixels.end])
    (reader,) = consumers(proto)[pixels.end]
    name = reader.input[0] = subtraction.output[0]
    proto.graph.node.remove(division)
    edges = tuple(attribute(layer.node, "pads", [0, 0, 0, 0]))
    # Means of one whole number, as EfficientNet-Lite's, can be padded with it. Lite0 at 48 px kept
    # less of its answers with a zero of 127 and 128 in the padding: 980 to 988 of 1,000 for 989.
    whole = np.float32(np.round(mean[0]))
    padding = np.uint8(whole) if (mean == whole).all() and any(edges) else None
    return Entry(name, layer.name, mean, _zeros(mean, weights, edges), edges, padding)


def _zeros(
    mean: NDArray[np.float32], weights: NDArray[np.float32], edges: tuple[int, ...]
) -> NDArray[np.uint8]:
    """Whole numbers near the mean, not all the same, with the least error at padded borders.

    There a layer reads zeros where it should read means.
    """
    top, left, bottom, right = edges
    height, width = weights.shape[2:]
    borders = np.concatenate(
        [
            weights[:, :, :top].sum((2, 3)),
            weights[:, :, height - bottom :].sum((2, 3)),
            weights[..., :left].sum((2, 3)),
            weights[..., width - right :].sum((2, 3)),
        ]
    )
    below = np.floor(mean).astype(int)
    near = (below + np.array(step) for step in itertools.product((0, 1), repeat=len(mean)))
    usable = [zeros for zeros in near if len(set(zeros)) > 1 and max(zeros) <= LEVELS]
    best = min(usable, key=lambda zeros: float(np.square(borders @ (zeros - mean)).sum()))
    return np.asarray(best, np.uint8)


def _divide(proto: Any, layer: Layer, std: NDArray[np.float32]) -> NDArray[np.float32]:
    """Divides a layer's weights, instead of its inputs, and returns them."""
    import onnx

    (weight,) = (item for item in proto.graph.initializer if item.name == layer.weight)
    divided = np.asarray(onnx.numpy_helper.to_array(weight) / std[:, None, None], np.float32)
    weight.CopyFrom(onnx.numpy_helper.from_array(divided, layer.weight))
    return divided


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
    subtraction, _, back = graph.node[at - 1 : at + 2]  # as `Calibrated.quantized` writes them
    zeros = into_bytes[at].astype(np.float32).reshape(-1, 1, 1)
    ends = {
        "pixels_least": np.float32(0),
        "pixels_most": np.float32(LEVELS),
        "pixels_lowest": -zeros,
        "pixels_highest": LEVELS - zeros,
    }
    for name, value in ends.items():
        graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), name))
    inputs, outputs = [subtraction.input[0], *ends], list(back.output)
    operator = onnx.helper.make_node(
        "FakeQuantize", inputs, outputs, domain=OPENVINO, levels=LEVELS + 1
    )
    back.CopyFrom(operator)
    del graph.node[at - 1 : at + 1]
    changed.opset_import.append(onnx.helper.make_opsetid(OPENVINO, 1))
    return changed
