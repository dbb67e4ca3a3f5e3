"""The layers of an ONNX graph that can compute in int8: convolutions and constant matrices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewise.errors import unknown

PREFIX, SUFFIX = "network.", ".weight"  # around a module's name in the initialisers
CLIPS = ("Relu", "Clip")  # runtimes compute these inside of the layer before


@dataclass(frozen=True)
class Layer:
    """A convolution, or a product with a constant matrix.

    Attributes:
        name: of its module, such as "stages.1.0.expand.conv".
        node: of the graph.
        rows: float32 (out, terms): for each output channel the weights of its sum.
        shape: of the graph's weight.
        bias: the name of the initialiser that is added to the sums; "" if there is none.
        adder: the output of the node that adds it: the layer's own, or an Add behind a product.
        end: the tensor behind it: its own output, or that of the ReLU which follows.
    """

    name: str
    node: Any
    rows: NDArray[np.float32]
    shape: tuple[int, ...]
    bias: str
    adder: str
    end: str

    @property
    def input(self) -> str:
        """The tensor that it takes."""
        name: str = self.node.input[0]
        return name

    @property
    def weight(self) -> str:
        """The initialiser of its weight."""
        name: str = self.node.input[1]
        return name

    @property
    def is_conv(self) -> bool:
        """Whether it is a convolution."""
        return bool(self.node.op_type == "Conv")

    @property
    def groups(self) -> int:
        """Of a convolution; 1 for a matrix."""
        return int(attribute(self.node, "group", 1))

    @property
    def shiftable(self) -> bool:
        """Whether a number can be added to each of its sums."""
        return bool(self.node.op_type != "MatMul" or self.bias)

    @property
    def axis(self) -> int:
        """Of the weight's output channels."""
        return 0 if self.is_conv or attribute(self.node, "transB", 0) else 1

    @property
    def block(self) -> str:
        """The part of the network that it is in: "stem", "stages.1.0", "head"."""
        parts = self.name.split(".")
        return ".".join(parts[:3] if parts[0] == "stages" else parts[:1])

    def as_weight(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Rows in the graph's order and shape."""
        return np.ascontiguousarray((rows if self.axis == 0 else rows.T).reshape(self.shape))


def attribute(node: Any, name: str, default: Any) -> Any:
    """The value of a node's attribute."""
    import onnx

    found = (item for item in node.attribute if item.name == name)
    return next((onnx.helper.get_attribute_value(item) for item in found), default)


def constants(proto: Any) -> dict[str, NDArray[Any]]:
    """The initialisers of a graph."""
    import onnx

    return {item.name: onnx.numpy_helper.to_array(item) for item in proto.graph.initializer}


def consumers(proto: Any) -> dict[str, list[Any]]:
    """The nodes that take each tensor."""
    found: dict[str, list[Any]] = {}
    for node in proto.graph.node:
        for name in node.input:
            found.setdefault(name, []).append(node)
    return found


def layers_of(proto: Any) -> list[Layer]:
    """Those of a graph, in the order in which they run.

    A matrix product of two maps, as in attention, is none: it has no weight.
    """
    values, takers = constants(proto), consumers(proto)
    outputs = {item.name for item in proto.graph.output}
    found = []
    for node in proto.graph.node:
        if node.op_type not in ("Conv", "Gemm", "MatMul") or node.input[1] not in values:
            continue
        weight, bias, end = values[node.input[1]], "", node.output[0]
        adder = end
        if node.op_type == "MatMul":
            if weight.ndim != 2:
                continue
            bias, adder = _added(takers.get(end, []), values)
        elif len(node.input) > 2:
            bias = node.input[2]
        rows = weight if node.op_type == "Conv" or attribute(node, "transB", 0) else weight.T
        rows = rows.reshape(len(rows), -1)
        after = takers.get(end, [])
        if len(after) == 1 and after[0].op_type in CLIPS and end not in outputs:
            end = after[0].output[0]
        # A bias of zeros may be one for several modules, and then has the name of any of them.
        own = bias if len(takers.get(bias, [])) == 1 else ""
        name = _module(node.input[1], own, node.name)
        found.append(Layer(name, node, rows.astype(np.float32), weight.shape, bias, adder, end))
    return found


def named(layers: Sequence[Layer], names: Sequence[str]) -> tuple[str, ...]:
    """The layers that are called so, or are part of a module that is: "stages.1", "head".

    Raises:
        UsageError: there is none of a name; the message has the nearest.
    """
    chosen: dict[str, None] = {}
    for name in names:
        below = [item.name for item in layers if f"{item.name}.".startswith(f"{name}.")]
        if not below:
            raise unknown("layer", name, {i.name for i in layers} | {i.block for i in layers})
        chosen |= dict.fromkeys(below)
    return tuple(item.name for item in layers if item.name in chosen)


def _added(takers: Sequence[Any], values: dict[str, NDArray[Any]]) -> tuple[str, str]:
    """The constant that the only taker of a product adds to it, and the sum."""
    if len(takers) != 1 or takers[0].op_type != "Add":
        return "", ""
    return next((name for name in takers[0].input if name in values), ""), takers[0].output[0]


def _module(weight: str, bias: str, node: str) -> str:
    """An exporter names a transposed matrix anew; then its bias has the module's name."""
    for name, suffix in ((weight, SUFFIX), (bias, ".bias")):
        if name.endswith(suffix):
            return name.removeprefix(PREFIX).removesuffix(suffix)
    return node
