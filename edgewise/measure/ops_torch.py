"""The cost of each of PyTorch's operators, by the name of its schema.

Both levels are here: what a module calls (`aten::conv2d`), and what that becomes where gradients
are recorded (`aten::convolution`). An operator that is not here and is made of others is taken
apart; what then is left is counted by its tag "pointwise", or listed as unknown.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor

from edgewise.measure import ops_rules as rules
from edgewise.measure.ops_rules import COPY, UNKNOWN, Costs, Shape

Arguments = dict[str, Any]
Rule = Callable[[Arguments, Tensor, Callable[[Tensor], bool]], Costs]


def costs(func: Any, arguments: Arguments, y: Tensor, computed: Callable[[Tensor], bool]) -> Costs:
    """The cost of one call.

    Args:
        func: the operator.
        arguments: its arguments by name, where given.
        y: its first output.
        computed: whether a tensor depends on the network's input.
    """
    rule = rule_of(func)
    return rule(arguments, y, computed) if rule else UNKNOWN


def rule_of(func: Any) -> Rule | None:
    """None for an operator that is not known."""
    name = func._schema.name.removeprefix("aten::")
    if "::" in name:
        return None
    if name.startswith("_scaled_dot_product_"):
        return _attention
    base = name if name in RULES else name.removesuffix("_")  # relu_ is relu in place
    if base in RULES:
        return RULES[base]
    return _elementwise if torch.Tag.pointwise in func.tags else None


def _convolution(a: Arguments, y: Tensor, computed: Callable[[Tensor], bool]) -> Costs:
    x = tuple(a["input"].shape)
    bias, groups, transposed = a.get("bias") is not None, a.get("groups", 1), a.get("transposed")
    return rules.convolution(
        x, tuple(a["weight"].shape), tuple(y.shape), groups, bias, bool(transposed)
    )


def _transposed(a: Arguments, y: Tensor, computed: Callable[[Tensor], bool]) -> Costs:
    return _convolution({**a, "transposed": True}, y, computed)


def _product(left: str, right: str, bias: str = "") -> Rule:
    """A product of the matrices of these arguments, the left one's rows with the right one's."""

    def rule(a: Arguments, y: Tensor, computed: Callable[[Tensor], bool]) -> Costs:
        both = computed(a[left]) and computed(a[right])
        return rules.product(a[left].shape[-1], tuple(y.shape), a.get(bias) is not None, both)

    return rule


def _attention(a: Arguments, y: Tensor, computed: Callable[[Tensor], bool]) -> Costs:
    query, key, value = (tuple(a[name].shape) for name in ("query", "key", "value"))
    mask = next((a[n] for n in ("attn_mask", "attn_bias") if a.get(n) is not None), None)
    return rules.attention(query, key, value, mask is not None)


def _norm(factor: int = rules.NORM) -> Rule:
    return lambda a, y, _: rules.norm(
        tuple(y.shape),
        # Instance norm calls it `use_input_stats`; without the word, statistics are the batch's.
        not a.get("training", a.get("train", a.get("use_input_stats", True))),
        a.get("weight") is not None,
        factor,
    )


def _known_norm(a: Arguments, y: Tensor, _: Callable[[Tensor], bool]) -> Costs:
    return rules.norm(tuple(y.shape), True, a.get("weight") is not None)


def _elementwise(a: Arguments, y: Tensor, _: Callable[[Tensor], bool]) -> Costs:
    return rules.elementwise(tuple(y.shape))


def _times(factor: int) -> Rule:
    return lambda a, y, _: rules.elementwise(tuple(y.shape), factor)


def _input(a: Arguments) -> Shape:
    x: Tensor = a["self"] if "self" in a else a["input"]
    return tuple(x.shape)


def _reduction(factor: int = 1) -> Rule:
    return lambda a, y, _: rules.reduction(_input(a), factor)


def _pool(axes: int) -> Rule:
    def rule(a: Arguments, y: Tensor, _: Callable[[Tensor], bool]) -> Costs:
        kernel = a["kernel_size"]
        sides = (
            (kernel,) * axes if isinstance(kernel, int) else tuple(kernel) * (axes // len(kernel))
        )
        return rules.pool(tuple(y.shape), prod(sides))

    return rule


def _adaptive(axes: int) -> Rule:
    return lambda a, y, _: rules.adaptive_pool(_input(a), tuple(y.shape), axes)


def _copy(a: Arguments, y: Tensor, _: Callable[[Tensor], bool]) -> Costs:
    return COPY


RULES: dict[str, Rule] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "convolution", "_convolution"), _convolution),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _transposed),
    "linear": _product("input", "weight", "bias"),
    "mm": _product("self", "mat2"),
    "bmm": _product("self", "mat2"),
    "mv": _product("self", "vec"),
    "dot": _product("self", "tensor"),
    "addmm": _product("mat1", "mat2", "self"),
    "addmv": _product("mat", "vec", "self"),
    "baddbmm": _product("batch1", "batch2", "self"),
    "scaled_dot_product_attention": _attention,
    **dict.fromkeys(
        ("batch_norm", "native_batch_norm", "_native_batch_norm_legit", "cudnn_batch_norm"), _norm()
    ),
    "_native_batch_norm_legit_no_training": _known_norm,
    **dict.fromkeys(("layer_norm", "native_layer_norm", "group_norm"), _norm()),
    **dict.fromkeys(("native_group_norm", "instance_norm"), _norm()),
    **dict.fromkeys(("rms_norm", "_fused_rms_norm"), _norm(rules.RMS_NORM)),
    **dict.fromkeys(
        ("softmax", "_softmax", "log_softmax", "_log_softmax", "_safe_softmax"),
        _times(rules.SOFTMAX),
    ),
    **dict.fromkeys(("upsample_bilinear2d", "_upsample_bilinear2d_aa"), _times(rules.BILINEAR)),
    **dict.fromkeys(("upsample_bicubic2d", "_upsample_bicubic2d_aa"), _times(rules.BICUBIC)),
    # Those that lack the tag in some version.
    **dict.fromkeys(
        ("hardswish", "hardsigmoid", "hardtanh", "mish", "elu", "leaky_relu"), _elementwise
    ),
    **dict.fromkeys(("relu", "relu6", "silu", "gelu", "softplus", "glu", "prelu"), _elementwise),
    **dict.fromkeys(("_prelu_kernel", "threshold", "cumsum", "cumprod", "rsub"), _elementwise),
    **dict.fromkeys(
        (
            *("mean", "sum", "prod", "max", "min", "amax", "amin", "aminmax", "argmax", "argmin"),
            *("any", "all", "count_nonzero"),
        ),
        _reduction(),
    ),
    # A square and a sum; the norms with other powers are as dear.
    **dict.fromkeys(("linalg_vector_norm", "norm", "logsumexp"), _reduction(2)),
    # Mean, difference, square and sum.
    **dict.fromkeys(("var", "std", "var_mean", "std_mean"), _reduction(3)),
    **{
        f"{kind}_pool{axes}d{rest}": _pool(axes)
        for kind, rest in (("max", ""), ("max", "_with_indices"), ("avg", ""))
        for axes in (1, 2, 3)
    },
    **{
        f"{prefix}adaptive_{kind}_pool{axes}d": _adaptive(axes)
        for kind in ("avg", "max")
        for axes in (1, 2, 3)
        for prefix in ("", "_")
    },
    **dict.fromkeys(
        (
            *("clone", "_to_copy", "to", "copy", "contiguous", "lift_fresh", "lift_fresh_copy"),
            *("reshape", "flatten", "_unsafe_view", "_reshape_copy", "view_copy", "expand_copy"),
            *("cat", "concat", "stack", "pad", "constant_pad_nd", "roll", "flip", "repeat"),
            *("reflection_pad1d", "reflection_pad2d", "replication_pad1d", "replication_pad2d"),
            *("repeat_interleave", "index", "index_select", "gather", "embedding", "index_put"),
            *("scatter", "slice_scatter", "select_scatter", "tril", "triu", "unfold", "im2col"),
            *("pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "native_channel_shuffle"),
            *("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "one_hot"),
            *("arange", "linspace", "zeros", "ones", "full", "empty", "eye", "scalar_tensor"),
            *("zeros_like", "ones_like", "full_like", "empty_like", "empty_strided", "new_zeros"),
            *("new_ones", "new_full", "new_empty", "new_empty_strided", "fill", "zero", "tensor"),
            *("detach", "dropout", "feature_dropout", "alpha_dropout", "_local_scalar_dense"),
        ),
        _copy,
    ),
}
