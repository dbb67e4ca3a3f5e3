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


def test_only_files_that_kept_their_accuracy(shipped: Any, tmp_path: Path) -> None:
    (tmp_path / "int8_trained.csv").write_text(
        "network,runtime,keep_float,points_lost\n"
        "a,onnxruntime,none,1.8\na,openvino,none,-0.2\na,openvino,stages,0.1\n"
        "a,litert,none,0.0\nb,openvino,auto,0.0\n"
    )
    b0, own, other = "efficientnet_b0", "silu", "relu6"
    rows = [
        (seed, b0, act, epochs, file, 1000, right - seed)
        for seed in (0, 2)
        for act, epochs, file, right in (
            (own, 0, "float32", 900),  # fewer epochs: not what it is compared with
            (own, 3, "float32", 960),
            (own, 3, "openvino bf16", 955),
            (own, 3, "openvino int8", 940),
            (other, 3, "float32", 949),
            (other, 3, "openvino int8", 952),
        )
    ]
    (tmp_path / "activation.csv").write_text(
        "seed,network,activation,epochs,file,images,right\n"
        + "".join(",".join(map(str, row)) + "\n" for row in rows)
    )
    lost = shipped.points_lost(tmp_path)

    def loses(network: str, file: str, act: str = "") -> float:
        (way,) = (way for way in shipped.WAYS if str(way) == file)
        return float(shipped.loses(lost, network, way, act))

    assert loses("a", "openvino int8") == -0.2
    assert loses("a", "openvino int8 and bf16") == 0.1
    assert loses("a", "onnxruntime int8") == 1.8
    assert loses("a", "openvino fp32") == 0
    assert loses("a", "openvino bf16") == shipped.UNKNOWN > shipped.GATE
    assert loses("b", "openvino int8") == shipped.UNKNOWN  # only seen with layers in float
    assert loses(b0, "openvino bf16") == 0.5  # of as many epochs
    assert loses(b0, "openvino int8") == 2.0
    assert loses(b0, "openvino int8", other) == 0.8
    assert loses(b0, "onnxruntime fp32") == 0
    assert loses(b0, "onnxruntime fp32", other) == loses(b0, "openvino fp32", other) == 1.1
    assert loses(b0, "openvino bf16", other) == shipped.UNKNOWN
    assert shipped.geometric_mean([2.0, 8.0]) == pytest.approx(4.0)
