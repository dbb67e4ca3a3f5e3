"""A budget as people write it, and what is within it."""

from __future__ import annotations

import pytest

from edgewise.errors import UsageError
from edgewise.search.budget import Budget, Spent

SPENT = Spent(median_ms=4, p90_ms=6, p99_ms=9, size_bytes=3_000_000, memory_bytes=50_000_000)


def test_units() -> None:
    budget = Budget.parse("latency=5ms@p90, size=4MB ,memory=64MiB")
    assert budget == Budget(5.0, 4e6, 64 * 2**20, "p90")
    assert Budget.parse("latency=0.02s") == Budget(latency_ms=20.0)
    assert Budget.parse("latency=800us") == Budget(latency_ms=0.8)
    assert Budget.parse("size=500kb") == Budget(size_bytes=5e5)


def test_a_budget_reads_back_as_it_is_written() -> None:
    for text in ("latency=5ms@p90,size=4MB,memory=64MB", "latency=0.25ms", "size=1.5GB"):
        assert str(Budget.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("latency=5", "us, ms, s"),
        ("latency=5mins", "us, ms, s"),
        ("latency=fast", "us, ms, s"),
        ("latency", "nothing"),
        ("size=4", "MB"),
        ("size=4ms", "MB"),
        ("sise=4MB", "size"),
        ("latency=5ms@p95", "p90"),
        ("latency=0ms", "more than 0"),
        ("latency=5ms,latency=6ms", "twice"),
        ("", "latency=5ms"),
        (",", "latency=5ms"),
    ],
)
def test_what_is_wrong_is_named_with_what_there_is(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Budget.parse(text)


def test_parts() -> None:
    budget = Budget.parse("latency=8ms,size=6MB,memory=200MB")
    assert budget.parts(SPENT) == {"latency": 0.5, "size": 0.5, "memory": 0.25}
    assert Budget.parse("latency=8ms@p99").parts(SPENT) == {"latency": 9 / 8}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("latency=4ms", True),  # to the last digit
        ("latency=3.99ms", False),
        ("latency=5ms@p90", False),
        ("latency=6ms@p90", True),
        ("size=2.9MB", False),
        ("latency=4ms,size=3MB,memory=50MB", True),
        ("latency=4ms,size=3MB,memory=49MB", False),
    ],
)
def test_holds(text: str, holds: bool) -> None:
    assert Budget.parse(text).holds(SPENT) is holds


def test_room() -> None:
    budget = Budget.parse("latency=3.2ms")
    assert not budget.holds(SPENT)
    assert budget.holds(SPENT, room=1.25)


@pytest.mark.parametrize(
    ("text", "enough"),
    [
        ("latency=3ms,size=4MB", "latency=4ms,size=4MB"),
        ("latency=5ms@p99", "latency=9ms@p99"),
        ("size=1MB,memory=20MB", "size=3MB,memory=50MB"),
        ("latency=4ms,size=3MB,memory=50MB", "latency=4ms,size=3MB,memory=50MB"),
    ],
)
def test_the_least_budget_that_would_do(text: str, enough: str) -> None:
    assert str(Budget.parse(text).widened(SPENT)) == enough


def test_what_would_do_is_rounded_up_to_two_digits() -> None:
    spent = Spent(0.2713, 0.3, 0.4, 23_650_001, 101)
    wider = Budget.parse("latency=1us,size=1B,memory=1B").widened(spent)
    assert str(wider) == "latency=0.28ms,size=24MB,memory=110B"
    assert Budget.parse(str(wider)).holds(spent)


def test_memory_that_the_device_can_not_tell() -> None:
    unknown = Spent(4, 6, 9, 3_000_000, None)
    assert Budget.parse("size=6MB").parts(unknown) == {"size": 0.5}
    with pytest.raises(UsageError, match="leave memory out"):
        Budget.parse("memory=1MB,size=6MB").parts(unknown)
