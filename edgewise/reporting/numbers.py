"""How numbers are written in the report, so that no digit claims more than was measured.

A number and its unit are joined by a no-break space.
"""

from __future__ import annotations

NBSP = "\N{NO-BREAK SPACE}"


def percent(share: float) -> str:
    """0.972 -> "97.2%". Close to the ends it takes one more digit: only a full 1 is "100%"."""
    if share in (0, 1):
        return f"{share:.0%}"
    return f"{share:.2%}" if min(share, 1 - share) < 0.005 else f"{share:.1%}"


def whole(count: float) -> str:
    """12345 -> "12,345"."""
    return f"{count:,.0f}"


def plural(count: int, noun: str) -> str:
    """1, "image" -> "1 image"; 2, "class" -> "2 classes"."""
    ending = "" if count == 1 else "es" if noun.endswith("s") else "s"
    return f"{count:,} {noun}{ending}"


def scaled(count: float) -> str:
    """3412345 -> "3.41 M", with three digits."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{_three(count / size)}{NBSP}{unit}"
    return whole(count)


def filesize(count: float) -> str:
    """13600000 -> "13.6 MB" (1 MB = 10^6 bytes)."""
    text = scaled(count)
    return f"{text}B" if NBSP in text else f"{text}{NBSP}bytes"


def milliseconds(value: float) -> str:
    """3.14159 -> "3.14 ms"."""
    return f"{_three(value)}{NBSP}ms"


def duration(seconds: float) -> str:
    """75 -> "1 min 15 s", 0.42 -> "0.4 s"."""
    if seconds < 9.95:
        return f"{round(seconds, 1):g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _three(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"
