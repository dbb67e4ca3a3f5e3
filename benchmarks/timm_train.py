"""timm's training script from the parts of its library: the wheel doesn't bring `train.py` itself.

The parts, their order within a step and their defaults are the script's. Left out is what one
process on one device doesn't do, and what only takes time: logs, and files of checkpoints.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgewise.libraries import import_library

import_library("timm")  # in a way that its torchvision loads too
from timm.data import create_dataset, create_loader  # noqa: E402
from timm.loss import LabelSmoothingCrossEntropy  # noqa: E402
from timm.optim import create_optimizer_v2  # noqa: E402
from timm.scheduler import create_scheduler_v2  # noqa: E402
from timm.utils import AverageMeter, ModelEmaV3  # noqa: E402

SMOOTHING = 0.1
WEIGHT_DECAY = 0.05
EMA_DECAY = 0.9998  # reached only late: a short run has a lower one, `--model-ema-warmup`


def loader(
    root: Path,
    split: str,
    batch: int,
    workers: int,
    device: torch.device,
    **options: Any,
) -> Any:
    """Batches of the pictures in `root/SPLIT/CLASS/`, normalised, on `device`.

    Args:
        root: the folder of a data set.
        split: "train" for random views.
        batch: images in a batch.
        workers: processes that decode; they live on from epoch to epoch.
        device: where the batches go.
        options: of timm's `create_loader`.
    """
    return create_loader(
        create_dataset("", root=str(root), split=split),
        batch_size=batch,
        is_training=split == "train",
        num_workers=workers,
        device=device,
        **options,
    )


class Trainer:
    """The network that learns, in train mode, and `ema`, the average that is evaluated."""

    def __init__(
        self,
        network: nn.Module,
        lr: float,
        epochs: int,
        steps_per_epoch: int,
        channels_last: bool,
    ) -> None:
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self.layout = layout
        self.network = network.train().to(memory_format=layout)  # type: ignore[call-overload]
        self.optimizer = create_optimizer_v2(network, opt="adamw", lr=lr, weight_decay=WEIGHT_DECAY)
        self.ema = ModelEmaV3(network, decay=EMA_DECAY, use_warmup=True)
        self.schedule, _ = create_scheduler_v2(
            self.optimizer,
            sched="cosine",
            num_epochs=epochs,
            warmup_epochs=max(1, epochs // 10),
            step_on_epochs=False,
            updates_per_epoch=steps_per_epoch,
        )
        self.loss = LabelSmoothingCrossEntropy(SMOOTHING)
        self.losses = AverageMeter()
        self.steps = 0
        self.schedule.step_update(num_updates=0)

    def step(self, images: Tensor, labels: Tensor) -> None:
        """Learns from one batch."""
        images = images.contiguous(memory_format=self.layout)
        loss = self.loss(self.network(images), labels)
        loss.backward()
        self.optimizer.step()
        self.losses.update(loss.item(), len(images))
        self.steps += 1
        self.optimizer.zero_grad()
        self.ema.update(self.network, step=self.steps)
        self.schedule.step_update(num_updates=self.steps, metric=self.losses.avg)


@torch.inference_mode()
def validate(network: nn.Module, batches: Any) -> tuple[float, float]:
    """The part of the pictures whose class is the most probable, and the mean cross-entropy."""
    network.eval()
    right, losses = AverageMeter(), AverageMeter()
    for images, labels in batches:
        logits = network(images.contiguous(memory_format=torch.channels_last))
        losses.update(nn.functional.cross_entropy(logits, labels).item(), len(labels))
        right.update((logits.argmax(1) == labels).float().mean().item(), len(labels))
    return right.avg, losses.avg
