"""The networks that are known by name: one file a paper, table first."""

from __future__ import annotations

from fnmatch import fnmatchcase

from edgewise.errors import unknown
from edgewise.families import (
    baselines,
    convnext,
    efficientnet,
    efficientnet_v2,
    mobilenet_v1,
    mobilenet_v2,
    mobilenet_v3,
    mobilenet_v4,
)
from edgewise.table import Variant

_MOBILENETS = (mobilenet_v1, mobilenet_v2, mobilenet_v3, mobilenet_v4)
_PAPERS = (*_MOBILENETS, efficientnet, efficientnet_v2, convnext, baselines)
VARIANTS: dict[str, Variant] = {
    variant.name: variant for paper in _PAPERS for variant in paper.VARIANTS
}


def list_models(pattern: str = "*") -> list[str]:
    """The names that match a shell pattern such as "mobilenet*", in the order of the papers."""
    return [name for name in VARIANTS if fnmatchcase(name, pattern)]


def variant(name: str) -> Variant:
    """The variant of that name.

    Raises:
        UsageError: there is none; the message holds the nearest three.
    """
    if name not in VARIANTS:
        raise unknown("model", name, VARIANTS)
    return VARIANTS[name]
