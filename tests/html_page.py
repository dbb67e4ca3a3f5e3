"""Reading a page back with Python's own HTML parser."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"meta", "img", "br"}
CLOSED_IN_PLACE = {"rect", "line", "circle", "path", "polyline"}


class Page(HTMLParser):
    """Tags, text and tables of an HTML page; fails on a tag that is not closed in its place."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.tables: dict[str, list[list[str]]] = {}
        self.table = ""
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append((tag, values))
        if tag not in VOID:
            self.open.append(tag)
        if values.get("role") == "region":
            self.table = values["aria-label"] or ""
            self.tables.setdefault(self.table, [])
        if tag == "tr":
            self.tables[self.table].append([])
        if tag in ("th", "td"):
            self.tables[self.table][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in CLOSED_IN_PLACE
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another tag"

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.text += data
        if "th" in self.open or "td" in self.open:
            self.tables[self.table][-1][-1] += data.strip()

    @property
    def words(self) -> str:
        """The text with single spaces."""
        return " ".join(self.text.split())

    def named(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of each such tag."""
        return [attrs for name, attrs in self.tags if name == tag]
