"""Files of weights as they lie about: wrapped, pickled, renamed, half, or of another network."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from oracles import import_timm, import_torchvision, randomise, with_random_weights
from safetensors.torch import save_file
from torch import Tensor, nn

from edgewise.errors import UsageError
from edgewise.model import Classifier
from edgewise.weights.importing import import_weights, read_weights


def test_a_header_whose_length_looks_like_text(tmp_path: Path) -> None:
    network, tensors = small()
    save_file(tensors, tmp_path / "a.safetensors")
    data = (tmp_path / "a.safetensors").read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    length = int.from_bytes(b" <\1", "little")
    padded = length.to_bytes(8, "little") + data[8:end].ljust(length) + data[end:]
    (tmp_path / "a.safetensors").write_bytes(padded)
    model = import_weights(tmp_path / "a.safetensors", "mobilenetv2_050")
    images = torch.randn(1, 1, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(model.network(images), network(images))


def small() -> tuple[nn.Module, dict[str, Tensor]]:
    network = import_timm().create_model("mobilenetv2_050", num_classes=7, in_chans=1)
    randomise(network)
    return network.eval(), network.state_dict()


WRAPPED: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "bare": lambda tensors: tensors,
    "state_dict": lambda tensors: {"epoch": 3, "state_dict": tensors},
    "model": lambda tensors: {"model": tensors, "optimizer": {"state": {}}},
    "prefix": lambda tensors: {f"module.{k}": v for k, v in tensors.items()},
    "both": lambda tensors: {"model": {f"module._orig_mod.{k}": v for k, v in tensors.items()}},
    "averaged": lambda tensors: {
        "state_dict": {k: v * 2 for k, v in tensors.items()},
        "state_dict_ema": tensors,
    },
}


@pytest.mark.parametrize("how", WRAPPED)
def test_wrappers_classes_and_channels_are_understood(how: str, tmp_path: Path) -> None:
    network, tensors = small()
    torch.save(WRAPPED[how](tensors), tmp_path / "last.pt")
    imported = read_weights(tmp_path / "last.pt", "mobilenetv2_050")
    spec = imported.model.network.spec
    assert (spec.name, spec.in_chans, spec.classes) == ("mobilenet_v2_0.5", 1, 7)
    assert imported.model.labels == tuple(f"class {i}" for i in range(7))
    assert any("averaged" in note for note in imported.notes) == (how == "averaged")
    images = torch.randn(1, 1, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(imported.model.network(images), network(images))


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_a_sigmoids_one_output_becomes_two_classes(
    library: str, suffix: str, tmp_path: Path
) -> None:
    """A softmax of one logit is 100 % for every image."""
    makers = {
        "timm": partial(import_timm().create_model, "mobilenetv2_100"),
        "torchvision": import_torchvision().models.mobilenet_v2,
    }
    network = with_random_weights(partial(makers[library], num_classes=1))
    for norm in (module for module in network.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.momentum = 1.0
    network(torch.randn(8, 3, 64, 64))  # so that its answers are not all alike
    network.eval()
    (torch.save if suffix == "pth" else save_file)(network.state_dict(), tmp_path / f"a.{suffix}")
    imported = read_weights(tmp_path / f"a.{suffix}", "mobilenet_v2", labels=("cat", "dog"))
    model = imported.model
    assert model.network.spec.classes == len(model.labels) == 2
    assert "the second label is what a high output stands for" in imported.notes[0]
    pixels = torch.randint(0, 256, (4, 224, 224, 3), dtype=torch.uint8)
    with torch.inference_mode():
        answers = Classifier(model)(pixels)
        expected = torch.sigmoid(network(model.preprocess.normalise(pixels)))
    assert float(expected.max() - expected.min()) > 1e-3
    torch.testing.assert_close(answers, torch.cat([1 - expected, expected], 1))


BESIDE: dict[str, tuple[Callable[[dict[str, Tensor]], Any], str]] = {
    "averaged": (
        lambda tensors: {"n_averaged": torch.tensor(3)} | below("module.", tensors),
        "'n_averaged'.",
    ),
    "averaged beside the last": (
        lambda tensors: {
            "model": {k: v * 2 for k, v in tensors.items()},
            "model_ema": {"n_averaged": torch.tensor(3)} | below("module.", tensors),
        },
        "'n_averaged'.",
    ),
    "Lightning": (
        lambda tensors: {
            "state_dict": below("model.", tensors)
            | {f"criterion.{i}.weight": torch.ones(7) for i in range(5)}
        },
        "'criterion.0.weight', 'criterion.1.weight', 'criterion.2.weight' and 2 more.",
    ),
    "a trunk of one's own": (lambda tensors: below("net.backbone.", tensors), ""),
}


def below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": value for name, value in tensors.items()}


@pytest.mark.parametrize("how", BESIDE)
def test_what_is_beside_the_network_is_left_out_and_named(how: str, tmp_path: Path) -> None:
    network, tensors = small()
    wrap, left_out = BESIDE[how]
    torch.save(wrap(tensors), tmp_path / "last.pt")
    imported = read_weights(tmp_path / "last.pt", "mobilenetv2_050")
    notes = [note for note in imported.notes if "Left out" in note]
    assert [note.partition(": ")[2] for note in notes] == ([left_out] if left_out else [])
    images = torch.randn(1, 1, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(imported.model.network(images), network(images))


def test_two_networks_in_one_file_are_refused(tmp_path: Path) -> None:
    _, tensors = small()
    both = below("student.", tensors) | below("teacher.", tensors)
    torch.save(both, tmp_path / "both.pth")
    for source in (None, "timm"):
        with pytest.raises(UsageError, match=r"one network: .*'student\.' and with 'teacher\.'"):
            import_weights(tmp_path / "both.pth", "mobilenetv2_050", source)


@pytest.mark.parametrize("source", [None, "timm"])
@pytest.mark.parametrize("prefix", ["backbone.", "trunk._orig_mod."])
def test_a_prefix_of_ones_own_in_a_file_without_order(
    prefix: str, source: str | None, tmp_path: Path
) -> None:
    network, tensors = small()
    save_file(below(prefix, tensors), tmp_path / "own.safetensors")
    imported = read_weights(tmp_path / "own.safetensors", "mobilenetv2_050", source)
    images = torch.randn(1, 1, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(imported.model.network(images), network(images))


def test_labels_of_ones_own_and_no_classifier(tmp_path: Path) -> None:
    _, tensors = small()
    torch.save(tensors, tmp_path / "last.pt")
    names = ["ant", "bee", "cat", "dog", "elk", "fox", "gnu"]
    model = import_weights(tmp_path / "last.pt", "mobilenet_v2", width=0.5, labels=names)
    assert model.labels == tuple(names)
    torch.save({k: v for k, v in tensors.items() if "classifier" not in k}, tmp_path / "last.pt")
    assert import_weights(tmp_path / "last.pt", "mobilenetv2_050").network.spec.classes == 0


class Malicious:
    """A pickle of it makes a file when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("how", ["torch.save", "torch.save of old", "pickle", "protocol 0"])
def test_a_pickle_is_never_executed(how: str, tmp_path: Path) -> None:
    mark, path = tmp_path / "it ran", tmp_path / "weights.pth"
    content = {"state_dict": {"conv_stem.weight": torch.zeros(1)}, "more": Malicious(mark)}
    if how.startswith("torch"):
        torch.save(content, path, _use_new_zipfile_serialization=how == "torch.save")
    else:
        protocol = 0 if how == "protocol 0" else 4
        path.write_bytes(pickle.dumps(Malicious(mark), protocol=protocol))
    with pytest.raises(UsageError, match=r"weights\.pth asks for code .*mkdir.* was not done"):
        import_weights(path, "mobilenet_v2")
    assert not mark.exists()
    if how == "torch.save":  # the same file does harm elsewhere
        torch.load(path, weights_only=False)
        assert mark.exists()


def test_whole_pickled_models_are_refused_with_the_mend(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "model.pt")
    with pytest.raises(UsageError, match=r"Linear.*torch\.save\(model\.state_dict\(\)"):
        import_weights(tmp_path / "model.pt", "mobilenet_v2")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"\n<!DOCTYPE html><html>Not found</html>", "is a text page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "is a text page"),
        (b"hello world, these are no weights", "is no file of weights"),
        (bytes(range(256)) * 20, "is no file of weights"),
        (b"PK\x03\x04" + bytes(500), "is no file of weights"),
        (b"\x89HDF\r\n\x1a\n" + bytes(500), "is not a whole Keras file"),
        (b"\x10\x00\x00\x00\x00\x00\x00\x00{" + bytes(50), "is not a whole safetensors file"),
    ],
)
def test_other_files_are_refused(content: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(UsageError, match=rf"weights\.pth {says}"):
        import_weights(tmp_path / "weights.pth", "mobilenet_v2")


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_half_a_file_is_refused(suffix: str, tmp_path: Path) -> None:
    _, tensors = small()
    path = tmp_path / f"weights.{suffix}"
    (torch.save if suffix == "pth" else save_file)(tensors, path)
    data = path.read_bytes()
    for part in (0.01, 0.5, 0.999):
        path.write_bytes(data[: int(len(data) * part)])
        with pytest.raises(UsageError, match=rf"weights\.{suffix} is no"):
            import_weights(path, "mobilenetv2_050")


def test_another_network_is_refused(tmp_path: Path) -> None:
    _, tensors = small()
    torch.save(tensors, tmp_path / "a.pth")
    for model, width in (("mobilenet_v2", 1.0), ("mobilenet_v2", 0.35), ("efficientnet_b0", 1.0)):
        with pytest.raises(UsageError, match=rf"a\.pth: the weights don't fit {model}"):
            import_weights(tmp_path / "a.pth", model, width=width)
    with pytest.raises(UsageError, match="unknown model 'mobilenet_v22'"):
        import_weights(tmp_path / "a.pth", "mobilenet_v22")
    with pytest.raises(UsageError, match="does not exist"):
        import_weights(tmp_path / "b.pth", "mobilenet_v2")


def test_names_of_nobody_ask_for_the_source(tmp_path: Path) -> None:
    network, tensors = small()
    renamed = {f"layer-{i}/{k.rpartition('.')[2]}": v for i, (k, v) in enumerate(tensors.items())}
    renamed = {k: v for k, v in renamed.items() if not k.endswith("num_batches_tracked")}
    torch.save(renamed, tmp_path / "a.pth")
    with pytest.raises(UsageError, match=r"'layer-0/weight', .*--source"):
        import_weights(tmp_path / "a.pth", "mobilenetv2_050")
    model = import_weights(tmp_path / "a.pth", "mobilenetv2_050", "timm")
    images = torch.randn(1, 1, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(model.network(images), network(images))
    for content in ([torch.zeros(1)], {"epoch": 1}, {}):
        torch.save(content, tmp_path / "a.pth")
        with pytest.raises(UsageError, match="holds no tensors by name"):
            import_weights(tmp_path / "a.pth", "mobilenet_v2")
