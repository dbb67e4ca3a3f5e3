"""Keras' files, read without Keras: `.keras`, `.weights.h5` and the older `.h5`.

Keras lists layers, not tensors, and its two formats do so in two ways. The older one has every
layer under its own name, in the order of the network; but of a network inside of a network it has
one list, the trainable tensors first. The newer one has no names and no common order: layers are
numbered for each class (`conv2d_3`, `batch_normalization_3`). So the files don't say where in the
network a layer is. What they keep is the order among layers of one class, and that is enough:
`convert.arrange` gives each part of our network the first layer left that has its shapes.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from edgewise.errors import UsageError, missing_package

if TYPE_CHECKING:
    import h5py

HDF5 = b"\x89HDF\r\n\x1a\n"
ARCHIVED = "model.weights.h5"  # inside of a `.keras` file, which is a zip
# What h5py, zipfile and json raise for a file that is broken.
UNREADABLE = (
    *(OSError, zipfile.BadZipFile, RuntimeError),
    *(ValueError, TypeError, LookupError, AttributeError),
)
LARGEST = 1 << 30  # bytes in one tensor; VGG-16's largest has 0.4 of this

# The older format names each tensor; this is their order in a layer, ours too.
ROLES = (
    *("kernel", "depthwise_kernel", "gamma", "variable"),
    *("bias", "beta", "moving_mean", "moving_variance"),
)
# The newer one names each layer's class.
CLASSES = (
    *("conv2d", "depthwise_conv2d", "dense"),
    *("batch_normalization", "layer_normalization", "layer_scale"),
)
INPUT_STATISTICS = ("mean", "variance", "count")


@dataclass(frozen=True)
class Layer:
    """One layer that has weights.

    Attributes:
        name: for messages.
        tensors: in PyTorch's layout and order: weight, bias, running mean, running variance.
    """

    name: str
    tensors: tuple[Tensor, ...]


@dataclass(frozen=True)
class KerasFile:
    """What a file holds.

    Attributes:
        layers: those with weights; the order holds among layers of the same shapes.
        input_size: height and width of the input, where the file says so.
        statistics: mean and variance of a `Normalization` layer on the input, of three numbers
            each, where the file has one.
    """

    layers: tuple[Layer, ...]
    input_size: int | None
    statistics: tuple[Tensor, Tensor] | None


def read_keras(path: Path) -> KerasFile:
    """Reads the weights of a Keras file; nothing in it is run.

    Raises:
        UsageError: h5py is not installed; or the file is not whole, is none of Keras', or has
            layers that no network here has.
    """
    try:
        import h5py
    except ImportError:
        raise missing_package("h5py", "keras") from None
    try:
        source, config = _unzip(path) if zipfile.is_zipfile(path) else (path, None)
        with h5py.File(source, "r") as file:
            return _read(file, config)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
    except UNREADABLE as error:
        raise UsageError(
            f"{path} is not a whole Keras file: {error}. Copy or download it again."
        ) from error


def _unzip(path: Path) -> tuple[io.BytesIO, dict[str, Any]]:
    with zipfile.ZipFile(path) as archive:
        packed = path.stat().st_size
        if sum(archive.getinfo(name).file_size for name in ("config.json", ARCHIVED)) > 20 * packed:
            raise UsageError("it unpacks to more than 20 times its size, which weights never do")
        return io.BytesIO(archive.read(ARCHIVED)), json.loads(archive.read("config.json"))


def _read(file: h5py.File, config: dict[str, Any] | None) -> KerasFile:
    import h5py

    # Links may lead to any file of the reader's.
    if link := file.visititems_links(lambda n, link: None if type(link) is h5py.HardLink else n):
        raise UsageError(f"its '{link}' is a link, as Keras writes none")
    if "model_config" in file.attrs:
        config = json.loads(file.attrs["model_config"])
    root = file.get("model_weights", file)
    rows = _config_layers(config) if config else []
    if _names(root, "layer_names"):
        layers, statistics = _older(root, [str(row["config"]["name"]) for row in rows])
    elif "layers" in root:
        layers, statistics = _newer(root["layers"])
    else:
        raise UsageError(
            "it holds no layers where Keras writes them. Load it with Keras 3 and save it again "
            "as a .keras file"
        )
    if not layers:
        raise UsageError("none of its layers has weights")
    return KerasFile(tuple(layers), _input_size(rows), statistics)


def _config_layers(config: dict[str, Any]) -> list[dict[str, Any]]:
    """The description of each layer in the order of the network, those of inner networks too."""
    rows: list[dict[str, Any]] = []
    for row in config["config"].get("layers", []):
        rows += _config_layers(row) if "layers" in row["config"] else [row]
    return rows


def _input_size(rows: list[dict[str, Any]]) -> int | None:
    for row in rows:
        shape = row["config"].get("batch_shape") or row["config"].get("batch_input_shape")
        if row["class_name"] == "InputLayer" and shape and len(shape) == 4:
            return int(shape[1]) if shape[1] and shape[1] == shape[2] else None
    return None


def _names(group: h5py.Group, name: str) -> list[str]:
    """An attribute that is a list of names; a long one is in parts, `name0`, `name1` ..."""
    found = [group.attrs[name]] if name in group.attrs else []
    while f"{name}{len(found)}" in group.attrs:
        found.append(group.attrs[f"{name}{len(found)}"])
    return [n.decode() if isinstance(n, bytes) else str(n) for part in found for n in part]


def _older(root: h5py.Group, order: list[str]) -> tuple[list[Layer], tuple[Tensor, Tensor] | None]:
    """Layers of the older format; `order` has the names of all layers, if the file has them."""
    layers, statistics = [], None
    for group in (root[name] for name in _names(root, "layer_names")):
        parts: dict[str, dict[str, Tensor]] = {}
        written = []
        for name in _names(group, "weight_names"):
            layer, _, role = name.removesuffix(":0").rpartition("/")
            role = re.sub(r"^variable_\d+$", "variable", role.lower())  # layer scale has no name
            if role not in (*ROLES, *INPUT_STATISTICS):
                raise UsageError(f"its layer '{layer}' has a '{role}', as no network here has")
            parts.setdefault(layer, {})[role] = _tensor(group[name])
            written.append((layer, role))
        if not order and _is_shuffled(written):
            raise UsageError(
                "it has weights only, of a network that was partly frozen, and so has lost the "
                "order of its layers. Save the whole model: model.save('model.keras')"
            )
        for name in sorted(parts, key=lambda layer: _place(layer, order)):
            roles = parts[name]
            if roles.keys() <= set(INPUT_STATISTICS):
                statistics = _statistics(list(roles.values()))
            else:
                layers.append(Layer(name, tuple(roles[role] for role in ROLES if role in roles)))
    return layers, statistics


def _place(layer: str, order: list[str]) -> int:
    """Where a layer is in `order`, by its own name, which may hold slashes too; -1 if nowhere."""
    words = layer.split("/")
    names = ("/".join(words[i:]) for i in range(len(words)))
    return next((order.index(name) for name in names if name in order), -1)


def _is_shuffled(written: list[tuple[str, str]]) -> bool:
    """Whether a list has the tensors of trained layers first and those of frozen ones later."""
    blocks = [layer for layer, _ in groupby(written, key=lambda tensor: tensor[0])]
    roles = [role for _, role in written]
    whole = len(blocks) == len(set(blocks))
    later = roles[roles.index("moving_mean") :] if "moving_mean" in roles else []
    return not whole and not {"kernel", "depthwise_kernel", "gamma"}.isdisjoint(later)


def _newer(group: h5py.Group) -> tuple[list[Layer], tuple[Tensor, Tensor] | None]:
    """Layers of the newer format: those of the first inner network, our own, those of others.

    The first inner network is what the others build on: the trunk under a new head, or the stem of
    Keras' ConvNeXt, whose other inner networks lie between its blocks.
    """
    own: list[Layer] = []
    inner: list[list[Layer]] = []
    statistics = None
    for name in sorted(group, key=_class_and_number):
        layer, (kind, _) = group[name], _class_and_number(name)
        if len(layer.get("layers", ())):
            found, found_statistics = _newer(layer["layers"])
            statistics = found_statistics or statistics
            inner += [found] if found else []
            continue
        variables = layer.get("vars", {})
        tensors = [_tensor(variables[key]) for key in sorted(variables, key=int)]
        if kind == "normalization" and tensors:
            statistics = _statistics(tensors)
        elif kind in CLASSES:
            own.append(Layer(name, tuple(tensors)))
        elif tensors:
            raise UsageError(f"its layer '{name}' is of a class that no network here has")
    first, others = inner[:1], inner[1:]
    return [layer for part in (*first, own, *others) for layer in part], statistics


def _class_and_number(name: str) -> tuple[str, int]:
    """`conv2d_12` -> ("conv2d", 12); the first of a class has no number."""
    match = re.fullmatch(r"(.*?)(?:_(\d+))?", name)
    assert match is not None
    return match[1], int(match[2] or 0)


def _tensor(data: h5py.Dataset) -> Tensor:
    """A tensor in PyTorch's layout: kernels (k, k, I, O) -> (O, I, k, k), dense (I, O) -> (O, I).

    A depthwise kernel, (k, k, C, 1) in Keras, comes out as (1, C, k, k), which holds the numbers of
    our (C, 1, k, k) in their order; ConvNeXt's is (k, k, 1, C) and comes out as ours.
    """
    if not hasattr(data, "dtype") or data.external or data.is_virtual:
        raise UsageError(f"its '{data.name}' is not a plain tensor")
    if data.dtype.kind not in "fiu" or data.nbytes > LARGEST:
        raise UsageError(f"its '{data.name}' is not a tensor of weights: {data}")
    values = torch.from_numpy(np.asarray(data, dtype=np.float32))
    if values.ndim == 4:
        return values.permute(3, 2, 0, 1)
    return values.T if values.ndim == 2 else values


def _statistics(tensors: list[Tensor]) -> tuple[Tensor, Tensor] | None:
    mean, variance = (tensor.flatten() for tensor in tensors[:2])
    return (mean, variance) if len(mean) == len(variance) == 3 else None
