"""The ONNX file against PyTorch, in ONNX Runtime; and as other tools see it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from commandline import edgewise
from onnx import TensorProto
from photos import picture
from small import small_model

from edgewise.deploy import onnx as onnx_module
from edgewise.deploy.artifact import GOLDEN, MAIN
from edgewise.deploy.export import _write_pixels
from edgewise.deploy.formats import Job
from edgewise.deploy.golden import write_golden
from edgewise.deploy.onnx import to_onnx, write
from edgewise.deploy.predictor import open_predictor
from edgewise.deploy.verify import TOLERANCE
from edgewise.errors import EdgewiseError
from edgewise.model import Classifier, Model
from edgewise.run_folder import Run
from edgewise.weights.folder import save_model

PER_IMAGE = {"Shape", "Range", "Gather", "If", "Loop", "Scan", "Where", "Pad"}


def run_onnx(path: Path, pixels: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (probabilities,) = session.run(["probabilities"], {"pixels": pixels})
    return np.asarray(probabilities)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "mobilenet_v2",
        "mobilenet_v3_small",
        "mobilenet_v4_conv_small",
        "mobilenet_v4_hybrid_medium",
        "efficientnet_b0",
        "efficientnet_lite0",
        "efficientnet_v2_b0",
        "convnext_atto",
        "convnext_v2_atto",
        "resnet50",
    ],
)
def test_every_kind_of_network_gives_pytorchs_answers(name: str, tmp_path: Path) -> None:
    model = small_model(name, tuple("abcde"), size=48)
    path = tmp_path / "model.onnx"
    write(Job(model, "fp32", path))
    pixels = np.stack([np.asarray(picture(seed, 48, 48)) for seed in range(5)])
    with torch.inference_mode():
        expected = Classifier(model).eval()(torch.from_numpy(pixels)).numpy()
    assert np.ptp(expected, axis=0).max() > 0.1  # the answers are of the pictures
    for count in (1, 2, 5):
        assert np.abs(run_onnx(path, pixels[:count]) - expected[:count]).max() < TOLERANCE
    operators = {node.op_type for node in onnx.load(path).graph.node}
    assert not operators & PER_IMAGE, "padding and shapes are fixed at the export"


def test_a_model_that_was_changed_is_traced_anew(tmp_path: Path) -> None:
    """The graph made last is remembered: of these weights, this size and these labels only."""
    model = small_model("mobilenet_v3_small", tuple("abc"), size=32, stages=1)
    path = tmp_path / "model.onnx"
    pixels = np.array(picture(0, 32, 32))[None]
    seen = []
    for _ in range(2):
        write(Job(model, "fp32", path))
        with torch.inference_mode():
            expected = Classifier(model).eval()(torch.from_numpy(pixels)).numpy()
        assert np.abs(run_onnx(path, pixels) - expected).max() < TOLERANCE
        seen.append(path.read_bytes())
        with torch.no_grad():
            model.network.head.classifier.bias[0] += 1
    assert seen[0] != seen[1]
    larger = replace(model, preprocess=replace(model.preprocess, size=40))
    for other in (larger, replace(larger, labels=tuple("xyz"))):
        write(Job(other, "fp32", path))
        proto = onnx.load(path)
        assert proto.graph.input[0].type.tensor_type.shape.dim[1].dim_value == 40
        labels = {entry.key: entry.value for entry in proto.metadata_props}["labels"]
        assert json.loads(labels) == list(other.labels)


def test_batch_norm_is_folded_by_a_torch_that_does_it_only_when_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As torch 2.6 does."""
    export = torch.onnx.export

    def as_in_2_6(*arguments: Any, optimize: bool = False, **settings: Any) -> Any:
        return export(*arguments, optimize=optimize, **settings)

    monkeypatch.setattr(torch.onnx, "export", as_in_2_6)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1, bias=False), torch.nn.BatchNorm2d(4))
    proto = to_onnx(module.eval(), (torch.zeros(1, 3, 8, 8),), "pixels", "values")
    assert [node.op_type for node in proto.graph.node] == ["Conv"]


def test_an_onnxscript_that_is_too_old_for_torch_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def without(*_: Any, **__: Any) -> None:
        raise ModuleNotFoundError("No module named 'onnxscript._framework_apis.torch_2_11'")

    monkeypatch.setattr(torch.onnx, "export", without)
    with pytest.raises(EdgewiseError, match=r"torch_2_11.*pip install --upgrade onnxscript"):
        to_onnx(torch.nn.Identity(), (torch.zeros(1),), "pixels", "values")


def test_what_is_too_large_for_onnx_is_exported_in_other_formats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A protobuf of 2 GB can't be written; convnext_v2_huge has 2.6."""
    model = small_model("mobilenet_v3_small", ("a", "b"), size=33, stages=1)
    save_model(model, tmp_path / "model")
    monkeypatch.setattr(onnx_module, "LARGEST", 1000)
    options = ("--format", "onnx,openvino,tensorrt,torch-export", "--output", tmp_path / "out")
    said = edgewise("export", tmp_path / "model", *options)
    assert said.status == 1
    for format in ("onnx", "openvino", "tensorrt"):
        assert re.search(rf"failed: {format}-fp32: \S+ has 0\.0 GB of weights", said.errors)
    assert "Export it with --format torch-export" in said.errors
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["torch-export-fp32"]


def test_what_other_tools_see(exported: Run) -> None:
    file = onnx.load(exported.exports / MAIN / "model.onnx")
    onnx.checker.check_model(file, full_check=True)
    (pixels,), (probabilities,) = file.graph.input, file.graph.output
    sizes = [dim.dim_param or dim.dim_value for dim in pixels.type.tensor_type.shape.dim]
    assert (pixels.name, pixels.type.tensor_type.elem_type) == ("pixels", TensorProto.UINT8)
    assert sizes == ["N", 33, 33, 3]
    assert probabilities.name == "probabilities"
    metadata = {entry.key: json.loads(entry.value) for entry in file.metadata_props}
    assert metadata["labels"] == ["café", "cat", "犬"]
    assert metadata["edgewise"]["labels"] == metadata["labels"]
    assert metadata["edgewise"]["preprocess"] == {
        "size": 33, "crop": 0.9, "interpolation": "bicubic", "colour": "RGB",
        "mean": [127.0] * 3, "std": [64.0] * 3,
    }  # fmt: skip


def test_pixels_become_planes_while_they_are_bytes(exported: Run) -> None:
    """Floats of (N, H, W, 3) took ONNX Runtime 1.4 ms, the rest of MobileNetV3-Small 1.9."""
    graph = onnx.load(exported.exports / MAIN / "model.onnx").graph
    takers = [node.op_type for node in graph.node if "pixels" in node.input]
    assert takers == ["Transpose"]


def test_same_model_same_bytes_and_nothing_of_this_machine(
    run: Run, tracing: Callable[[Model], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second export, in another folder, gives the files of the first; and is quiet."""
    monkeypatch.setattr(onnx_module, "_trace", tracing)  # not as it was traced for other tests
    monkeypatch.setattr(onnx_module, "_LAST", {})
    folder = run.exports / MAIN
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    shutil.rmtree(folder)
    said = edgewise("export", run.root, "--format", "onnx")
    assert said.status == 0, said.errors
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    files = {"model.onnx", "artifact.json", "preprocess.json", "labels.txt", "golden.npz"}
    assert set(before) == {*files, "predict.py", "MANIFEST.sha256"}
    assert said.errors == "exporting onnx-fp32\n"
    header, line, note = said.output.splitlines()
    assert header.split() == (
        ["FORMAT", "PRECISION", "SIZE", "ACCURACY", "95", "%", "AGREES", "MEDIAN", "P90", "STATUS"]
    )
    assert line.split()[:2] == ["onnx", "fp32"] and line.endswith("passed")
    assert note.startswith("the model in PyTorch: ")
    assert {path.name for path in run.exports.iterdir()} == {MAIN}
    source = str(Path(torch.__file__).parents[1]).encode()
    assert source not in before["model.onnx"]
    assert b"def forward" not in before["model.onnx"] and b".py" not in before["model.onnx"]


def test_golden_inputs_are_validation_images_then_noise(exported: Run) -> None:
    from edgewise.data.dataset import read_dataset
    from edgewise.data.decode import decode
    from edgewise.weights.folder import load_model

    model = load_model(exported.model)
    images = [sample.path for sample in read_dataset(exported).splits["val"]]
    real = {model.preprocess.pixels(decode(path)).tobytes() for path in images}
    with np.load(exported.exports / MAIN / "golden.npz") as golden:
        pixels, probabilities = golden["pixels"], golden["probabilities"]
    assert 0 < len(real) < 16  # so that there is noise as well
    assert pixels.shape == (16, 33, 33, 3) and probabilities.shape == (16, 3)
    assert {image.tobytes() for image in pixels[: len(real)]} == real
    assert np.allclose(probabilities.sum(1), 1, atol=1e-6)
    assert (
        np.abs(run_onnx(exported.exports / MAIN / "model.onnx", pixels) - probabilities).max()
        < 1e-5
    )


@pytest.mark.parametrize("name", ["savez", "savez_compressed"])
def test_a_numpy_that_takes_every_keyword_for_an_array_writes_only_the_arrays(
    name: str, exported: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before NumPy 2.2 `allow_pickle` became one more of them."""
    save = getattr(np, name)

    def as_before(file: Any, **arrays: Any) -> None:
        assert all(isinstance(array, np.ndarray) for array in arrays.values()), list(arrays)
        save(file, **arrays)

    monkeypatch.setattr(np, name, as_before)
    path = tmp_path / GOLDEN
    if name == "savez":
        _write_pixels(exported.root, None, [], path)
    else:
        write_golden(open_predictor(exported.model), None, [], path)
    with np.load(path) as arrays:
        assert set(arrays) == {"savez": {"calibration"}}.get(name, {"pixels", "probabilities"})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["RUN", "--format", "onx"], ["unknown format 'onx'", "onnx"]),
        (["RUN", "--precision", "int7"], ["unknown precision 'int7'", "int8"]),
        (["RUN/checkpoints"], ["no such file or folder", "checkpoints"]),
        (["RUN/recipe.json"], ["recipe.json is a file", "model folder"]),
        (["mobilnet_v2"], ["unknown model 'mobilnet_v2'", "mobilenet_v2"]),
    ],
)
def test_a_wrong_call_says_what_is_wrong(
    arguments: list[str], words: list[str], exported: Run
) -> None:
    said = edgewise("export", *(word.replace("RUN", str(exported.root)) for word in arguments))
    assert said.status == 2
    assert all(word in said.errors for word in words), said.errors
    assert "Traceback" not in said.errors
