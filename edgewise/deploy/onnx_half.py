"""An ONNX graph in float16, with sums over many numbers in float32.

The precision is in the graph itself, as the strongly typed networks of TensorRT want it. (The
converter that comes with ONNX Runtime gave graphs that ONNX's own checker refused.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgewise.errors import EdgewiseError

if TYPE_CHECKING:
    from numpy.typing import NDArray

HALF = ("Conv", "Gemm", "MatMul")
# A sum of 112 x 112 values of 6, or of their squares, is beyond float16's 65,504.
WIDE = ("ReduceL2", "ReduceMean", "LayerNormalization", "Softmax")


def in_half(proto: Any) -> Any:
    """The same graph with its convolutions and products in float16; inputs and outputs stay.

    All other operators follow their inputs: float16 if one is, float32 else. So the normalisation
    of the pixels, which comes before the first convolution, stays exact.

    Args:
        proto: an `onnx.ModelProto` whose outputs come from an operator of `WIDE`; not changed.

    Raises:
        EdgewiseError: a weight is too large for float16.
    """
    import onnx

    typed = onnx.shape_inference.infer_shapes(proto)
    halved = _Halved(typed.graph)
    for node in typed.graph.node:
        halved.add(node)
    del typed.graph.node[:], typed.graph.initializer[:], typed.graph.value_info[:]
    typed.graph.node.extend(halved.nodes)
    typed.graph.initializer.extend(halved.constants.values())
    onnx.checker.check_model(typed, full_check=True)
    return typed


class _Halved:
    """The nodes and constants so far; `nodes` stays in an order in which each can be computed."""

    def __init__(self, graph: Any) -> None:
        from onnx import TensorProto

        self.given = {tensor.name: tensor for tensor in graph.initializer}
        values = (*graph.value_info, *graph.input, *graph.output)
        # The type of each value that is of floats; that of a constant is its user's choice.
        self.types: dict[str, int] = {
            value.name: TensorProto.FLOAT
            for value in values
            if value.type.tensor_type.elem_type == TensorProto.FLOAT
        }
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}

    def add(self, node: Any) -> None:
        """Adds a node of the old graph, behind the casts that it needs."""
        from onnx import TensorProto

        half = TensorProto.FLOAT16
        inputs = {self.types[name] for name in node.input if name in self.types}
        follows = node.op_type not in WIDE and half in inputs
        wanted = half if node.op_type in HALF or follows else TensorProto.FLOAT
        new = type(node)()
        new.CopyFrom(node)
        new.input[:] = [self._as(name, wanted) for name in node.input]
        self.nodes.append(new)
        for name in node.output:
            if name in self.types:
                self.types[name] = wanted

    def _as(self, name: str, wanted: int) -> str:
        """The name of that value in the wanted type; of one that isn't of floats, its own."""
        from onnx import TensorProto, helper

        if name in self.given:
            return self._constant(name, wanted)
        if self.types.get(name, wanted) == wanted:
            return name
        kind = "half" if wanted == TensorProto.FLOAT16 else "float"
        made = f"{name}_{kind}"
        if made not in self.types:
            self.nodes.append(helper.make_node("Cast", [name], [made], name=made, to=wanted))
            self.types[made] = wanted
        return made

    def _constant(self, name: str, wanted: int) -> str:
        from onnx import TensorProto, numpy_helper

        tensor = self.given[name]
        if tensor.data_type != TensorProto.FLOAT or wanted == TensorProto.FLOAT:
            self.constants[name] = tensor
            return name
        made = f"{name}_half"
        if made not in self.constants:
            values = _to_float16(name, numpy_helper.to_array(tensor))
            self.constants[made] = numpy_helper.from_array(values, made)
        return made


def _to_float16(name: str, values: NDArray[np.float32]) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    if not np.isfinite(half).all():
        raise EdgewiseError(
            f"the weights {name} go up to {np.abs(values).max():.3g}, beyond float16's 65,504: "
            "export in fp32"
        )
    return half
