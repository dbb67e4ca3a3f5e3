"""This machine as the device: what it says, against what can be known otherwise."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from in_format import written
from multiplied import write_matmul

from edgewise.deploy.artifact import Artifact
from edgewise.deploy.formats import FORMATS
from edgewise.errors import UsageError
from edgewise.measure.store import machine_fingerprint
from edgewise.search.device import TimedFile, open_device

SIDE, PRODUCTS = 1024, 10
WEIGHTS = SIDE * SIDE * 4 * PRODUCTS  # 42 MB
INTERRUPTED = """
import sys
from pathlib import Path
from edgewise.search.device import TimedFile, open_device
file = TimedFile("a", Path(sys.argv[1]), "onnxruntime")
open_device("local").measure([file], 60, lambda what: print(what, flush=True))
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnxruntime")
    path = tmp_path_factory.mktemp("local") / "large.onnx"
    write_matmul(path, SIDE, PRODUCTS)
    return path


def plain_loop(path: Path) -> float:
    """The fastest of some calls, in milliseconds: ONNX Runtime as anybody would use it."""
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options)
    images = {"x": np.random.default_rng(1).standard_normal((1, SIDE), np.float32)}
    times = []
    for _ in range(30):
        start = time.perf_counter()
        session.run(None, images)
        times.append(time.perf_counter() - start)
    return min(times) * 1e3


def test_time_and_memory(large: Path) -> None:
    """The fastest round, for other work makes the others as slow as it likes."""
    before = plain_loop(large)
    answer = open_device("local").measure([TimedFile("a", large, "onnxruntime")], 1.0)["a"]
    known = min(before, plain_loop(large))
    assert answer.timing
    assert known / 2 < min(answer.timing.rounds_ms) < known * 2
    assert answer.timing.low_ms <= answer.timing.latency.median_ms <= answer.timing.high_ms
    if sys.platform == "linux":
        assert answer.memory_bytes and WEIGHTS < answer.memory_bytes < 4 * WEIGHTS


def test_facts() -> None:
    facts = open_device("local").facts()
    assert facts.fingerprint == machine_fingerprint()
    assert facts.cores == len(psutil.Process().cpu_affinity() or [])


def test_what_fails_has_its_reason(tmp_path: Path, large: Path) -> None:
    (tmp_path / "half.onnx").write_bytes(large.read_bytes()[:1000])
    (tmp_path / "half.tflite").write_bytes(b"no flatbuffer")
    files = [TimedFile("half", tmp_path / "half.onnx", "onnxruntime")]
    if "litert" in open_device("local").facts().runtimes:
        files.append(TimedFile("litert", tmp_path / "half.tflite", "litert"))
    answers = open_device("local").measure(files, 0.1)
    assert "INVALID_PROTOBUF" in answers["half"].failure
    assert all(answer.failure and answer.timing is None for answer in answers.values())


def test_what_is_no_call(tmp_path: Path, large: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown runtime for a device 'onnxruntim'"):
        open_device("local").measure([TimedFile("a", large, "onnxruntim")])
    with pytest.raises(UsageError, match=r"no such file: .*gone\.onnx"):
        open_device("local").measure([TimedFile("a", tmp_path / "gone.onnx", "onnxruntime")])
    (tmp_path / "model.param").write_text("")
    with pytest.raises(UsageError, match=r"no such file: .*model\.bin"):
        open_device("local").measure([TimedFile("a", tmp_path / "model.param", "ncnn")])
    with pytest.raises(UsageError, match="0 threads"):
        open_device("local", 0)
    with pytest.raises(UsageError, match=r"unknown device 'adb:x'. There are: local, ssh:"):
        open_device("adb:x")
    assert open_device("local").measure([]) == {}


def test_ctrl_c_ends_all(large: Path) -> None:
    words = [sys.executable, "-c", INTERRUPTED, str(large)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        while not process.stdout.readline().startswith(b"round 1 of"):
            assert process.poll() is None
        ours = psutil.Process(process.pid).children(recursive=True)
        assert len(ours) == 2
        process.send_signal(signal.SIGINT)
        process.wait(30)
    assert not psutil.wait_procs(ours, 10)[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "runtime"),
    [
        ("onnx-fp32", "onnxruntime"),
        ("onnx-fp32", "openvino"),
        ("openvino-fp32", "openvino"),
        ("openvino-bf16", "openvino"),
        ("ncnn-fp32", "ncnn"),
        ("ncnn-bf16", "ncnn"),
        ("litert-fp32", "litert"),
        ("executorch-fp32", "executorch"),
    ],
)
def test_every_exported_file(name: str, runtime: str, tmp_path: Path) -> None:
    """Some know the shape of their input, the others are told it."""
    format, _, precision = name.partition("-")
    if missing := FORMATS[format].missing():
        pytest.skip(f"{missing} is not installed")
    job, predictor = written("mobilenet_v3_small", format, precision, tmp_path)
    artifact = Artifact(job.path.parent, predictor.engine.info)
    answer = open_device("local").measure([TimedFile.of(artifact, "a", runtime)], 0.1)["a"]
    assert not answer.failure
    assert answer.timing and answer.timing.latency.median_ms > 0
    if sys.platform == "linux":  # the weights, at least, and no whole library
        assert answer.memory_bytes and answer.memory_bytes > 0.5 * artifact.bytes
