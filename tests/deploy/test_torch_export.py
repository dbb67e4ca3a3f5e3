"""A `.pt2` file is the model, needs nothing of ours, and says nothing of the machine it is from."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from in_format import NETWORKS, SIZE, job_of, model_of, pictures, right_answer, written
from small import small_model

from edgewise.deploy.formats import FORMATS, Job
from edgewise.errors import EdgewiseError

FORMAT = "torch-export"
ALONE = """
import sys
import numpy, torch
module = torch.export.load(sys.argv[1]).module()
answer = module(torch.from_numpy(numpy.load(sys.argv[2]))).detach()
assert "edgewise" not in sys.modules
numpy.save(sys.argv[3], answer.numpy())
"""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name.startswith("mobilenet_v3") else [pytest.mark.slow])
        for name in NETWORKS
    ],
)
def test_answers_are_those_of_pytorch_for_any_number_of_images(name: str, tmp_path: Path) -> None:
    job, exported = written(name, FORMAT, "fp32", tmp_path)
    for count in (1, 5):
        pixels = pictures(job.model, 0, count)
        answers = exported.probabilities(pixels)
        assert np.abs(answers - right_answer(job.model, pixels)).max() < 1e-4


def test_bfloat16_is_what_pytorch_computes_in_it_in_half_the_bytes(tmp_path: Path) -> None:
    job, exported = written("mobilenet_v4_hybrid_medium", FORMAT, "bf16", tmp_path)
    pixels = pictures(job.model, 0, 8)
    answers, exact = exported.probabilities(pixels), right_answer(job.model, pixels)
    short = right_answer(job.model, pixels, torch.bfloat16)
    assert np.abs(answers - short).max() < 0.02  # the pixels were normalised in float32
    assert 1e-4 < np.abs(answers - exact).max() < 0.1
    weights = sum(item.numel() for item in job.model.network.state_dict().values())
    assert 2 * weights < job.path.stat().st_size < 3 * weights + 400_000  # the graph's text
    assert all(item.dtype != torch.bfloat16 for item in job.model.network.parameters())


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, Job]:
    """The same model written to two folders; not to be changed."""
    root = tmp_path_factory.mktemp("twice")
    model = small_model("mobilenet_v2", tuple("abcdef"), SIZE, stages=2)
    first, second = (job_of(model, FORMAT, "fp32", root / name) for name in "ab")
    for job in (first, second):
        FORMATS[FORMAT].write(job)
    return first, second


def test_the_file_needs_pytorch_alone(twice: tuple[Job, Job], tmp_path: Path) -> None:
    job, _ = twice
    pixels = pictures(job.model, 0, 3)
    np.save(tmp_path / "pixels.npy", pixels)
    paths = [str(job.path), str(tmp_path / "pixels.npy"), str(tmp_path / "answer.npy")]
    subprocess.run([sys.executable, "-c", ALONE, *paths], check=True, cwd=tmp_path)
    answer = np.load(tmp_path / "answer.npy")
    assert np.abs(answer - right_answer(job.model, pixels)).max() < 1e-4


def test_the_file_is_the_same_each_time_and_names_no_path(twice: tuple[Job, Job]) -> None:
    first, second = twice
    assert first.path.read_bytes() == second.path.read_bytes()
    root = str(Path(__file__).resolve().parents[2]).encode()
    with zipfile.ZipFile(first.path) as archive:
        parts = [archive.read(name) for name in archive.namelist()]
    assert any(b"Classifier" in part for part in parts)
    assert not any(root in part or b".py" in part for part in parts)


class Fork(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


def test_a_network_whose_way_depends_on_the_pixels_is_refused(tmp_path: Path) -> None:
    model = model_of("mobilenet_v2")
    model.network.stem.act = Fork()  # type: ignore[assignment, union-attr]
    job = job_of(model, FORMAT, "fp32", tmp_path)
    with pytest.raises(EdgewiseError, match=r"torch-export can't express this network: .*guard"):
        FORMATS[FORMAT].write(job)
    assert not job.path.exists()
