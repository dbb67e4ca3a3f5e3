"""The gate on accuracy of the benchmark of what is shipped."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def shipped(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import shipped

    return shipped


class Timed:
    """What the gate looks at."""

    def __init__(self, library: str, model: str, runtime: str, precision: str) -> None:
        self.library, self.model = library, model
        self.runtime, self.precision = runtime, precision


def test_only_int8_that_kept_its_accuracy(shipped: Any, tmp_path: Path) -> None:
    (tmp_path / "seen.csv").write_text(
        "network,runtime,keep_float,points_lost\n"
        "a,litert,none,1.8\na,openvino,none,-0.2\nb,openvino,auto,0.0\n"
    )
    lost = shipped.points_lost(tmp_path / "seen.csv")
    assert lost == {("a", "litert"): 1.8, ("a", "openvino"): -0.2}

    def allowed(*row: str) -> bool:
        return bool(shipped.allowed(Timed(*row), lost))

    assert allowed("edgewise", "a", "openvino", "int8")
    assert not allowed("edgewise", "a", "litert", "int8")
    assert not allowed("edgewise", "b", "openvino", "int8")  # only seen with layers in float
    assert allowed("edgewise", "a", "litert", "fp32")
    assert allowed("timm", "b", "onnxruntime", "fp32")
    assert shipped.geometric_mean([2.0, 8.0]) == pytest.approx(4.0)
