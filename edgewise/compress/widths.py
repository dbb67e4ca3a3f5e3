"""How many channels are left: a part of each group goes, rounded to what runtimes like."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile

from edgewise.compress.groups import Group, Place, channel_groups, resized
from edgewise.errors import UsageError
from edgewise.spec import Spec

Sizes = dict[tuple[Place, ...], int]


def sizes_without(spec: Spec, part: float, multiple: int) -> Sizes:
    """The sizes, by their places, after `part` of the channels of every group has gone.

    The same part everywhere keeps the network's proportions. Sizes are rounded to the nearest
    multiple; a group that has no more than one multiple stays whole.

    Raises:
        UsageError: nothing would be left of a group; the message names it.
    """
    steps = [step for step in _steps(spec, multiple) if step.part < part]
    if empty := next((step.group for step in steps if not step.size), None):
        raise UsageError(
            f"taking {100 * part:.4g}% of the channels out would empty {empty.name}: of its "
            f"{empty.size}, {empty.size * (1 - part):.3g} would be left, and widths are multiples "
            f"of {multiple}. Take less out, or round to a smaller multiple."
        )
    return _after(spec, steps)


def sizes_for(spec: Spec, part: float, multiple: int, cost: Callable[[Spec], float]) -> Sizes:
    """The sizes with which `part` of the cost goes, or a little more.

    Multiple by multiple, in the order in which they would go if the part of `sizes_without` rose.

    Args:
        spec: of any network.
        part: of the cost.
        multiple: to which sizes are rounded.
        cost: what is to fall, such as MACs.

    Raises:
        UsageError: a group would have to be emptied for it; the message names it.
    """
    every = _steps(spec, multiple)
    steps = list(takewhile(lambda step: step.size, every))
    whole = cost(spec)

    def gone(count: int) -> float:
        return 1 - cost(resized(spec, _after(spec, steps[:count]))) / whole

    if part and (most := gone(len(steps))) < part:
        empty = every[len(steps)].group.name if every else "every layer"
        raise UsageError(
            f"{100 * part:.4g}% less would empty {empty}: {100 * most:.3g}% is the most, with "
            f"widths that are multiples of {multiple}. Take less out, or round to a smaller one."
        )
    fewest = bisect_left(range(len(steps)), part, key=gone) if part else 0
    return _after(spec, steps[:fewest])


@dataclass(frozen=True)
class _Step:
    """A group falls to `size` once more than `part` of its channels is to go."""

    part: float
    group: Group
    size: int


def _steps(spec: Spec, multiple: int) -> list[_Step]:
    """In the order in which they are reached; those that would empty a group have the size 0."""
    steps = []
    for group in {group.places: group for group in channel_groups(spec)}.values():
        step = multiple // math.gcd(multiple, group.each)
        if group.size > step:
            steps += [
                _Step(max(0.0, 1 - (size + step / 2) / group.size), group, size)
                for size in range(0, group.size, step)
            ]
    return sorted(steps, key=lambda step: step.part)


def _after(spec: Spec, steps: Sequence[_Step]) -> Sizes:
    sizes = {group.places: group.size for group in channel_groups(spec)}
    return sizes | {step.group.places: step.size for step in steps}
