"""What is said where no network is near the budget."""

from __future__ import annotations

import pytest

from edgewise.search.budget import Budget, Spent
from edgewise.search.choosing import nothing_fits
from edgewise.search.costs import Candidate, Cost

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
