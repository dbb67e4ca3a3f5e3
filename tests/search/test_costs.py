"""A candidate and its costs in the log: what was written comes back, and so does an old search."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from edgewise.errors import UsageError
from edgewise.search.budget import Spent
from edgewise.search.costs import UNDRIFTED, Candidate, Cost, as_of_now
from edgewise.search.request import Request

BF16 = Candidate("mobilenet_v2", 96, "bf16", "openvino", "openvino")


def test_what_is_logged_comes_back() -> None:
    for cost in (Cost(BF16, Spent(1.0, 2.0, 3.0, 4, 5), 0.9, 1.1), Cost(BF16, None, failure="no")):
        assert Cost.read(json.loads(json.dumps(asdict(cost)))) == cost
    assert str(BF16) == "mobilenet_v2 at 96 px, bf16 in openvino"


def test_only_what_was_measured_before_is_slower_now() -> None:
    old = Cost(BF16, Spent(1.0, 2.0, 3.0, 4), 0.9, 1.1, stored=True)
    new = replace(old, stored=False)

    def medians(drift: dict[str, float]) -> list[float]:
        found = as_of_now([old, new], [old, new], drift)
        return [cost.spent.median_ms for cost in found if cost.spent]

    assert medians({"factor": 1.5, "since": 1.1}) == [1.5, 1.1, 1.5, 1.0]
    assert medians({"factor": 1.5}) == [1.5, 1.5, 1.5, 1.0]  # of an older log
    assert medians(UNDRIFTED) == [1.0] * 4


def test_an_old_log_without_formats_speaks_of_onnx_files() -> None:
    old = {"model": "mobilenet_v2", "imgsz": 96, "precision": "int8", "runtime": "openvino"}
    cost = Cost.read({"candidate": old, "spent": None, "failure": "crashed"})
    assert cost.candidate == Candidate("mobilenet_v2", 96, "int8", "openvino", "onnx")


def test_an_old_request_without_formats_is_the_same_as_before(tmp_path: Path) -> None:
    path = tmp_path / "search.json"
    request = Request("photos", "latency=5ms", precisions=("int8",))
    request.write(path)
    assert Request.read(path) == request
    value = json.loads(path.read_text())
    del value["formats"]
    path.write_text(json.dumps(value))
    assert Request.read(path) == request
    for damaged in ("[]", '{"data": "photos"}'):
        path.write_text(damaged)
        with pytest.raises(UsageError, match="not what a search was asked for"):
            Request.read(path)
