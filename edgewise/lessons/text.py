"""A lesson as text for a terminal, and as plain values for JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from fractions import Fraction
from typing import Any

from edgewise.lessons.lesson import Bars, Cell, Lesson, Part, Step
from edgewise.reporting.columns import columns
from edgewise.reporting.numbers import NBSP, percent

WIDTH = 80
BAR = 24  # characters of the longest bars of all columns
EIGHTHS = " ▏▎▍▌▋▊▉█"
QUIET = 0.9  # share of a core
MISTAKES = "docs/mistakes.md"
PARTS = ("part", "output", "params", "MACs", "MACs/byte", "ms", "p90", "GMAC/s")


def text(lesson: Lesson) -> str:
    """All of it but the charts."""
    blocks = [f"{lesson.title}\n{settings(lesson)}".rstrip(), _wrap(lesson.idea)]
    if lesson.steps:
        blocks.append(columns([_step(step) for step in lesson.steps], "<<<<"))
    blocks.append(f"{lesson.bars.title}\n{_bars(lesson.bars)}")
    if lesson.parts:
        blocks.append(_grid(PARTS, [cells(part_row(part)) for part in lesson.parts]))
    for table in lesson.tables:
        blocks.append(f"{table.title}\n{_grid(table.header, [cells(row) for row in table.rows])}")
    blocks += [_wrap(finding, "- ") for finding in lesson.findings]
    blocks.append("\n".join(_wrap(line) for line in notes(lesson)))
    return "\n\n".join(blocks).replace(NBSP, " ")


def plain(lesson: Lesson) -> dict[str, Any]:
    """The same for JSON; fractions as text beside their value."""
    value = asdict(lesson)
    del value["plots"], value["bars"]
    value["parts"] = [
        {**asdict(p), "macs_per_byte": p.intensity, "gmacs_per_second": p.speed}
        for p in lesson.parts
    ]
    for step in value["steps"]:
        if isinstance(step["value"], Fraction):
            step |= {"value": float(step["value"]), "exact": str(step["value"])}
    return value


def settings(lesson: Lesson) -> str:
    """As in "in 32, out 64"."""
    names = ((name.removesuffix("_chans"), value) for name, value in lesson.settings.items())
    return ", ".join(f"{name} {value}" for name, value in names)


def notes(lesson: Lesson, linked: bool = False) -> list[str]:
    """Where the figures are from, and where to read on; `linked` leaves a link to its writer."""
    where = f"{lesson.machine.get('cpu', '')}, {lesson.machine.get('cores', '')} cores"
    lines = [
        f"Timed on one thread of {where}: {lesson.runtime}, batch 1. Half of the calls took at "
        "most the milliseconds shown, 90% at most p90."
    ]
    if lesson.share < QUIET:
        lines.append(
            f"The machine was busy: the timings had {percent(lesson.share)} of a core. That slows "
            "down calls of several milliseconds more than short ones, so ratios of times are off. "
            "Try it again when it is quiet."
        )
    if lesson.paper:
        lines.append(f"Paper: {lesson.paper}")
    if lesson.mistake and not linked:
        lines.append(f"Mistakes that are made here: {MISTAKES}#{lesson.mistake}")
    return lines


def part_row(part: Part) -> tuple[Cell, ...]:
    """The cells under `PARTS`."""
    shape = str(part.output[0])
    if part.output[2:] and part.output[2] > 1:
        shape += f" x {part.output[1]}²"
    intensity, speed = (part.intensity, part.speed) if part.macs else ("-", "-")
    times = part.time.median_ms, part.time.p90_ms
    return (part.name, shape, part.params, part.macs, intensity, *times, speed)


def cell(value: Cell) -> str:
    """An integer in full, a fraction with its decimal, three digits of what was measured."""
    if isinstance(value, Fraction):
        return f"{value} = {float(value):.4f}"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else value


def cells(row: Sequence[Cell]) -> tuple[str, ...]:
    """Each as text."""
    return tuple(map(cell, row))


def _grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table: columns of figures to the right, the others to the left."""
    figures = (all(map(_is_figure, column)) for column in zip(*rows, strict=True))
    return columns([header, *rows], "".join(">" if figure else "<" for figure in figures))


def _is_figure(words: str) -> bool:
    return words == "-" or words.lstrip("-")[:1].isdigit()


def _step(step: Step) -> tuple[str, ...]:
    return (step.what, f"= {step.formula}", f"= {step.numbers}", f"= {cell(step.value)}")


def _bars(bars: Bars) -> str:
    """A bar and its figure in each column."""
    width = BAR // len(bars.columns)
    lines = [["", *(name for name, _ in bars.rows)]]
    for i, name in enumerate(bars.columns):
        cells = [values[i] for _, values in bars.rows]
        most, room = max(value for value, _ in cells) or 1, max(len(words) for _, words in cells)
        drawn = (f"{_bar(value / most, width)} {words:>{room}}" for value, words in cells)
        lines.append([name, *drawn])
    return columns(list(zip(*lines, strict=True)), "<" * len(lines))


def _bar(share: float, width: int) -> str:
    full, rest = divmod(round(share * width * 8), 8)
    return ("█" * full + (EIGHTHS[rest] if rest else "")).ljust(width)


def _wrap(words: str, bullet: str = "") -> str:
    return textwrap.fill(
        words,
        WIDTH,
        initial_indent=bullet,
        subsequent_indent=" " * len(bullet),
        break_long_words=False,
        break_on_hyphens=False,
    )
