"""ONNX files of one matrix product after the other: their cost and their bytes are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def write_matmul(path: Path, side: int, products: int = 1) -> None:
    """x @ w0 @ w1 ...: float32 (N, side), weights of side * side * 4 bytes each."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    names = ["x", *(f"x{i}" for i in range(1, products)), "y"]
    generator = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(generator.standard_normal((side, side), np.float32), f"w{i}")
        for i in range(products)
    ]
    nodes = [
        helper.make_node("MatMul", [names[i], f"w{i}"], [names[i + 1]]) for i in range(products)
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", side]) for name in ("x", "y")
    ]
    graph = helper.make_graph(nodes, "multiplied", ends[:1], ends[1:], weights)
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
