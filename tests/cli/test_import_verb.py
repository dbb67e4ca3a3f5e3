"""`edgewise import`: from a file to a folder that predicts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from commandline import edgewise
from oracles import import_timm, randomise
from photos import write_photos
from safetensors.torch import save_file
from torch import Tensor

from edgewise.weights.folder import load_model


@pytest.fixture
def tensors() -> dict[str, Tensor]:
    network = import_timm().create_model("mobilenetv2_050", num_classes=3)
    randomise(network)
    return dict(network.state_dict())


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_says_what_it_did_and_what_is_next(tensors: dict[str, Tensor], here: Path) -> None:
    save_file(tensors, "birds.safetensors")
    Path("birds.txt").write_text("robin\nwren\nowl\n", encoding="utf-8")
    arguments = ("--model", "mobilenet_v2", "--width", "0.5", "--labels", "birds.txt")
    called = edgewise("import", "birds.safetensors", *arguments)
    assert (called.status, called.errors) == (0, "")
    lines = dict(line.split(maxsplit=1) for line in called.output.splitlines())
    assert lines == {
        "model": "mobilenet_v2_0.5, 3 classes",
        "origin": "timm",
        "padding": "symmetric",
        "epsilon": "1e-05",
        "input": "224 x 224, bicubic, crop 0.875, mean 123.675 116.28 103.53, "
        "std 58.395 57.12 57.375",
        "tensors": "262",
        "folder": "birds-edgewise",
        "next:": "edgewise predict birds-edgewise photo.jpg",
    }
    write_photos(here / "photos", {"x": 2})
    answered = edgewise("predict", "birds-edgewise", "photos", "--json")
    assert answered.status == 0
    assert {guess["label"] for guess in json.loads(answered.output)[0]["top"]} == {
        "robin",
        "wren",
        "owl",
    }


def test_only_a_named_folder_is_replaced(tensors: dict[str, Tensor], here: Path) -> None:
    """Files on the hub are mostly called the same."""
    save_file(tensors, "model.safetensors")
    arguments = ("import", "model.safetensors", "--model", "mobilenetv2_050")
    assert edgewise(*arguments).status == 0
    before = (here / "model-edgewise" / "model.safetensors").read_bytes()
    save_file(tensors | {"classifier.bias": tensors["classifier.bias"] + 1}, "model.safetensors")
    refused = edgewise(*arguments)
    assert refused.status == 2
    assert "model-edgewise is there already" in refused.errors and "--out" in refused.errors
    assert (here / "model-edgewise" / "model.safetensors").read_bytes() == before
    assert edgewise(*arguments, "--out", "model-edgewise").status == 0
    assert (here / "model-edgewise" / "model.safetensors").read_bytes() != before


@pytest.mark.parametrize(
    "written",
    ["\ufeffrobin\nwren\nowl\n", "robin\r\nwren\r\nowl", "\ufeffrobin\r\nwren\r\nowl\r\n"],
)
def test_labels_may_come_from_an_editor_of_windows(
    written: str, tensors: dict[str, Tensor], here: Path
) -> None:
    torch.save(tensors, "birds.pth")
    Path("birds.txt").write_bytes(written.encode())
    called = edgewise("import", "birds.pth", "--model", "mobilenetv2_050", "--labels", "birds.txt")
    assert (called.status, called.errors) == (0, "")
    assert load_model(here / "birds-edgewise").labels == ("robin", "wren", "owl")


def test_grey_weights_say_what_they_take_wherever_they_are_used(
    tensors: dict[str, Tensor], here: Path
) -> None:
    tensors["conv_stem.weight"] = tensors["conv_stem.weight"][:, :1].contiguous()
    save_file(tensors, "grey.safetensors")
    called = edgewise("import", "grey.safetensors", "--model", "mobilenet_v2", "--width", "0.5")
    assert called.status == 0
    assert "images of 1 channels" in called.output and "edgewise predict" not in called.output
    write_photos(here / "photos", {"x": 2, "y": 2})
    for verb in (
        ("predict", "grey-edgewise", "photos"),
        ("export", "grey-edgewise"),
        ("train", "photos", "--model", "grey-edgewise"),
    ):
        refused = edgewise(*verb)
        assert refused.status == 2
        assert "of 1 channels" in refused.errors and "in_chans=3" in refused.errors
    assert not Path("runs").exists()


def test_weights_that_are_not_finite_are_refused(tensors: dict[str, Tensor]) -> None:
    tensors["classifier.bias"][1] = float("nan")
    save_file(tensors, "nan.safetensors")
    called = edgewise("import", "nan.safetensors", "--model", "mobilenet_v2", "--width", "0.5")
    assert called.status == 2 and not Path("nan-edgewise").exists()
    assert "'head.classifier.bias' has values that are not finite" in called.errors


def test_tensorflows_name_sets_tensorflows_rules(here: Path) -> None:
    network = import_timm().create_model("tf_efficientnet_b0", num_classes=2)
    torch.save(network.state_dict(), "some.pth")
    called = edgewise("import", "some.pth", "--model", "tf_efficientnet_b0", "--out", "b0")
    assert called.status == 0, called.errors
    spec = load_model(here / "b0").network.spec
    assert (spec.padding, spec.norm_eps) == ("same", 1e-3)


def test_network_without_a_classifier_says_what_it_is_for(
    tensors: dict[str, Tensor], here: Path
) -> None:
    torch.save({k: v for k, v in tensors.items() if "classifier" not in k}, "trunk.pth")
    called = edgewise("import", "trunk.pth", "--model", "mobilenetv2_050")
    assert called.status == 0
    assert "no classifier" in called.output
    assert "edgewise predict" not in called.output
    assert load_model(here / "trunk-edgewise").network.spec.classes == 0
    write_photos(here / "photos", {"x": 1})
    for verb in (("predict", "trunk-edgewise", "photos"), ("export", "trunk-edgewise")):
        refused = edgewise(*verb)
        assert refused.status == 2
        assert "has no classifier, so it knows no classes. Train from it" in refused.errors


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("gone.pth", "--model", "mobilenet_v2"), "gone.pth does not exist"),
        (("page.pth", "--model", "mobilenet_v2"), "page.pth is a text page"),
        (("birds.pth", "--model", "mobilenet_v1"), "birds.pth: the weights don't fit mobilenet_v1"),
        (("birds.pth", "--model", "mobilenet_v2"), "Check the variant, the width"),
        (("birds.pth", "--model", "mobilenet_v22"), "Nearest: mobilenet_v2"),
        (("birds.pth",), "--model"),
        (("birds.pth", "--model", "mobilenetv2_050", "--source", "keras"), "is not a Keras file"),
        (("birds.pth", "--model", "mobilenetv2_050", "--labels", "gone.txt"), "gone.txt"),
        (("birds.pth", "--model", "mobilenetv2_050", "--labels", "two.txt"), "two.txt: 2 labels"),
        (("birds.pth", "--model", "mobilenetv2_050", "--labels", "gap.txt"), "gap.txt: label 1"),
        (
            ("birds.pth", "--model", "mobilenetv2_050", "--out", "full"),
            "full is not a model folder",
        ),
        (
            ("birds.pth", "--model", "mobilenetv2_050", "--out", "two.txt"),
            "two.txt is a file",
        ),
    ],
)
def test_wrong_calls_are_named_and_write_nothing(
    arguments: tuple[str, ...], says: str, tensors: dict[str, Tensor], here: Path
) -> None:
    torch.save(tensors, "birds.pth")
    Path("page.pth").write_text("<html>Not found</html>")
    Path("two.txt").write_text("robin\nwren\n")
    Path("gap.txt").write_text("robin\n\nowl\n")
    (here / "full").mkdir()
    (here / "full" / "diary.txt").write_text("dear diary")
    before = sorted(here.rglob("*"))
    called = edgewise("import", *arguments)
    assert called.status == 2
    assert says in called.errors
    assert "Traceback" not in called.errors
    assert sorted(here.rglob("*")) == before
