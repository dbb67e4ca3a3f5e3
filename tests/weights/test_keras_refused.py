"""Files that look like Keras' and can't be imported: each says why."""

from __future__ import annotations

import builtins
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras_oracle import (
    FORMATS,
    import_keras,
    make,
    pixels,
    save,
)

from edgewise.errors import UsageError
from edgewise.weights.importing import import_weights

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:keras")


def test_another_network_is_refused(tmp_path: Path) -> None:
    images = pixels(64)
    path = save(make("MobileNetV2", images, alpha=0.35), tmp_path, "keras")
    for model, width in (("mobilenet_v2", 0.5), ("mobilenet_v2", 1), ("mobilenet_v1", 0.35)):
        with pytest.raises(UsageError, match=r"weights\.keras: the weights don't fit mobilenet_v"):
            import_weights(path, model, width=width)
    with pytest.raises(UsageError, match="another network than resnet50 here"):
        import_weights(path, "resnet50")
    keras = import_keras()
    other = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.SeparableConv2D(4, 3)])
    for format in FORMATS:
        with pytest.raises(UsageError, match=r"separable_conv2d.* no network here has"):
            import_weights(save(other, tmp_path, format), "mobilenet_v2")


def test_files_that_are_not_whole_are_refused(tmp_path: Path) -> None:
    images = pixels(64)
    network = make("MobileNetV2", images, alpha=0.35, classes=2)
    for format in FORMATS:
        path = save(network, tmp_path, format)
        data = path.read_bytes()
        for part in (0.001, 0.5, 0.99):
            path.write_bytes(data[: int(len(data) * part)])
            with pytest.raises(UsageError, match=f"weights.{format.split('.')[-1]}.* is no"):
                import_weights(path, "mobilenet_v2", width=0.35)


def test_descriptions_that_are_no_networks_are_refused(tmp_path: Path) -> None:
    path = save(make("MobileNetV2", pixels(64), alpha=0.35), tmp_path, "keras")
    with zipfile.ZipFile(path) as archive:
        weights = archive.read("model.weights.h5")
    for description in ("", "[3]", '{"config": {"layers": [3]}}'):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("config.json", description)
            archive.writestr("model.weights.h5", weights)
        with pytest.raises(UsageError, match="is not a whole Keras file"):
            import_weights(path, "mobilenet_v2", width=0.35)


def test_archive_that_unpacks_to_far_more_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", json.dumps({"config": {}}))
        archive.writestr("model.weights.h5", bytes(50_000_000))
    with pytest.raises(UsageError, match="unpacks to more than 20 times its size"):
        import_weights(tmp_path / "bomb.keras", "mobilenet_v2")


def test_tensors_from_other_files_are_refused(tmp_path: Path) -> None:
    """HDF5 can point at any file of the reader's."""
    import h5py

    path = save(make("MobileNetV2", pixels(64), alpha=0.35), tmp_path, "weights.h5")
    (tmp_path / "secret").write_bytes(bytes(4 * 16 * 3 * 3 * 3))
    with h5py.File(path, "r+") as file:
        shape = file["layers/conv2d/vars/0"].shape
        del file["layers/conv2d/vars/0"]
        file["layers/conv2d/vars"].create_dataset(
            "0", shape, "float32", external=[(str(tmp_path / "secret"), 0, 4 * 16 * 27)]
        )
    with pytest.raises(UsageError, match="is not a plain tensor"):
        import_weights(path, "mobilenet_v2", width=0.35)
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["tensor"] = np.zeros(shape, "float32")
    with h5py.File(path, "r+") as file:
        del file["layers/conv2d/vars/0"]
        file["layers/conv2d/vars/0"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "tensor")
    with pytest.raises(UsageError, match="'layers/conv2d/vars/0' is a link"):
        import_weights(path, "mobilenet_v2", width=0.35)


def test_missing_h5py_says_how_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "some.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    real = builtins.__import__

    def missing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "h5py":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(UsageError, match=r"'h5py'.*pip install 'edgewise\[keras\]'"):
        import_weights(tmp_path / "some.h5", "mobilenet_v2")
