"""What to prune, as a person asks for it. Nothing here needs torch."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from edgewise.validation import one_of, record

TARGETS = ("channels", "macs", "latency")
CRITERIA = ("l1", "l2", "taylor", "random")


@record()
class Pruning:
    """What is to go.

    Attributes:
        part: of the target, such as 0.3.
        target: of what: the channels of each group, the MACs, or the latency here.
        criterion: which channels stay: see `importance`.
        multiple: widths are rounded to one.
        seed: for the criterion "random".

    Raises:
        UsageError: a value is out of range.
    """

    part: Annotated[float, Field(ge=0, lt=1)]
    target: Annotated[str, one_of(*TARGETS)] = "channels"
    criterion: Annotated[str, one_of(*CRITERIA)] = "taylor"
    multiple: Annotated[int, Field(ge=1, le=256)] = 8
    seed: Annotated[int, Field(ge=0)] = 0
