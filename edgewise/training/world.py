"""One run in several processes that torchrun started: who does what, and what all agree on.

Without torchrun there is one process, and nothing here does anything.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from edgewise.errors import EdgewiseError
from edgewise.shell import command_line

# Of the others, while the first reads and caches all images; torch's own is 10 or 30 minutes.
LONGEST_WAIT = timedelta(days=1)
T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """The processes of a run.

    Attributes:
        rank: of this one; the first, 0, is the only one that writes and prints.
        size: how many there are.
        local: this one's number on its host, which is that of its GPU.
        restarts: how often torchrun has started all of them again, as a process of this host was
            lost; those of other hosts are not counted.
    """

    rank: int = 0
    size: int = 1
    local: int = 0
    restarts: int = 0

    @property
    def first(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This process's part: every `size`-th. The parts of all are all items, each once."""
        return items[self.rank :: self.size]

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """For each flag whether it is set in any process; all get the same answer."""
        return tuple(value > 0 for value in self.sum(*map(float, flags)))

    def sum(self, *values: float) -> tuple[float, ...]:
        """The sum of each value over all processes."""
        if self.size == 1:
            return values
        total = torch.tensor(values, dtype=torch.float64, device=_device())
        dist.all_reduce(total)
        return tuple(total.tolist())

    def merge(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """All rows in their order, from each process's `share` of them, (n, C) -> (N, C)."""
        if self.size == 1:
            return rows
        parts: list[Any] = [None] * self.size
        dist.all_gather_object(parts, rows)
        filled = [part for part in parts if len(part)]
        merged = np.empty((sum(map(len, parts)), filled[0].shape[1]), np.float32)
        for rank, part in enumerate(parts):
            merged[rank :: self.size] = part.reshape(-1, merged.shape[1])
        return merged

    def copy_from_first(self, tensors: Sequence[torch.Tensor]) -> None:
        """Makes the tensors of every process those of the first, in place."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def first_does(self, work: Callable[[], T]) -> T | None:
        """The first process works while the others wait; None for these.

        Raises:
            EdgewiseError: what the first raised, in every process.
        """
        if self.size == 1:
            return work()
        result: T | None = None
        error: list[EdgewiseError | None] = [None]
        if self.first:
            try:
                result = work()
            except EdgewiseError as raised:
                error = [raised]
        dist.broadcast_object_list(error, 0)
        if error[0] is not None:
            raise error[0]
        return result


def of_torchrun() -> World:
    """What torchrun's environment says of this process."""
    number = {
        name: int(os.environ.get(variable, default))
        for name, variable, default in (
            ("rank", "RANK", "0"),
            ("size", "WORLD_SIZE", "1"),
            ("local", "LOCAL_RANK", "0"),
            ("restarts", "TORCHELASTIC_RESTART_COUNT", "0"),
        )
    }
    return World(**number)


def job_of_torchrun() -> str | None:
    """What the processes that one torchrun starts have in common, again and again if it must.

    None without torchrun. Its agent, their parent, lives on where they are lost.
    """
    if "RANK" not in os.environ:
        return None
    given = os.environ.get("TORCHELASTIC_RUN_ID", "none")  # as torchrun calls what has no --rdzv-id
    return f"{platform.node()}:{os.getppid()}" if given == "none" else given


def resume_command(root: Path) -> str:
    """The command line that goes on with a run; where torchrun has started this one, through it."""
    command = command_line("train", "--resume", root)
    return command if of_torchrun().size == 1 else f"torchrun ... -m {command}"


@contextmanager
def joined(device: torch.device) -> Iterator[World]:
    """The world of this process, in touch with the others while the block lasts.

    Only the first prints. NCCL between GPUs, gloo between CPUs.
    """
    world = of_torchrun()
    if world.size == 1:
        yield world
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    store, rank, size = next(iter(rendezvous("env://")))
    store.set_timeout(LONGEST_WAIT)
    if os.environ.get("GROUP_WORLD_SIZE", "1") == "1":
        # torchrun keeps one store for all its restarts, where the processes may read where those
        # before them listened (pytorch issue 135712). Each restart gets names of its own; only
        # on one host, as several hosts may count their restarts differently.
        store = PrefixStore(f"restart-{world.restarts}", store)
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=LONGEST_WAIT)
    printed = sys.stdout, sys.stderr
    try:
        with Path(os.devnull).open("w", encoding="utf-8") as nothing:
            if not world.first:
                sys.stdout = sys.stderr = nothing
            yield world
    finally:
        sys.stdout, sys.stderr = printed
        dist.destroy_process_group()


def _device() -> torch.device:
    cuda = dist.get_backend() == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")
