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


def test_only_files_that_kept_their_accuracy(shipped: Any, tmp_path: Path) -> None:
    (tmp_path / "int8_trained.csv").write_text(
        "network,runtime,keep_float,points_lost\n"
        "a,litert,none,1.8\na,openvino,none,-0.2\nb,openvino,auto,0.0\n"
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
    assert lost == {
        ("a", "litert int8", ""): 1.8,
        ("a", "openvino int8", ""): -0.2,
        (b0, "float32", ""): 0.0,
        (b0, "openvino bf16", ""): 0.5,
        (b0, "openvino int8", ""): 2.0,
        (b0, "float32", other): 1.1,
        (b0, "openvino int8", other): 0.8,
    }

    def allowed(*row: str) -> bool:
        return bool(shipped.allowed(Timed(*row), lost))

    assert allowed("edgewise", "a", "openvino", "int8")
    assert not allowed("edgewise", "a", "litert", "int8")
    assert not allowed("edgewise", "b", "openvino", "int8")  # only seen with layers in float
    assert allowed("edgewise", "a", "litert", "fp32")
    assert not allowed("edgewise", "a", "openvino", "bf16")
    assert allowed("edgewise", b0, "openvino", "bf16")
    assert allowed("timm", "b", "onnxruntime", "fp32")
    assert shipped.geometric_mean([2.0, 8.0]) == pytest.approx(4.0)

    def timed(act: str, precision: str, ms: float) -> dict[str, str]:
        row = {"network": b0, "runtime": "openvino", "activation": act}
        return row | {"precision": precision, "median_ms": str(ms)}

    own_times = [timed(own, "fp32", 12.0), timed(own, "bf16", 9.0), timed(own, "int8", 5.0)]
    others = [timed(other, "fp32", 2.0), timed(other, "int8", 6.0), timed(other, "bf16", 1.0)]
    assert shipped.with_activation(b0, lost, own_times + others) == {
        "activation": other,
        "activation_file": "int8 openvino",
        "activation_lost": 0.8,
        "gain": 1.5,  # of 9 ms: its own in int8 lost too much, others too much or unseen
    }
    assert shipped.with_activation(b0, lost, own_times)["gain"] == 1.0
    assert shipped.with_activation("a", lost, own_times)["gain"] == 1.0
