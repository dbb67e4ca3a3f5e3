"""Which device the work is done on."""

from __future__ import annotations

import os

import torch

from edgewise.errors import UsageError


def pick_device(name: str) -> torch.device:
    """The device of that name; for "auto", the fastest kind that is there.

    Started by torchrun, each process takes the GPU of its number on its host.

    Raises:
        UsageError: no such device, or not on this machine.
    """
    local = os.environ.get("LOCAL_RANK")
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", int(local)) if local else torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(f"cuda:{local}" if name == "cuda" and local else name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"can't use device '{name}' ({reason}). Try --device cpu.") from None
    return device


def repeat_exactly(always: bool) -> None:
    """Makes torch give the same sums for the same call in this process, as far as it is cheap.

    On a CPU all sums are the same anyway, given the same number of threads. On a GPU cuDNN's
    convolutions are made so, and with `always` every other operator: torch then raises
    RuntimeError at one that can't.
    """
    torch.backends.cudnn.deterministic = True
    if always:  # cuBLAS reads it when it is first used
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(always)
