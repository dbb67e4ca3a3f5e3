"""What a search is asked for, as a person's Python says it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgewise.errors import UsageError
from edgewise.search.request import Request


def test_paths_and_lists_are_kept_as_they_are_read_back(tmp_path: Path) -> None:
    """So that the same call goes on with the search that it began."""
    asked: dict[str, Any] = {"data": Path("photos"), "models": ["a", "b"], "formats": ["onnx"]}
    request = Request(budget="latency=5ms", minutes=30, **asked)
    assert (request.data, request.models, request.formats) == ("photos", ("a", "b"), ("onnx",))
    request.write(tmp_path / "search.json")
    assert Request.read(tmp_path / "search.json") == request


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"minutes": "30m"}, "minutes: must be a valid number, not '30m'"),
        ({"minutes": True}, "minutes: must be a valid number"),
        ({"minutes": -1}, "minutes: must be greater than 0, not -1"),
        ({"minutes": float("nan")}, "minutes: must be a finite number"),
        ({"models": "mobilenet_v2"}, "models: must be a valid tuple, not 'mobilenet_v2'"),
        ({"precisions": [8]}, r"precisions\[0\]: must be a valid string, not 8"),
        ({"data": 7}, "data: must be a valid string, not 7"),
        ({"workers": -1}, "workers: must be greater than or equal to 0, not -1"),
        ({"time": 30.0}, "time: no such field"),
    ],
)
def test_what_can_not_be_asked_for_is_named_at_once(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=f"^request: {words}"):
        Request(**{"data": "photos", "budget": "latency=5ms", **wrong})
