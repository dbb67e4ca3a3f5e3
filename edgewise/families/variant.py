"""A published variant: a name for a table at one width, depth and input size."""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgewise.spec import Spec
from edgewise.table import Table, scale


@dataclass(frozen=True)
class Variant:
    """One network that people know by name.

    Attributes:
        name: ours.
        table: the paper's table.
        input_size: height and width that it was published for, in pixels.
        top1: published ImageNet top-1 accuracy, in percent.
        top1_source: whose figure that is.
        width: the variant's own width multiplier.
        depth: the variant's own depth multiplier.
        dropout: before the classifier.
        timm: timm's name; "" where it is ours.
    """

    name: str
    table: Table
    input_size: int
    top1: float
    top1_source: str
    width: float = 1.0
    depth: float = 1.0
    dropout: float = 0.2
    timm: str = ""

    def spec(
        self, width: float = 1.0, classes: int = 1000, in_chans: int = 3, depth: float = 1.0
    ) -> Spec:
        """The explicit numbers; `width` and `depth` multiply the variant's own.

        Raises:
            UsageError: a number is out of range.
        """
        table = replace(self.table, dropout=self.dropout)
        spec = scale(table, self.width * width, self.depth * depth, classes, in_chans)
        changed = [f"_{width:g}"] if width != 1 else []
        changed += [f"_depth_{depth:g}"] if depth != 1 else []
        return replace(spec, name=self.name + "".join(changed))
