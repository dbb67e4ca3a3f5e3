"""timm's and torchvision's tensors back in the order in which their networks register them.

A safetensors file keeps its tensors by type and name, "blocks.0.0.bn1.bias" before
"conv_stem.weight". `copy_by_order` needs the order of the computation. The names give it back:
within each module, the children that it has tell which kind of module it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")

# The children of a module in the order of their registration; a module may lack some of them. The
# first line that has all the children of a module is its line, so the shorter ones stand first.
KINDS: tuple[tuple[str, ...], ...] = (
    ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"),
    ("conv", "bn"),
    ("conv", "bn1"),
    ("conv_reduce", "conv_expand"),  # squeeze-excite
    ("conv_dw", "bn1", "se", "conv_pw", "bn2"),  # depthwise separable
    ("conv_exp", "bn1", "se", "conv_pwl", "bn2"),  # fused MBConv
    ("conv_pw", "bn1", "conv_dw", "bn2", "se", "conv_pwl", "bn3"),  # inverted residual
    ("dw_start", "pw_exp", "dw_mid", "pw_proj", "layer_scale"),  # universal inverted bottleneck
    ("norm", "attn", "layer_scale"),  # Mobile MQA and its parts
    ("query", "key", "value", "output"),
    ("down_conv", "norm", "proj"),
    ("gamma",),
    ("gamma", "conv_dw", "norm", "mlp"),  # ConvNeXt
    ("fc1", "grn", "fc2"),
    ("norm", "fc"),
    ("downsample", "blocks"),
    ("conv1", "bn1", "conv2", "bn2", "conv3", "bn3", "downsample"),  # ResNet's two
    ("conv_stem", "bn1", "blocks", "conv_head", "norm_head", "bn2", "classifier"),  # networks
    ("stem", "stages", "head"),
    ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc"),
    ("features", "pre_logits", "head"),
    ("features", "classifier"),  # torchvision's
    ("layer_scale", "block"),
)


def in_registered_order(tensors: Mapping[str, T]) -> dict[str, T]:
    """`tensors` as the state dict of timm's or torchvision's network lists them.

    Names of no kind of module that we know stay in the order in which they come.
    """
    return {name: tensors[name] for name in _sorted(tensors)}


def _sorted(names: Iterable[str]) -> list[str]:
    """Dotted names, sorted child by child."""
    children: dict[str, list[str]] = {}
    for name in names:
        child, _, rest = name.partition(".")
        children.setdefault(child, []).append(rest)
    return [
        f"{child}.{rest}" if rest else child
        for child in _order(list(children))
        for rest in (_sorted(children[child]) if children[child] != [""] else [""])
    ]


def _order(children: list[str]) -> list[str]:
    if all(child.isdecimal() for child in children):
        return sorted(children, key=int)
    for kind in KINDS:
        if set(children) <= set(kind):
            return sorted(children, key=kind.index)
    return children
