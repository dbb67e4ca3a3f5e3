"""ncnn's own answers against PyTorch's, each in a process of its own: a crash fails one test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ncnn_answers import FORMAT, LABELS, both, info_of, written
from small import FAMILIES, small_model
from torch import Tensor, nn

from edgewise.deploy.artifact import making
from edgewise.deploy.export import export
from edgewise.deploy.formats import Job
from edgewise.deploy.isolated import isolated
from edgewise.deploy.ncnn import open_engine, to_ncnn
from edgewise.deploy.verification import PASSED
from edgewise.deploy.verify import TOLERANCE, verify
from edgewise.errors import EdgewiseError, UsageError
from edgewise.run_folder import Run

pytest.importorskip("ncnn")
pytest.importorskip("pnnx")


@pytest.mark.parametrize("name", FAMILIES)
def test_its_probabilities_are_those_of_pytorch(name: str) -> None:
    """At 33 pixels the maps have odd sides, on which pnnx once folded "SAME" padding wrongly."""
    answers, expected = isolated(both, name, (33, 64))
    assert answers.shape == (2, 4, len(LABELS)) and answers.dtype == np.float32
    assert np.abs(answers - expected).max() < TOLERANCE
    assert expected.std(1).max(1).min() > 0.01  # unlike pictures have unlike answers


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_short_numbers_give_nearly_the_same(precision: str) -> None:
    answers, expected = isolated(both, "mobilenet_v2", (64,), precision)
    assert 1e-6 < np.abs(answers - expected).max() < 0.1


def test_float16_weights_take_half_the_bytes(tmp_path: Path) -> None:
    model = small_model("mobilenet_v2", LABELS, 33)
    sizes = []
    for precision in ("fp32", "fp16"):
        (tmp_path / precision).mkdir()
        path = written(model, tmp_path / precision, precision)
        sizes.append(path.with_suffix(".bin").stat().st_size)
    assert 0.45 < sizes[1] / sizes[0] < 0.6


class Bessel(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.special.i0(x[:, :3])


def test_an_operator_that_it_lacks_is_named() -> None:
    model = small_model("mobilenet_v2", LABELS, 33)
    model.network.head.classifier = Bessel()
    with pytest.raises(EdgewiseError, match=r"no operator \S*i0 \(layer "):
        to_ncnn(model.network, (1, 3, 33, 33))


def cut_off(path: Path) -> None:
    weights = path.with_suffix(".bin")
    weights.write_bytes(weights.read_bytes()[:1000])


def lose_weights(path: Path) -> None:
    path.with_suffix(".bin").unlink()


def other_kind(path: Path) -> None:
    path.write_text("7767517\n1 1\nNoSuchLayer a 0 1 in0\n")


@pytest.mark.parametrize("damage", [cut_off, lose_weights, other_kind])
def test_a_damaged_file_is_refused(damage: object, tmp_path: Path) -> None:
    model = small_model("mobilenet_v2", LABELS, 33)
    path = written(model, tmp_path)
    assert callable(damage)
    damage(path)
    with pytest.raises(UsageError, match=r"model\.ncnn\.param can't be read by ncnn"):
        open_engine(path, info_of(model, "fp32"))


def test_a_file_out_of_its_folder_has_no_labels(tmp_path: Path) -> None:
    path = written(small_model("mobilenet_v2", LABELS, 33), tmp_path)
    with pytest.raises(UsageError, match="doesn't say what its labels"):
        open_engine(path, None)


def test_a_missing_package_names_its_extra(tmp_path: Path) -> None:
    absent = replace(FORMAT, packages=("no-such-package",))
    job = Job(small_model("mobilenet_v2", LABELS, 33), "fp32", tmp_path / FORMAT.file)
    with pytest.raises(UsageError, match=r"'no-such-package'.*'edgewise\[ncnn\]'"):
        absent.write(job)
    (reader,) = FORMAT.readers
    with pytest.raises(UsageError, match=r"'no-such-package'.*'edgewise\[ncnn\]'"):
        replace(reader, package="no-such-package").open(job.path, None)


def test_a_failed_conversion_leaves_nothing(tmp_path: Path) -> None:
    model, folder = small_model("mobilenet_v2", LABELS, 33), tmp_path / "export" / "ncnn-fp32"
    model.network.head.classifier = Bessel()
    with pytest.raises(EdgewiseError, match="no operator"), making(folder) as staging:
        FORMAT.write(Job(model, "fp32", staging / FORMAT.file))
    assert list(folder.parent.iterdir()) == []


def test_a_run_is_exported_and_verified(run: Run) -> None:
    artifact = export(run.root, "ncnn", "fp32")
    param, weights = (artifact.folder / f"model.ncnn.{end}" for end in ("param", "bin"))
    assert artifact.bytes == param.stat().st_size + weights.stat().st_size
    (seen,) = verify(run, ["ncnn-fp32"]).artifacts
    assert (seen.status, seen.failures, seen.golden, seen.agreement) == (PASSED, (), 16, 1.0)
    assert seen.largest_difference is not None and seen.largest_difference < 1e-5
    assert seen.runtime.startswith("ncnn 1.")
    data = bytearray(weights.read_bytes())
    data[-40:] = bytes(40)  # of the classifier
    weights.write_bytes(data)
    (seen,) = verify(run, ["ncnn-fp32"]).artifacts
    assert any("model.ncnn.bin was changed" in text for text in seen.failures)
    assert any("golden inputs" in text for text in seen.failures)
