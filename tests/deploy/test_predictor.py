"""One answer from every source; and what is said to those that are no model."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from commandline import edgewise
from onnx import TensorProto, helper

from edgewise.deploy.artifact import MAIN
from edgewise.deploy.predictor import open_predictor
from edgewise.errors import UsageError
from edgewise.run_folder import Run


def foreign(path: Path) -> None:
    """A good ONNX file that somebody else made."""
    pixels = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["N", 3])
    output = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 3])
    node = helper.make_node("Softmax", ["pixels"], ["probabilities"])
    graph = helper.make_graph([node], "graph", [pixels], [output])
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)


def relabelled(source: Path, path: Path, entry: str) -> None:
    """Our file with other metadata."""
    file = onnx.load(source)
    helper.set_model_props(file, {"edgewise": entry})
    onnx.save(file, path)


def test_run_folder_model_folder_and_file_agree(exported: Run) -> None:
    sources = (exported.root, exported.model, exported.exports / MAIN / "model.onnx")
    of_run, of_folder, of_file = (open_predictor(source) for source in sources)
    pixels = np.random.default_rng(1).integers(0, 256, (3, 33, 33, 3), dtype=np.uint8)
    expected = of_run.probabilities(pixels)
    assert expected.dtype == np.float32 and expected.shape == (3, 3)
    assert np.array_equal(of_folder.probabilities(pixels), expected)
    assert np.abs(of_file.probabilities(pixels) - expected).max() < 1e-5
    assert of_run.labels == of_folder.labels == of_file.labels
    assert of_run.preprocess == of_folder.preprocess == of_file.preprocess
    assert of_file.runtime.startswith("onnxruntime ")


def test_a_file_of_another_maker(tmp_path: Path) -> None:
    foreign(tmp_path / "theirs.onnx")
    with pytest.raises(UsageError, match=r"theirs\.onnx was not exported by edgewise.*'edgewise'"):
        open_predictor(tmp_path / "theirs.onnx")


@pytest.mark.parametrize("kept", [0, 100, 0.5, 0.999])
def test_a_file_that_is_cut_off(kept: float, exported: Run, tmp_path: Path) -> None:
    data = (exported.exports / MAIN / "model.onnx").read_bytes()
    path = tmp_path / "part.onnx"
    path.write_bytes(data[: int(kept if kept >= 1 else kept * len(data))])
    with pytest.raises(UsageError, match=r"part\.onnx can't be read as ONNX"):
        open_predictor(path)


def test_a_text_file(tmp_path: Path) -> None:
    path = tmp_path / "text.onnx"
    path.write_text("hello\n")
    said = edgewise("predict", path, "cat.jpg")
    assert said.status == 2
    assert said.errors.startswith(f"Error: {path} can't be read as ONNX")
    assert said.output == "" and "Traceback" not in said.errors


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("not JSON", "damaged"),
        ("{}", "damaged"),
        ('{"labels": ["a", "b"], "preprocess": PREPROCESS}', "2 labels.* don't fit"),
    ],
)
def test_damaged_metadata(entry: str, words: str, exported: Run, tmp_path: Path) -> None:
    entry = entry.replace("PREPROCESS", (exported.model / "preprocess.json").read_text())
    relabelled(exported.exports / MAIN / "model.onnx", tmp_path / "bad.onnx", entry)
    with pytest.raises(UsageError, match=rf"bad\.onnx: .*{words}.*Export it again"):
        open_predictor(tmp_path / "bad.onnx")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("efficientnet_lite9", "unknown model 'efficientnet_lite9'.*efficientnet_lite"),
        ("runs/nowhere", "no such file or folder: runs/nowhere"),
        ("nowhere.onnx", "no such file or folder: nowhere.onnx"),
        ("cat.jpg", r"cat\.jpg is not an exported model.*\.onnx"),
        ("empty", "empty is not a whole model folder"),
        ("convnext_v2_atto", "forbid commercial use"),
    ],
)
def test_what_is_no_model(
    source: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cat.jpg").write_bytes(b"")
    Path("empty").mkdir()
    with pytest.raises(UsageError, match=words):
        open_predictor(source)


def test_a_run_without_a_model(run: Run) -> None:
    shutil.rmtree(run.model)
    with pytest.raises(UsageError, match=r"no trained model yet.*--resume"):
        open_predictor(run.root)
