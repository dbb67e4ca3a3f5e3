"""A `.pte` file is the model, in ExecuTorch's own runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from commandline import edgewise
from in_format import NETWORKS, job_of, model_of, opened, pictures, right_answer, written

from edgewise.deploy.artifact import Artifact
from edgewise.deploy.formats import FORMATS
from edgewise.errors import EdgewiseError, UsageError
from edgewise.run_folder import Run

pytest.importorskip("executorch")
pytest.importorskip("torchao")
pytestmark = pytest.mark.slow  # ten seconds and more for each network
FORMAT = "executorch"


@pytest.mark.parametrize("name", NETWORKS)
def test_answers_are_those_of_pytorch(name: str, tmp_path: Path) -> None:
    job, exported = written(name, FORMAT, "fp32", tmp_path)
    pixels = pictures(job.model, 0, 3)
    answers = exported.probabilities(pixels)
    assert np.abs(answers - right_answer(job.model, pixels)).max() < 1e-4
    outside = " ".join(job.notes)
    assert ("native_layer_norm (stem.norm, stages.0.0.norm ..." in outside) == ("convnext" in name)
    assert ("bmm (stages.3.1, " in outside) == ("hybrid" in name)
    assert not outside or "convnext" in name or "hybrid" in name


@pytest.mark.parametrize("name", ["mobilenet_v4_conv_small", "convnext_atto"])
def test_int8_is_calibrated_on_the_pictures_it_is_given(name: str, tmp_path: Path) -> None:
    """Both have what XNNPACK can't do in int8: sides given back to a pooled map, layer norm."""
    job, exported = written(name, FORMAT, "int8", tmp_path)
    pixels = pictures(job.model, 0, 16)
    right = right_answer(job.model, pixels)
    distance = np.abs(exported.probabilities(pixels) - right).mean()
    weights = sum(item.numel() for item in job.model.network.parameters())
    assert weights < job.path.stat().st_size < 2 * weights + 100_000
    assert job.calibration is not None
    job.calibration[:] = 127  # the mean: a map of zeros
    FORMATS[FORMAT].write(job)
    blind = np.abs(opened(job, FORMAT).probabilities(pixels) - right).mean()
    assert distance < 0.08
    assert distance < blind / 2


def test_a_damaged_file_and_one_without_its_folder_are_refused(tmp_path: Path) -> None:
    job = job_of(model_of("mobilenet_v2"), FORMAT, "fp32", tmp_path)
    job.path.write_bytes(b"no program at all" * 100)
    with pytest.raises(UsageError, match=r"model\.pte doesn't say .* keep it in the folder"):
        FORMATS[FORMAT].readers[0].open(job.path, None)
    with pytest.raises(UsageError, match=r"model\.pte can't be read by ExecuTorch"):
        opened(job, FORMAT)


class Bessel(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.special.bessel_j0(x)


def test_an_operator_that_it_lacks_is_named_with_its_layer(tmp_path: Path) -> None:
    model = model_of("mobilenet_v2")
    model.network.stem.act = Bessel()  # type: ignore[assignment, union-attr]
    job = job_of(model, FORMAT, "fp32", tmp_path)
    with pytest.raises(EdgewiseError, match=r"lacks the operator special_bessel_j0.*stem\.act"):
        FORMATS[FORMAT].write(job)
    assert not job.path.exists()


def test_it_is_exported_and_verified_on_the_command_line(run: Run) -> None:
    done = edgewise("export", run.root, "--format", FORMAT)
    assert done.status == 0, done.errors
    assert "cpuinfo" not in done.output + done.errors
    assert Artifact.read(run.root / "export" / f"{FORMAT}-fp32").info.batch == 1
    done = edgewise("verify", run.root / "export" / f"{FORMAT}-fp32")
    assert done.status == 0, done.errors
    assert "PASS" in done.output
