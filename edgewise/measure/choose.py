"""Which runtime and precision to use on this machine, and by how much: from what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgewise.errors import UsageError
from edgewise.measure.rounds import Ratio, ratio
from edgewise.measure.store import OK, OURS, Row
from edgewise.shell import command_line


@dataclass(frozen=True)
class Choice:
    """The fastest right way to run one network, among those that were timed in turns.

    Attributes:
        best: ours with the lowest median.
        others: every other one and how many times as long it takes, the next best first; those of
            other libraries too.
        earlier: right ones that were timed in earlier sessions only, as they were last. They may be
            faster than the best: times of different sessions can't be compared.
    """

    best: Row
    others: tuple[tuple[Row, Ratio], ...]
    earlier: tuple[Row, ...] = ()

    @property
    def ties(self) -> tuple[Row, ...]:
        """Ours that may be as fast as the best, for all that was measured."""
        return tuple(row for row, times in self.others if times.tie and row.library == OURS)


def choose(rows: Sequence[Row], model: str, machine: str) -> list[Choice]:
    """A choice for each input shape and number of threads that `model` was measured with.

    Only the last session of each counts in which one of ours was right; what that lacks is in
    `Choice.earlier`.

    Args:
        rows: of the store, the oldest first.
        model: a name or a folder, as it was measured.
        machine: the fingerprint of this one.

    Raises:
        UsageError: it was not measured here, or nothing gave the right answers.
    """
    here = [row for row in rows if row.machine == machine and row.model == model]
    choices = []
    for graph, threads in dict.fromkeys((row.graph, row.threads) for row in here):
        same = [row for row in here if (row.graph, row.threads) == (graph, threads)]
        # Each candidate as it was last, whatever its runtime's version was.
        known = {(row.library, row.runtime, row.precision): row for row in same}
        right = [row for row in known.values() if row.status == OK]
        last = max((row.session for row in right if row.library == OURS), default=None)
        timed = sorted(
            (row for row in right if row.session == last), key=lambda row: row.median_ms or 0.0
        )
        best = next((row for row in timed if row.library == OURS), None)
        if best:
            others = ((row, ratio(row.rounds_ms, best.rounds_ms)) for row in timed if row != best)
            earlier = (row for row in right if row.session < best.session)
            choices.append(Choice(best, tuple(others), tuple(earlier)))
    if not here:
        raise UsageError(
            f"{model} was not measured on this machine. Run: {command_line('bench', model)}"
        )
    if not choices:
        raise UsageError(
            f"{model} was measured on this machine, but nothing ran it and gave the right answers. "
            f"See why: {command_line('bench', model, '--show')}"
        )
    return choices
