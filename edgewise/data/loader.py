"""Batches of pixels, decoded in worker processes; augmented there, or on a device afterwards.

Every random draw comes from (seed, epoch, index of the image), so an epoch is the same for any
number of workers, and one that is resumed at a batch goes on with the same pictures. torch's own
random state is neither read nor moved.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from edgewise.data.augment import Augment, Changes
from edgewise.data.cache import ImageCache
from edgewise.data.containers import open_all
from edgewise.data.dataset import Sample
from edgewise.data.decode import Encoded, ImageError, decode_bytes, quiet_pillow
from edgewise.data.device_augment import change
from edgewise.errors import EdgewiseError
from edgewise.preprocess import Preprocess

Item = tuple[NDArray[np.uint8], int, Changes | None]
Finish = Callable[[Tensor, Sequence[Changes]], Tensor]


class Batches:
    """Batches of (pixels uint8 (N, H, W, 3), labels int64 (N,)); `len` is their number.

    Raises, while it is iterated:
        ImageError: a file that could be read before can't be any more, or holds other bytes; the
            message names it.
    """

    def __init__(self, loader: DataLoader[Any], finish: Finish | None) -> None:
        """Takes what the workers make.

        Args:
            loader: of batches as `_collate` makes them.
            finish: does the changes of a batch to its pixels; None if there are none to do.
        """
        self._loader, self._finish = loader, finish

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self._loader:
            if isinstance(batch, ImageError):
                raise batch
            pixels, labels, changes = batch
            pixels = torch.as_tensor(pixels)
            yield self._finish(pixels, changes) if self._finish else pixels, torch.tensor(labels)


def worker_lost(error: RuntimeError) -> EdgewiseError | None:
    """What to say if `error` is torch's that a process which decodes has died; else None.

    torch raises it in the main thread in the midst of whatever that does.
    """
    if not str(error).startswith("DataLoader worker"):
        return None
    said = str(error).rstrip(". ")
    return EdgewiseError(f"{said}. If memory is short, use fewer --workers or a smaller --batch.")


@dataclass(frozen=True)
class View:
    """How the images of an epoch are seen: at which size, and what may happen to them."""

    preprocess: Preprocess
    augment: Augment | None


def training_batches(
    samples: Sequence[Sample],
    view: Callable[[int], View],
    *,
    batch: int,
    workers: int,
    seed: int,
    epochs: range,
    start: int = 0,
    share: tuple[int, int] = (0, 1),
    cache: ImageCache | None = None,
    device: torch.device | None = None,
) -> Batches:
    """Augmented images, epoch after epoch, each in an order of its own.

    The workers go on with the next epoch's images while what was learned in the last is evaluated.
    In an epoch each image comes once. A single image left over at its end (of several processes,
    less than two for each) joins the batch before it, since batch norm can't learn from one.

    Args:
        samples: the images to train on.
        view: of an epoch.
        batch: images in a batch.
        workers: processes to decode in; 0 decodes in this one.
        seed: of the run, not negative.
        epochs: which, from 0.
        start: how many batches of the first of them are done already and are skipped.
        share: (rank, processes): this one gets every `processes`-th image of each batch.
        cache: the samples, decoded already.
        device: where what follows an image's crop and flip is done, a batch at a time, and where
            the pixels are then; None for in the workers, on a CPU. It makes no other difference
            to the pictures than in the noise of random erasing.
    """
    rank, processes = share
    order = _Order(len(samples), batch, seed, epochs, start, rank, processes)
    images = _Images(samples, view, seed, cache, planned=device is not None)
    rule = view(epochs.start).preprocess  # its mean and deviation are those of all epochs
    finish = None if device is None else partial(_change_on, device, rule)
    return _batches(images, order, workers, finish)


def _change_on(
    device: torch.device, preprocess: Preprocess, pixels: Tensor, changes: Sequence[Changes]
) -> Tensor:
    return change(pixels.to(device), changes, preprocess)


def evaluation_batches(
    samples: Sequence[Sample], preprocess: Preprocess, *, batch: int, workers: int
) -> Batches:
    """All images once, in the order given, preprocessed and not augmented."""
    batches = [
        [(0, i) for i in range(at, min(at + batch, len(samples)))]
        for at in range(0, len(samples), batch)
    ]
    view = View(preprocess, None)
    return _batches(_Images(samples, partial(_always, view)), batches, workers)


def _always(view: View, epoch: int) -> View:
    return view


@dataclass(frozen=True)
class _Order:
    """The places of each batch: (epoch, number of the sample)."""

    samples: int
    batch: int
    seed: int
    epochs: range
    start: int
    rank: int
    processes: int

    def __len__(self) -> int:
        full, left = divmod(self.samples, self.batch)
        joins = self.batch > 1 and full > 0 and left < 2 * self.processes
        return len(self.epochs) * (full + (left > 0 and not joins)) - self.start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        start = self.start
        for epoch in self.epochs:
            for indices in self._epoch(epoch)[start:]:
                yield [(epoch, index) for index in indices[self.rank :: self.processes]]
            start = 0

    def _epoch(self, epoch: int) -> list[list[int]]:
        order = np.random.default_rng((self.seed, epoch)).permutation(self.samples).tolist()
        batches = [order[at : at + self.batch] for at in range(0, len(order), self.batch)]
        if self.batch > 1 and len(batches) > 1 and len(batches[-1]) < 2 * self.processes:
            left = batches.pop()
            batches[-1] += left
        return batches


@dataclass(frozen=True)
class _Images(Dataset[Item | ImageError]):
    """(epoch, sample) -> (pixels, label, what is still to be done to them), or the error: as a
    value, because an exception that crosses a worker's boundary arrives with its traceback as its
    message.
    """

    samples: Sequence[Sample]
    view: Callable[[int], View]
    seed: int = 0
    cache: ImageCache | None = None
    planned: bool = False  # and not done

    def __getitem__(self, place: tuple[int, int]) -> Item | ImageError:
        epoch, index = place
        sample, view = self.samples[index], self.view(epoch)
        try:
            with quiet_pillow():
                if view.augment is None:
                    image = decode_bytes(sample.read())
                    return view.preprocess.pixels(image), sample.label, None
                source = self.cache.image(index) if self.cache else Encoded(sample.read())
                random = np.random.default_rng((self.seed, epoch, index))
                if self.planned:
                    pixels, changes = view.augment.planned(source, view.preprocess, random)
                    return pixels, sample.label, changes
                return view.augment.pixels(source, view.preprocess, random), sample.label, None
        except ImageError as error:
            return ImageError(
                f"{sample.path} could be read when the data was checked, but not now: {error}. "
                "Put it back as it was, or start a new run on the data as it is."
            )


def _batches(
    images: _Images,
    batches: Iterable[list[tuple[int, int]]],
    workers: int,
    finish: Finish | None = None,
) -> Batches:
    with suppress(EdgewiseError):  # who reads from it says what is wrong with it
        open_all(sample.path for sample in images.samples)
    loader: DataLoader[Any] = DataLoader(
        images,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=_collate,
        worker_init_fn=_leave_signals_to_parent,
        generator=torch.Generator(),  # else each epoch draws a number from torch's global one
    )
    return Batches(loader, finish)


def _collate(
    items: Sequence[Item | ImageError],
) -> tuple[Tensor | NDArray[np.uint8], list[int], list[Changes | None]] | ImageError:
    pixels, labels, changes = [], [], []
    for item in items:
        if isinstance(item, ImageError):
            return item
        pixels.append(item[0])
        labels.append(item[1])
        changes.append(item[2])
    return _shared(np.stack(pixels)), labels, changes


def _shared(pixels: NDArray[np.uint8]) -> Tensor | NDArray[np.uint8]:
    """A worker's pixels in shared memory; where too little is left, a pipe must carry them.

    A tensor would be moved there anyway, but by a thread of torch's in the worker. If that finds no
    room, as in a container's 64 MB, it drops the batch and the parent waits for it for ever.
    """
    if get_worker_info() is None:
        return pixels
    try:
        return torch.from_numpy(pixels).share_memory_()  # type: ignore[no-untyped-call,no-any-return]
    except RuntimeError:
        return pixels


def _leave_signals_to_parent(worker: int) -> None:
    """What stops the work may reach each process of it, and only the parent should answer.

    Ctrl-C reaches all of a terminal; SIGTERM all of a group or a job, from `timeout`, torchrun or
    Slurm, and the parent still needs the batches that are on their way.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS, where SIGTERM ends it
        # Blocked in this thread, it is so in all that are started from it.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_when_parent_asks, daemon=True).start()


def _end_when_parent_asks() -> None:
    """SIGTERM from the parent must end a worker: Python so ends those that are left at its exit."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent.pid:
        pass
    os._exit(0)
