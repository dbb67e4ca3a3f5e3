"""Lessons as pages, and the pages in docs/lessons."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from html_page import Page
from scripted import Scripted, told

from edgewise.files import read_json
from edgewise.lessons import pages
from edgewise.lessons.explain import tell
from edgewise.lessons.page import command, page
from edgewise.lessons.table import LESSONS
from edgewise.lessons.text import cell, plain, text

DOCS = Path(__file__).parents[2] / "docs"
FOLDER = DOCS / "lessons"


@pytest.mark.slow
def test_the_pages_in_docs_are_what_the_lessons_say_today() -> None:
    """All but the times, which are read from where they were recorded."""
    made = pages.pages(read_json(FOLDER / pages.TIMES))
    assert {path.name for path in FOLDER.iterdir()} == {*made, pages.TIMES}
    for name, written in made.items():
        ours = (FOLDER / name).read_text(encoding="utf-8")
        assert ours == written, f"{name}: run python -m edgewise.lessons docs/lessons --recorded"


def test_every_lesson_has_a_page_and_its_links_lead_somewhere() -> None:
    index = (FOLDER / pages.INDEX).read_text(encoding="utf-8")
    headings = [
        line.lstrip("# ").lower().replace("'", "").replace(".", "").replace(" ", "-")
        for line in (DOCS / "mistakes.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("## ")
    ]
    for name in LESSONS:
        assert f"({name}.html)" in index
        anchor = told(name).mistake
        assert anchor in headings or not anchor


@pytest.mark.parametrize("name", [*LESSONS, "mobilenet_v4_conv_small"])
def test_a_page_is_well_formed_and_says_all(name: str) -> None:
    lesson = told(name)
    seen = Page(page(lesson))
    words = seen.words.replace("\N{NO-BREAK SPACE}", " ")
    for sentence in (lesson.idea, *lesson.findings):
        assert " ".join(sentence.replace("\N{NO-BREAK SPACE}", " ").split()) in words
    for table in lesson.tables:
        assert len(seen.tables[table.title]) == 1 + len(table.rows)
    if lesson.steps:
        assert [row[-1] for row in seen.tables["The calculation"]] == [
            f"= {cell(step.value)}" for step in lesson.steps
        ]
    longest = [a for a in seen.named("rect") if a["class"] == "bar" and a["width"] == "100%"]
    drawn = [c for c in zip(*(v for _, v in lesson.bars.rows), strict=True) if any(x for x, _ in c)]
    assert len(longest) >= len(drawn)
    assert not any("src" in attrs or "href" in attrs for _, attrs in seen.tags)


def test_the_command_of_a_page_gives_the_page() -> None:
    from edgewise.lessons.explain import OPTIONS

    lesson = tell("uib", Scripted(), size=7)
    _, _, name, *options = command(lesson).split()
    names = {flag: key for key, flag in OPTIONS.items()}
    pairs = zip(options[::2], options[1::2], strict=True)
    again = tell(name, Scripted(), **{names[flag]: int(value) for flag, value in pairs})
    assert again == lesson and again.settings["size"] == 7


@pytest.mark.parametrize("name", LESSONS)
def test_text_and_json_have_the_same_numbers(name: str) -> None:
    lesson = told(name)
    printed, value = text(lesson), json.loads(json.dumps(plain(lesson)))
    assert "\N{NO-BREAK SPACE}" not in printed
    for part in value["parts"]:
        assert f"{part['macs']:,}" in printed
        assert part["time"]["p90_ms"] == 2 * part["time"]["median_ms"]
    for step, plainly in zip(lesson.steps, value["steps"], strict=True):
        assert step.formula in printed and step.numbers in printed
        assert plainly["value"] == (
            step.value if isinstance(step.value, str) else pytest.approx(float(step.value))
        )
