"""Who answers: the fastest right runtime, measured once for a file, a machine and the versions."""

from __future__ import annotations

import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from commandline import edgewise
from not_installed import READS_ONNX, not_installed
from numpy.typing import NDArray

from edgewise.deploy import fastest
from edgewise.deploy.artifact import INFO, MAIN, MAIN_INT8, Info, making
from edgewise.deploy.fastest import open_fastest
from edgewise.deploy.predictor import Way, open_predictor, verified_artifact, ways
from edgewise.deploy.verify import verify
from edgewise.errors import UsageError
from edgewise.files import sha256_file, write_json
from edgewise.measure.store import OK, WRONG, Store
from edgewise.preprocess import Preprocess
from edgewise.run_folder import Run
from edgewise.weights.folder import load_model, save_model

PIXELS = np.random.default_rng(1).integers(0, 256, (3, 33, 33, 3), dtype=np.uint8)


class Sleeper:
    """Answers one half and one half, `off` from it, after `seconds`."""

    labels = ("a", "b")
    preprocess = Preprocess(8, 1.0, "bilinear", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))

    def __init__(self, runtime: str, seconds: float, off: float = 0.0) -> None:
        self.runtime, self.seconds, self.off = runtime, seconds, off

    def probabilities(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        time.sleep(self.seconds)
        return np.full((len(pixels), 2), 0.5 + self.off, np.float32)


class Made:
    """Ways with what was opened of them."""

    def __init__(self) -> None:
        self.opened: list[str] = []
        self.ways = {
            "sure": self.way(Sleeper("sure 1", 0.02)),
            "quick": self.way(Sleeper("quick 1", 0.001)),
            "wrong": self.way(Sleeper("wrong 1", 0.0, off=0.01)),
        }

    def way(self, sleeper: Sleeper, version: str = "1") -> Way:
        def open_it() -> Sleeper:
            self.opened.append(sleeper.runtime)
            return sleeper

        return Way(version, open_it)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    made = Made()
    monkeypatch.setattr(fastest, "SECONDS", 0.1)  # they differ by more than a machine's noise
    monkeypatch.setattr(fastest, "ways", lambda source: made.ways)
    return made


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"a graph")
    return path


def test_the_fastest_right_one_answers_and_only_it_is_opened_again(
    made: Made, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path / "bench.sqlite")
    assert open_fastest(file, store).runtime == "quick 1"
    said = capsys.readouterr().err
    assert "measured on this machine, once: sure" in said and "wrong" not in said
    status = {row.runtime: row.status for row in store.rows()}
    assert status == {"sure": OK, "quick": OK, "wrong": WRONG}
    made.opened.clear()
    assert open_fastest(file, store).runtime == "quick 1"
    assert made.opened == ["quick 1"]
    assert capsys.readouterr().err == ""


def test_another_way_to_write_the_path_is_no_other_file(
    made: Made,
    file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store = Store(tmp_path / "bench.sqlite")
    open_fastest(file, store)
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    made.opened.clear()
    copy = shutil.copy(file, tmp_path / "copy.onnx")
    for source in (file.name, f"./{file.name}", copy):
        assert open_fastest(source, store).runtime == "quick 1"
    assert set(made.opened) == {"quick 1"} and capsys.readouterr().err == ""


@pytest.mark.parametrize("change", ["version", "file", "runtime"])
def test_it_is_measured_again_when_something_changed(
    change: str, made: Made, file: Path, tmp_path: Path
) -> None:
    store = Store(tmp_path / "bench.sqlite")
    open_fastest(file, store)
    if change == "version":
        made.ways["quick"] = made.way(Sleeper("quick 2", 0.06), "2")
    elif change == "file":
        file.write_bytes(b"another graph")
        made.ways["quick"] = made.way(Sleeper("quick 2", 0.06))
    else:
        made.ways["quickest"] = made.way(Sleeper("quickest 1", 0.0))
    expected = "quickest 1" if change == "runtime" else "sure 1"
    assert open_fastest(file, store).runtime == expected


def test_int8_is_called_so_and_kernels_may_round_it_otherwise(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fastest, "SECONDS", 0.05)
    made.ways["far"] = made.way(Sleeper("far 1", 0.0, off=0.1))
    folder, store = tmp_path / "onnx-int8", Store(tmp_path / "bench.sqlite")
    with making(folder) as staging:
        Info("model.onnx", "onnx", "int8", ("a", "b"), Sleeper.preprocess).write(staging)
        (staging / "model.onnx").write_bytes(b"a graph")
    open_fastest(folder, store)
    rows = {row.runtime: row for row in store.rows()}
    assert {row.precision for row in rows.values()} == {"int8"}
    assert rows["wrong"].status == OK  # off by 0.01: only in float32 is that too much
    assert rows["far"].status == WRONG
    open_fastest(folder / "model.onnx", store)
    assert {row.precision for row in store.rows()} == {"int8"}


@pytest.mark.parametrize("broken", ["not a store", "no folder", "not to be read"])
def test_it_answers_where_nothing_can_be_kept(
    broken: str, made: Made, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    if broken == "not a store":
        cache.mkdir()
        (cache / "bench.sqlite").write_text("hello")
    elif broken == "no folder":
        cache.write_text("a file where the folder should be")
    else:
        cache = tmp_path / ("x" * 300)  # no file system takes it, and root may read everything else
    monkeypatch.setenv("EDGEWISE_CACHE", str(cache))
    assert open_fastest(file).runtime == "quick 1"


def test_a_runtime_that_can_not_read_it_is_passed_over(
    made: Made, file: Path, tmp_path: Path
) -> None:
    def refuse() -> Sleeper:
        raise UsageError("an operator is missing")

    made.ways["broken"] = Way("1", refuse)
    store = Store(tmp_path / "bench.sqlite")
    assert open_fastest(file, store).runtime == "quick 1"
    assert {row.runtime: row.reason for row in store.rows()}["broken"] == "an operator is missing"


def test_a_runtime_that_is_installed_but_broken_is_passed_over(
    exported: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its library is gone, or a DLL of another build is in its way."""
    folder, store = exported.exports / MAIN, Store(tmp_path / "bench.sqlite")
    if "openvino" not in ways(folder):
        pytest.skip("needs: pip install 'edgewise[openvino]'")
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert open_fastest(folder, store).runtime.startswith("onnxruntime ")
    words = "openvino is installed but can't be loaded (ModuleNotFoundError: "
    assert {row.runtime: row.reason for row in store.rows()}["openvino"].startswith(words)
    said = edgewise("predict", folder, "--runtime", "openvino", exported.root.parents[1])
    assert said.status == 1 and words in said.errors and "Install it again." in said.errors


def test_every_runtime_gives_the_models_answer(exported: Run) -> None:
    path = exported.exports / MAIN / "model.onnx"
    expected = open_predictor(exported.root).probabilities(PIXELS)
    for name in ways(path):
        predictor = open_predictor(path, name)
        assert predictor.runtime.startswith(f"{name} ")
        assert np.abs(predictor.probabilities(PIXELS) - expected).max() < 1e-5
        assert predictor.preprocess == open_predictor(exported.root).preprocess
    assert "onnxruntime" in ways(path)


def test_a_run_is_answered_by_its_file_only_while_that_is_verified(run: Run) -> None:
    assert list(ways(run.root)) == ["torch"]
    assert verify(run).passed
    assert list(ways(run.root)) == ["torch", *ways(run.exports / MAIN / "model.onnx")]
    told = run.verification.read_text()
    for damaged in ("{}", "not JSON", "[1]"):
        run.verification.write_text(damaged)
        assert list(ways(run.root)) == ["torch"]
    run.verification.write_text(told)
    weights = bytearray(run.weights.read_bytes())
    weights[-1] ^= 1
    run.weights.write_bytes(bytes(weights))
    assert list(ways(run.root)) == ["torch"]


def test_a_run_is_answered_by_pytorch_where_nothing_can_read_its_verified_file(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert verify(run).passed
    with monkeypatch.context() as patch:
        not_installed(patch, *READS_ONNX)
        assert list(ways(run.root)) == ["torch"]
        assert open_predictor(run.root, "torch").runtime.startswith("torch ")
        assert open_fastest(run.root).runtime.startswith("torch ")
        with pytest.raises(UsageError, match="needs the package 'onnxruntime'"):
            ways(run.exports / MAIN)  # the file was asked for itself
    (run.exports / MAIN / INFO).write_text("{")
    assert verified_artifact(run)
    assert list(ways(run.root)) == ["torch"]


def test_a_run_that_learned_int8_is_answered_by_its_int8_file(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model(run.model)
    save_model(replace(model, int8_ranges={"stem.conv": (0.0, 1.0)}), run.model)
    int8 = shutil.copytree(run.exports / MAIN, run.exports / MAIN_INT8) / "model.onnx"
    seen = {"sha256": sha256_file(int8), "status": "passed"}
    both = [
        {"name": name, "file": f"export/{name}/model.onnx", **seen} for name in (MAIN, MAIN_INT8)
    ]
    for artifacts, file in ((both[:1], None), (both, int8)):
        write_json(
            run.verification, {"model_sha256": sha256_file(run.weights), "artifacts": artifacts}
        )
        assert verified_artifact(run) == file
    info = Info.read(int8.parent)
    replace(info, precision="int8").write(int8.parent)
    monkeypatch.setattr(fastest, "SECONDS", 0.01)
    open_fastest(run.root, store := Store(tmp_path / "bench.sqlite"))
    assert {row.precision for row in store.rows()} == {"int8"}


def test_a_runtime_that_is_not_for_it(exported: Run) -> None:
    with pytest.raises(UsageError, match="can be run by torch here, not by tflite"):
        open_predictor(exported.root, "tflite")
    said = edgewise("predict", exported.root, "x.jpg", "--runtime", "tflite")
    assert said.status == 2 and "not by tflite" in said.errors
