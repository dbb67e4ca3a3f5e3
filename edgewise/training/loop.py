"""Training: epochs of steps, a validation after each, and nothing lost if it is stopped."""

from __future__ import annotations

import math
import signal
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgewise.data.augment import Augment
from edgewise.data.dataset import Dataset
from edgewise.data.loader import Batches, training_batches
from edgewise.errors import EdgewiseError
from edgewise.model import Classifier, cooled
from edgewise.progress import bar
from edgewise.run_folder import Run
from edgewise.training.checkpoint import load_checkpoint, save_checkpoint
from edgewise.training.device import pick_device
from edgewise.training.evaluate import classifier_function, predict_samples
from edgewise.training.history import EpochMetrics, Progress, best_epoch, write_history
from edgewise.training.interrupt import Stopped, StopRequest, stop_on_signals
from edgewise.training.learner import Learner
from edgewise.training.metrics import log_loss, temperature, top_k_accuracy
from edgewise.training.progressive import at_epoch
from edgewise.training.recipe import Recipe
from edgewise.training.start import create_run, preprocess_of, reopen_run
from edgewise.training.tensorboard import epoch_log
from edgewise.training.world import World, joined
from edgewise.weights.folder import save_model

SECONDS_BETWEEN_CHECKPOINTS = 120.0


def train(recipe: Recipe, root: Path, resume: bool = False) -> Run:
    """Trains a network into the run folder `root`, or goes on with the run that is there.

    The first epochs train a new classifier on frozen pretrained weights, the others everything.
    After each, the moving average of the weights is validated, and kept as `root/model` if it is
    the best so far. The same recipe on the same machine gives the same weights, stopped and
    resumed or not.

    Args:
        recipe: what to do. On resume it may differ from the run's own in device and workers only.
        root: the run folder.
        resume: whether to go on with an existing run.

    Raises:
        UsageError: the recipe, the data or the folder is no good; nothing was written.
        Stopped: a signal came (SIGINT, SIGTERM); everything is saved.
        EdgewiseError: the loss is not finite, the disk is full, or a worker process was killed.
            What was saved before is whole.
    """
    run = Run(root)
    with joined(pick_device(recipe.device)) as world:
        _train(recipe, run, resume, world)
    return run


def _train(recipe: Recipe, run: Run, resume: bool, world: World) -> None:
    root = run.root
    if resume or not world.first:
        world.first_does(lambda: None)  # until the first has made the folder
        recipe, dataset = reopen_run(recipe, run)
    else:
        made = world.first_does(lambda: create_run(recipe, run))
        assert made is not None
        recipe, dataset = made
    with stop_on_signals() as request:
        training = _Training(recipe, run, dataset, request, world)
        if resume:
            training.restore()
            if training.finished():
                print(f"nothing left to do in {root}")
        try:
            while not training.finished():
                training.epoch()
        except torch.OutOfMemoryError as error:
            raise EdgewiseError(
                f"the GPU has too little memory for a batch of {recipe.batch} at {recipe.imgsz} "
                f"pixels. Train again with accumulate={2 * recipe.accumulate} (the same batch in "
                f"parts), precision=bf16 or --batch {recipe.batch // 2}."
            ) from error
        except RuntimeError as error:
            # torch raises this in the midst of a step, so there is nothing sound to save.
            if not str(error).startswith("DataLoader worker"):
                raise
            if request.number is not None:  # a signal to all processes at once
                raise Stopped(_how_to_go_on(run), request.number) from error
            raise EdgewiseError(
                f"{error} If memory is short, use fewer --workers or a smaller --batch. "
                f"Nothing that was saved is lost; go on with: edgewise train --resume {root}"
            ) from error


class _Training:
    def __init__(
        self, recipe: Recipe, run: Run, dataset: Dataset, request: StopRequest, world: World
    ) -> None:
        self.recipe, self.run, self.dataset, self.request = recipe, run, dataset, request
        self.world = world
        self.progress = Progress()
        self.preprocess = preprocess_of(recipe)
        self.steps_per_epoch = len(self._batches())
        classes = len(dataset.classes)
        self.learner = Learner(recipe, self.preprocess, classes, self.steps_per_epoch, world)
        self.saved_at = time.monotonic()
        self.log = epoch_log(run, recipe.tensorboard)

    def finished(self) -> bool:
        """Whether all epochs are done, or enough have passed without a better one."""
        done, patience = self.progress.epoch, self.recipe.patience
        if patience and done and done - best_epoch(self.progress.history).epoch >= patience:
            return True
        return done >= self.recipe.epochs

    def epoch(self) -> None:
        """The rest of the epoch under way: its batches, the validation, the files."""
        self.learner.begin_epoch(self.progress.epoch)
        self._learn()
        started = time.monotonic()
        val_loss, val_accuracy, degrees = self._validate()
        done = self._of_all()
        metrics = EpochMetrics(
            epoch=done.epoch + 1,
            phase="head" if done.epoch < self.recipe.head_epochs else "all",
            lr=self.learner.learning_rate((done.epoch + 1) * self.steps_per_epoch - 1),
            train_loss=done.loss / done.images,
            train_accuracy=done.right / done.images,
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            images_per_second=done.images / done.seconds,
            seconds=done.seconds + time.monotonic() - started,
            temperature=degrees,
        )
        history = [*done.history, metrics]
        is_best = best_epoch(history) is metrics
        print(_line(metrics, self.recipe.epochs, is_best), flush=True)
        # The checkpoint comes last: a kill before it leads to the same epoch's end once more.
        if self.world.first:
            if is_best:
                save_model(
                    cooled(self.learner.model(self.dataset.classes), degrees), self.run.model
                )
            write_history(self.run, history)
            self.log(metrics)
        self.progress = Progress(epoch=metrics.epoch, history=history)
        self.save()

    def save(self) -> None:
        """Writes a checkpoint; all processes call it at the same step."""
        progress = asdict(self._of_all())
        state = {"progress": progress, **self.learner.state_dict()}
        self.world.first_does(lambda: save_checkpoint(self.run, state))
        self.saved_at = time.monotonic()

    def _of_all(self) -> Progress:
        """The progress with the sums of all processes."""
        own = self.progress
        images, loss, right = self.world.sum(own.images, own.loss, own.right)
        return replace(own, images=int(images), loss=loss, right=int(right))

    def restore(self) -> None:
        """Takes up the newest checkpoint; from the start if there is none yet."""
        state, problem = load_checkpoint(self.run)
        if problem:
            print(f"warning: {problem}", file=sys.stderr)
        if state is None:
            return
        try:
            self.learner.load_state_dict(state)
            values: dict[str, Any] = state["progress"]
            history = [EpochMetrics(**epoch) for epoch in values["history"]]
            self.progress = Progress(**{**values, "history": history})
            if not self.world.first:  # the first has the sums of all
                self.progress = replace(self.progress, images=0, loss=0.0, right=0)
        except (RuntimeError, KeyError, TypeError, ValueError) as error:
            raise EdgewiseError(
                f"the checkpoint in {self.run.checkpoints} doesn't fit {self.run.recipe}; "
                "was the recipe edited? Restore it, or train again under another --name."
            ) from error

    def _learn(self) -> None:
        """Learns from the batches that are left of the epoch under way."""
        progress = self.progress
        batches = self._batches()
        what = f"epoch {progress.epoch + 1}/{self.recipe.epochs}"
        with bar(what, len(batches)) as steps:
            started = time.monotonic()
            for pixels, labels in batches:
                number = progress.epoch * self.steps_per_epoch + progress.batch
                loss, right = self.learner.step(pixels, labels, number)
                now = time.monotonic()
                progress.batch += 1
                progress.images += len(labels)
                progress.loss += loss * len(labels)
                progress.right += right
                progress.seconds += now - started
                started = now
                steps.advance(note=_note(progress))
                late = self.world.first and now - self.saved_at > SECONDS_BETWEEN_CHECKPOINTS
                self._stop_or_save(self.request.number is not None, late)

    def _validate(self) -> tuple[float, float, float]:
        """Loss and accuracy of the averaged weights on the validation images; the temperature."""
        samples = self.dataset.splits["val"]
        self.world.copy_from_first(list(self.learner.average.buffers()))
        classifier = Classifier(self.learner.model(self.dataset.classes))
        classify = classifier_function(classifier, self.learner.device)

        def classify_or_stop(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
            if self.world.size == 1:  # of several, not all have as many batches to ask after
                self._stop_or_save(self.request.number is not None, False)
            return classify(pixels)

        own = predict_samples(
            classify_or_stop,
            self.world.share(samples),
            self.preprocess,
            self.recipe.batch,
            self.recipe.workers or 0,
        )
        probabilities = self.world.merge(own)
        labels = np.array([sample.label for sample in samples])
        loss = log_loss(labels, probabilities)
        if not math.isfinite(loss):
            raise EdgewiseError(
                f"the validation loss of epoch {self.progress.epoch + 1} is {loss}: training has "
                "diverged. Train again with a lower --lr; what was saved before is kept."
            )
        degrees = temperature(labels, probabilities) if self.recipe.calibrate else 1.0
        return loss, top_k_accuracy(labels, probabilities, 1), degrees

    def _batches(self) -> Batches:
        progress = self.progress
        recipe = at_epoch(self.recipe, progress.epoch)
        return training_batches(
            self.dataset.splits["train"],
            replace(self.preprocess, size=recipe.imgsz or self.preprocess.size),
            Augment(
                recipe.flip,
                recipe.policy,
                recipe.magnitude,
                (recipe.crop_scale, 1.0),
                recipe.erase,
            ),
            batch=recipe.batch,
            workers=recipe.workers or 0,
            seed=recipe.seed,
            epoch=progress.epoch,
            start=progress.batch,
            share=(self.world.rank, self.world.size),
        )

    def _stop_or_save(self, asked: bool, late: bool) -> None:
        """Saves if any process was asked to stop or is late with a checkpoint, then stops."""
        asked, late = self.world.any(asked, late)
        if asked or late:
            self.save()
        if asked:
            raise Stopped(_how_to_go_on(self.run), self.request.number or signal.SIGTERM)


def _how_to_go_on(run: Run) -> str:
    return f"stopped; go on with: edgewise train --resume {run.root}"


def _note(progress: Progress) -> str:
    return (
        f"loss {progress.loss / progress.images:.3f}  "
        f"accuracy {progress.right / progress.images:.3f}  "
        f"{progress.images / progress.seconds:.0f} images/s"
    )


def _line(metrics: EpochMetrics, epochs: int, is_best: bool) -> str:
    return (
        f"epoch {metrics.epoch}/{epochs} ({metrics.phase})  "
        f"train: loss {metrics.train_loss:.3f}, accuracy {metrics.train_accuracy:.3f}  "
        f"val: loss {metrics.val_loss:.3f}, accuracy {metrics.val_accuracy:.3f}"
        f"{' (best)' if is_best else ''}  "
        f"{metrics.images_per_second:.0f} images/s, {metrics.seconds:.0f} s"
    )
