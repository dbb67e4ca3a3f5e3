"""The lesson page, `docs/mistakes.md`, cut into its sections."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "mistakes.md").read_text(encoding="utf-8")
SECTIONS = re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]
NAMED = re.compile(r"^Test: `(\w+)`$", re.MULTILINE)


@dataclass(frozen=True)
class Lesson:
    """A section: its text, the cells of its tables, and what the code has defined by then."""

    text: str
    tables: list[list[list[str]]]
    code: SimpleNamespace

    def says(self, *figures: str) -> None:
        """Each stands in the text as it is, and not as a part of a longer number."""
        for figure in figures:
            assert re.search(rf"(?<![\d.,]){re.escape(figure)}(?![\d]|[.,]\d)", self.text), figure


def lesson_of(test: str) -> Lesson:
    """The section that names `test`, after all Python of the page down to its own."""
    (at,) = [i for i, section in enumerate(SECTIONS) if NAMED.findall(section) == [test]]
    names: dict[str, object] = {}
    for snippet in re.findall(r"```python\n(.*?)```", "".join(SECTIONS[: at + 1]), re.DOTALL):
        exec(snippet, names)
    tables = []
    for table in re.findall(r"^\|[-|]+\|\n((?:\|.*\|\n)+)", SECTIONS[at], re.MULTILINE):
        rows = [row.strip("| ").split("|") for row in table.splitlines()]
        tables.append([[cell.strip() for cell in row] for row in rows])
    text = " ".join(SECTIONS[at].replace("*", "").split())
    return Lesson(text, tables, SimpleNamespace(**names))
