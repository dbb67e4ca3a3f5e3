"""One step of learning: the network, its moving average and its optimiser."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from edgewise.errors import UsageError
from edgewise.model import Model
from edgewise.network import Network
from edgewise.preprocess import Preprocess
from edgewise.training.device import pick_device, repeat_exactly
from edgewise.training.divergence import Diverged, first_not_finite, gradient_not_finite
from edgewise.training.ema import moving_average
from edgewise.training.mixing import Mixing
from edgewise.training.optimizer import make_optimizer, set_rate
from edgewise.training.progressive import at_epoch
from edgewise.training.recipe import Recipe
from edgewise.training.rounding import learned_ranges, round_network, unrounded
from edgewise.training.schedule import Schedule
from edgewise.training.teacher import Teacher
from edgewise.training.world import World
from edgewise.weights.create import create_model, keep_known
from edgewise.weights.folder import load_model


class Learner:
    """What changes while a network learns.

    Attributes:
        network: the network that learns.
        average: the moving average of its weights, which is evaluated and kept.
        rate_factor: by which the recipe's learning rate is multiplied.
    """

    def __init__(
        self,
        recipe: Recipe,
        preprocess: Preprocess,
        images: Sequence[int],
        steps_per_epoch: int,
        world: World | None = None,
        teacher: Teacher | None = None,
        labels: Sequence[str] = (),
    ) -> None:
        """Starts from pretrained or fresh weights.

        Args:
            recipe: with nothing left open.
            preprocess: the rule from an image to the network's input.
            images: of training, in each class.
            steps_per_epoch: batches in an epoch.
            world: the processes that learn together.
            teacher: from whose answers it learns as well.
            labels: of the classes, by which those that a model folder knows are found in it; by
                their order if none are given.
        """
        self.world, self.teacher = world or World(), teacher
        self.recipe, self.preprocess, self.steps_per_epoch = recipe, preprocess, steps_per_epoch
        self.device = pick_device(recipe.device)
        self.classes, self.rate_factor = len(images), 1.0
        self.mixing: Mixing | None = None
        repeat_exactly(recipe.deterministic)
        torch.manual_seed(recipe.seed)
        network = create_model(
            recipe.model,
            self.classes,
            pretrained=bool(recipe.pretrained),
            drop_path=recipe.drop_path,
        )
        if recipe.folder and labels:
            keep_known(network, load_model(recipe.folder), labels)
        if recipe.qat:
            round_network(network)
        # Depthwise convolutions are faster in this layout, on CPUs and GPUs alike.
        self.network = network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = moving_average(self.network, recipe.ema_decay)
        if recipe.sync_batch_norm and self.world.size > 1:
            # After the average is made, which is not called while it learns: it stays plain.
            nn.SyncBatchNorm.convert_sync_batchnorm(self.network)  # type: ignore[no-untyped-call]
        self.optimizer = make_optimizer(self.network, recipe)
        self.forward: nn.Module = self.network
        counts = torch.tensor(images, dtype=torch.float32, device=self.device)
        self.prior = (counts / counts.sum()).log() if recipe.balance else torch.zeros_like(counts)
        # Small gradients are 0 in fp16 unless the loss is large; without fp16 it does nothing.
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=recipe.precision == "fp16")

    def begin_epoch(self, epoch: int) -> None:
        """Sets what learns in an epoch, from 0: the classifier alone at first, then everything.

        And how: mixing and dropout may grow from stage to stage. While the body is frozen, its
        batch norms keep their statistics too.
        """
        head_only = epoch < self.recipe.head_epochs
        self.network.train(not head_only)
        if self.recipe.freeze_norm:
            for module in self.network.modules():
                if isinstance(module, _BatchNorm):  # synchronised or not
                    module.eval()
        self.network.requires_grad_(not head_only)
        self.network.head.classifier.requires_grad_(True)
        self.forward = self._forward()
        now = at_epoch(self.recipe, epoch)
        self.mixing = Mixing(now.mixup, now.cutmix) if now.mixup or now.cutmix else None
        if now.dropout is not None:
            # In each hidden layer if there is one, else before the classifier: see `network.Head`.
            head = self.network.head
            for layer in (*head.hidden, *([] if head.hidden else [head.dropout])):
                if isinstance(layer, nn.Dropout):
                    layer.p = now.dropout

    def _forward(self) -> nn.Module:
        """The network as it is called: compiled, and in touch with the other processes."""
        module: nn.Module = self.network
        if self.recipe.compile:
            module = cast(nn.Module, torch.compile(module))
        if self.world.size > 1:
            # Made anew when other parameters learn: it waits for a gradient of each.
            gpu = [self.device] if self.device.type == "cuda" else None
            module = DistributedDataParallel(module, device_ids=gpu)
        return module

    def step(self, pixels: Tensor, labels: Tensor, number: int) -> tuple[float, int]:
        """Learns from one batch.

        Args:
            pixels: uint8 (N, H, W, 3); of several processes, this one's share of the batch, of as
                many images as every other's or of one more or fewer.
            labels: int64 (N,).
            number: of the step, from 0 over the whole run.

        Returns:
            The mean loss of these images and how many of them were right, before the step; of a
            mixed batch, by the labels of its own images.

        Raises:
            Diverged: the loss or the gradient is not finite, in whichever process; nothing was
                learned from this batch, and this learner is of no more use.
        """
        # Dropout draws from torch's global state. Seeding each step by itself makes a resumed run
        # equal to an uninterrupted one.
        place = (self.recipe.seed, number, *([self.world.rank] if self.world.rank else []))
        seed = int(np.random.SeedSequence(place).generate_state(1)[0])
        torch.manual_seed(seed)
        rate = self.learning_rate(number)
        set_rate(self.optimizer, rate)
        inputs = self.preprocess.normalise(pixels.to(self.device))
        labels = labels.to(self.device)
        targets: Tensor = labels
        if self.mixing:
            inputs, targets = self.mixing.mix(
                inputs, labels, self.classes, np.random.default_rng((self.recipe.seed, number))
            )
        self.optimizer.zero_grad()
        total, right = 0.0, 0
        (whole,) = self.world.sum(float(len(inputs)))
        # By the smallest share: each part of synchronised batch norm waits for all processes.
        count = max(1, min(self.recipe.accumulate, int(whole) // self.world.size // 2))
        # `chunk` makes 10 images 3, 3, 3 and 1, and batch norm can't learn of 1 image on 1 x 1.
        parts = [tensor.tensor_split(count) for tensor in (inputs, targets, labels)]
        for part, (images, shown, own) in enumerate(zip(*parts, strict=True), start=1):
            # The gradients of all processes are averaged once, with the last part.
            with self._alone() if part < len(parts[0]) else nullcontext():
                loss, logits = self._loss(images, shown)
                total += loss.item() * len(images) / len(inputs)
                # Their average is the whole batch's gradient, even if their shares differ.
                weight = len(images) * self.world.size / whole
                self.scaler.scale(loss * weight).backward()  # type: ignore[no-untyped-call]
            right += int((logits.argmax(dim=1) == own).sum())
        self.scaler.unscale_(self.optimizer)
        learning = [p for p in self.network.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm([cast(Tensor, p.grad) for p in learning])
        # In fp16 a gradient overflows now and then, and the scaler leaves out such a step.
        bad = not math.isfinite(total) or not (self.scaler.is_enabled() or norm.isfinite())
        if self.world.any(bad)[0]:
            raise self._diverged(total, float(norm), number, seed, parts[:2])
        if self.recipe.clip:
            nn.utils.clip_grads_with_norm_(learning, self.recipe.clip, norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.average.update_parameters(self.network)
        return total, right

    def _diverged(
        self, loss: float, norm: float, number: int, seed: int, parts: Sequence[Sequence[Tensor]]
    ) -> Diverged:
        """The error for the step at hand, whose images and targets came in `parts`."""
        if math.isfinite(loss) and math.isfinite(norm):
            value, where = "it is not finite", "seen by another process"
        elif math.isfinite(loss):
            value, where = f"the norm of the gradient is {norm}", gradient_not_finite(self.network)
        else:
            value, self.forward = f"the loss is {loss}", self.network

            def again() -> None:
                torch.manual_seed(seed)
                for images, shown in zip(*parts, strict=True):
                    self._loss(images, shown)

            where = first_not_finite(self.network, torch.cat([*parts[0]]), again) or (
                "every layer's output is finite, and the loss of them is not"
            )
        epoch, batch = divmod(number, self.steps_per_epoch)
        rate = self.learning_rate(number)
        place = f"in epoch {epoch + 1}, batch {batch + 1}, at a learning rate of {rate:.2g}"
        return Diverged(f"{value} {place}", where)

    def _alone(self) -> AbstractContextManager[None]:
        """Gradients that are not averaged yet."""
        if isinstance(self.forward, DistributedDataParallel):
            return cast(AbstractContextManager[None], self.forward.no_sync())
        return nullcontext()

    def _loss(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The mean loss of some images, and their logits, in float32.

        In the loss, the logits of frequent classes are raised by as much as their frequency alone
        would raise them, so that the network itself needs not do it (logit adjustment, arXiv
        2007.07314, equation 10). The part of the teacher is its soft targets' (arXiv 1503.02531).
        """
        short = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.recipe.precision)
        with torch.autocast(self.device.type, short, enabled=short is not None):
            logits = self.forward(images).float()
            taught = self.teacher.logits(images, self.preprocess) if self.teacher else None
        smoothing = self.recipe.label_smoothing
        loss = F.cross_entropy(logits + self.prior, targets, label_smoothing=smoothing)
        if taught is not None:
            warmth, weight = self.recipe.teacher_temperature, self.recipe.teacher_weight
            ours, theirs = (F.log_softmax(z / warmth, dim=1) for z in (logits, taught))
            distance = F.kl_div(ours, theirs, reduction="batchmean", log_target=True)
            loss = torch.lerp(loss, warmth**2 * distance, weight)
        return loss, logits

    def model(self, labels: tuple[str, ...]) -> Model:
        """The moving average as a model; it shares its weights, which go on moving."""
        return Model(cast(Network, self.average.module), self.preprocess, labels)

    def kept_model(self, labels: tuple[str, ...]) -> Model:
        """The same as it is kept: its layers don't round, which int8 itself will do."""
        network = cast(Network, self.average.module)
        return Model(unrounded(network), self.preprocess, labels, learned_ranges(network))

    def state_dict(self) -> dict[str, Any]:
        """All of it, as tensors and plain values."""
        return {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "teacher": self.teacher.sha256 if self.teacher else "",
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`.

        Raises:
            UsageError: the teacher is another than it was.
        """
        if self.teacher and state["teacher"] != self.teacher.sha256:
            raise UsageError(
                f"the teacher {self.recipe.teacher} was changed since this run began; put it back, "
                "or start a new run"
            )
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])

    def learning_rate(self, number: int) -> float:
        """Of a step: the peak while the head learns alone, then what the schedule says."""
        recipe = self.recipe
        head_steps = recipe.head_epochs * self.steps_per_epoch
        if number < head_steps:
            return self.rate_factor * recipe.lr
        total = recipe.epochs * self.steps_per_epoch - head_steps
        schedule = Schedule(
            recipe.schedule,
            self.rate_factor * recipe.lr,
            warmup=min(round(recipe.warmup_epochs * self.steps_per_epoch), total // 2),
            total=total,
            rate=recipe.decay_rate,
            interval=recipe.decay_epochs * self.steps_per_epoch,
        )
        return schedule.learning_rate(number - head_steps)
