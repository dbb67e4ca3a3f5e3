"""What a candidate costs on a device, as the log of decisions keeps it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from edgewise.search.budget import Spent
from edgewise.search.decisions import Numbers
from edgewise.search.ways import ONNX, Way

UNDRIFTED: Numbers = {"factor": 1.0}  # before it is known; see `as_of_now`


@dataclass(frozen=True)
class Candidate:
    """One network at one size of image, in one way.

    Attributes:
        model: a network's name.
        imgsz: height and width of its input, in pixels.
        precision: see `Way`.
        runtime: likewise.
        format: likewise.
    """

    model: str
    imgsz: int
    precision: str
    runtime: str
    format: str = ONNX

    @property
    def network(self) -> tuple[str, int]:
        """At its size of image, whatever the way."""
        return self.model, self.imgsz

    @property
    def way(self) -> Way:
        """In which it is shipped."""
        return Way(self.format, self.precision, self.runtime)

    def __str__(self) -> str:
        return f"{self.model} at {self.imgsz} px, {self.way}"


@dataclass(frozen=True)
class Cost:
    """What a candidate costs; `spent` is None where it can't be run.

    Attributes:
        candidate: of whose file it is.
        spent: on the device.
        low_ms: the lower end of the median's 95 % interval.
        high_ms: the upper end.
        failure: why there is no `spent`.
        stored: whether it was measured before this search.
    """

    candidate: Candidate
    spent: Spent | None
    low_ms: float = 0.0
    high_ms: float = 0.0
    failure: str = ""
    stored: bool = False

    @property
    def taken(self) -> Spent:
        """`spent`, of one that can be run."""
        assert self.spent is not None
        return self.spent

    @classmethod
    def read(cls, numbers: Numbers) -> Cost:
        """The inverse of `dataclasses.asdict`, as the log of decisions has it."""
        spent, candidate = numbers["spent"], Candidate(**numbers["candidate"])
        return cls(
            **{**numbers, "candidate": candidate, "spent": Spent(**spent) if spent else None}
        )


def as_of_now(surveyed: Iterable[Cost], later: Iterable[Cost], drift: Numbers) -> list[Cost]:
    """All costs at the device's speed of now.

    Args:
        surveyed: by the survey.
        later: measured after "drift" was decided, or stored.
        drift: how many times as long files take as when they were measured: "factor" for stored
            ones, "since" for those of the survey itself; "again" has the costs that were timed
            again for it. An older log has one factor for both, and no costs.
    """
    factor: float = drift["factor"]
    since = drift.get("since", factor)
    again = {cost.candidate: cost for cost in map(Cost.read, drift.get("again", ()))}
    found = [
        *(drifted(cost, factor if cost.stored else since) for cost in surveyed),
        *(drifted(cost, factor) if cost.stored else cost for cost in later),
    ]
    return [again.get(cost.candidate, cost) for cost in found]


def drifted(cost: Cost, factor: float) -> Cost:
    """The cost if all takes so many times as long."""
    if cost.spent is None:
        return cost
    times = {name: factor * getattr(cost.spent, name) for name in ("median_ms", "p90_ms", "p99_ms")}
    spent = replace(cost.spent, **times)
    return replace(cost, spent=spent, low_ms=factor * cost.low_ms, high_ms=factor * cost.high_ms)
