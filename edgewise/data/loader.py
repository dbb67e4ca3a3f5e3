"""Batches of pixels, decoded in worker processes.

Every random draw comes from (seed, epoch, index of the image), so an epoch is the same for any
number of workers, and one that is resumed at a batch goes on with the same pictures. torch's own
random state is neither read nor moved.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from edgewise.data.augment import Augment
from edgewise.data.cache import ImageCache
from edgewise.data.containers import open_all
from edgewise.data.dataset import Sample
from edgewise.data.decode import ImageError, decode
from edgewise.errors import EdgewiseError
from edgewise.preprocess import Preprocess

Item = tuple[NDArray[np.uint8], int]


class Batches:
    """An epoch of (pixels uint8 (N, H, W, 3), labels int64 (N,)). `len` is its number of batches.

    Raises, while it is iterated:
        ImageError: a file that could be read before can't be any more; the message names it.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        self._loader = loader

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self._loader:
            if isinstance(batch, ImageError):
                raise batch
            yield batch


def training_batches(
    samples: Sequence[Sample],
    preprocess: Preprocess,
    augment: Augment,
    *,
    batch: int,
    workers: int,
    seed: int,
    epoch: int,
    start: int = 0,
    share: tuple[int, int] = (0, 1),
    cache: ImageCache | None = None,
) -> Batches:
    """One epoch of augmented images, in an order of its own.

    Each image comes once. A single image left over at the end (of several processes, less than two
    for each) joins the batch before it, since batch norm can't learn from one.

    Args:
        samples: the images to train on.
        preprocess: the size and the interpolation.
        augment: what may happen to an image.
        batch: images in a batch.
        workers: processes to decode in; 0 decodes in this one.
        seed: of the run, not negative.
        epoch: from 0.
        start: how many batches of this epoch are done already and are skipped.
        share: (rank, processes): this one gets every `processes`-th image of each batch.
        cache: the samples, decoded already.
    """
    order = np.random.default_rng((seed, epoch)).permutation(len(samples)).tolist()
    batches = [order[at : at + batch] for at in range(0, len(order), batch)]
    rank, processes = share
    if batch > 1 and len(batches) > 1 and len(batches[-1]) < 2 * processes:
        left = batches.pop()
        batches[-1] += left
    own = [indices[rank::processes] for indices in batches[start:]]
    return _batches(_Images(samples, preprocess, augment, (seed, epoch), cache), own, workers)


def evaluation_batches(
    samples: Sequence[Sample], preprocess: Preprocess, *, batch: int, workers: int
) -> Batches:
    """All images once, in the order given, preprocessed and not augmented."""
    batches = [
        list(range(at, min(at + batch, len(samples)))) for at in range(0, len(samples), batch)
    ]
    return _batches(_Images(samples, preprocess), batches, workers)


@dataclass(frozen=True)
class _Images(Dataset[Item | ImageError]):
    """Sample index -> (pixels, label), or the error: as a value, because an exception that crosses
    a worker's boundary arrives with its traceback as its message.
    """

    samples: Sequence[Sample]
    preprocess: Preprocess
    augment: Augment | None = None
    seeds: tuple[int, int] = (0, 0)
    cache: ImageCache | None = None

    def __getitem__(self, index: int) -> Item | ImageError:
        sample = self.samples[index]
        try:
            image = self.cache.image(index) if self.cache else decode(sample.path)
        except ImageError as error:
            return ImageError(
                f"{sample.path} could be read when the data was checked, but not now: {error}. "
                "Put it back as it was, or start a new run on the data as it is."
            )
        if self.augment is None:
            return self.preprocess.pixels(image), sample.label
        random = np.random.default_rng((*self.seeds, index))
        return self.augment.pixels(image, self.preprocess, random), sample.label


def _batches(images: _Images, batches: list[list[int]], workers: int) -> Batches:
    with suppress(EdgewiseError):  # who reads from it says what is wrong with it
        open_all(sample.path for sample in images.samples)
    loader: DataLoader[Any] = DataLoader(
        images,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=_collate,
        worker_init_fn=_leave_interrupts_to_parent,
        generator=torch.Generator(),  # else each epoch draws a number from torch's global one
    )
    return Batches(loader)


def _collate(items: Sequence[Item | ImageError]) -> tuple[Tensor, Tensor] | ImageError:
    pixels, labels = [], []
    for item in items:
        if isinstance(item, ImageError):
            return item
        pixels.append(item[0])
        labels.append(item[1])
    return torch.from_numpy(np.stack(pixels)), torch.tensor(labels)


def _leave_interrupts_to_parent(worker: int) -> None:
    """Ctrl-C reaches every process of the terminal; only the parent should answer it.

    SIGTERM must still end a worker: it is how Python ends those that are left when it exits.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
