"""Progress in a log: few lines, with what is done and what is left."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

import pytest

from edgewise import progress

WORK = """
import time
from edgewise.progress import track
for _ in track(range(20), "sawing", 20):
    time.sleep(0.02)
print("done")
"""


def test_a_log_gets_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = iter(range(0, 1000, 4))  # each look at the clock is four seconds later
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(now)))
    with progress.bar("sawing", 10) as steps:
        for log in range(10):
            steps.advance(note=f"log {log}")
    output = capsys.readouterr()
    assert output.out == ""
    lines = output.err.splitlines()
    assert 2 <= len(lines) <= 4
    assert re.fullmatch(r"sawing: \d/10, \d+ s left log \d", lines[0])


def test_a_terminal_gets_a_bar_that_goes_away() -> None:
    control, terminal = pty.openpty()
    process = subprocess.run(
        [sys.executable, "-c", WORK],
        stdout=subprocess.PIPE,
        stderr=terminal,
        check=True,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    )
    os.close(terminal)
    shown = os.read(control, 1 << 16).decode()
    os.close(control)
    assert process.stdout == b"done\n"
    assert "sawing" in shown
    assert "20/20" in shown
    assert shown.rstrip().endswith("\x1b[2K")  # the last thing is to wipe the line
