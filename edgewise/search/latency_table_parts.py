"""What a latency table is made of: the rows of a network one by one, and whole networks.

Each is a small module on its own, with all in it that its time depends on and nothing else: equal
parts of different networks, or of one, are one part and are measured once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from torch import nn

from edgewise import __version__
from edgewise.measure.count import count
from edgewise.measure.store import fingerprint
from edgewise.network import build
from edgewise.spec import AnyBlock, Conv, Head, Spec


class _Timed:
    """What can be timed alone."""

    @cached_property
    def graph(self) -> str:
        """A fingerprint of what is computed, whatever the weights: 12 hex digits."""
        return fingerprint(__version__, type(self).__name__, *self._numbers())

    def _numbers(self) -> tuple[Any, ...]:
        """All that the time depends on, as plain JSON values."""
        raise NotImplementedError


@dataclass(frozen=True)
class RowAlone(_Timed):
    """A row of a network, wherever it stands.

    Attributes:
        row: the stem is a `Conv`.
        in_chans: of its input.
        side: height and width of its input, in pixels.
        padding: of the network.
        classes: of the network, for the head; else 0.
    """

    row: AnyBlock | Head
    in_chans: int
    side: int
    padding: str
    classes: int = 0

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of its input."""
        return 1, self.in_chans, self.side, self.side

    @property
    def words(self) -> str:
        """For a person."""
        return f"{type(self.row).__name__} of {self.in_chans} channels at {self.side} px"

    def module(self) -> nn.Module:
        """(N, in_chans, side, side) -> what the row makes of it; fresh weights, to be evaluated."""
        before = Conv(out=self.in_chans, kernel=1)
        stages: tuple[tuple[AnyBlock, ...], ...] = ((),)
        head, place = Head(), "head"
        if isinstance(self.row, Head):
            head = self.row
        else:
            stages, place = ((), (self.row,)), "stages.1.0"
        around = Spec("row", 1, self.classes, before, stages, head, self.padding)
        return build(around).eval().get_submodule(place)

    def _numbers(self) -> tuple[Any, ...]:
        numbers = {name: value for name, value in vars(self.row).items() if name != "dropout"}
        kind = type(self.row).__name__
        return kind, numbers, self.in_chans, self.side, self.padding, self.classes


@dataclass(frozen=True)
class Whole(_Timed):
    """A network from normalised pixels to logits.

    Attributes:
        spec: of it.
        side: height and width of the image, in pixels.
    """

    spec: Spec
    side: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of its input."""
        return 1, self.spec.in_chans, self.side, self.side

    @property
    def words(self) -> str:
        """For a person."""
        return f"{self.spec.name} at {self.side} px"

    def module(self) -> nn.Module:
        """The network with fresh weights, to be evaluated."""
        return build(self.spec).eval()

    def _numbers(self) -> tuple[Any, ...]:
        return replace(self.spec, name="").to_json(), self.side


@dataclass(frozen=True)
class EmptyCall(_Timed):
    """Next to no work: what a call costs by itself."""

    shape = (1, 1, 1, 1)
    words = "an empty call"

    def module(self) -> nn.Module:
        """One activation of one number."""
        return nn.ReLU()

    def _numbers(self) -> tuple[Any, ...]:
        return ()


Part = RowAlone | Whole | EmptyCall


def rows_of(spec: Spec, size: int) -> dict[str, RowAlone]:
    """The rows by their place: "stem", "stages.0.0" ... "head".

    Raises:
        UsageError: the image is too small for the network.
    """
    blocks: list[tuple[str, AnyBlock]] = [("stem", spec.stem)]
    for s, stage in enumerate(spec.stages):
        blocks += [(f"stages.{s}.{b}", block) for b, block in enumerate(stage)]
    # The last layer of a row has the row's output.
    sides = {row_of(layer.name): layer.side for layer in count(spec, size).layers}
    rows, channels, side = {}, spec.in_chans, size
    for place, block in blocks:
        rows[place] = RowAlone(block, channels, side, spec.padding)
        channels, side = block.out, sides[place]
    rows["head"] = RowAlone(spec.head, channels, side, spec.padding, spec.classes)
    return rows


def row_of(layer: str) -> str:
    """The place of a layer's row: "stages.1.0" of "stages.1.0.expand", "stem" of "stem"."""
    parts = layer.split(".")
    return ".".join(parts[: 3 if parts[0] == "stages" else 1])
