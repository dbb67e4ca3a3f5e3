"""The batch of an ONNX graph that was traced for one: any number of images instead."""

from __future__ import annotations

from typing import Any

import numpy as np

# Images of the trace: a prime that no channels or sizes are multiples of, so that what goes with
# the batch is known by it.
TRACED = 1009
ANY = "N"


def free_batch(proto: Any) -> Any | None:
    """The graph for any number of images; None where something in it is for `TRACED` of them.

    To trace a network with a batch of an unknown number takes 1.6 to 2.5 times as long (measured:
    four networks), as each size of each map is then a formula. In a network of convolutions the
    number is in the graph's input alone, and in attention in the shapes that it gives its maps.

    Args:
        proto: an `onnx.ModelProto` whose first dimension is `TRACED`; it is changed.
    """
    import onnx

    graph = proto.graph
    shapes = {node.input[1] for node in graph.node if node.op_type == "Reshape"}
    for weight in graph.initializer:
        if weight.name in shapes:
            sizes = onnx.numpy_helper.to_array(weight).copy()
            if sizes.size and sizes[0] == TRACED and -1 not in sizes:
                sizes[0] = -1
                weight.CopyFrom(onnx.numpy_helper.from_array(sizes, weight.name))
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = ANY
    del graph.value_info[:]
    proto = onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True)
    return None if _holds_batch(proto.graph) else proto


def _holds_batch(graph: Any) -> bool:
    """Whether a map or a constant is as large as the batch that was traced, or holds its number."""
    import onnx

    values = (*graph.value_info, *graph.input, *graph.output)
    sizes = [dim.dim_value for value in values for dim in value.type.tensor_type.shape.dim]
    sizes += [size for weight in graph.initializer for size in weight.dims]
    for weight in graph.initializer:
        if weight.data_type == onnx.TensorProto.INT64:
            sizes += np.ravel(onnx.numpy_helper.to_array(weight)).tolist()
    return any(size and size % TRACED == 0 for size in sizes)
