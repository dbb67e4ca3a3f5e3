"""What is measured between the survey's sizes, and said where no network is near the budget."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgewise.search.budget import Budget, Spent
from edgewise.search.choosing import _between, nothing_fits
from edgewise.search.costs import Candidate, Cost
from edgewise.search.decisions import Decisions
from edgewise.search.ways import Way

SMALL = Cost(
    Candidate("a", 64, "int8", "onnxruntime"), Spent(0.271, 0.3, 0.62, 2_321_000, 23_700_000)
)
LARGE = Cost(Candidate("b", 96, "fp32", "onnxruntime"), Spent(9.0, 9.0, 9.0, 9 * 10**6, 10**8))


@pytest.mark.parametrize(
    ("budget", "takes"),
    [
        ("memory=15MB", "23.7 MB of memory. Give at least --budget memory=24MB."),
        ("size=1MB", "2.32 MB on the device. Give at least --budget size=2.4MB."),
        (
            "latency=0.1ms",
            "0.271 ms (median). Give at least --budget latency=0.28ms, or a faster device.",
        ),
        (
            "latency=0.4ms@p99,size=5MB,memory=16MB",
            "0.62 ms (p99) and 23.7 MB of memory. Give at least --budget "
            "latency=0.62ms@p99,size=5MB,memory=24MB, or a faster device.",
        ),
    ],
)
def test_it_names_what_exceeds_the_budget_and_what_would_do(budget: str, takes: str) -> None:
    said = nothing_fits([LARGE, SMALL], Budget.parse(budget))
    assert said.startswith(f"nothing fits {budget}: the nearest is {SMALL.candidate}, which takes ")
    assert said.endswith(f"which takes {takes}")


def test_ways_that_the_survey_gave_up_are_not_measured_between(tmp_path: Path) -> None:
    """One that a network failed in, or is hopeless in, may be another's best."""

    def cost(model: str, precision: str, ms: float) -> Cost:
        candidate = Candidate(model, 64, precision, "onnxruntime")
        return Cost(candidate, Spent(ms, ms, ms, 1) if ms else None)

    def costs(candidates: Iterable[Candidate]) -> list[Cost]:
        asked.extend(candidates)
        return []

    asked: list[Candidate] = []
    found = [cost("a", "fp32", 5.0), cost("a", "bf16", 0.0), cost("a", "int8", 0.5)]
    found += [cost("b", "fp32", 3.0), cost("b", "bf16", 0.5), cost("b", "int8", 0.0)]
    log, work = Decisions(tmp_path / "log"), SimpleNamespace(costs=costs)
    ways = [Way("onnx", precision, "onnxruntime") for precision in ("fp32", "bf16", "int8")]
    search: Any = SimpleNamespace(ways=ways, budget=Budget.parse("latency=1ms"))
    search.log, search.decide = log, log.decide
    _between(search, work, [("a", 96), ("b", 128)], found)  # type: ignore[arg-type]
    assert [(c.model, c.imgsz, c.precision) for c in asked] == [
        ("a", 96, "int8"),
        ("b", 128, "fp32"),
        ("b", 128, "bf16"),
    ]
