"""The most bytes of activations that are alive at once."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple

from edgewise.measure.ops_rules import IN_PLACE_KINDS


class Step(NamedTuple):
    """One call of an operator.

    Attributes:
        kind: of the operator, see `ops_rules`.
        reads: the buffers that it reads; those that are unknown to `peak` (weights) don't count.
        writes: the buffers that it fills.
    """

    kind: str
    reads: tuple[Hashable, ...]
    writes: tuple[Hashable, ...]


def peak(
    steps: Sequence[Step],
    sizes: Mapping[Hashable, int],
    inputs: Iterable[Hashable],
    outputs: Iterable[Hashable],
) -> tuple[int, int]:
    """The largest sum of live buffers, in bytes, and at which step it is first reached.

    A buffer is alive from the step that first writes it to the last one that reads or writes it;
    an output of the network to the end. A norm or an element-wise operator writes over an input of
    the same size that nobody needs any more, as a runtime that plans its memory does.
    """
    last = dict.fromkeys(inputs, -1)
    for i, step in enumerate(steps):
        last |= {buffer: i for buffer in (*step.reads, *step.writes) if buffer in sizes}
    last |= {buffer: len(steps) for buffer in outputs if buffer in sizes}

    alive = set(inputs)
    total = sum(sizes[buffer] for buffer in alive)
    most, where = total, 0
    for i, step in enumerate(steps):
        ending = {buffer for buffer in step.reads if buffer in alive and last[buffer] == i}
        for buffer in step.writes:
            if buffer in alive or buffer not in sizes:
                continue
            alive.add(buffer)
            total += sizes[buffer]
            if step.kind in IN_PLACE_KINDS:
                spare = next((b for b in ending if sizes[b] == sizes[buffer]), None)
                if spare is not None:
                    ending.remove(spare)
                    alive.remove(spare)
                    total -= sizes[spare]
        if total > most:
            most, where = total, i
        ending |= {buffer for buffer in step.writes if last.get(buffer) == i}
        for buffer in ending & alive:
            alive.remove(buffer)
            total -= sizes[buffer]
    return most, where
