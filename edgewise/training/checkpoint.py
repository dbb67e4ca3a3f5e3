"""Checkpoints: all that a stopped run needs to go on as if it had not been stopped.

Two are kept, `last.pt` and `previous.pt`. They hold tensors and plain values only, and are read
with `weights_only=True`.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from edgewise.errors import EdgewiseError
from edgewise.files import write_atomic
from edgewise.run_folder import Run


def save_checkpoint(run: Run, state: dict[str, Any]) -> None:
    """Writes `state` as `last.pt`; the one that was there becomes `previous.pt`.

    Raises:
        EdgewiseError: it can't be written; both are as they were.
    """
    last, previous = _paths(run)
    # By way of memory: when a write fails, torch.save hides the reason behind an error of its own.
    data = BytesIO()
    torch.save(state, data)
    # The new one is whole on the disk before either old one is touched. A kill between the two
    # renames leaves only `previous.pt`, which is the newest finished one then.
    new = run.checkpoints / "new.pt"
    write_atomic(new, lambda file: file.write(data.getbuffer()))
    if last.exists():
        last.replace(previous)
    new.replace(last)


def load_checkpoint(run: Run) -> tuple[dict[str, Any] | None, str]:
    """The newest state that can be read, and a sentence on what was wrong with the newer one.

    The state is None if none was saved yet. Its tensors are on the CPU.

    Raises:
        EdgewiseError: there are checkpoints, but none can be read.
    """
    problems = []
    for path in _paths(run):
        if not path.exists():
            continue
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, OSError, EOFError, ValueError, KeyError, UnpicklingError):
            problems.append(f"{path} is cut off, or no checkpoint")
            continue
        return state, f"{problems[0]}; going on from {path}, the one before." if problems else ""
    if problems:
        raise EdgewiseError(
            f"{' and '.join(problems)}. Restore one of them, or train again under another --name."
        )
    return None, ""


def _paths(run: Run) -> tuple[Path, Path]:
    return run.checkpoints / "last.pt", run.checkpoints / "previous.pt"
