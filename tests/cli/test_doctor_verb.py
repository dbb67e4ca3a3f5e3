"""`edgewise doctor`: what it prints, its page and its exit status."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from commandline import edgewise
from photos import picture, write_photos


def test_sound_data(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", {"a": 12, "b": 12})
    said = edgewise("doctor", photos, "--workers", "0", "--no-probe")
    assert said.status == 0, said.errors
    assert "24 usable images of 2 classes" in said.output
    assert "sound: nothing stands against training" in said.output


def test_unsound_data_with_page_and_json(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", {"a": 12, "<b>": 12})
    shutil.copy(photos / "a/0.png", photos / "<b>/again.png")
    said = edgewise(
        "doctor", photos, "--workers", "0", "--no-probe", "--html", tmp_path / "page.html"
    )
    assert said.status == 1
    assert "error: copies with two labels" in said.output
    assert "<b>/again.png = a/0.png" in said.output
    assert "not sound: 1 error to mend" in said.output
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;/again.png" in html and "<b>/again" not in html
    assert html.count("data:image/jpeg;base64,") >= 2
    told = json.loads(edgewise("doctor", photos, "--workers", "0", "--no-probe", "--json").output)
    assert told["sound"] is False
    (finding,) = [f for f in told["findings"] if f["severity"] == "error"]
    assert finding["groups"] == [["<b>/again.png", "a/0.png"]]


def test_nothing_to_look_at(tmp_path: Path) -> None:
    said = edgewise("doctor", tmp_path / "gone")
    assert said.status == 2 and "no such folder or file" in said.errors


@pytest.fixture
def working(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], psutil.Process]]:
    """A doctor in a session of its own, in the middle of its work, and one of its processes."""
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for number in range(300):
            os.link(_large(tmp_path), tmp_path / label / f"{number}.png")
    with subprocess.Popen(
        [sys.executable, "-m", "edgewise", "doctor", str(tmp_path), "--workers", "1", "--no-probe"],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        until = time.monotonic() + 60
        while not (children := psutil.Process(process.pid).children()):
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.02)
        time.sleep(0.5)
        yield process, children[0]
        process.kill()


def _large(folder: Path) -> Path:
    if not (path := folder / ".large.png").exists():
        picture(0, 1500, 1000).save(path, compress_level=1)
    return path


def test_a_killed_process_ends_it_with_a_reason(
    working: tuple[subprocess.Popen[str], psutil.Process],
) -> None:
    process, child = working
    child.kill()
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert "was killed" in errors and "--workers 1" in errors
    assert re.search(r"a/\d+\.png", errors)  # which one depends on how far it was
    assert "Traceback" not in errors


def test_ctrl_c_ends_it_in_a_line(
    working: tuple[subprocess.Popen[str], psutil.Process],
) -> None:
    process, child = working
    os.killpg(process.pid, signal.SIGINT)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "stopped" and "Traceback" not in errors
    assert not child.is_running()
