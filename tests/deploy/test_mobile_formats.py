"""LiteRT, ExecuTorch and `torch.export` alike: how they fail, and the command line."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest
import torch
from commandline import edgewise
from in_format import job_of, model_of, opened

from edgewise.deploy import onnx
from edgewise.deploy.artifact import Artifact
from edgewise.deploy.export import export
from edgewise.deploy.formats import FORMATS, Job
from edgewise.errors import EdgewiseError, UsageError
from edgewise.run_folder import Run


@pytest.fixture(params=["litert", "executorch", "torch-export"])
def format(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    if missing := FORMATS[name].missing():
        pytest.skip(f"{missing} is not installed")
    return name


def test_a_damaged_file_and_one_without_its_folder_are_refused(format: str, tmp_path: Path) -> None:
    job = job_of(model_of("mobilenet_v2"), format, "fp32", tmp_path)
    job.path.write_bytes(b"no model at all" * 100)
    with pytest.raises(UsageError, match=r"model\.\w+ doesn't say .* keep it in the folder"):
        FORMATS[format].readers[0].open(job.path, None)
    with pytest.raises(UsageError, match=r"model\.\w+ can't be read by .* Export it again"):
        opened(job, format)


class Bessel(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.special.bessel_j0(x)


@pytest.mark.slow
@pytest.mark.parametrize("format", ["litert", "executorch"], indirect=True)
def test_an_operator_that_it_lacks_is_named_with_its_layer(format: str, tmp_path: Path) -> None:
    model = model_of("mobilenet_v2")
    model.network.stem.act = Bessel()  # type: ignore[assignment, union-attr]
    job = job_of(model, format, "fp32", tmp_path)
    with pytest.raises(EdgewiseError, match=r"lacks the operator special_bessel_j0.*stem\.act"):
        FORMATS[format].write(job)
    assert not job.path.exists()


@pytest.mark.slow
def test_it_is_exported_and_verified_on_the_command_line(format: str, run: Run) -> None:
    done = edgewise("export", run.root, "--format", format)
    assert done.status == 0, done.errors
    folder = run.root / "export" / f"{format}-fp32"
    artifact = Artifact.read(folder)
    assert artifact.info.batch == FORMATS[format].batch
    assert str(Path(__file__).parents[2]).encode() not in artifact.path.read_bytes()
    done = edgewise("verify", folder)
    assert done.status == 0, done.errors
    assert "PASS" in done.output


@pytest.mark.parametrize("name", ["litert", "executorch"])
def test_a_missing_package_is_named_with_its_extra(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(package: str) -> str:
        if package in FORMATS[name].packages:
            raise metadata.PackageNotFoundError(package)
        return real(package)

    real = metadata.version
    monkeypatch.setattr(metadata, "version", version)
    job = job_of(model_of("mobilenet_v2"), name, "fp32", tmp_path)
    package = FORMATS[name].packages[0]
    with pytest.raises(UsageError, match=rf"'{package}'.*'edgewise\[{name}\]'"):
        FORMATS[name].write(job)


def test_what_a_format_notes_is_printed_and_recorded(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def write(job: Job) -> None:
        real(job)
        job.notes.append("one operator is slow")

    real = onnx.write
    monkeypatch.setattr(onnx, "write", write)
    made = export(run.root)
    assert made.info.notes == ("one operator is slow",)
    assert "note: onnx-fp32: one operator is slow" in capsys.readouterr().err


def test_layers_to_leave_in_float_are_refused_where_they_would_be_ignored(
    exported: Run, tmp_path: Path
) -> None:
    """Without a look at what is installed: the call is wrong everywhere."""
    for format in ("litert", "executorch"):
        with pytest.raises(UsageError, match=rf"{format} can't .* \(stem\); onnx and openvino can"):
            export(exported.root, format, "int8", tmp_path, keep_float=("stem",))
        FORMATS[format].check("fp32", ("stem",))
        FORMATS[format].check("int8", ())
    FORMATS["openvino"].check("int8", ("stem",))
