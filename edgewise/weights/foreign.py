"""Opening somebody else's file of weights, of any format.

A file is known by its content and not by its suffix. Nothing in it is run: pickles are read with
`weights_only=True`, which refuses all but tensors and plain values.
"""

from __future__ import annotations

import pickletools
import re
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from edgewise.errors import UsageError
from edgewise.weights.keras import ARCHIVED, HDF5, KerasFile, read_keras
from edgewise.weights.order import in_registered_order
from edgewise.weights.origins import RESNET, recognise, roots

# The keys under which training scripts keep a state dict; averaged weights are the better ones.
WRAPPERS = ("state_dict_ema", "model_ema", "ema", "state_dict", "model_state_dict", "model")


@dataclass(frozen=True)
class WeightsFile:
    """Tensors of a file, and how they go into a network.

    Attributes:
        tensors: by name; or, of Keras, the layers.
        source: whose they look like; None if nobody's.
        notes: for the person.
    """

    tensors: Mapping[str, Tensor] | KerasFile
    source: str | None
    notes: tuple[str, ...] = ()


def open_weights(path: Path) -> WeightsFile:
    """Reads a file by its content."""
    if not path.is_file():
        state = "is a folder" if path.is_dir() else "does not exist"
        raise UsageError(f"{path} {state}. Give a file of weights.")
    with path.open("rb") as file:
        start = file.read(512)
    if start.startswith(HDF5):
        return WeightsFile(read_keras(path), "keras")
    if start.startswith(b"PK") and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if ARCHIVED in archive.namelist():
                return WeightsFile(read_keras(path), "keras")
    if start[8:9] == b"{":  # after the length of the header, eight bytes that may look like text
        try:
            tensors = safetensors.torch.load_file(path)
        except SafetensorError as error:
            raise UsageError(
                f"{path} is not a whole safetensors file: {error}. Download it again."
            ) from error
        return _state_dict(tensors, path, safe=True)
    if not start.strip() or start.lstrip()[:1] == b"<" or start.startswith(b"version https://git"):
        kind = "empty" if not start.strip() else "a text page and not weights"
        raise UsageError(f"{path} is {kind}: the download went wrong. Download the file itself.")
    return _state_dict(_unpickle(path), path, safe=False)


def _unpickle(path: Path) -> Any:
    """What `torch.save` wrote; refuses all code.

    Raises:
        UsageError: it holds code, or is not whole, or was not written by `torch.save`.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises nearly everything on bytes that are not its own
        refused = re.search(r"GLOBAL ([\w.]+)|(TorchScript) archive", str(error))
    if code := (refused[1] or refused[2]) if refused else _first_global(path):
        raise UsageError(
            f"{path} asks for code to be run ({code}), which was not done: it could do anything. "
            "Get a .safetensors file or a plain state dict. If you trust whoever made this one, "
            "write its tensors alone: torch.save(model.state_dict(), 'weights.pth')."
        )
    raise UsageError(
        f"{path} is no file of weights, or not a whole one. Download it again; safetensors, "
        "PyTorch's and Keras' files can be imported."
    )


def _first_global(path: Path) -> str | None:
    """The first class or function that a plain pickle names; reads it without running it."""
    words: list[str] = []
    with path.open("rb") as file, suppress(Exception):  # of bytes that are not a pickle
        for operation, argument, _ in pickletools.genops(file):
            if operation.name in ("GLOBAL", "INST"):
                return str(argument).replace(" ", ".")
            if operation.name == "STACK_GLOBAL":
                return ".".join(words[-2:])
            if isinstance(argument, str):
                words.append(argument)
    return None


def _state_dict(content: Any, path: Path, safe: bool) -> WeightsFile:
    """The tensors in what a file holds: out of wrappers, without prefixes."""
    notes: list[str] = []
    while isinstance(content, dict):
        key = next((k for k in WRAPPERS if isinstance(content.get(k), dict)), None)
        if key is None:
            break
        content = content[key]
        if "ema" in key:
            notes.append("It holds averaged (EMA) weights too; these were taken.")
    tensors = (
        {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
        if isinstance(content, dict)
        else {}
    )
    if not tensors:
        raise UsageError(f"{path} holds no tensors by name: it is not a state dict.")
    tensors, beside = _network(tensors, path)
    if beside:
        named = ", ".join(f"'{key}'" for key in beside[:3])
        more = f" and {len(beside) - 3} more" if len(beside) > 3 else ""
        notes.append(f"Left out, as no part of the network: {named}{more}.")
    source = recognise(tensors, safe)
    if source == "facebookresearch":
        tensors = dict(sorted(tensors.items(), key=lambda item: _stage(item[0])))
    elif source in ("timm", "torchvision"):
        tensors = in_registered_order(tensors)
    if RESNET in tensors:
        other = "torchvision" if safe else "timm"
        notes.append(f"timm and torchvision have the same names; if it is {other}'s, say --source.")
    return WeightsFile(tensors, source, tuple(notes))


def _network(tensors: dict[str, Tensor], path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of the one network under their own names, and the names of all others.

    DataParallel, torch.compile, Lightning and averaging put a prefix before the names, and the last
    two keep more beside the network: a loss's weights, a count.
    """
    prefixes = roots(tensors)
    if len(prefixes) > 1:
        raise UsageError(
            f"{path} holds more than one network: their names begin with "
            f"{' and with '.join(repr(prefix) for prefix in prefixes)}. Save one of them alone: "
            "torch.save(model.state_dict(), 'weights.pth')."
        )
    prefix = prefixes[0] if prefixes else ""
    inside = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    return inside, [key for key in tensors if not key.startswith(prefix)]


def _stage(key: str) -> tuple[int, bool]:
    """Where a tensor of the authors' ConvNeXt belongs: they list all downsampling first."""
    part, _, rest = key.partition(".")
    if part not in ("downsample_layers", "stages"):
        return 4, False  # norm and head
    return int(rest.partition(".")[0]), part == "stages"
