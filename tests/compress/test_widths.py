"""How many channels are left, by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewise.compress.groups import channel_groups, resized
from edgewise.compress.widths import sizes_for, sizes_without
from edgewise.errors import UsageError
from edgewise.families import variant
from edgewise.measure.count import count
from edgewise.network import Network

V2 = variant("mobilenet_v2").spec()
V3 = variant("mobilenet_v3_small").spec()


def left(spec: object, part: float, multiple: int) -> dict[str, int]:
    sizes = sizes_without(spec, part, multiple)  # type: ignore[arg-type]
    return {g.name: sizes[g.places] for g in channel_groups(spec)}  # type: ignore[arg-type]


def test_by_hand() -> None:
    """MobileNetV2's first rows: 32, 16, 6 x 16 -> 24, 6 x 24 channels; 70 % of them, to eights."""
    sizes = left(V2, 0.3, 8)
    assert sizes["stem"] == 24  # 22.4
    assert sizes["stages.0.0"] == 8  # 11.2
    assert sizes["stages.1.0.expand"] == 64  # 67.2
    assert sizes["stages.1.0"] == 16  # 16.8
    assert sizes["stages.1.1.expand"] == 104  # 100.8
    assert sizes["head.conv"] == 896  # 896


@settings(max_examples=30, deadline=None)
@given(part=st.floats(0, 0.74), multiple=st.sampled_from([1, 2, 4, 8]))
def test_nearest_multiple(part: float, multiple: int) -> None:
    """As Python's `round` has it, but for ties and for what has but one multiple."""
    sizes = left(V2, part, multiple)
    for group in channel_groups(V2):
        size, exact = sizes[group.name], group.size * (1 - part)
        if part == 0 or group.size <= multiple:
            assert size == group.size
        else:
            assert size % multiple == 0 and size >= multiple
            assert abs(size - exact) <= multiple / 2 + 1e-6


def test_widths_that_are_no_multiples() -> None:
    """EfficientNet's squeezes: 6 channels stay, 10 are rounded once anything goes."""
    b0 = variant("efficientnet_b0").spec()
    assert left(b0, 0.0, 8)["stages.1.1.squeeze"] == 6
    assert left(b0, 0.3, 8)["stages.1.1.squeeze"] == 6  # less than one multiple
    assert left(b0, 0.01, 8)["stages.2.1.squeeze"] == 8  # 10: the nearest multiple


def test_heads_are_already_multiples() -> None:
    """Four heads of 64 features: each is eight eights."""
    sizes = left(variant("mobilenet_v4_hybrid_medium").spec(), 0.3, 8)
    heads = {size for name, size in sizes.items() if name.endswith(".heads")}
    assert heads == {3}  # 2.8


def test_a_group_that_would_be_empty_is_named() -> None:
    with pytest.raises(UsageError, match=r"80% of the channels out would empty stages\.0\.0: of"):
        sizes_without(V2, 0.8, 8)
    assert left(V2, 0.8, 4)["stages.0.0"] == 4


@settings(max_examples=15, deadline=None)
@given(part=st.floats(0.01, 0.85))
def test_part_of_the_macs_is_met_and_not_by_much(part: float) -> None:
    whole = count(V3, 224).macs

    def macs(sizes: dict[object, int]) -> int:
        return count(resized(V3, sizes), 224).macs  # type: ignore[arg-type]

    sizes = sizes_for(V3, part, 4, lambda spec: count(spec, 224).macs)
    gone = 1 - macs(sizes) / whole  # type: ignore[arg-type]
    assert part <= gone < part + 0.05


def test_too_much_of_the_macs() -> None:
    with pytest.raises(UsageError, match=r"99% less would empty stages\.0\.0: 9\d\.\d% is"):
        sizes_for(V2, 0.99, 8, lambda spec: count(spec, 224).macs)


def test_a_cost_that_does_not_fall() -> None:
    with pytest.raises(UsageError, match="0% is the most"):
        sizes_for(V2, 0.1, 8, lambda spec: 5.0)


def test_nothing_is_wide_enough(network_of: Callable[[str], Network]) -> None:
    with pytest.raises(UsageError, match="every layer"):
        sizes_for(V3, 0.1, 2048, lambda spec: count(spec, 224).macs)
