"""Which files of a network are made: one of each precision, or all."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgewise.run_folder import Run
from edgewise.search import finishing
from edgewise.search.budget import Budget, Spent
from edgewise.search.choice import fastest_ways
from edgewise.search.costs import Candidate, Cost
from edgewise.search.decisions import Decisions
from edgewise.search.finishing import files_of
from edgewise.search.request import SearchFolder
from edgewise.search.ways import Way

ONNX, VINO = (
    {precision: Way(format, precision, runtime) for precision in ("fp32", "int8")}
    for format, runtime in (("onnx", "onnxruntime"), ("openvino", "openvino"))
)
WAYS = (*ONNX.values(), *VINO.values())
PROMISED = [asdict(VINO["int8"]), asdict(ONNX["fp32"])]


def test_the_fastest_way_of_each_precision() -> None:
    """One that is too large, however fast, only where no other is nearer to the budget."""
    budget = Budget.parse("latency=5ms,size=4MB")

    def cost(way: Way, ms: float, megabytes: float) -> Cost:
        candidate = Candidate("a", 96, way.precision, way.runtime, way.format)
        return Cost(candidate, Spent(ms, ms, ms, round(1e6 * megabytes)))

    slow, quick = cost(ONNX["fp32"], 4.0, 3.9), cost(VINO["fp32"], 3.0, 3.9)
    assert fastest_ways([slow, quick], budget) == (VINO["fp32"],)
    assert fastest_ways([slow, cost(VINO["fp32"], 3.0, 4.1)], budget) == (ONNX["fp32"],)
    nearer = cost(VINO["fp32"], 3.0, 4.1), cost(ONNX["fp32"], 6.0, 1.0)
    assert fastest_ways(nearer, budget) == (VINO["fp32"],)
    small = cost(ONNX["int8"], 1.0, 1.0)
    assert set(fastest_ways([slow, small, quick], budget)) == {VINO["fp32"], ONNX["int8"]}


@pytest.mark.parametrize(
    ("used", "right", "promised", "expected"),
    [
        pytest.param(0.5, 0.9, PROMISED, [[ONNX["fp32"], VINO["int8"]]], id="enough"),
        pytest.param(1.5, 0.9, PROMISED, "all", id="none fits"),
        pytest.param({"int8": 0.5, "fp32": 1.5}, 0.8, PROMISED, "all", id="int8 loses"),
        pytest.param({"int8": 0.5, "fp32": 1.5}, 0.9, PROMISED, "some", id="int8 loses nothing"),
        pytest.param(0.5, 0.8, PROMISED, "some", id="float fits"),
        pytest.param(0.5, 0.9, None, [list(WAYS)], id="older log"),
    ],
)
def test_others_are_made_where_these_are_not_enough(
    used: Any,
    right: float,
    promised: list[dict[str, str]] | None,
    expected: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """All of them is one decision: a search that is stopped in it makes them anew."""
    first, others = [ONNX["fp32"], VINO["int8"]], [ONNX["int8"], VINO["fp32"]]
    asked: list[list[Way]] = []

    def ship(made: Run, ways: list[Way], *rest: Any) -> list[dict[str, Any]]:
        asked.append(list(ways))
        return [file(way) for way in ways]

    def file(way: Way) -> dict[str, Any]:
        share = used if isinstance(used, float) else used[way.precision]
        accuracy = right if way.precision == "int8" else 0.9
        made = {"failure": "", "folder": str(tmp_path / way.name), "float_layers": []}
        seen = {"accuracy": accuracy, "accuracy_model": 0.9, "images": 1_000}
        taken = {"used": {"latency": share}, "spent": {"median_ms": share}, "fits": share <= 1}
        return {**asdict(way), **made, **seen, **taken}

    trial = {"name": "a-64", "used": 0.5} | ({"ways": promised} if promised else {})
    log = Decisions(tmp_path / "log")
    log.decide("choose", lambda: {"trials": [trial]})
    log.decide("train", lambda: {"trial": "a-64"})
    monkeypatch.setattr(finishing, "ship", ship)
    monkeypatch.setattr(finishing, "round_run", lambda run, root, epochs: Run(root))
    monkeypatch.setattr(finishing.Recipe, "read", lambda path: SimpleNamespace(imgsz=64))
    search: Any = SimpleNamespace(decide=log.decide, log=log, ways=WAYS, device=None, budget=None)
    search.folder, search.outcome = SearchFolder(tmp_path), lambda run: {"score": 0.8}
    files_of(search, Run(tmp_path / "final"))
    lists = {"some": [first], "all": [first, others]}
    for_qat = [[ONNX["int8"], VINO["int8"]]] if "qat" in log.made else []
    assert asked == (lists[expected] if isinstance(expected, str) else expected) + for_qat
    assert len(log.made["files"]["files"]) == sum(len(ways) for ways in asked) - 2 * bool(for_qat)
