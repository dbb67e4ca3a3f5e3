"""A lesson as one HTML file that opens offline, in the report's style."""

from __future__ import annotations

import inspect
from pathlib import Path

import edgewise.reporting
from edgewise import reference
from edgewise.errors import missing_package
from edgewise.files import write_text
from edgewise.lessons.lesson import Lesson
from edgewise.lessons.text import PARTS, cell, notes, part_row, settings
from edgewise.reporting.write import FILTERS

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
    try:
        import jinja2
    except ImportError as error:
        raise missing_package("jinja2", "report") from error
    folders = [Path(__file__).parent, *map(Path, edgewise.reporting.__path__)]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folders),
        autoescape=True,  # a model folder has anybody's name
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(FILTERS | {"cell": cell})
    return environment.get_template(TEMPLATE).render(
        lesson=lesson,
        settings=settings(lesson),
        command=command(lesson),
        largest=[
            max(values[0] for values in column)
            for column in zip(*(values for _, values in lesson.bars.rows), strict=True)
        ],
        header=PARTS,
        parts=[part_row(part) for part in lesson.parts],
        notes=notes(lesson, linked=bool(mistakes)),
        mistakes=mistakes,
        code=[inspect.getsource(getattr(reference, name)).rstrip() for name in lesson.code],
    )


def command(lesson: Lesson) -> str:
    """What prints the same lesson."""
    from edgewise.lessons.explain import OPTIONS

    options = (f"{OPTIONS[name]} {value}" for name, value in lesson.settings.items())
    return " ".join(["edgewise explain", lesson.name, *options])
