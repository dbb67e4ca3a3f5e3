"""The first operators of a classifier's graph: from bytes of pixels to what its network reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewise.deploy.quantize_layers import constants, consumers

PLANES = (0, 3, 1, 2)  # of (N, H, W, 3)


@dataclass(frozen=True)
class Pixels:
    """How a graph has `Preprocess.normalise`: nodes one after the other, each the only taker.

    Attributes:
        input: the graph's, uint8 (N, H, W, 3).
        nodes: Transpose, Cast, then what of Sub and Div there is.
        constants: by such a Sub's or Div's output its three numbers, float32.
        end: the tensor behind the last.
    """

    input: str
    nodes: tuple[Any, ...]
    constants: dict[str, NDArray[np.float32]]
    end: str


def pixels_of(proto: Any) -> Pixels | None:
    """The normalisation of a graph that begins with one; None of any other."""
    takers, values = consumers(proto), constants(proto)
    name = start = proto.graph.input[0].name
    nodes: list[Any] = []
    numbers: dict[str, NDArray[np.float32]] = {}
    for kind in ("Transpose", "Cast", "Sub", "Div"):
        (node, *others) = takers[name]
        if others or node.op_type != kind:
            if kind in ("Transpose", "Cast"):
                return None
            continue
        name = node.output[0]
        nodes.append(node)
        if kind in ("Sub", "Div"):
            numbers[name] = values[node.input[1]].ravel()
    return Pixels(start, tuple(nodes), numbers, name)


def in_rows(proto: Any) -> Any:
    """The graph with its pixels normalised a row of the image at once: the same numbers.

    OpenVINO's convolutions read maps with the channels last, as images are, so that it need not
    turn them into planes and back. But three numbers, a mean each, are too few for its loops. At
    224 px on one thread of a Xeon 35 + 26 + 89 microseconds (planes, normalised, channels last)
    became 28 in float32, and 38 + 16 + 39 became 20 in bf16, of 1 to 3 ms for a small network.

    Args:
        proto: an `onnx.ModelProto`; it is not changed. It is what is returned if it takes no
            pixels.
    """
    import onnx

    changed = onnx.ModelProto()
    changed.CopyFrom(proto)
    pixels = pixels_of(changed)
    if pixels is None or not pixels.constants:
        return proto
    graph = changed.graph
    _, cast, *others = pixels.nodes
    size = graph.input[0].type.tensor_type.shape.dim[1].dim_value

    def constant(name: str, value: NDArray[Any]) -> str:
        graph.initializer.append(onnx.numpy_helper.from_array(value, name))
        return name

    shapes = {"rows": [0, size, 3 * size], "image": [0, size, size, 3]}
    rows, image = (constant(name, np.array(shape)) for name, shape in shapes.items())
    nodes = [
        onnx.helper.make_node("Reshape", [pixels.input, rows], ["pixels_rows"]),
        onnx.helper.make_node("Cast", ["pixels_rows"], [cast.output[0]], to=onnx.TensorProto.FLOAT),
    ]
    for node in others:
        name = node.output[0]
        repeated = constant(f"{name}_row", np.tile(pixels.constants[name], size))
        nodes.append(onnx.helper.make_node(node.op_type, [node.input[0], repeated], [name]))
    last = nodes[-1]
    last.output[0] = "pixels_normalised"
    nodes += [
        onnx.helper.make_node("Reshape", [last.output[0], image], ["pixels_image"]),
        onnx.helper.make_node("Transpose", ["pixels_image"], [pixels.end], perm=PLANES),
    ]
    nodes += [node for node in graph.node if node not in pixels.nodes]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(changed, full_check=True)
    return changed
