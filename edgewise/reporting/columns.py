"""Tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def columns(lines: Iterable[Sequence[str]], alignment: str) -> str:
    """Lines of cells as text; a character of `alignment` for each column, "<" or ">"."""
    lines = list(lines)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    formats = list(zip(alignment, widths, strict=True))
    return "\n".join(
        "  ".join(
            f"{cell:{align}{width}}" for cell, (align, width) in zip(line, formats, strict=True)
        ).rstrip()
        for line in lines
    )
