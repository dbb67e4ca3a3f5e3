"""The smallest ONNX file that has the form of an exported one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.preprocess import Preprocess


def write_tiny_onnx(
    path: Path, weights: np.ndarray[Any, Any], labels: tuple[str, ...], preprocess: Preprocess
) -> None:
    """softmax(pixels / 255 @ weights); `weights` is (size * size * 3, classes)."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    size = preprocess.size
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["pixels"], ["numbers"], to=TensorProto.FLOAT),
            helper.make_node("Flatten", ["numbers"], ["flat"]),
            helper.make_node("Div", ["flat", "white"], ["light"]),
            helper.make_node("MatMul", ["light", "weights"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", size, size, 3])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", len(labels)])],
        [
            numpy_helper.from_array(weights.astype(np.float32), "weights"),
            numpy_helper.from_array(np.float32(255), "white"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    ours = {"spec": "tiny", "labels": labels, "preprocess": preprocess.to_json()}
    helper.set_model_props(model, {"edgewise": json.dumps(ours), "labels": json.dumps(labels)})
    onnx.save(model, path)
