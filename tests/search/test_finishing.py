"""Which file is chosen, and when mending is tried: by hand."""

from __future__ import annotations

from typing import Any

import pytest

from edgewise.errors import EdgewiseError
from edgewise.search.finishing import nearest, needs_qat
from edgewise.search.shipping import best_file, wrong


def file(precision: str, accuracy: float, used: float, **more: Any) -> dict[str, Any]:
    made = {
        "precision": precision,
        "accuracy": accuracy,
        "accuracy_model": 0.9,
        "failure": "",
        "fits": used <= 1,
        "used": {"latency": used},
        "spent": {"median_ms": 5 * used},
    }
    return made | more


def test_the_most_accurate_that_fits_then_the_fastest() -> None:
    dear, slow, quick = file("fp32", 0.95, 1.01), file("fp32", 0.9, 0.9), file("int8", 0.9, 0.5)
    assert best_file([dear, slow, quick, file("int8", 0.89, 0.1)]) is quick
    assert best_file([dear]) is None
    assert best_file([dear, file("fp32", 0.99, 0.5, failure="wrong")]) is None


def test_the_nearest_exceeds_its_worst_part_by_least() -> None:
    slow = file("fp32", 0.9, 2.0) | {"used": {"latency": 2.0, "size": 0.1}}
    large = file("int8", 0.9, 1.5) | {"used": {"latency": 0.5, "size": 1.5}}
    assert nearest([slow, large]) is large
    crashed = {"precision": "fp32", "fits": False, "failure": "crashed (SIGSEGV)"}
    assert nearest([slow, crashed]) is slow
    with pytest.raises(EdgewiseError, match="SIGSEGV"):
        nearest([crashed])


def test_rounding_is_learned_only_where_it_is_needed() -> None:
    lossy, fine = file("int8", 0.88, 0.5), file("int8", 0.895, 0.5)
    dear, fitting = file("fp32", 0.9, 1.5), file("fp32", 0.9, 0.9)
    assert needs_qat([lossy, dear])
    assert not needs_qat([fine, dear])  # half a point
    assert not needs_qat([lossy, fitting])  # float fits
    assert not needs_qat([lossy, fine, dear])  # in another runtime it keeps its accuracy
    assert not needs_qat([dear])


def test_what_int8_loses_is_weighed_and_not_forbidden() -> None:
    lost = "int8 loses 2.0 points of accuracy: 90 % of 100 images are right in the model, ..."
    assert wrong([lost], "int8") == ""
    assert wrong([lost, "its labels are others"], "int8") == "its labels are others"
    assert wrong(["fp32 loses 2.0 points of accuracy"], "fp32")
