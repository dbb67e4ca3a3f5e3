"""The cost of each of ONNX's operators, ONNX Runtime's own among them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from edgewise.measure import ops_rules as rules
from edgewise.measure.ops_rules import COPY, UNKNOWN, Costs, Shape

NO_BIAS = 99  # an input that no operator has


@dataclass(frozen=True)
class Node:
    """One node of a graph, with the shapes about it.

    Attributes:
        op: its operator.
        attributes: plain values by name.
        inputs: the shape of each input; None for one that is left out or not known.
        outputs: the same of its outputs.
        computed: whether each input depends on the graph's input.
    """

    op: str
    attributes: Mapping[str, Any]
    inputs: tuple[Shape | None, ...]
    outputs: tuple[Shape | None, ...]
    computed: tuple[bool, ...]

    def given(self, index: int) -> bool:
        """Whether it has this input."""
        return index < len(self.inputs) and self.inputs[index] is not None


def costs(node: Node) -> Costs:
    """The cost of one node; unknown also where a shape is."""
    rule = RULES.get(node.op)
    if rule is None:
        return UNKNOWN
    if rule is _copy:
        return COPY
    if not node.given(0) or not node.outputs or node.outputs[0] is None:
        return UNKNOWN
    return rule(node)


def weight_inputs(op: str) -> tuple[int, ...] | None:
    """Which inputs may hold learned numbers; None for any of them."""
    return _WEIGHTS.get(op)


def _convolution(weight: int = 1, bias: int = 2, transposed: bool = False) -> Rule:
    """With the positions of these inputs."""

    def rule(node: Node) -> Costs:
        if not node.given(weight):
            return UNKNOWN
        x, kernel, y = _shape(node, 0), _shape(node, weight), _output(node)
        groups = node.attributes.get("group", 1)
        return rules.convolution(x, kernel, y, groups, node.given(bias), transposed)

    return rule


def _product(left: int = 0, right: int = 1, bias: int = NO_BIAS) -> Rule:
    """With the positions of these inputs."""

    def rule(node: Node) -> Costs:
        if not (node.given(left) and node.given(right)):
            return UNKNOWN
        rows = _shape(node, left)
        depth = rows[-2 if node.attributes.get("transA") else -1]
        both = node.computed[left] and node.computed[right]
        return rules.product(depth, _output(node), node.given(bias), both)

    return rule


def _einsum(node: Node) -> Costs:
    """Each combination of indices is one product."""
    equation = node.attributes["equation"].replace(" ", "")
    terms = equation.partition("->")[0].split(",")
    if "." in equation or len(terms) != 2 or not node.given(1):
        return UNKNOWN
    sides: dict[str, int] = {}
    for term, shape in zip(terms, node.inputs, strict=True):
        sides |= dict(zip(term, shape or (), strict=True))
    y = _output(node)
    return rules.product(prod(sides.values()) // prod(y), y, False, all(node.computed[:2]))


def _attention(node: Node) -> Costs:
    """ONNX's own: (N, heads, L, d), or (N, L, heads d) with the heads as attributes."""
    if not (node.given(1) and node.given(2)):
        return UNKNOWN
    q, k, v = (_shape(node, i) for i in range(3))
    if len(q) == 3:
        heads = node.attributes["q_num_heads"]
        shared = node.attributes["kv_num_heads"]
        q = (q[0], heads, q[1], q[2] // heads)
        k, v = ((s[0], shared, s[1], s[2] // shared) for s in (k, v))
    return rules.attention(q, k, v, node.given(3))


def _multi_head_attention(node: Node) -> Costs:
    """ONNX Runtime's, with separate (N, L, heads d) inputs; its bias is that of the projections."""
    if not (node.given(1) and node.given(2)) or any(len(_shape(node, i)) != 3 for i in range(3)):
        return UNKNOWN
    heads = node.attributes["num_heads"]
    q, k, v = ((s[0], heads, s[1], s[2] // heads) for s in (_shape(node, i) for i in range(3)))
    return rules.attention(q, k, v, node.given(5))


def _norm(factor: int = rules.NORM) -> Rule:
    return lambda node: rules.norm(_shape(node, 0), False, node.given(1), factor)


def _batch_norm(node: Node) -> Costs:
    return rules.norm(_shape(node, 0), not node.attributes.get("training_mode"), True)


def _elementwise(factor: int = 1) -> Rule:
    return lambda node: rules.elementwise(_output(node), factor)


def _reduction(factor: int = 1) -> Rule:
    return lambda node: rules.reduction(_shape(node, 0), factor)


def _pool(node: Node) -> Costs:
    return rules.pool(_output(node), prod(node.attributes["kernel_shape"]))


def _resize(node: Node) -> Costs:
    mode = node.attributes.get("mode", "nearest")
    factor = {"linear": rules.BILINEAR, "cubic": rules.BICUBIC}.get(mode, 0)
    return rules.elementwise(_output(node), factor) if factor else COPY


def _copy(node: Node) -> Costs:
    return COPY


def _shape(node: Node, index: int) -> Shape:
    shape = node.inputs[index]
    assert shape is not None
    return shape


def _output(node: Node) -> Shape:
    shape = node.outputs[0]
    assert shape is not None
    return shape


Rule = Callable[[Node], Costs]

# Reshapes of the same numbers: no work and no new memory.
VIEWS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout")
# What stands between a stored weight and the operator that uses it.
OF_WEIGHTS = ("DequantizeLinear", "Cast", "Transpose", "QuantizeLinear", *VIEWS)


def _names(text: str) -> list[str]:
    return re.findall(r"\w+", text)


RULES: dict[str, Rule] = {
    **dict.fromkeys(_names("Conv FusedConv NhwcConv"), _convolution()),
    "ConvInteger": _convolution(bias=NO_BIAS),  # its inputs after the weights are zero points
    "QLinearConv": _convolution(weight=3, bias=8),
    "ConvTranspose": _convolution(transposed=True),
    **dict.fromkeys(_names("Gemm FusedGemm"), _product(bias=2)),
    **dict.fromkeys(_names("MatMul FusedMatMul MatMulInteger"), _product()),
    "DynamicQuantizeMatMul": _product(bias=4),
    "MatMulIntegerToFloat": _product(bias=6),
    "QLinearMatMul": _product(0, 3),
    "QGemm": _product(0, 3, bias=6),
    "Einsum": _einsum,
    "Attention": _attention,
    "MultiHeadAttention": _multi_head_attention,
    "BatchNormalization": _batch_norm,
    **dict.fromkeys(_names("LayerNormalization InstanceNormalization GroupNormalization"), _norm()),
    **dict.fromkeys(_names("RMSNormalization SimplifiedLayerNormalization"), _norm(rules.RMS_NORM)),
    **dict.fromkeys(
        _names(
            """Abs Acos Add And BiasGelu BitShift Celu Ceil Clip Cos Cosh CumSum Div Elu Equal Erf
            Exp FastGelu Floor Gelu Greater GreaterOrEqual HardSigmoid HardSwish Hardmax LeakyRelu
            Less LessOrEqual Log Max Mean Min Mish Mod Mul Neg Not Or PRelu Pow QuickGelu Reciprocal
            Relu Round Selu Sigmoid Sign Sin Softplus Softsign Sqrt Sub Sum Swish Tanh
            ThresholdedRelu Where Xor QLinearAdd QLinearMul QLinearSigmoid QLinearLeakyRelu
            QuantizeLinear DequantizeLinear DynamicQuantizeLinear"""
        ),
        _elementwise(),
    ),
    **dict.fromkeys(_names("Softmax LogSoftmax QLinearSoftmax"), _elementwise(rules.SOFTMAX)),
    **dict.fromkeys(
        _names(
            """ArgMax ArgMin GlobalAveragePool GlobalMaxPool QLinearGlobalAveragePool ReduceL1
            ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum QLinearReduceMean"""
        ),
        _reduction(),
    ),
    **dict.fromkeys(_names("ReduceL2 ReduceSumSquare ReduceLogSumExp"), _reduction(2)),
    **dict.fromkeys(_names("AveragePool MaxPool LpPool QLinearAveragePool"), _pool),
    **dict.fromkeys(_names("Resize Upsample"), _resize),
    **dict.fromkeys(
        _names(
            """Cast CastLike Concat Constant ConstantOfShape DepthToSpace Expand EyeLike Gather
            GatherElements GatherND NonZero OneHot Pad QLinearConcat Range ReorderInput
            ReorderOutput ScatterElements ScatterND Shape Size Slice SpaceToDepth Split Tile
            Transpose Trilu"""
        )
        + list(VIEWS),
        _copy,
    ),
}

# Operators whose weights may be of whole numbers.
QUANTISED = _names(
    """ConvInteger DequantizeLinear DynamicQuantizeMatMul MatMulInteger MatMulIntegerToFloat QGemm
    QLinearConv QLinearMatMul"""
)

# Where they aren't just any input: running statistics, scales and zero points are not learned.
_WEIGHTS: dict[str, tuple[int, ...]] = {
    "BatchNormalization": (1, 2),
    "QLinearConv": (3, 8),
    "QLinearMatMul": (3,),
    "QGemm": (3, 6),
    "ConvInteger": (1,),
    "MatMulInteger": (1,),
    "DynamicQuantizeMatMul": (1, 4),
    "MatMulIntegerToFloat": (1, 6),
    **dict.fromkeys(_names("DequantizeLinear QuantizeLinear QLinearAdd QLinearMul"), (0,)),
    **dict.fromkeys(_names("Clip Expand Gather Pad Pow Resize Reshape Slice Tile Upsample"), (0,)),
    **dict.fromkeys(_names("Split Squeeze Unsqueeze ReduceMean ReduceSum ReduceL2 OneHot"), (0,)),
}
