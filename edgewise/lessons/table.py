"""The lessons by name. The parameters of each function, besides the clock, are its settings."""

from __future__ import annotations

from collections.abc import Callable

from edgewise.lessons import attention, bottlenecks, convolution, gates, int8, scaling
from edgewise.lessons.lesson import Lesson

LESSONS: dict[str, Callable[..., Lesson]] = {
    "depthwise-separable": convolution.depthwise_separable,
    "inverted-residual": bottlenecks.inverted_residual,
    "squeeze-excite": gates.squeeze_excite,
    "h-swish": gates.h_swish,
    "uib": bottlenecks.uib,
    "mobile-mqa": attention.mobile_mqa,
    "grn": gates.grn,
    "width": scaling.width,
    "resolution": scaling.resolution,
    "compound-scaling": scaling.compound_scaling,
    "int8": int8.int8,
}
