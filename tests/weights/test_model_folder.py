"""A model folder: what goes in comes out, and nothing that goes wrong loses or mixes models."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from edgewise.errors import EdgewiseError, UsageError
from edgewise.families import variant
from edgewise.files import MANIFEST, write_manifest
from edgewise.layers import DropPath
from edgewise.model import Model
from edgewise.network import Network, build
from edgewise.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from edgewise.weights.create import create_model
from edgewise.weights.folder import FILES, load_model, save_model

PREPROCESS = Preprocess(32, 0.875, "bicubic", IMAGENET_MEAN, IMAGENET_STD)
LABELS = ("Gänseblümchen", "蒲公英", "زنبق")


def small(name: str = "mobilenet_v3_small", width: float = 0.35, seed: int = 0) -> Model:
    torch.manual_seed(seed)
    network = build(variant(name).spec(width, classes=len(LABELS)))
    network(torch.randn(4, 3, 32, 32))  # moves the running statistics off their start
    return Model(network.eval(), PREPROCESS, LABELS)


def same(a: Model, b: Model) -> bool:
    x, y = a.network.state_dict(), b.network.state_dict()
    return x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(small(), tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize(
    "name", ["mobilenet_v1", "mobilenet_v2", "mobilenet_v3_large", "efficientnet_b0"]
)
def test_round_trip(name: str, tmp_path: Path) -> None:
    model = small(name)
    spec = replace(model.network.spec, padding="same", norm_eps=1e-5, drop_path=0.1)
    network = build(spec)
    network.load_state_dict(model.network.state_dict())
    model = Model(network.eval(), model.preprocess, model.labels)
    save_model(model, tmp_path / "a" / "модель")
    loaded = load_model(tmp_path / "a" / "модель")
    assert (loaded.network.spec, loaded.preprocess, loaded.labels) == (spec, PREPROCESS, LABELS)
    assert same(loaded, model)
    x = torch.randn(2, 3, 33, 32)
    with torch.no_grad():
        assert torch.equal(loaded.network(x), model.network(x))


def test_labels_may_hold_what_python_takes_for_a_line_end(tmp_path: Path) -> None:
    labels = ("a\u2028b", "c\x0bd", " e ")
    save_model(replace(small(), labels=labels), tmp_path / "model")
    assert load_model(str(tmp_path / "model")).labels == labels


@pytest.mark.parametrize("broken", ["two\nlines", "two\rlines", "", "not utf-8 \udcff"])
def test_label_that_is_not_a_line_is_refused(broken: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="label 1 is"):
        save_model(replace(small(), labels=("a", broken, "c")), tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_save_replaces_the_model_and_keeps_other_files(folder: Path) -> None:
    (folder / "notes.md").write_text("mine")
    new = small(seed=1)
    save_model(new, folder)
    assert same(load_model(folder), new)
    assert (folder / "notes.md").read_text() == "mine"
    assert sorted(p.name for p in folder.parent.iterdir()) == ["model"]


@pytest.mark.parametrize("part", ["whole", "stages"])
def test_a_compiled_network_is_saved_as_what_was_compiled(folder: Path, part: str) -> None:
    new = small(seed=1)
    wanted = {name: tensor.clone() for name, tensor in new.network.state_dict().items()}
    if part == "whole":
        compiled = replace(new, network=torch.compile(new.network, backend="eager"))
    else:
        new.network.stages[1].compile(backend="eager")
        new.network.stages[2] = torch.compile(new.network.stages[2], backend="eager")
        compiled = new
    save_model(compiled, folder)
    found = load_model(folder).network.state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_another_precision_is_saved_in_float32(folder: Path, dtype: torch.dtype) -> None:
    new = small(seed=1)
    new.network.to(dtype)
    save_model(new, folder)
    new.network.float()
    assert same(load_model(folder), new)


@pytest.mark.parametrize(
    ("outputs", "bias", "says"),
    [
        (3, False, "it has no tensor 'head.classifier.bias'"),
        (5, True, r"'head\.classifier\.weight' is float32 \(5, .*not float32 \(3, "),
    ],
)
def test_a_network_that_is_no_longer_its_spec_leaves_the_old_model(
    folder: Path, outputs: int, bias: bool, says: str
) -> None:
    other = small(seed=1)
    wide = other.network.head.classifier.in_features
    other.network.head.classifier = torch.nn.Linear(wide, outputs, bias=bias)
    with pytest.raises(UsageError, match=f"{says}.*Nothing was written"):
        save_model(other, folder)
    assert same(load_model(folder), small())
    assert sorted(p.name for p in folder.parent.iterdir()) == ["model"]


def swap(module: nn.Module, name: str, other: nn.Module) -> None:
    assert hasattr(module, name)
    setattr(module, name, other)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda n: swap(n.stages[2][1].expand, "act", nn.SiLU()), "expand.act' is of SiLU, not of"),
        (lambda n: swap(n.stages[2][1], "squeeze", nn.ReLU()), "squeeze' is of ReLU, not of Ide"),
        (lambda n: setattr(n.stages[2][1], "skip", False), "1' has skip=False, not True"),
        (lambda n: setattr(n.stem.norm, "eps", 1e-5), "stem.norm' has eps=1e-05, not 0.001"),
        (lambda n: setattr(n.stem.conv, "same", True), "stem.conv' has same=True, not False"),
        (lambda n: setattr(n.stem.conv, "stride", (1, 1)), "has stride=(1, 1), not (2, 2)"),
        (lambda n: n.stages[1].append(nn.ReLU()), "'stages.1' has 3 modules, not 2"),
        (
            lambda n: swap(n.stages[2], "2", n.stages[2][1]),
            "'stages.2.2.expand.conv.weight' and 'stages.2.1.expand.conv.weight' are the same",
        ),
    ],
)
def test_a_change_that_no_tensor_shows_is_refused(
    change: Callable[[Network], object], says: str, tmp_path: Path
) -> None:
    network = build(variant("mobilenet_v2").spec(0.35, classes=3))
    change(network)
    with pytest.raises(UsageError, match=f"{re.escape(says)}.*instead of changing the modules"):
        save_model(Model(network, PREPROCESS, LABELS), tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_what_training_alone_heeds_may_be_changed(folder: Path) -> None:
    new = small(seed=1).network
    for module in new.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.01
        elif isinstance(module, nn.Dropout):
            module.p = 0.7
        elif isinstance(module, DropPath):
            module.probability = 0.1
        elif isinstance(module, nn.Hardswish):
            module.inplace = False
    swap(new.head, "dropout", nn.Identity())
    swap(new, "stem", nn.SyncBatchNorm.convert_sync_batchnorm(new.stem))
    save_model(Model(new.train(), PREPROCESS, LABELS), folder)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(load_model(folder).network(x), small(seed=1).network(x))


def test_save_refuses_a_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("my own file")
    with pytest.raises(UsageError, match="not a model folder"):
        save_model(small(), tmp_path)
    assert (tmp_path / "labels.txt").read_text() == "my own file"


def test_save_refuses_a_file(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("my own file")
    with pytest.raises(UsageError, match=r"notes\.txt is a file"):
        save_model(small(), tmp_path / "notes.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    assert (tmp_path / "notes.txt").read_text() == "my own file"


@pytest.mark.parametrize("files_that_fit", range(5))
def test_full_disk_keeps_the_old_model(
    folder: Path, files_that_fit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = 0

    def fsync(descriptor: int) -> None:
        nonlocal synced
        synced += 1
        if synced > files_that_fit:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(EdgewiseError, match="No space left") as error:
            save_model(small(seed=1), folder)
    assert error.value.exit_status == 1
    assert same(load_model(folder), small())
    assert sorted(p.name for p in folder.parent.iterdir()) == ["model"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a forked process")
@pytest.mark.parametrize("rename", range(1, 11))
def test_kill_at_each_rename_leaves_a_whole_model(folder: Path, rename: int) -> None:
    """Five renames write the new files, the other five put them in place."""
    if (child := os.fork()) == 0:
        replace_file, renames = os.replace, 0

        def killed(*paths: object) -> None:
            nonlocal renames
            renames += 1
            if renames == rename:
                os._exit(9)
            replace_file(*paths)  # type: ignore[arg-type]

        os.replace = killed  # type: ignore[assignment]
        save_model(small(seed=1), folder)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert same(load_model(folder), small(seed=0 if rename <= 5 else 1))
    save_model(small(seed=2), folder)
    assert same(load_model(folder), small(seed=2))
    assert sorted(p.name for p in folder.parent.iterdir()) == ["model"]


@pytest.mark.parametrize("name", FILES)
def test_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(UsageError, match=f"has no {name}"):
        load_model(folder)


def test_a_run_names_its_model(folder: Path) -> None:
    run = folder.parent
    (run / "recipe.json").write_text("{}")
    for opened in (load_model, create_model):
        with pytest.raises(UsageError, match=f"It is a run, and its model is {folder}"):
            opened(str(run))
    (folder / "spec.json").unlink()
    with pytest.raises(UsageError, match="has no trained model yet"):
        load_model(run)


def test_missing_manifest_and_missing_folder(folder: Path) -> None:
    (folder / MANIFEST).unlink()
    with pytest.raises(UsageError, match=MANIFEST):
        load_model(folder)
    with pytest.raises(UsageError, match="no such model folder: nowhere"):
        load_model(Path("nowhere"))


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("model.safetensors", None, None),
        ("preprocess.json", b"0.875", b"0.975"),
        ("labels.txt", "蒲公英".encode(), "蒲公".encode()),
        ("spec.json", b'"dropout": 0.2', b'"dropout": 0.3'),
    ],
)
def test_changed_file_is_named(
    folder: Path, name: str, old: bytes | None, new: bytes | None
) -> None:
    data = (folder / name).read_bytes()
    if old is None or new is None:
        changed = data[:-1] + bytes([data[-1] ^ 1])  # one bit of the last tensor
    else:
        changed = data.replace(old, new)
    assert changed != data
    (folder / name).write_bytes(changed)
    with pytest.raises(UsageError, match=f"{name} was changed"):
        load_model(folder)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_the_manifest_does_not_list_is_named(folder: Path, name: str) -> None:
    (folder / "notes.md").write_text("mine")
    lines = (folder / MANIFEST).read_text().splitlines(keepends=True)
    (folder / MANIFEST).write_text(
        "".join(line for line in lines if not line.endswith(f"{name}\n"))
    )
    with pytest.raises(UsageError, match=f"{name} is not in {MANIFEST}. Copy the whole"):
        load_model(folder)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("kernel", "banana", "kernel: must be a valid integer"),
        ("kernel", 4, "kernel: must be one of 0, 1, 3"),
        ("out", -8, "out: must be greater"),
        ("act", "relu7", "not 'relu7'"),
        ("out", None, "out: is missing"),
    ],
)
def test_spec_edited_into_nonsense_names_file_and_row(
    folder: Path, key: str, value: object, says: str
) -> None:
    spec = json.loads((folder / "spec.json").read_text())
    if value is None:
        del spec["stages"][2][1][key]
    else:
        spec["stages"][2][1][key] = value
    (folder / "spec.json").write_text(json.dumps(spec))
    with pytest.raises(UsageError) as error:
        load_model(folder)
    for part in ("spec.json", "stages[2][1]", says):
        assert part in str(error.value)


def test_preprocess_edited_into_nonsense_names_the_file(folder: Path) -> None:
    path = folder / "preprocess.json"
    path.write_text(path.read_text().replace("bicubic", "banana"))
    with pytest.raises(UsageError, match=r"preprocess\.json: .*banana"):
        load_model(folder)


def test_missing_label_is_counted(folder: Path) -> None:
    (folder / "labels.txt").write_text("\n".join(LABELS[:2]) + "\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"labels\.txt: 2 labels for the 3 classes"):
        load_model(folder)


def test_tensors_of_another_network_name_the_first(folder: Path) -> None:
    spec = json.loads((folder / "spec.json").read_text())
    spec["stages"][2][0]["expand"] += 8
    (folder / "spec.json").write_text(json.dumps(spec))
    write_manifest(folder, FILES)  # so that only the tensors disagree
    with pytest.raises(UsageError, match=r"'stages\.2\.0\.expand\.conv\.weight' is float32 \("):
        load_model(folder)


def test_cut_off_tensors_are_named(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    write_manifest(folder, FILES)
    with pytest.raises(UsageError, match="not a whole safetensors file"):
        load_model(folder)
