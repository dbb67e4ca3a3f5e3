"""A lesson as one HTML file that opens offline, in the report's style."""

from __future__ import annotations

import inspect
from pathlib import Path

from edgewise import reference
from edgewise.files import write_text
from edgewise.lessons.lesson import Lesson
from edgewise.lessons.text import PARTS, cell, notes, part_row, settings
from edgewise.reporting.templates import render

TEMPLATE = "lesson.html.j2"


def write_page(lesson: Lesson, path: Path) -> None:
    """Writes the page.

    Raises:
        UsageError: jinja2 is not installed.
        EdgewiseError: the file can't be written.
    """
    write_text(path, page(lesson))


def page(lesson: Lesson, mistakes: str = "") -> str:
    """The page as HTML; `mistakes` is a link to docs/mistakes.md, where there is one.

    Raises:
        UsageError: jinja2 is not installed.
    """
    values = {
        "lesson": lesson,
        "settings": settings(lesson),
        "command": command(lesson),
        "largest": [
            max(values[0] for values in column)
            for column in zip(*(values for _, values in lesson.bars.rows), strict=True)
        ],
        "header": PARTS,
        "parts": [part_row(part) for part in lesson.parts],
        "cell": cell,
        "notes": notes(lesson, linked=bool(mistakes)),
        "mistakes": mistakes,
        "code": [inspect.getsource(getattr(reference, name)).rstrip() for name in lesson.code],
    }
    return render(TEMPLATE, values, [Path(__file__).parent])


def command(lesson: Lesson) -> str:
    """What prints the same lesson."""
    from edgewise.lessons.explain import OPTIONS

    options = (f"{OPTIONS[name]} {value}" for name, value in lesson.settings.items())
    return " ".join(["edgewise explain", lesson.name, *options])
