"""A latency table: what each row of a network takes on a device, at its own and narrower widths.

A few widths of each channel group are measured, and times in between are interpolated, in all of
the groups at once that a row touches (its input, its hidden channels, its output ...). That is
exact where the time is a sum of products of widths, as the work of a block is. Only what is asked
for is measured: a table of all combinations would take hours.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product

from edgewise.compress.groups import Group, Place, channel_groups, resized
from edgewise.compress.widths import Sizes
from edgewise.errors import UsageError
from edgewise.search.latency_table_parts import RowAlone, Whole, rows_of
from edgewise.search.latency_table_times import Times
from edgewise.spec import Spec

PARTS = (0.25, 0.5, 0.75)  # of a group's channels that are measured, besides all and the fewest
Places = tuple[Place, ...]


@dataclass(frozen=True)
class Additivity:
    """The rows of a network against the whole.

    Attributes:
        rows_ms: of each row alone, in milliseconds.
        whole_ms: of the network end to end.
    """

    rows_ms: Mapping[str, float]
    whole_ms: float

    @property
    def sum_ms(self) -> float:
        """Of all rows."""
        return sum(self.rows_ms.values())

    @property
    def error(self) -> float:
        """By which part the sum is above the whole: 0.1 is 10 % too much, below 0 too little."""
        return self.sum_ms / self.whole_ms - 1

    @property
    def factor(self) -> float:
        """By which a sum of rows is multiplied to predict a whole."""
        return self.whole_ms / self.sum_ms

    def __str__(self) -> str:
        longest = max(map(len, [*self.rows_ms, "end to end"]))
        lines = [f"{row:{longest}}  {ms:8.3f} ms" for row, ms in self.rows_ms.items()]
        lines.append(f"{'all rows':{longest}}  {self.sum_ms:8.3f} ms")
        lines.append(f"{'end to end':{longest}}  {self.whole_ms:8.3f} ms")
        return "\n".join([*lines, f"the sum of the rows is off by {100 * self.error:+.1f} %"])


class LatencyTable:
    """The times of a network's rows, for the network itself and for narrower ones of its kind.

    Attributes:
        spec: of the network at its full width.
        size: height and width of the image, in pixels.
        full: the sizes of its groups, by their places.
        groups: one of each places.
        widths: those at which a group is measured, rising.
    """

    def __init__(self, spec: Spec, size: int, times: Times, multiple: int = 8) -> None:
        """Nothing is measured yet.

        Args:
            spec: of the network at its full width.
            size: height and width of the image, in pixels.
            times: what measures rows.
            multiple: of which narrower widths are.

        Raises:
            UsageError: the image is too small for the network.
        """
        self.spec, self.size, self.times, self.multiple = spec, size, times, multiple
        self.groups = {group.places: group for group in channel_groups(spec)}
        self.full: Sizes = {places: group.size for places, group in self.groups.items()}
        self.widths = {places: self._widths(group) for places, group in self.groups.items()}
        self.axes = {row: self._axes(row) for row in rows_of(spec, size)}
        self._interpolated: dict[tuple[str, tuple[int, ...]], float] = {}

    def narrower(self, places: Places, size: int) -> range:
        """The widths below `size` that a group may have, falling."""
        step = self.multiple // math.gcd(self.multiple, self.groups[places].each)
        return range((size - 1) // step * step, 0, -step)

    def sizes(self, spec: Spec) -> Sizes:
        """The sizes of a narrower network of this kind.

        Raises:
            UsageError: it is of another kind, or wider.
        """
        sizes = {group.places: group.size for group in channel_groups(spec)}
        if sizes.keys() != self.full.keys():
            raise UsageError(f"{spec.name} does not have the rows of {self.spec.name}.")
        for places, size in sizes.items():
            if not self.widths[places][0] <= size <= self.full[places]:
                raise UsageError(
                    f"{self.groups[places].name} of {spec.name} has {size} channels; the table of "
                    f"{self.spec.name} has {self.widths[places][0]} to {self.full[places]}."
                )
        return sizes

    def measure(self, every: Iterable[Sizes]) -> None:
        """Measures all that is needed for the times of networks of these sizes, in one go.

        Raises:
            CantTime: a row can't be timed.
        """
        asked = {(row, self._at(row, sizes)) for sizes in every for row in self.axes}
        new = sorted(asked - self._interpolated.keys())  # all widths of a row side by side
        weights = [self._weights(*key) for key in new]
        ms = self.times.of(row for around in weights for row in around)
        for key, around in zip(new, weights, strict=True):
            self._interpolated[key] = sum(weight * ms[row] for row, weight in around.items())

    def rows_ms(self, sizes: Sizes) -> dict[str, float]:
        """The milliseconds of each row, less what an empty call costs.

        Raises:
            CantTime: a row can't be timed.
        """
        self.measure([sizes])
        return {row: self._interpolated[row, self._at(row, sizes)] for row in self.axes}

    def sum_ms(self, sizes: Sizes) -> float:
        """The milliseconds of all rows. They are not those of the network: see `additivity`.

        Raises:
            CantTime: a row can't be timed.
        """
        return sum(self.rows_ms(sizes).values())

    def whole_ms(self, spec: Spec) -> float:
        """The milliseconds of a network end to end, less what an empty call costs.

        Raises:
            CantTime: it can't be timed.
        """
        whole = Whole(spec, self.size)
        return self.times.of([whole])[whole]

    def additivity(self) -> Additivity:
        """The rows at full width against the whole network.

        Those that are not known yet are timed now, as it is; see `Times`.

        Raises:
            CantTime: they can't be timed.
        """
        self.times.of([Whole(self.spec, self.size), *rows_of(self.spec, self.size).values()])
        return Additivity(self.rows_ms(self.full), self.whole_ms(self.spec))

    def _widths(self, group: Group) -> tuple[int, ...]:
        allowed = self.narrower(group.places, group.size)
        wanted = [part * group.size for part in PARTS] if allowed else []
        nearest = {min(allowed, key=lambda width: abs(width - near)) for near in wanted}
        return tuple(sorted({*nearest, *allowed[-1:], group.size}))

    def _axes(self, row: str) -> tuple[Places, ...]:
        """The groups whose widths the time of a row depends on."""
        touching = {
            group.places: None
            for group in channel_groups(self.spec)
            if any(part.tensor.startswith(f"{row}.") for part in group.slices)
            or any(place == row for place, _ in group.places)
        }
        return tuple(touching)

    def _at(self, row: str, sizes: Sizes) -> tuple[int, ...]:
        return tuple(sizes[places] for places in self.axes[row])

    def _weights(self, row: str, at: tuple[int, ...]) -> dict[RowAlone, float]:
        """The measured rows around a point, and how much each of them counts: 1 in all."""
        axes = self.axes[row]
        weights: dict[RowAlone, float] = {}
        for corner in product(*map(self._around, axes, at)):
            sizes = self.full | {p: width for p, (width, _) in zip(axes, corner, strict=True)}
            measured = rows_of(resized(self.spec, sizes), self.size)[row]
            weight = math.prod(weight for _, weight in corner)
            weights[measured] = weights.get(measured, 0.0) + weight
        return weights

    def _around(self, places: Places, size: int) -> list[tuple[int, float]]:
        """The one or two measured widths next to a size, with their weights."""
        widths = self.widths[places]
        if size in widths:
            return [(size, 1.0)]
        low = max(width for width in widths if width < size)
        high = min(width for width in widths if width > size)
        part = (size - low) / (high - low)
        return [(low, 1 - part), (high, part)]
