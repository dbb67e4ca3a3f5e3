"""Which device the work is done on."""

from __future__ import annotations

import os

import torch

from edgewise.errors import UsageError
from edgewise.training.world import of_torchrun


def pick_device(name: str, option: str = "--device") -> torch.device:
    """The device of that name; for "auto", the fastest kind that is there.

    Of several processes that torchrun started, each takes the GPU of its number on its host,
    whichever is named: a run's recipe names that of the first.

    Args:
        name: as torch has it, or "auto".
        option: of the command line, by which another can be named.

    Raises:
        UsageError: no such device, or not on this machine.
    """
    if name == "auto":
        if not torch.cuda.is_available():
            return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
        name = "cuda"
    world = of_torchrun()
    if world.size > 1 and name.partition(":")[0] == "cuda":
        name = f"cuda:{world.local}"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"can't use device '{name}' ({reason}). Try {option} cpu.") from None
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
    # New tensors are not filled first: that cost 6 to 16 % of a step, and nothing reads them unset.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
