"""TensorRT: the graph in ONNX Runtime, and build.py with a stand-in for trtexec.

No TensorRT and no GPU here: that an engine is built of it is not tested.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import stat
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from commandline import edgewise
from int8_graphs import LABELS, SIZE
from numpy.typing import NDArray
from onnx import TensorProto
from small import pictures, small_model

from edgewise.deploy.artifact import MAIN, Artifact, changes
from edgewise.deploy.export import export
from edgewise.deploy.formats import FORMATS, Job, format_of
from edgewise.deploy.golden import read_golden
from edgewise.deploy.onnx import graph_of, to_bytes, to_onnx
from edgewise.deploy.onnx_half import in_half
from edgewise.deploy.predictor import open_predictor
from edgewise.deploy.tensorrt import write
from edgewise.deploy.verification import NOT_RUN
from edgewise.deploy.verify import verify
from edgewise.errors import EdgewiseError, UsageError
from edgewise.run_folder import Run

FILE = FORMATS["tensorrt"].file
# One for each kind of operator: ReLU6, h-swish and squeeze-excite, SiLU, attention, layer norm.
KINDS = (
    "mobilenet_v2",
    "mobilenet_v3_small",
    "efficientnet_b0",
    "mobilenet_v4_hybrid_medium",
    "convnext_v2_atto",
)


def answers(graph: onnx.ModelProto, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    (probabilities,) = session.run(["probabilities"], {"pixels": pixels})
    return np.asarray(probabilities)


def test_the_float32_graph_is_that_of_onnx(tmp_path: Path) -> None:
    model = small_model("mobilenet_v2", LABELS, SIZE)
    write(Job(model, "fp32", tmp_path / FILE))
    assert (tmp_path / FILE).read_bytes() == to_bytes(graph_of(model))


@pytest.mark.parametrize("name", KINDS)
def test_the_float16_graph_is_as_exact_as_pytorchs_float16(name: str) -> None:
    model = small_model(name, LABELS, SIZE)  # as other tests do, which saves a trace
    half = in_half(graph_of(model))
    pixels = pictures(model, 16)
    found = answers(half, pixels)
    images = model.preprocess.normalise(torch.from_numpy(pixels))
    with torch.no_grad():
        expected = model.network(images).softmax(1).numpy()
        torchs = copy.deepcopy(model.network).half()(images.half()).float().softmax(1).numpy()
    assert found.dtype == np.float32
    assert 1e-6 < np.abs(found - expected).mean() < 2 * np.abs(torchs - expected).mean()
    products = ("Conv", "Gemm", "MatMul")
    types = {tensor.name: tensor.data_type for tensor in half.graph.initializer}
    used = {
        types[name]
        for node in half.graph.node
        if node.op_type in products
        for name in node.input
        if name in types
    }
    assert used == {TensorProto.FLOAT16}
    assert [item.key for item in half.metadata_props] == ["edgewise", "labels"]


def test_a_mean_beyond_float16_is_summed_in_float32() -> None:
    """64 x 64 pixels of 100 sum to 409,600; float16 ends at 65,504."""

    class Sum(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(1, 2, 1)
            torch.nn.init.ones_(self.conv.weight)
            torch.nn.init.zeros_(self.conv.bias)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x).norm(dim=(2, 3)).mean(1)

    image = torch.full((1, 1, 64, 64), 100.0)
    graph = in_half(to_onnx(Sum().eval(), (image,), "x", "y"))
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    (norm,) = session.run(None, {"x": image.numpy()})
    assert norm == pytest.approx(6400)  # the root of 4096 * 100^2, whose sum is 40,960,000


def test_a_weight_beyond_float16_is_refused() -> None:
    module = torch.nn.Sequential(OrderedDict(classifier=torch.nn.Linear(4, 2)))
    with torch.no_grad():
        module.classifier.weight[0, 0] = 1e5
    graph = to_onnx(module.eval(), (torch.zeros(1, 4),), "x", "y")
    with pytest.raises(EdgewiseError, match=r"classifier\.weight go up to 1e\+05"):
        in_half(graph)


@pytest.fixture(scope="module")
def written(exported: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be changed; `artifact` is a copy of it."""
    return export(exported.root, "tensorrt", "fp16", tmp_path_factory.mktemp("written")).folder


@pytest.fixture
def artifact(run: Run, written: Path) -> Artifact:
    """Among those of `run`, to change at will."""
    return Artifact.read(shutil.copytree(written, run.exports / written.name))


def test_it_is_checked_but_not_run(run: Run, artifact: Artifact) -> None:
    (seen,) = verify(run, ["tensorrt-fp16"]).artifacts
    assert (seen.status, seen.golden) == (NOT_RUN, 0)
    assert artifact.bytes == artifact.path.stat().st_size
    assert "uint8 RGB (N, 33, 33, 3)" in (artifact.folder / "README.md").read_text()
    assert format_of(artifact.path).name == "tensorrt"
    assert format_of(Path("model.onnx")).name == "onnx"
    with pytest.raises(UsageError, match="can't be run on this machine"):
        open_predictor(artifact.folder)


def test_nothing_is_claimed_of_a_file_that_only_the_device_runs(
    run: Run, written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = edgewise("verify", written)
    assert said.status == 0 and "golden" not in said.output, said.errors
    assert "only its checksums were checked: nothing here runs it" in said.output
    made = {"tensorrt": written, "onnx": run.exports / MAIN}  # to save the time
    monkeypatch.setattr(
        "edgewise.deploy.export.export", lambda _source, format, *_: Artifact.read(made[format])
    )
    said = edgewise("export", run.model, "--format", "tensorrt,onnx")
    assert said.output.splitlines()[-2:] == [
        f"next: edgewise predict {made['onnx']} IMAGES",
        f"next: copy {written} to the device; there: python3 build.py",
    ]


TRTEXEC = """#!{python}
import json, sys
import numpy as np
given = dict(item.partition("=")[::2] for item in sys.argv[1:])
with open("{log}", "a") as log:
    log.write(json.dumps(sys.argv[1:]) + "\\n")
if "--saveEngine" in given:
    open(given["--saveEngine"], "w").write("engine")
    sys.exit({status})
golden = np.load("{golden}")
pixels = open(given["--loadInputs"].partition(":")[2], "rb").read()
assert pixels == golden["pixels"][:{images}].tobytes()
values = (golden["probabilities"][:{images}] + float("{wrong}")).ravel().tolist()
item = {{"name": "probabilities", "dimensions": "16x3", "values": values}}
text = json.dumps([item]).replace("NaN", "-nan")
open(given["--exportOutput"], "w").write(text)
"""


def build(
    folder: Path, tmp_path: Path, *arguments: str, wrong: float = 0.0, status: int = 0
) -> tuple[subprocess.CompletedProcess[str], list[list[str]]]:
    """What build.py says, and what it told trtexec."""
    log, tool = tmp_path / "log", tmp_path / "bin" / "trtexec"
    tool.parent.mkdir()
    log.touch()
    tool.write_text(
        TRTEXEC.format(
            python=sys.executable,
            log=log,
            golden=folder / "golden.npz",
            images=arguments[0] if arguments else 16,
            wrong=wrong,
            status=status,
        )
    )
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    said = subprocess.run(
        [sys.executable, folder / "build.py", *arguments],
        env={**os.environ, "PATH": str(tool.parent), "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    return said, [json.loads(line) for line in log.read_text().splitlines()]


def test_the_script_builds_and_checks(artifact: Artifact, tmp_path: Path) -> None:
    said, (made, ran) = build(artifact.folder, tmp_path, "8")
    assert said.returncode == 0, said.stderr
    assert "PASS" in said.stdout
    engine = artifact.folder / "model.engine"
    assert made == [
        f"--onnx={artifact.path}",
        "--stronglyTyped",
        "--minShapes=pixels:1x33x33x3",
        "--optShapes=pixels:1x33x33x3",
        "--maxShapes=pixels:8x33x33x3",
        f"--saveEngine={engine}",
    ]
    assert ran[:2] == [f"--loadEngine={engine}", "--shapes=pixels:8x33x33x3"]
    assert engine.is_file()
    assert changes(artifact.folder) == []  # it is no stranger there


def test_float32_is_not_tf32(run: Run, tmp_path: Path) -> None:
    artifact = export(run.root, "tensorrt", "fp32")
    said, (made, _) = build(artifact.folder, tmp_path, wrong=2e-4)
    assert "--noTF32" in made and "--maxShapes=pixels:16x33x33x3" in made
    assert said.returncode == 1 and "FAIL: over 1e-04" in said.stderr


def test_wrong_answers_fail(artifact: Artifact, tmp_path: Path) -> None:
    said, _ = build(artifact.folder, tmp_path, wrong=float("nan"))
    assert said.returncode == 1 and "FAIL: over 5e-02" in said.stderr


def test_a_build_that_fails_ends_there(artifact: Artifact, tmp_path: Path) -> None:
    said, calls = build(artifact.folder, tmp_path, status=3)
    assert said.returncode == 1 and "trtexec ended with 3" in said.stderr
    assert len(calls) == 1


def test_no_trtexec_is_said(artifact: Artifact) -> None:
    said = subprocess.run(
        [sys.executable, artifact.folder / "build.py"],
        env={**os.environ, "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 1 and "no trtexec: install TensorRT" in said.stderr


def test_the_script_needs_nothing_of_ours(artifact: Artifact) -> None:
    assert "edgewise" not in (artifact.folder / "build.py").read_text()
    golden = read_golden(artifact.folder / "golden.npz")
    assert golden.answers is None
