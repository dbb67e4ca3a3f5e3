"""The reports in a real browser: `chromium`, as Debian and Ubuntu package it."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from made_run import NAMES, Made
from made_search import all_decisions, write_search

from edgewise.reporting.search_page import write_search_report
from edgewise.reporting.write import report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--enable-logging=stderr",
)

# Headless windows have a least width of about 500 pixels; a frame may be as narrow as a phone.
FRAME = """<!doctype html><iframe id="frame" width="{width}" height="800" srcdoc="{page}"></iframe>
<p id="seen"></p>
<script>
frame.onload = () => {{
  const page = frame.contentDocument;
  page.querySelectorAll("details").forEach(folded => folded.open = true);
  const root = page.documentElement;
  const wide = [...page.querySelectorAll("body *")].filter(
    item => item.getBoundingClientRect().right > root.clientWidth + 1
      && !item.parentElement.closest(".scroll") && !item.closest("svg"));
  const spilled = [...page.querySelectorAll("table:not(.matrix) :is(th, td)")].filter(cell => {{
    const content = page.createRange();
    content.selectNodeContents(cell);
    return content.getBoundingClientRect().right > cell.getBoundingClientRect().right + 1;
  }});
  seen.textContent = JSON.stringify({{
    scroll: root.scrollWidth, client: root.clientWidth, title: page.title,
    wide: wide.map(item => item.outerHTML.slice(0, 80)),
    spilled: spilled.map(cell => cell.outerHTML.slice(0, 80)),
    labels: [...page.querySelectorAll("text.label")].map(item => item.getBoundingClientRect()),
    broken: [...page.images].filter(image => image.complete && !image.naturalWidth).length,
  }});
}};
</script>"""


needs_chromium = pytest.mark.skipif(not CHROMIUM, reason="needs the system's package `chromium`")


def opened(page: str, width: int, folder: Path) -> Any:
    """What `FRAME` saw of a page of that width in pixels; nothing may have been complained of."""
    frame = folder / "frame.html"
    frame.write_text(FRAME.format(width=width, page=html.escape(page)), encoding="utf-8")
    done = subprocess.run(
        [str(CHROMIUM), *QUIET, f"--user-data-dir={folder / 'profile'}", "--dump-dom",
         "--virtual-time-budget=2000", frame.as_uri()],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    (found,) = re.findall(r'<p id="seen">(.+?)</p>', done.stdout)
    assert "CONSOLE" not in done.stderr, done.stderr
    seen = json.loads(html.unescape(found))
    assert seen["client"] <= width
    assert seen["scroll"] <= seen["client"], seen["wide"]
    assert not seen["wide"]
    assert not seen["spilled"]  # into the next column
    assert seen["broken"] == 0
    return seen


@needs_chromium
@pytest.mark.parametrize("width", [360, 1200])
@pytest.mark.parametrize("names", [NAMES, ("n" * 90, "猫 " * 40, "قطة " * 40, *NAMES[3:])])
def test_the_page_never_scrolls_sideways(
    tmp_path: Path, finish: Callable[[tuple[str, ...]], Made], names: tuple[str, ...], width: int
) -> None:
    page = report(finish(names).run).read_text(encoding="utf-8")
    assert opened(page, width, tmp_path)["title"] == "first: Edgewise report"


@needs_chromium
@pytest.mark.parametrize("width", [360, 900, 1200])
@pytest.mark.parametrize("budget", ["latency=2ms", "latency=0.6ms@p90,size=2MB,memory=64MB"])
def test_the_report_of_a_search(tmp_path: Path, budget: str, width: int) -> None:
    """No label of its chart covers another one, and none is cut off."""
    made = all_decisions(budget, ("n" * 90, "猫 " * 40, "قطة " * 40))
    made["device"]["cpu"] = "c" * 90
    folder = write_search(tmp_path / "search", made, budget=budget, data="p" * 90)
    seen = opened(write_search_report(folder).read_text(encoding="utf-8"), width, tmp_path)
    assert seen["title"] == "search: Edgewise search"
    labels = [box for box in seen["labels"] if box["right"] > box["left"]]
    assert len(labels) == (0 if width < 860 else 8)
    for one, other in combinations(labels, 2):
        beside = one["right"] <= other["left"] or other["right"] <= one["left"]
        assert beside or one["bottom"] <= other["top"] + 2 or other["bottom"] <= one["top"] + 2
    assert all(box["left"] >= 0 and box["right"] <= seen["client"] for box in labels)
