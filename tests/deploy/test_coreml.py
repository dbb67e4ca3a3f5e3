"""Core ML: what its package says, computed here by the definitions of its operators."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mil import answer, program
from small import FAMILIES, pictures, small_model
from torch import Tensor, nn

from edgewise.deploy.artifact import making
from edgewise.deploy.coreml import write
from edgewise.deploy.export import export
from edgewise.deploy.formats import FORMATS, Job
from edgewise.deploy.predictor import open_predictor
from edgewise.deploy.pytorch import TorchPredictor
from edgewise.deploy.verification import NOT_RUN
from edgewise.deploy.verify import TOLERANCE, verify, verify_alone
from edgewise.errors import EdgewiseError, UsageError
from edgewise.layers import Conv2d
from edgewise.model import Model
from edgewise.run_folder import Run

coremltools = pytest.importorskip("coremltools")
LABELS = ("café", "犬", "cat")
FORMAT = FORMATS["coreml"]


def lite() -> Model:
    """At 33 pixels its maps have odd sides, which "SAME" pads otherwise than even ones."""
    return small_model("efficientnet_lite0", LABELS, 33)


def package_of(model: Model, folder: Path, precision: str = "fp32") -> Path:
    path = folder / FORMAT.file
    write(Job(model, precision, path))
    return path


def difference(model: Model, package: Path) -> float:
    pixels = pictures(model)
    answers = np.stack([answer(package, image) for image in pixels])
    return float(np.abs(answers - TorchPredictor(model).probabilities(pixels)).max())


@pytest.mark.parametrize("name", FAMILIES)
def test_the_package_computes_the_models_probabilities(name: str, tmp_path: Path) -> None:
    model = small_model(name, LABELS, 33 if name == "efficientnet_lite0" else 64)
    assert difference(model, package_of(model, tmp_path)) < TOLERANCE


def test_another_padding_would_be_seen(tmp_path: Path) -> None:
    model = small_model("efficientnet_lite0", LABELS, 64)
    package = package_of(model, tmp_path)
    for module in model.network.modules():
        if isinstance(module, Conv2d):
            module.same = False
    assert difference(model, package) > 100 * TOLERANCE


def test_float16_is_half_the_size_and_nearly_the_same(tmp_path: Path) -> None:
    model = lite()
    full, half = (package_of(model, tmp_path / p, p) for p in ("fp32", "fp16"))
    weights = "Data/com.apple.CoreML/weights/weight.bin"
    assert 0.45 < (half / weights).stat().st_size / (full / weights).stat().st_size < 0.6
    assert TOLERANCE < difference(model, half) < 0.05
    assert {op.op_type for op in program(half)} - {op.op_type for op in program(full)} == {"cast"}


def test_it_is_an_image_classifier_that_says_what_it_is(tmp_path: Path) -> None:
    model = lite()
    spec = coremltools.models.MLModel(
        str(package_of(model, tmp_path)), skip_model_load=True
    ).get_spec()
    (image,) = spec.description.input
    kind = image.type.imageType
    assert (image.name, kind.width, kind.height) == ("image", 33, 33)
    assert kind.colorSpace == kind.RGB
    assert [item.name for item in spec.description.output] == ["label", "label_probs"]
    classify = program(tmp_path / FORMAT.file)[-1]
    assert list(classify.inputs["classes"].val) == list(LABELS)
    said = spec.description.metadata.userDefined
    assert json.loads(said["labels"]) == list(LABELS)
    ours = json.loads(said["edgewise"])
    assert ours["preprocess"] == json.loads(json.dumps(model.preprocess.to_json()))


def test_its_weights_are_the_models(tmp_path: Path) -> None:
    """The norm is folded into the convolution before it: w * gamma / sqrt(variance + epsilon)."""
    model = lite()
    network = model.network
    operations = program(package_of(model, tmp_path))
    stem = next(op for op in operations if op.op_type == "conv").inputs["weight"].val
    conv, norm = network.stem.conv, network.stem.norm
    factor = norm.weight / (norm.running_var + norm.eps).sqrt()
    expected = (conv.weight * factor[:, None, None, None]).detach().numpy()
    assert np.abs(stem - expected).max() < 1e-6 * np.abs(expected).max()
    linear = next(op for op in operations if op.op_type == "linear").inputs["weight"].val
    assert np.array_equal(linear, network.head.classifier.weight.detach().numpy())


def test_two_classes_of_one_name_are_refused(tmp_path: Path) -> None:
    model = replace(lite(), labels=("crane", "cat", "crane"))
    with pytest.raises(EdgewiseError, match="'crane' stands for 2"):
        package_of(model, tmp_path)


class Eigenvalues(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.eigvals(x[:, :3, None] * x[:, None, :3]).real


def test_an_operator_that_it_lacks_is_named_with_its_layer(tmp_path: Path) -> None:
    model = lite()
    model.network.head.classifier = Eigenvalues()
    with pytest.raises(EdgewiseError, match=r"linalg_eigvals.*head/classifier"):
        package_of(model, tmp_path)
    assert not (tmp_path / FORMAT.file).exists()


def test_a_full_disk_leaves_the_old_package_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, folder = lite(), tmp_path / "export" / "coreml-fp32"

    def full(self: object, path: str) -> None:
        Path(path).mkdir()
        Path(path, "Manifest.json").write_text("{}")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(coremltools.models.MLModel, "save", full)
    with pytest.raises(EdgewiseError, match="No space left on device"), making(folder) as staging:
        FORMAT.write(Job(model, "fp32", staging / FORMAT.file))
    assert list(folder.parent.iterdir()) == []


def test_a_missing_package_names_its_extra(tmp_path: Path) -> None:
    absent = replace(FORMAT, packages=("no-such-package",))
    with pytest.raises(UsageError, match=r"'no-such-package'.*'edgewise\[coreml\]'"):
        absent.write(Job(lite(), "fp32", tmp_path / FORMAT.file))


def test_an_artefact_that_is_a_folder_is_checked_but_not_run(run: Run) -> None:
    artifact = export(run.root, "coreml", "fp16")
    inside = [path for path in artifact.path.rglob("*") if path.is_file()]
    assert artifact.bytes == sum(path.stat().st_size for path in inside) > 0
    manifest = (artifact.folder / "MANIFEST.sha256").read_text()
    assert all(path.relative_to(artifact.folder).as_posix() in manifest for path in inside)
    described = coremltools.utils.load_spec(str(artifact.path)).description
    (note,) = artifact.info.notes
    for feature in (*described.input, *described.output):
        assert f'"{feature.name}"' in note
    for (seen,) in (verify(run, ["coreml-fp16"]).artifacts, (verify_alone(artifact.folder),)):
        assert (seen.status, seen.golden, seen.accuracy) == (NOT_RUN, 0, None)
    for source in (artifact.folder, artifact.path):
        with pytest.raises(UsageError, match=r"model\.mlpackage can't be run on this machine"):
            open_predictor(source)
    export(run.root, "coreml", "fp16")  # over the old one
    weights = next(path for path in inside if path.name == "weight.bin")
    weights.write_bytes(weights.read_bytes()[:-1])
    (seen,) = verify(run, ["coreml-fp16"]).artifacts
    assert [text for text in seen.failures if "weight.bin was changed" in text]
