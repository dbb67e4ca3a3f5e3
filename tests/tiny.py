"""A network small enough to train in a test, known as "tiny"; it has dropout and drop path."""

from dataclasses import replace

from edgewise.families import VARIANTS
from edgewise.families.efficientnet import LITE
from edgewise.table import Channels, Variant

TABLE = replace(
    LITE,
    name="tiny",
    stem=Channels(8),
    rows=tuple(
        replace(row, repeats=1, block=replace(row.block, out=row.block.out // 4))
        for row in LITE.rows[:5]
    ),
    head_conv=Channels(64),
)


def register() -> None:
    """Makes it known by its name, as the published networks are."""
    VARIANTS["tiny"] = Variant("tiny", TABLE, 32, 0.0, "nobody")
