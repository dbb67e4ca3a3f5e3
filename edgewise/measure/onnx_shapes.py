"""An ONNX file's graph with the shape of every tensor."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from edgewise.errors import UsageError

LARGE = 1024  # numbers; smaller constants may be shapes or axes, whose values are needed

# ONNX knows no shapes of ONNX Runtime's operators: here is one of its own with the same, and which
# inputs it takes.
STAND_INS = {
    **dict.fromkeys(("QLinearAdd", "QLinearMul"), ("Add", (0, 3))),
    **dict.fromkeys(("BiasGelu",), ("Add", (0, 1))),
    **dict.fromkeys(("QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax"), ("Relu", (0,))),
    **dict.fromkeys(("Gelu", "FastGelu", "QuickGelu", "MultiHeadAttention"), ("Relu", (0,))),
    "QLinearGlobalAveragePool": ("GlobalAveragePool", (0,)),
    "FusedConv": ("Conv", (0, 1)),
    "FusedGemm": ("Gemm", (0, 1)),
    "QGemm": ("Gemm", (0, 3)),
}


def read_graph(path: Path, sides: tuple[int, int] | None, batch: int, in_chans: int | None) -> Any:
    """The graph of the file, with shapes for an input of this size as far as ONNX can tell.

    Raises:
        UsageError: the file can't be read, its input has another fixed size, or the size is too
            small for it.
    """
    import onnx

    if sides and min(sides) < 1:
        raise UsageError(f"{path}: each side of an image needs a pixel at least, not {min(sides)}.")
    if not path.is_file():
        raise UsageError(f"no such file: {path}")
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's, whose class has no types
        raise UsageError(f"{path} is not an ONNX file, or is cut off: {error}") from error
    if not model.graph.node:
        raise UsageError(f"{path} is not an ONNX file, or is cut off: it has no nodes.")
    graph = model.graph
    for tensor in graph.initializer:
        if tensor.ByteSize() > 8 * LARGE:
            tensor.ClearField("raw_data")
            tensor.ClearField("float_data")
    constants = {tensor.name for tensor in graph.initializer}
    for value in graph.input:
        if value.name not in constants:
            _fill(path, value, sides, batch, in_chans)
    del graph.value_info[:]
    for value in graph.output:
        for side in value.type.tensor_type.shape.dim:
            if side.HasField("dim_param"):
                side.Clear()
    nodes = [copy.deepcopy(node) for node in graph.node]
    for node in graph.node:
        _stand_in(node)
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    except Exception as error:  # its own class is private
        raise UsageError(f"{path}: no shapes for this input: {error}") from error
    del inferred.node[:]
    inferred.node.extend(nodes)
    _check_pixels(path, inferred)
    return inferred


def _check_pixels(path: Path, graph: Any) -> None:
    """Whether a pixel is left in each map. ONNX takes sides of 0 and less as they come."""
    shapes = {
        value.name: [side.dim_value for side in value.type.tensor_type.shape.dim if _known(side)]
        for value in (*graph.value_info, *graph.output)
    }
    for node in graph.node:
        maps = "Conv" in node.op_type or "Pool" in node.op_type  # other tensors may be empty
        if maps and any(side < 1 for side in shapes.get(node.output[0], ())):
            raise UsageError(
                f"{path}: nothing is left of so small an image after "
                f"{node.name or node.op_type}. Give a larger size."
            )


def _known(side: Any) -> bool:
    return bool(side.HasField("dim_value"))


def _stand_in(node: Any) -> None:
    """Puts ONNX's own operator of the same shapes in the place of one of ONNX Runtime's."""
    if node.op_type not in STAND_INS or node.domain == "":
        return
    node.op_type, kept = STAND_INS[node.op_type]
    node.domain = ""
    inputs = [node.input[i] for i in kept if i < len(node.input)]
    del node.input[:]
    node.input.extend(inputs)
    if node.op_type in ("Add", "Relu"):  # which have no attributes
        del node.attribute[:]


def element_size(kind: int) -> int:
    """Bytes of one number of an ONNX element type."""
    import onnx

    return int(onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize) if kind else 4


def _fill(
    path: Path, value: Any, sides: tuple[int, int] | None, batch: int, in_chans: int | None
) -> None:
    """Fills the free dimensions of an input, and checks the fixed ones against what is asked."""
    dims = value.type.tensor_type.shape.dim
    if len(dims) == 4:
        last = dims[3].dim_value in (1, 3, 4) and dims[1].dim_value not in (1, 3, 4)
        axes = {"batch": 0, "channels": 3 if last else 1}
        axes |= dict(zip(("height", "width"), (1, 2) if last else (2, 3), strict=True))
    else:
        axes = {"batch": 0} if dims else {}
    wanted = {"batch": batch, "channels": in_chans}
    wanted |= dict(zip(("height", "width"), sides or (None, None), strict=True))
    for what, axis in axes.items():
        fixed, asked = dims[axis].dim_value, wanted[what]
        if fixed and asked and asked != fixed and not (what == "batch" and batch == 1):
            raise UsageError(
                f"{path}: the {what} of its input '{value.name}' is fixed at {fixed}, not {asked}. "
                "Export it again with this size, or leave the size out."
            )
        if not fixed:
            dims[axis].dim_value = asked or {"channels": 3}.get(what, 224)
    for axis, side in enumerate(dims):
        if not side.dim_value:
            raise UsageError(
                f"{path}: dimension {axis} of its input '{value.name}' is free, and it is not an "
                "image. Export it with a fixed size."
            )
