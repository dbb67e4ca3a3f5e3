"""What a device can afford: `latency=5ms@p90,size=4MB,memory=64MB`."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from math import ceil, floor, log10

from edgewise.errors import UsageError, unknown

MEDIAN = "median"
FIELDS = {"latency": "latency_ms", "size": "size_bytes", "memory": "memory_bytes"}
PERCENTILES = (MEDIAN, "p90", "p99")
TIMES = {"us": 1e-3, "ms": 1.0, "s": 1e3}
SIZES = {"B": 1.0, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30}
NUMBER = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+) *([A-Za-z]*)")
EXAMPLE = "latency=5ms@p90,size=4MB,memory=64MB"


@dataclass(frozen=True)
class Spent:
    """What a file costs on the device.

    Attributes:
        median_ms: of a call with one image.
        p90_ms: likewise.
        p99_ms: likewise.
        size_bytes: of what is to be copied there.
        memory_bytes: by how much the process grew from before it loaded the file, at most.
    """

    median_ms: float
    p90_ms: float
    p99_ms: float
    size_bytes: int
    memory_bytes: int | None = None


@dataclass(frozen=True)
class Budget:
    """Most of each that a model may take; None: any.

    Attributes:
        latency_ms: of a call with one image, at `percentile`.
        size_bytes: of the file.
        memory_bytes: of the process, beyond what it had before it loaded the file.
        percentile: of the calls' times: "median", "p90" or "p99".
    """

    latency_ms: float | None = None
    size_bytes: float | None = None
    memory_bytes: float | None = None
    percentile: str = MEDIAN

    @classmethod
    def parse(cls, text: str) -> Budget:
        """A budget as a person writes it, such as "latency=5ms@p90,size=4MB".

        Raises:
            UsageError: it has a part or a unit that there is none of, or nothing at all; the
                message says what there is.
        """
        found: dict[str, float] = {}
        percentile = MEDIAN
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, _, value = (piece.strip() for piece in part.partition("="))
            if name not in FIELDS:
                raise unknown("part of a budget", name, FIELDS)
            if name == "latency":
                value, _, asked = value.partition("@")
                percentile = _percentile(asked.strip())
            field = FIELDS[name]
            if field in found:
                raise UsageError(f"the budget names {name} twice.")
            found[field] = _quantity(name, value, TIMES if name == "latency" else SIZES)
        if not found:
            raise UsageError(f"a budget says what the device can afford, such as {EXAMPLE}.")
        return cls(**found, percentile=percentile)

    def parts(self, spent: Spent) -> dict[str, float]:
        """How much of each part is used: 1 is all of it.

        Raises:
            UsageError: it has a part for memory, and the device could not measure that.
        """
        if self.memory_bytes and spent.memory_bytes is None:
            raise UsageError(
                "the device can't tell how much memory a file takes: leave memory out of the budget"
            )
        used = {
            "latency": (self.latency_of(spent), self.latency_ms),
            "size": (spent.size_bytes, self.size_bytes),
            "memory": (spent.memory_bytes, self.memory_bytes),
        }
        return {name: (have or 0) / most for name, (have, most) in used.items() if most}

    def holds(self, spent: Spent, room: float = 1.0) -> bool:
        """Whether nothing takes more than `room` of its part."""
        return all(part <= room for part in self.parts(spent).values())

    def widened(self, spent: Spent) -> Budget:
        """The least budget in round numbers that holds this too: it itself if it does already."""
        have = {
            "latency": self.latency_of(spent),
            "size": float(spent.size_bytes),
            "memory": float(spent.memory_bytes or 0),
        }
        over = [part for part, used in self.parts(spent).items() if used > 1]
        more = {FIELDS[part]: _rounded_up(have[part]) for part in over}
        return replace(self, **more)  # type: ignore[arg-type]

    def latency_of(self, spent: Spent) -> float:
        """The time in ms that is compared: that of the percentile."""
        value: float = getattr(spent, f"{self.percentile}_ms")
        return value

    def __str__(self) -> str:
        at = "" if self.percentile == MEDIAN else f"@{self.percentile}"
        words = {
            "latency": f"{self.latency_ms:g}ms{at}" if self.latency_ms else "",
            "size": _bytes(self.size_bytes),
            "memory": _bytes(self.memory_bytes),
        }
        return ",".join(f"{name}={value}" for name, value in words.items() if value)


def _percentile(text: str) -> str:
    if text and text not in PERCENTILES:
        raise unknown("percentile", text, PERCENTILES)
    return text or MEDIAN


def _quantity(name: str, text: str, units: dict[str, float]) -> float:
    match = NUMBER.fullmatch(text.strip())
    by_name = {unit.lower(): factor for unit, factor in units.items()}
    if not match or match[2].lower() not in by_name:
        what = f"'{text.strip()}'" if text.strip() else "nothing"
        raise UsageError(
            f"{name}={text.strip()}: expected a number with one of the units {', '.join(units)}, "
            f"not {what}. A budget looks like {EXAMPLE}."
        )
    value = float(match[1]) * by_name[match[2].lower()]
    if not value:
        raise UsageError(f"{name}={text.strip()}: nothing runs in nothing; give more than 0.")
    return value


def _bytes(value: float | None) -> str:
    if not value:
        return ""
    unit = next(unit for unit in ("GB", "MB", "KB", "B") if value >= SIZES[unit] or unit == "B")
    return f"{value / SIZES[unit]:g}{unit}"


def _rounded_up(value: float) -> float:
    """To two digits: what is measured again may be a little more."""
    step = 10.0 ** (floor(log10(value)) - 1)
    return ceil(value / step - 1e-9) * step
