"""ONNX files: operators by hand, and exports against the modules that they come from."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from oracles import randomise
from small import small_model, write_onnx

import edgewise
from edgewise.errors import UsageError
from edgewise.measure.ops_onnx import Node, costs
from edgewise.measure.ops_rules import MAC_KINDS
from edgewise.measure.profile_result import Layer, Profile
from edgewise.network import Network

FLOAT, UINT8, INT8, INT64 = (
    TensorProto.FLOAT,
    TensorProto.UINT8,
    TensorProto.INT8,
    TensorProto.INT64,
)


def array(*shape: int, dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def write(
    path: Path,
    nodes: list[onnx.NodeProto],
    weights: dict[str, np.ndarray[Any, Any]] | None = None,
    shape: tuple[int | str, ...] = (1, 4, 8, 8),
    opset: int = 18,
) -> Path:
    """A file whose nodes lead from "x" to "y"."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.UNDEFINED, None)],
        [numpy_helper.from_array(value, name) for name, value in (weights or {}).items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


def node(op: str, inputs: str, output: str = "y", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), [output], **attributes)


def profile_of(tmp_path: Path, *nodes: onnx.NodeProto, **weights: np.ndarray[Any, Any]) -> Profile:
    return edgewise.profile(write(tmp_path / "net.onnx", list(nodes), weights))


def only(profile: Profile, kind: str) -> Layer:
    (layer,) = [layer for layer in profile.layers if layer.kind == kind]
    return layer


@pytest.mark.parametrize(
    ("op", "attributes", "weights", "kind", "macs", "output"),
    [
        ("Conv", {}, {"w": (6, 4, 3, 3), "b": (6,)}, "standard", 36 * 6 * 36, (1, 6, 6, 6)),
        ("Conv", {"strides": [2, 2]}, {"w": (6, 4, 3, 3)}, "standard", 9 * 6 * 36, (1, 6, 3, 3)),
        ("Conv", {"dilations": [2, 2]}, {"w": (6, 4, 3, 3)}, "standard", 16 * 216, (1, 6, 4, 4)),
        ("Conv", {}, {"w": (6, 4, 1, 1)}, "pointwise", 64 * 24, (1, 6, 8, 8)),
        ("Conv", {"group": 4}, {"w": (4, 1, 3, 3)}, "depthwise", 36 * 4 * 9, (1, 4, 6, 6)),
        ("Conv", {"group": 2}, {"w": (6, 2, 3, 3)}, "grouped", 36 * 6 * 18, (1, 6, 6, 6)),
        (
            "ConvTranspose",
            {"strides": [2, 2], "group": 2},
            {"w": (4, 3, 2, 2), "b": (6,)},
            "transposed",
            64 * 4 * 3 * 4,
            (1, 6, 16, 16),
        ),
        ("MatMul", {}, {"w": (8, 5)}, "linear", 4 * 8 * 8 * 5, (1, 4, 8, 5)),
        ("Einsum", {"equation": "nchw, wo -> ncho"}, {"w": (8, 5)}, "linear", 1280, (1, 4, 8, 5)),
    ],
)
def test_each_layer_by_hand(
    tmp_path: Path,
    op: str,
    attributes: dict[str, Any],
    weights: dict[str, tuple[int, ...]],
    kind: str,
    macs: int,
    output: tuple[int, ...],
) -> None:
    arrays = {name: array(*shape) for name, shape in weights.items()}
    profile = profile_of(tmp_path, node(op, " ".join(["x", *weights]), **attributes), **arrays)
    layer = only(profile, kind)
    assert (layer.macs, layer.output, profile.macs) == (macs, output, macs)
    params = sum(value.size for value in arrays.values())
    assert profile.params == layer.params == params
    assert layer.kernel == arrays["w"].size
    assert layer.elementwise == np.prod(output) * ("b" in weights)
    assert layer.activations == np.prod(output)
    assert layer.moved == 256 + params + np.prod(output)


def test_a_gemm_of_any_transposition(tmp_path: Path) -> None:
    """(8, 32) by (32, 5), which is stored the other way round."""
    nodes = [
        node("Reshape", "x s", "flat"),
        node("Gemm", "flat w b", transA=1, transB=1),
    ]
    weights = {"s": np.array([32, 8]), "w": array(5, 32), "b": array(5)}
    profile = edgewise.profile(write(tmp_path / "whole.onnx", nodes, weights))
    gemm = only(profile, "linear")
    assert (gemm.macs, gemm.output, gemm.elementwise) == (8 * 32 * 5, (8, 5), 40)
    assert (profile.params, profile.weight_bytes["int8"]) == (165, 160 + 4 * 5)


def test_weights_in_constant_nodes_are_those_of_initializers(tmp_path: Path) -> None:
    nodes = [
        node("Relu", "x", "r"),
        node("Conv", "r stem.k stem.b", "c", pads=[1, 1, 1, 1]),
        node("Mul", "c two", "d"),
        node("Reshape", "d s", "flat"),
        node("DequantizeLinear", "w scale", "real"),
        node("MatMul", "flat real"),
    ]
    weights = {
        "stem.k": array(6, 4, 3, 3),
        "stem.b": array(6),
        "two": np.float32(2),
        "s": np.array([1, 384]),
        "w": array(384, 5, dtype=np.int8),
        "scale": np.float32(0.1),
    }
    constants = [
        node("Constant", "", name, value=numpy_helper.from_array(np.asarray(value)))
        for name, value in weights.items()
    ]
    profile = edgewise.profile(write(tmp_path / "net.onnx", nodes, weights))
    same = edgewise.profile(write(tmp_path / "net.onnx", constants + nodes))
    assert profile.params == 216 + 6 + 384 * 5
    assert same == profile


def test_a_product_of_two_activations_is_attention(tmp_path: Path) -> None:
    nodes = [
        node("Transpose", "x", "t", perm=[0, 1, 3, 2]),
        node("MatMul", "x t", "s"),
        node("Softmax", "s", "p"),
        node("MatMul", "p x"),
    ]
    profile = profile_of(tmp_path, *nodes)
    assert [(x.kind, x.macs, x.elementwise) for x in profile.layers] == [
        ("copy", 0, 0),
        ("attention", 2048, 0),
        ("elementwise", 0, 5 * 256),
        ("attention", 2048, 0),
    ]


@pytest.mark.parametrize("fused", [True, False])
def test_the_fused_attention(tmp_path: Path, fused: bool) -> None:
    """ONNX's own, and ONNX Runtime's of four heads of two channels in (1, 8, 8)."""
    if fused:
        path = write(tmp_path / "a.onnx", [node("Attention", "x x x")], opset=23)
        assert edgewise.profile(path).macs == 2 * 4 * 8 * 8 * 8
    else:
        attention = helper.make_node(
            "MultiHeadAttention", ["x"] * 3, ["y"], domain="com.microsoft", num_heads=4
        )
        path = write(tmp_path / "a.onnx", [attention], shape=(1, 8, 8))
        assert edgewise.profile(path).macs == 2 * 4 * 8 * 8 * 2


@pytest.mark.parametrize(
    ("op", "attributes", "kind", "operations"),
    [
        ("Relu", {}, "elementwise", 256),
        ("HardSwish", {}, "elementwise", 256),
        ("Softmax", {}, "elementwise", 1280),
        ("GlobalAveragePool", {}, "pool", 256),
        ("MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2]}, "pool", 256),
        ("AveragePool", {"kernel_shape": [3, 3]}, "pool", 4 * 36 * 9),
        ("Transpose", {}, "copy", 0),
    ],
)
def test_other_operations_by_hand(
    tmp_path: Path, op: str, attributes: dict[str, Any], kind: str, operations: int
) -> None:
    profile = profile_of(tmp_path, node(op, "x", **attributes))
    assert only(profile, kind).elementwise == profile.elementwise == operations
    assert not profile.unknown


def test_norms(tmp_path: Path) -> None:
    """The running statistics of a batch norm are not learned numbers."""
    four = {name: array(4) for name in "smvd"}
    profile = profile_of(tmp_path, node("BatchNormalization", "x s m v d"), **four)
    assert (profile.params, profile.elementwise) == (8, 2 * 256)
    profile = profile_of(tmp_path, node("LayerNormalization", "x s m"), s=array(8), m=array(8))
    assert (profile.params, profile.elementwise) == (16, 5 * 256)


def test_an_unknown_operator_is_listed_with_its_shapes(tmp_path: Path) -> None:
    strange = helper.make_node("Strange", ["x"], ["z"], domain="com.microsoft", name="odd")
    profile = profile_of(tmp_path, node("Relu", "x"), strange)
    (unknown,) = profile.unknown
    assert (unknown.op, unknown.name, unknown.inputs) == ("Strange", "odd", ((1, 4, 8, 8),))


def test_an_operator_whose_shapes_are_not_known_is_not_dropped(tmp_path: Path) -> None:
    strange = helper.make_node("Strange", ["x"], ["z"], domain="com.microsoft")
    profile = profile_of(tmp_path, strange, node("Conv", "z w"), w=array(6, 4, 1, 1))
    assert [layer.op for layer in profile.unknown] == ["Strange", "Conv"]
    assert profile.params == 24


def test_quantised_operators(tmp_path: Path) -> None:
    """Scales and zero points are not learned numbers."""
    weights = {
        "xs": np.float32(0.1),
        "xz": np.uint8(0),
        "w": array(6, 4, 3, 3, dtype=np.int8),
        "ws": array(6),
        "wz": array(6, dtype=np.int8),
        "b": array(6, dtype=np.int32),
        "m": array(6, 5, dtype=np.int8),
    }
    nodes = [
        node("QuantizeLinear", "x xs xz", "q"),
        node("QLinearConv", "q xs xz w ws wz xs xz b", "c"),
        node("QLinearMatMul", "c xs xz m xs wz0 xs xz", "p"),
        node("DequantizeLinear", "p xs xz"),
    ]
    weights["wz0"] = np.int8(0)
    profile = edgewise.profile(
        write(tmp_path / "q.onnx", nodes, {k: np.asarray(v) for k, v in weights.items()})
    )
    conv, product = (layer for layer in profile.layers if layer.macs)
    assert (conv.kind, conv.macs, conv.params, conv.kernel) == ("standard", 36 * 216, 222, 216)
    assert (product.kind, product.macs, product.params) == ("linear", 36 * 6 * 5, 30)
    assert profile.params == 252
    assert profile.peak_memory == 4 * 256 + 256  # the input in float32, and quantised
    assert not profile.unknown


# --- Exports


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the exports, each of which takes seconds and serves several tests."""
    return tmp_path_factory.mktemp("exports")


@cache
def export(folder: Path, name: str) -> Network:
    """The module of `FOLDER/NAME.onnx`."""
    model = small_model(name, ("a", "b", "c"), 64)
    randomise(model.network)  # equal tensors would be stored once
    write_onnx(model, folder / f"{name}.onnx")
    return model.network


def exported(folder: Path, name: str) -> tuple[Profile, Profile]:
    """The profile of a module and of its file."""
    network = export(folder, name)
    return edgewise.profile(network, 64), edgewise.profile(folder / f"{name}.onnx")


EXPORTS = [
    "mobilenet_v1",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "mobilenet_v4_conv_small",
    "efficientnet_b0",
    "efficientnet_v2_s",
    "convnext_atto",
    "convnext_v2_atto",
    "resnet18",
]


@pytest.mark.parametrize("name", EXPORTS)
def test_a_module_and_its_export_have_the_same_macs(folder: Path, name: str) -> None:
    module, file = exported(folder, name)
    ours, theirs = ([x for x in p.layers if x.macs] for p in (module, file))
    assert [(x.kind, x.macs, x.activations) for x in ours] == [
        (x.kind, x.macs, x.activations) for x in theirs
    ]
    assert (module.macs, module.activations) == (file.macs, file.activations)
    # Of a batch norm's two numbers a channel, a bias is left; mean and deviation of the image are
    # six numbers that the file has and the network has not.
    norms = {part for part in module.layers if part.op == "batch_norm"}
    assert file.params == module.params - sum(x.params // 2 for x in norms) + 6
    assert not file.unknown
    assert not module.unknown


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2", "mobilenet_v3_large", "resnet18"])
def test_a_module_and_its_export_need_the_same_memory(folder: Path, name: str) -> None:
    """With batch norms folded or not: they write over their input."""
    module, file = exported(folder, name)
    assert module.peak_memory == file.peak_memory


def test_attention_in_an_export(tmp_path: Path) -> None:
    """Two products of matrices where the module has one operator."""
    model = small_model("mobilenet_v4_hybrid_medium", ("a", "b", "c"), 64)
    spec = edgewise.create_model("mobilenet_v4_hybrid_medium").spec
    blocks = [b for b in spec.stages[3] if type(b).__name__ == "Attention"][:1]
    stages = (*spec.stages[:3], (*spec.stages[3][:1], *blocks))
    network = edgewise.build(replace(spec, classes=3, stages=stages)).eval()
    randomise(network)
    write_onnx(replace(model, network=network), tmp_path / "hybrid.onnx")
    module, file = edgewise.profile(network, 64), edgewise.profile(tmp_path / "hybrid.onnx")
    kinds, theirs = ({k.name: (k.macs, k.activations) for k in p.kinds} for p in (module, file))
    assert kinds["attention"] == theirs["attention"]
    assert kinds["attention"][0] > 0
    assert module.macs == file.macs


def test_the_batch_of_an_export_is_free(folder: Path) -> None:
    export(folder, "mobilenet_v2")
    one, four = (edgewise.profile(folder / "mobilenet_v2.onnx", batch=n) for n in (1, 4))
    assert four.inputs == ((4, 64, 64, 3),)
    assert (four.macs, four.params) == (4 * one.macs, one.params)
    assert four.peak_memory == 4 * one.peak_memory


def test_stages_of_an_export_are_the_networks(folder: Path) -> None:
    export(folder, "mobilenet_v2")
    names = [stage.name for stage in edgewise.profile(folder / "mobilenet_v2.onnx").stages]
    stages = [f"network.stages.{i}" for i in range(5)]
    assert names == ["input", "network.stem", *stages, "network.head"]


def test_a_quantised_export_has_the_macs_of_the_export(folder: Path, tmp_path: Path) -> None:
    """As ONNX Runtime quantises it: each weight is behind its own DequantizeLinear."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter([{"pixels": np.zeros((1, 64, 64, 3), np.uint8)}])

        def get_next(self) -> dict[str, Any] | None:
            return next(self.left, None)

    export(folder, "mobilenet_v3_large")
    path = folder / "mobilenet_v3_large.onnx"
    whole = edgewise.profile(path)
    for form in (QuantFormat.QDQ, QuantFormat.QOperator):
        quantize_static(path, tmp_path / "q.onnx", Reader(), form, per_channel=True)
        quantised = edgewise.profile(tmp_path / "q.onnx")
        assert quantised.macs == whole.macs
        assert quantised.params == whole.params
        counts = (
            {k.name: k.macs for k in p.kinds if k.name in MAC_KINDS} for p in (whole, quantised)
        )
        assert next(counts) == next(counts)
        assert quantised.weight_bytes == whole.weight_bytes
        assert not quantised.unknown


@pytest.mark.parametrize(
    ("op", "weight", "output", "inputs", "sums"),
    [
        ("ConvInteger", (6, 4, 3, 3), (1, 6, 6, 6), 4, 0),
        ("MatMulInteger", (8, 6), (1, 4, 8, 6), 4, 0),
        ("DynamicQuantizeMatMul", (8, 6), (1, 4, 8, 6), 4, 0),
        ("DynamicQuantizeMatMul", (8, 6), (1, 4, 8, 6), 5, 4 * 8 * 6),
        ("MatMulIntegerToFloat", (8, 6), (1, 4, 8, 6), 6, 0),
        ("MatMulIntegerToFloat", (8, 6), (1, 4, 8, 6), 7, 4 * 8 * 6),
    ],
)
def test_zero_points_and_scales_are_no_biases(
    op: str, weight: tuple[int, ...], output: tuple[int, ...], inputs: int, sums: int
) -> None:
    """Of these operators with so many inputs, only one with a bias has sums besides."""
    shapes = ((1, 4, 8, 8), weight, *[()] * (inputs - 2))
    computed = (True, *[False] * (inputs - 1))
    assert costs(Node(op, {}, shapes, (output,), computed)).elementwise == sums


# --- Bad input


def test_free_sides_take_the_size_that_is_asked_for(tmp_path: Path) -> None:
    nodes, weights = [node("Conv", "x w")], {"w": array(6, 3, 1, 1)}
    path = write(tmp_path / "free.onnx", nodes, weights, ("N", "C", "H", "W"))
    assert edgewise.profile(path, (10, 7), batch=2).macs == 2 * 70 * 18
    assert edgewise.profile(path).inputs == ((1, 3, 224, 224),)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"input_size": 9}, "height of its input 'x' is fixed at 8, not 9"),
        ({"in_chans": 3}, "channels of its input 'x' is fixed at 4, not 3"),
        ({"batch": 2}, "batch of its input 'x' is fixed at 1, not 2"),
    ],
)
def test_a_fixed_size_is_not_changed(tmp_path: Path, arguments: dict[str, Any], words: str) -> None:
    path = write(tmp_path / "fixed.onnx", [node("Relu", "x")])
    with pytest.raises(UsageError, match=words):
        edgewise.profile(path, **arguments)


@pytest.mark.parametrize("op", ["Conv", "AveragePool"])
def test_a_size_of_which_nothing_is_left_is_too_small(tmp_path: Path, op: str) -> None:
    own = {} if op == "Conv" else {"kernel_shape": [3, 3]}
    weights = {"w": array(6, 3, 3, 3)} if op == "Conv" else {}
    nodes = [node(op, "x w" if weights else "x", "a", **own), node("Relu", "a")]
    path = write(tmp_path / "free.onnx", nodes, weights, ("N", 3, "H", "W"))
    assert edgewise.profile(path, 3).layers[0].output[2:] == (1, 1)
    for size in (2, 1, (9, 2)):
        with pytest.raises(UsageError, match=rf"nothing is left of so small an image after {op}"):
            edgewise.profile(path, size)
    for size in (0, -5, (9, 0)):
        with pytest.raises(UsageError, match="each side of an image needs a pixel at least"):
            edgewise.profile(path, size)


def test_an_empty_tensor_is_no_map_without_pixels(tmp_path: Path) -> None:
    """As what the exporter leaves of a list that has nothing in it."""
    nothing = numpy_helper.from_array(array(1, 0, 8, 8))
    nodes = [node("Constant", "", "e", value=nothing), node("Concat", "x e", axis=1)]
    path = write(tmp_path / "empty.onnx", nodes)
    assert edgewise.profile(path).layers[0].output == (1, 4, 8, 8)


def test_files_that_are_not_onnx(tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    with pytest.raises(UsageError, match="no such file"):
        edgewise.profile(path)
    for content in (b"", b"\xff\xff\xff not a model"):
        path.write_bytes(content)
        with pytest.raises(UsageError, match="is not an ONNX file, or is cut off"):
            edgewise.profile(path)
    whole = write(tmp_path / "whole.onnx", [node("Relu", "x")]).read_bytes()
    path.write_bytes(whole[:-20])
    with pytest.raises(UsageError, match="is not an ONNX file, or is cut off"):
        edgewise.profile(path)
