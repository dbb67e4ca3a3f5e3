"""`edgewise doctor`: what it prints, its page and its exit status."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from commandline import edgewise
from photos import write_photos


def test_sound_data(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", {"a": 12, "b": 12})
    said = edgewise("doctor", photos, "--workers", "0")
    assert said.status == 0, said.errors
    assert "24 usable images of 2 classes" in said.output
    assert "sound: nothing stands against training" in said.output


def test_unsound_data_with_page_and_json(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", {"a": 12, "<b>": 12})
    shutil.copy(photos / "a/0.png", photos / "<b>/again.png")
    said = edgewise("doctor", photos, "--workers", "0", "--html", tmp_path / "page.html")
    assert said.status == 1
    assert "error: copies with two labels" in said.output
    assert "<b>/again.png = a/0.png" in said.output
    assert "not sound: 1 error to mend" in said.output
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;/again.png" in html and "<b>/again" not in html
    assert html.count("data:image/jpeg;base64,") >= 2
    told = json.loads(edgewise("doctor", photos, "--workers", "0", "--json").output)
    assert told["sound"] is False
    (finding,) = [f for f in told["findings"] if f["severity"] == "error"]
    assert finding["groups"] == [["<b>/again.png", "a/0.png"]]


def test_nothing_to_look_at(tmp_path: Path) -> None:
    said = edgewise("doctor", tmp_path / "gone")
    assert said.status == 2 and "no such folder or file" in said.errors
