"""`edgewise explain`, with a clock that doesn't wait."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commandline import edgewise
from html_page import Page
from scripted import Scripted

from edgewise.lessons import explain
from edgewise.lessons.table import LESSONS


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain, "Stopwatch", lambda bar: Scripted())


def test_the_example_of_the_issue() -> None:
    called = edgewise(
        "explain", "depthwise-separable", "--in", 32, "--out", 64, "--kernel", 3, "--size", 112,
        "--stride", 1, "--dilation", 1,
    )  # fmt: skip
    assert called.status == 0, called.errors
    for words in ("= 288 + 2,048", "= 18,432", "= 73/576 = 0.1267", "231,211,008", "a processor"):
        assert words in called.output


def test_without_a_subject_it_lists_the_lessons() -> None:
    called = edgewise("explain")
    assert called.status == 0
    names = [line.split()[0] for line in called.output.splitlines()]
    assert names == ["LESSON", *LESSONS]
    assert "--in 32 --out 64 --kernel 3 --size 112 --stride 1 --dilation 1" in called.output


def test_json_has_exact_numbers() -> None:
    called = edgewise("explain", "depthwise-separable", "--json")
    value = json.loads(called.output)
    assert value["settings"]["in_chans"] == 32
    assert value["parts"][0]["macs"] == 231_211_008
    assert value["steps"][-1]["exact"] == "73/576"
    assert value["parts"][0]["time"]["median_ms"] == 1.0


def test_a_page_and_json_at_once(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    called = edgewise("explain", "mobilenet_v2", "--size", 96, "--html", path, "--json")
    assert json.loads(called.output)["settings"] == {"size": 96}
    assert str(path) in called.errors
    assert "3,504,872 parameters" in Page(path.read_text(encoding="utf-8")).words


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["depthwise"], "unknown lesson or model 'depthwise'. Nearest: depthwise-separable, "),
        (["mobilenet_v5"], "Nearest: mobilenet_v"),
        (["uib", "--heads", 4], "uib has no --heads. It has: --in, --kernel, --size, --expand."),
        (["mobilenet_v2", "--in", 3], "mobilenet_v2 has no --in. It has: --size."),
        (["uib", "--kernel", 4], "--kernel must be odd, not 4"),
        (["uib", "--size", 0], "--size must be at least 1, not 0"),
        (["width", "--model", "mobilenet_v5"], "unknown model 'mobilenet_v5'. Nearest: "),
        (["depthwise-separable", "--in", 9999, "--out", 9999], "Choose a smaller --size"),
        (["int8", "--size", 1000], "Choose a smaller --size or fewer channels."),
        (["mobilenet_v2", "--size", 4000], "Choose a smaller --size."),
        (["mobilenet_v2.nobody"], "nobody"),
    ],
)
def test_a_wrong_call_says_the_mend(arguments: list[object], words: str) -> None:
    called = edgewise("explain", *arguments)
    assert called.status == 2
    assert words in called.errors
    assert not called.output


def test_the_help_has_examples() -> None:
    called = edgewise("explain", "--help")
    assert called.status == 0 and "edgewise explain mobilenet_v4_conv_small" in called.output
