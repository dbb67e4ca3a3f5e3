"""All lessons as the pages of `docs/lessons`, from times that are kept beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgewise.files import read_json, write_json, write_text
from edgewise.lessons.clock import Plan, Recorded, Stopwatch
from edgewise.lessons.explain import tell
from edgewise.lessons.lesson import Lesson
from edgewise.lessons.page import command, page
from edgewise.lessons.table import LESSONS
from edgewise.progress import bar
from edgewise.reporting.numbers import percent

SUBJECTS = (*LESSONS, "mobilenet_v4_conv_small")  # one network as an example
TIMES, INDEX = "times.json", "index.md"


def measure(folder: Path) -> None:
    """Times everything that the pages tell, a few minutes, and writes it to `folder/times.json`.

    Raises:
        EdgewiseError: the file can't be written.
    """
    records = {}
    plans = {subject: Plan() for subject in SUBJECTS}
    for subject, plan in plans.items():
        tell(subject, plan)
    with bar("Timing", sum(len(plan.names) for plan in plans.values())) as steps:
        for subject in SUBJECTS:
            stopwatch = Stopwatch(steps)
            tell(subject, stopwatch)
            records[subject] = stopwatch.record()
    write_json(folder / TIMES, records)


def pages(records: dict[str, Any]) -> dict[str, str]:
    """Each file's name and text. The same records make the same pages, to the letter."""
    lessons = {subject: tell(subject, Recorded(records[subject])) for subject in SUBJECTS}
    texts = {f"{name}.html": page(lesson, "../mistakes.md") for name, lesson in lessons.items()}
    return {**texts, INDEX: _index(lessons)}


def write_pages(folder: Path) -> None:
    """Writes the pages of the times in `folder`.

    Raises:
        UsageError: there are no times yet, or jinja2 is not installed.
        EdgewiseError: a file can't be written.
    """
    for name, text in pages(read_json(folder / TIMES)).items():
        write_text(folder / name, text)


def _index(lessons: dict[str, Lesson]) -> str:
    machine = next(iter(lessons.values())).machine
    share = min(lesson.share for lesson in lessons.values())
    lines = [
        "# Lessons",
        "",
        "What the parts of efficient networks cost: the formula, each step with its numbers, the "
        "time that was measured beside the MACs, and why the two differ. All of it is worked out "
        "by `edgewise explain`, which does the same on your machine, with your numbers. The times "
        f"here are those of one thread of {machine['cpu']}, {machine['cores']} cores, of "
        f"which other work left at least {percent(share)}; each page says when that was too little "
        "for its ratios.",
        "",
        "| lesson | one of its findings | on your machine |",
        "|---|---|---|",
    ]
    lines += [
        f"| [{lesson.title}]({name}.html) | {lesson.findings[0]} | `{command(lesson)}` |"
        for name, lesson in lessons.items()
    ]
    lines += ["", "What goes round wrongly about them: [mistakes](../mistakes.md)."]
    return "\n".join(lines) + "\n"
