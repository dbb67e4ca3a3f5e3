"""The graph for another size of image is the one that an export at that size would give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small import first_of_each_kind

from edgewise.files import write_bytes
from edgewise.network import Network
from edgewise.search import graphs
from edgewise.search.graphs import timing_graph, write_random
from edgewise.weights.create import create_model

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


def answers(path: Path, pixels: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (probabilities,) = session.run(None, {"pixels": pixels})
    return np.asarray(probabilities)


def create_short(model: str, num_classes: int) -> Network:
    """The first block of each kind and stride in each stage: the others hold their sizes alike, and
    to export each takes a second.
    """
    with torch.device("meta"):
        spec = create_model(model, num_classes).spec
    return create_model(first_of_each_kind(spec, lambda block: (type(block), block.stride)))


def check_resized(model: str, imgsz: int, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Against the same weights, exported at that size: random ones fitted to images of `FIRST_SIZE`
    are taken for both.
    """
    monkeypatch.setenv("EDGEWISE_CACHE", str(folder))
    monkeypatch.setattr(graphs, "create_model", create_short)
    made = timing_graph(model, 10, imgsz, "fp32")
    exported = folder / "exported.onnx"
    network = create_short(model, num_classes=10).eval()
    write_random(network, imgsz, "onnx", "fp32", exported)
    proto = onnx.load(exported)
    weights = {w.name: w for w in onnx.load(made).graph.initializer}
    for weight in proto.graph.initializer:
        if weight.name in weights and list(weights[weight.name].dims) == list(weight.dims):
            weight.CopyFrom(weights[weight.name])
    onnx.save(proto, exported)
    pixels = np.random.default_rng(1).integers(0, 256, (2, imgsz, imgsz, 3), dtype=np.uint8)
    ours, theirs = answers(made, pixels), answers(exported, pixels)
    assert np.ptp(theirs) > 0.01  # the answers say something
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_resized(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    check_resized("tiny", 96, monkeypatch, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [
        "mobilenet_v3_small",
        "mobilenet_v4_hybrid_medium",  # attention holds its sizes: exported again
        "tf_mobilenetv3_small_minimal_100",  # padding of TensorFlow's kind
        "efficientnet_v2_b0",
        "efficientnet_lite0",
        "convnext_v2_atto",
    ],
)
def test_resized_networks(model: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    check_resized(model, 160, monkeypatch, tmp_path)


def test_int8_is_int8_and_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGEWISE_CACHE", str(tmp_path))
    small, large = (timing_graph("tiny", 10, size, "int8") for size in (64, 96))
    kinds = {node.op_type for node in onnx.load(large).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    sides = onnx.load(large).graph.input[0].type.tensor_type.shape.dim
    assert [side.dim_value for side in sides][1:] == [96, 96, 3]
    made = large.stat().st_mtime_ns
    assert timing_graph("tiny", 10, 96, "int8") == large
    assert large.stat().st_mtime_ns == made
    assert small.parent == large.parent
    monkeypatch.setattr(graphs, "write_random", lambda *given: write_bytes(given[-1], b"made"))
    assert timing_graph("tiny", 11, 64, "fp32").parent != small.parent
