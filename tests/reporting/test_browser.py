"""The report in a real browser: `chromium`, as Debian and Ubuntu package it."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from made_run import NAMES, Made

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
  seen.textContent = JSON.stringify({{
    scroll: root.scrollWidth, client: root.clientWidth, title: page.title,
    wide: wide.map(item => item.outerHTML.slice(0, 80)),
    broken: [...page.images].filter(image => image.complete && !image.naturalWidth).length,
  }});
}};
</script>"""


@pytest.mark.skipif(not CHROMIUM, reason="needs the system's package `chromium`")
@pytest.mark.parametrize("width", [360, 1200])
@pytest.mark.parametrize("names", [NAMES, ("n" * 90, "猫 " * 40, "قطة " * 40, *NAMES[3:])])
def test_the_page_never_scrolls_sideways(
    tmp_path: Path, finish: Callable[[tuple[str, ...]], Made], names: tuple[str, ...], width: int
) -> None:
    page = report(finish(names).run).read_text(encoding="utf-8")
    frame = tmp_path / "frame.html"
    frame.write_text(FRAME.format(width=width, page=html.escape(page)), encoding="utf-8")
    done = subprocess.run(
        [str(CHROMIUM), *QUIET, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom",
         "--virtual-time-budget=2000", frame.as_uri()],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    (found,) = re.findall(r'<p id="seen">(.+?)</p>', done.stdout)
    seen = json.loads(html.unescape(found))
    assert seen["title"] == "first: Edgewise report"
    assert seen["client"] <= width
    assert seen["scroll"] <= seen["client"], seen["wide"]
    assert not seen["wide"]
    assert seen["broken"] == 0
    assert "CONSOLE" not in done.stderr, done.stderr
