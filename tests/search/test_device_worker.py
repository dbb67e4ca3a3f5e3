"""What is copied to a device runs there without us; and it opens files as they are shipped."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from multiplied import write_matmul
from tiny_onnx import write_tiny_onnx

from edgewise.deploy.artifact import Info
from edgewise.deploy.formats import ONNX_RUNTIME, OPENVINO
from edgewise.errors import shortened
from edgewise.preprocess import Preprocess
from edgewise.search import device_worker
from edgewise.search.device_client import PACKAGES, SCRIPTS
from edgewise.search.device_worker import (
    RUNTIMES,
    load_onnxruntime,
    load_openvino,
    noise,
    resident,
    settle,
)

LABELS, PREPROCESS = ("a", "b"), Preprocess(8, 0.9, "bicubic", (127.0,) * 3, (64.0,) * 3)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_needs_python_3_8_and_nothing_else(script: Path) -> None:
    tree = ast.parse(script.read_text(encoding="utf-8"), feature_version=(3, 8))
    names = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else map_names(node))
    }
    runtimes = {"numpy", "torch", "executorch"}  # imported where they are used
    assert names <= sys.stdlib_module_names | runtimes
    assert "zip(" not in script.read_text(encoding="utf-8")  # `strict` came with Python 3.10


def map_names(node: ast.Import) -> list[str]:
    return [alias.name for alias in node.names]


def test_every_runtime_says_how_to_install_it() -> None:
    assert set(PACKAGES) == set(RUNTIMES)
    for runtime, (_, modules) in RUNTIMES.items():
        assert PACKAGES[runtime] in {package for _, package in modules}


@pytest.mark.parametrize(
    ("shape", "given", "wanted"),
    [
        ([1, 3, 8, 8], [1, 3, 9, 9], (1, 3, 8, 8)),  # the runtime knows better
        (["N", 3, 8, 8], [], (1, 3, 8, 8)),
        ([None, 3, -1, 0], [1, 3, 9, 7], (1, 3, 9, 7)),
        (["N", 8], [1, 3, 9, 7], (1, 8)),  # another rank
        ([], [1, 3, 9, 7], (1, 3, 9, 7)),
    ],
)
def test_shapes(shape: list[Any], given: list[int], wanted: tuple[int, ...]) -> None:
    assert noise(shape, "float32", given).shape == wanted


@pytest.mark.parametrize("kind", ["uint8", "int8", "int64", "float16", "float", "double"])
def test_types(kind: str) -> None:
    values = noise([64, 64], kind, [])
    names = {"float": "float32", "double": "float64"}
    assert values.dtype == np.dtype(names.get(kind, kind))
    assert len(np.unique(values)) > 200  # all of a byte's, or nearly
    if values.dtype.kind == "f":
        assert abs(values.mean()) < 0.1 and abs(values.std() - 1) < 0.1


def test_warm_up_ends_once_the_time_has_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    times = [9.0, 8.0, 7.0, 6.0, 5.0, *[1.0] * 20]
    ticks = iter(times)
    monkeypatch.setattr(device_worker, "one_call_ms", lambda call: next(ticks))
    # By hand: after 12 calls the medians of two windows of 5 are 5 and 1, after 13 both are 1.
    assert settle(lambda: None, 60.0) == times[:13]
    assert settle(lambda: None, 0.0) == [1.0]  # once at least


WHERE = "Exception from src/inference/src/cpp/core.cpp:84:"  # the first lines of OpenVINO's errors
CHECK = "Check 'a.compatible(b)' failed at src/core/shape.hpp:65:"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{WHERE}\n{CHECK}\nSummary:\n-- No rule for Scaler\n\n", "-- No rule for Scaler"),
        (f"{CHECK}\nWhile validating y:\nIncompatible dimensions\n", "Incompatible dimensions"),
        ("\nGot invalid dimensions\n index: 1 Got: 7 Expected: 8\n", "Got invalid dimensions"),
        (" Check the file \n by hand", "Check the file"),
        ("", ""),
    ],
)
def test_what_a_runtime_said_is_told_by_the_line_that_says_most(text: str, said: str) -> None:
    """Here and on a device alike."""
    error = RuntimeError(text)
    assert shortened(error) == device_worker.reason(error) == f"RuntimeError: {said}"


@pytest.mark.skipif(sys.platform != "linux", reason="memory as Linux counts it")
def test_memory_is_that_of_psutil() -> None:
    import psutil

    now = psutil.Process().memory_info().rss
    assert resident() == pytest.approx(now, rel=0.05)
    most = resident(peak=True)
    assert most and most >= now * 0.95


def tiny_file(folder: Path) -> Path:
    weights = np.random.default_rng(0).standard_normal((8 * 8 * 3, 2))
    write_tiny_onnx(folder / "model.onnx", weights, LABELS, PREPROCESS)
    return folder / "model.onnx"


def test_onnxruntime_is_asked_for_what_we_ship(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `edgewise.deploy` opens it, but for the threads."""
    onnxruntime = pytest.importorskip("onnxruntime")
    seen: list[Any] = []
    session = onnxruntime.InferenceSession

    def opened(path: Any, options: Any, providers: list[str]) -> Any:
        seen.append((options, providers))
        return session(path, options, providers=providers)

    monkeypatch.setattr(onnxruntime, "InferenceSession", opened)
    path = tiny_file(tmp_path)
    ONNX_RUNTIME.open(path, None)
    load_onnxruntime(onnxruntime, {"path": str(path), "shape": []}, 2)()
    (shipped, providers), (timed, also) = seen
    assert also == providers
    for name in ("graph_optimization_level", "execution_mode", "enable_cpu_mem_arena"):
        assert getattr(timed, name) == getattr(shipped, name)
    assert timed.intra_op_num_threads == 2


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_openvino_is_asked_for_what_we_ship(
    precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    openvino = pytest.importorskip("openvino")
    seen: list[dict[str, str]] = []
    compile_model = openvino.Core.compile_model

    def asked(core: Any, model: Any, device: str, settings: dict[str, str]) -> Any:
        seen.append(settings)
        return compile_model(core, model, device, settings)

    monkeypatch.setattr(openvino.Core, "compile_model", asked)
    path = tiny_file(tmp_path)
    OPENVINO.open(path, Info(path.name, "onnx", precision, LABELS, PREPROCESS))
    load_openvino(openvino, {"path": str(path), "shape": [], "precision": precision}, 2)()
    shipped, timed = seen
    assert shipped.items() <= timed.items()
    assert timed["INFERENCE_NUM_THREADS"] == "2"


def test_free_sides_of_an_onnx_file(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    write_matmul(tmp_path / "x.onnx", 8)  # (N, 8)
    seen: list[Any] = []

    class Session(onnxruntime.InferenceSession):  # type: ignore[misc]
        def run(self, outputs: Any, feed: dict[str, Any]) -> Any:
            seen.append(feed["x"].shape)
            return super().run(outputs, feed)

    runtime = SimpleNamespace(SessionOptions=onnxruntime.SessionOptions, InferenceSession=Session)
    load_onnxruntime(runtime, {"path": str(tmp_path / "x.onnx"), "shape": []}, 1)()
    load_onnxruntime(runtime, {"path": str(tmp_path / "x.onnx"), "shape": [4, 8]}, 1)()
    assert seen == [(1, 8), (4, 8)]
