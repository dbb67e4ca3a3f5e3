"""Checkpoints: all that a stopped run needs to go on as if it had not been stopped.

The newest two are kept, `last.safetensors` and `previous.safetensors`, and where a run may go back
after a divergence `kept.safetensors`, the end of the kept epoch. Each is one safetensors file whose
header holds everything but the tensors' bytes:

    format   number of this format
    state    JSON; a tensor is {"$tensor": its name in the file, "$stride": [...]}, a tuple is
             {"$tuple": [...]} and a dict with other keys than text {"$items": [[key, value], ...]}
    sha256   of the state and of each tensor's name, type, shape and bytes
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from edgewise.errors import EdgewiseError
from edgewise.files import remove_halves, write_atomic
from edgewise.run_folder import Run

FORMAT = 1
NEW, LAST, PREVIOUS, KEPT = (f"{n}.safetensors" for n in ("new", "last", "previous", "kept"))
OLDEST = ("last.pt", "previous.pt")  # pickles, before there was a format number


def save_checkpoint(run: Run, state: dict[str, Any], kept: bool = False) -> None:
    """Writes `state` as `last.safetensors`; the one that was there becomes `previous.safetensors`.

    Args:
        run: where to.
        state: tensors, None, booleans, numbers and text in lists, tuples and dicts.
        kept: write it as `kept.safetensors` too, and before the others: a kill between the two
            must not leave a run that goes on behind its kept epoch without having it.

    Raises:
        EdgewiseError: it can't be written; the others are as they were.
    """
    data = _pack(state)
    folder = run.checkpoints
    for name in (KEPT, NEW) if kept else (NEW,):
        remove_halves(folder / name)
        write_atomic(folder / name, lambda file: file.write(data))
    # The new one is whole on the disk before either old one is touched. A kill between the two
    # renames leaves only the previous one, which is the newest finished one then.
    try:
        if (folder / LAST).exists():
            (folder / LAST).replace(folder / PREVIOUS)
        (folder / NEW).replace(folder / LAST)
    except OSError as error:
        raise EdgewiseError(f"can't rename in {folder}: {error.strerror or error}") from error


def load_checkpoint(run: Run) -> tuple[dict[str, Any] | None, str]:
    """The newest state that can be read, and a sentence on what was wrong with the newer one.

    The state is None if none was saved yet. Its tensors are on the CPU.

    Raises:
        EdgewiseError: there are checkpoints, but none can be read, or they are of another format.
    """
    problems = []
    for path in (run.checkpoints / LAST, run.checkpoints / PREVIOUS):
        if not path.exists():
            continue
        try:
            state = _unpack(path)
        except ValueError as error:
            problems.append(str(error))
            continue
        return state, f"{problems[0]}; going on from {path}, the one before." if problems else ""
    if problems:
        raise EdgewiseError(
            f"{' and '.join(problems)}. Restore one of them, or train again under another --name."
        )
    for name in OLDEST:
        if (run.checkpoints / name).exists():
            raise _of_another_format(run.checkpoints / name, "0")
    return None, ""


def load_kept(run: Run) -> dict[str, Any] | None:
    """The state at the end of the kept epoch; None if none was saved.

    Raises:
        EdgewiseError: it can't be read, or is of another format.
    """
    path = run.checkpoints / KEPT
    if not path.exists():
        return None
    try:
        return _unpack(path)
    except ValueError as error:
        raise EdgewiseError(f"{error}. Restore it, or train again under another --name.") from None


def _pack(state: dict[str, Any]) -> bytes:
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_plain(state, "", tensors))
    header = {"format": str(FORMAT), "state": text, "sha256": _digest(text, tensors)}
    return safetensors.torch.save(tensors, header)


def _unpack(path: Path) -> dict[str, Any]:
    """The inverse of `_pack`. ValueError says what is wrong with the file."""
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            number = header["format"]
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, KeyError) as error:
        raise ValueError(f"{path} is cut off, or no checkpoint ({error})") from error
    if number != str(FORMAT):
        raise _of_another_format(path, number)
    text = header.get("state", "")
    if _digest(text, tensors) != header.get("sha256"):
        raise ValueError(f"{path} was changed: its SHA-256 is not that of when it was written")
    state: dict[str, Any] = json.loads(text, object_hook=lambda value: _as_it_was(value, tensors))
    return state


def _plain(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """`value` as JSON has it; its tensors go into `tensors`, named by their place."""
    if isinstance(value, Tensor):
        tensors[name] = value.detach().cpu().contiguous()
        # Not the file's own order: a fused optimiser goes through weights and their averages as
        # they lie in memory, and weights are channels_last.
        return {"$tensor": name, "$stride": value.stride()}
    if isinstance(value, dict):
        inner = {key: _plain(item, f"{name}/{key}", tensors) for key, item in value.items()}
        return inner if all(isinstance(key, str) for key in inner) else {"$items": [*inner.items()]}
    if isinstance(value, list | tuple):
        items = [_plain(item, f"{name}/{i}", tensors) for i, item in enumerate(value)]
        return {"$tuple": items} if isinstance(value, tuple) else items
    return value


def _as_it_was(value: dict[str, Any], tensors: dict[str, Tensor]) -> Any:
    if "$tensor" in value:
        stored = tensors[value["$tensor"]]
        empty = torch.empty_strided(stored.shape, value["$stride"], dtype=stored.dtype)
        return empty.copy_(stored)
    if "$tuple" in value:
        return tuple(value["$tuple"])
    if "$items" in value:
        return dict(value["$items"])
    return value


def _digest(text: str, tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _of_another_format(path: Path, number: str) -> EdgewiseError:
    return EdgewiseError(
        f"{path} has format {number} of checkpoints, and this edgewise reads format {FORMAT}. Go "
        "on with the edgewise that wrote it (environment.json says which), or train again under "
        "another --name; the model kept so far is in model/ and of use to all."
    )
