"""Training: epochs of steps, a validation after each, and nothing lost if it is stopped."""

from __future__ import annotations

import math
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgewise.data.cache import ImageCache
from edgewise.data.dataset import Dataset
from edgewise.data.loader import Batches, worker_lost
from edgewise.errors import EdgewiseError, UsageError
from edgewise.files import claimed
from edgewise.model import Classifier, cooled
from edgewise.progress import bar
from edgewise.run_folder import Run
from edgewise.training.batches import recipe_batches
from edgewise.training.checkpoint import load_checkpoint, load_kept, save_checkpoint
from edgewise.training.device import pick_device
from edgewise.training.divergence import Diverged, value_not_finite
from edgewise.training.evaluate import (
    PixelsOf,
    classifier_function,
    images_at_once,
    predict_pixels,
)
from edgewise.training.history import (
    EpochMetrics,
    Progress,
    epoch_line,
    highest_epoch,
    kept_epoch,
    progress_note,
    write_history,
)
from edgewise.training.interrupt import Stopped, StopRequest, stop_on_signals
from edgewise.training.learner import Learner
from edgewise.training.metrics import (
    log_loss,
    macro_f1,
    standard_error,
    temperature,
    top_k_accuracy,
)
from edgewise.training.recipe import Recipe
from edgewise.training.start import (
    create_run,
    made_by_this_torchrun,
    preprocess_of,
    reopen_run,
    teacher_of,
    too_little_memory,
)
from edgewise.training.tensorboard import epoch_log
from edgewise.training.world import World, joined, resume_command
from edgewise.weights.folder import save_model

SECONDS_BETWEEN_CHECKPOINTS = 120.0


def train(
    recipe: Recipe, root: str | Path, resume: bool = False, dataset: Dataset | None = None
) -> Run:
    """Trains a network into the run folder `root`, or goes on with the run that is there.

    The first epochs train a new classifier on frozen pretrained weights, the others everything.
    After each, the moving average of the weights is validated, and kept as `root/model` if it is
    not worse than the best so far by more than chance. The same recipe on the same machine gives
    the same weights, stopped and resumed or not. Processes that torchrun started again go on with
    the run, if that torchrun made it before.

    Args:
        recipe: what to do. On resume it may differ from the run's own in device and workers,
            and in a model or a teacher that is at another place by now.
        root: the run folder.
        resume: whether to go on with an existing run.
        dataset: the images of a new run, where they were read before; None reads them.

    Raises:
        UsageError: the recipe, the data or the folder is no good, or another process trains there;
            nothing was written.
        Stopped: a signal came (SIGINT, SIGTERM); everything is saved.
        Diverged: a loss, a gradient or a weight is not finite, and no retries are left.
        EdgewiseError: the disk is full, or a worker process was killed. Here too, what was saved
            before is whole.
    """
    run = Run(Path(root))
    with joined(pick_device(recipe.device)) as world, ExitStack() as claim:
        _train(recipe, run, resume, world, claim, dataset)
    return run


def _train(
    recipe: Recipe,
    run: Run,
    resume: bool,
    world: World,
    claim: ExitStack,
    given: Dataset | None = None,
) -> None:
    root, unwritable = run.root, None
    if recipe.cache == "ram" and world.size > 1:
        raise UsageError(
            "cache=ram would hold the images once for each process. With torchrun use cache=disk, "
            "which they share."
        )
    # torchrun began anew as it lost a process, which it counts only on the host of that one.
    restarted, ours = world.any(world.restarts > 0, world.first and made_by_this_torchrun(run))
    resume = resume or (restarted and ours)
    if resume or not world.first:
        # The others wait here until the first has claimed the folder, which it may have to make.
        try:
            world.first_does(lambda: claim.enter_context(claimed(Run.open(root).root)))
        except EdgewiseError as error:
            if isinstance(error, UsageError) or not resume:
                raise
            unwritable = error  # which a finished run may be
        recipe, dataset, cache = reopen_run(recipe, run)
    else:
        made = world.first_does(lambda: create_run(recipe, run, claim, given))
        assert made is not None
        recipe, dataset, cache = made
    with stop_on_signals() as request:
        training = _Training(recipe, run, dataset, cache, request, world)
        if resume:
            training.restore()
            if training.finished():
                print(f"nothing left to do in {root}")
            elif unwritable:
                raise unwritable
        out_of_memory = False
        try:
            while not training.finished():
                try:
                    training.epoch()
                except Diverged as error:
                    training.go_back(error)
        except torch.OutOfMemoryError:
            out_of_memory = True
        except RuntimeError as error:
            # torch raises this in the midst of a step, so there is nothing sound to save.
            lost = worker_lost(error)
            if lost is None:
                raise
            if request.number is not None:  # the signal ended a worker too, as on macOS
                raise Stopped(_how_to_go_on(run), request.number) from error
            raise EdgewiseError(
                f"{lost} Nothing that was saved is lost; go on with: {resume_command(root)}"
            ) from error
        if out_of_memory:
            del training  # what it holds is to be tried with
            raise too_little_memory(recipe, dataset, world.size)
    if request.number is not None:  # it came after the last batch: whoever called must know
        raise Stopped(_how_to_go_on(run), request.number)


class _Training:
    def __init__(
        self,
        recipe: Recipe,
        run: Run,
        dataset: Dataset,
        cache: ImageCache | None,
        request: StopRequest,
        world: World,
    ) -> None:
        self.recipe, self.run, self.dataset, self.cache = recipe, run, dataset, cache
        self.request, self.world = request, world
        self.progress = Progress()
        self.preprocess = preprocess_of(recipe)
        self.steps_per_epoch = len(self._batches(range(1)))
        self.ahead: Iterator[tuple[Tensor, Tensor]] | None = None
        self.learner = self._learner()
        self.validation = PixelsOf(
            world.share(dataset.splits["val"]),
            self.preprocess,
            images_at_once(recipe, world.size),
            recipe.workers or 0,
        )
        self.saved_at = time.monotonic()
        self.log = epoch_log(run, recipe.tensorboard)

    def finished(self) -> bool:
        """Whether all epochs are done, or enough have passed without a better one."""
        done, patience = self.progress.epoch, self.recipe.patience
        if patience and done and done - highest_epoch(self.progress.history).epoch >= patience:
            return True
        return done >= self.recipe.epochs

    def epoch(self) -> None:
        """The rest of the epoch under way: its batches, the validation, the files."""
        self.learner.begin_epoch(self.progress.epoch)
        self._learn()
        started = time.monotonic()
        validation = self._validate()
        done = self._of_all()
        metrics = EpochMetrics(
            epoch=done.epoch + 1,
            phase="head" if done.epoch < self.recipe.head_epochs else "all",
            lr=self.learner.learning_rate((done.epoch + 1) * self.steps_per_epoch - 1),
            train_loss=done.loss / done.images,
            train_accuracy=done.right / done.images,
            **validation,
            images_per_second=done.images / done.seconds,
            seconds=done.seconds + time.monotonic() - started,
        )
        history = [*done.history, metrics]
        is_kept = kept_epoch(history) is metrics
        print(epoch_line(metrics, self.recipe.epochs, is_kept), flush=True)
        # The checkpoint comes last: a kill before it leads to the same epoch's end once more.
        if self.world.first:
            if is_kept:
                save_model(
                    cooled(self.learner.kept_model(self.dataset.classes), metrics.temperature),
                    self.run.model,
                )
            write_history(self.run, history)
            self.log(metrics)
        self.progress = Progress(metrics.epoch, history=history, divergences=done.divergences)
        self.save(kept=is_kept and self.recipe.retries > 0)

    def save(self, kept: bool = False) -> None:
        """Writes a checkpoint; all processes call it at the same step.

        Args:
            kept: whether to keep it as the one to go back to.

        Raises:
            Diverged: the network is not finite; nothing was written.
        """
        progress = asdict(self._of_all())
        name = value_not_finite(self.learner.network)
        if self.world.any(name is not None)[0]:
            place = f"after epoch {progress['epoch']} and {progress['batch']} batches more"
            where = f"'{name}'" if name else "in another process"
            raise Diverged(f"a value of the network is not finite {place}", where)
        state = {"progress": progress, **self.learner.state_dict()}
        self.world.first_does(lambda: save_checkpoint(self.run, state, kept))
        self.saved_at = time.monotonic()

    def go_back(self, error: Diverged) -> None:
        """Goes on from the kept epoch so far, or from the start, at half the learning rate.

        Where to is the same whenever checkpoints were written, so that a run that is killed and
        resumed ends as one that was not.

        Raises:
            Diverged: `error`, if the recipe allows no more of it; with the last rate tried.
        """
        if self.progress.divergences >= self.recipe.retries:
            tried = self.learner.rate_factor * self.recipe.lr if self.recipe.retries else None
            raise Diverged(error.what, error.where, tried) from error
        divergences = self.progress.divergences + 1
        self.ahead = None
        state = load_kept(self.run)
        if state is not None:
            self._take(state)
        if state is None or not self._knows_something():
            self.progress, self.learner = Progress(), self._learner()
        self._halve_rate(divergences)
        self.log = epoch_log(self.run, self.recipe.tensorboard)  # it forgets the epochs undone
        to = f"the end of epoch {self.progress.epoch}" if self.progress.epoch else "the start"
        print(
            f"training has diverged: {error.what}. Going back to {to} and on at "
            f"{self.learner.rate_factor:g} of the learning rate "
            f"(retry {divergences} of {self.recipe.retries}).",
            flush=True,
        )
        self.save()

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
        if state is not None:
            self._take(state)

    def _learner(self) -> Learner:
        images = list(self.dataset.counts()["train"].values())
        return Learner(
            self.recipe,
            self.preprocess,
            images,
            self.steps_per_epoch,
            self.world,
            teacher_of(self.recipe, self.dataset),
            self.dataset.classes,
        )

    def _knows_something(self) -> bool:
        """Whether the kept epoch so far did better than guessing all classes alike."""
        return kept_epoch(self.progress.history).val_loss < math.log(len(self.dataset.classes))

    def _halve_rate(self, divergences: int) -> None:
        self.progress.divergences = divergences
        self.learner.rate_factor = 0.5**divergences

    def _take(self, state: dict[str, Any]) -> None:
        try:
            self.learner.load_state_dict(state)
            values: dict[str, Any] = state["progress"]
            history = [EpochMetrics(**epoch) for epoch in values["history"]]
            self.progress = Progress(**{**values, "history": history})
            self._halve_rate(self.progress.divergences)
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
        # Of more processes than it was stopped with, an epoch may have one batch less.
        left = max(0, self.steps_per_epoch - progress.batch)
        if self.ahead is None:
            epochs = range(progress.epoch, self.recipe.epochs)
            self.ahead = iter(self._batches(epochs, progress.batch))
        what = f"epoch {progress.epoch + 1}/{self.recipe.epochs}"
        with bar(what, left) as steps:
            started = time.monotonic()
            for pixels, labels in islice(self.ahead, left):
                number = progress.epoch * self.steps_per_epoch + progress.batch
                loss, right = self.learner.step(pixels, labels, number)
                now = time.monotonic()
                progress.batch += 1
                progress.images += len(labels)
                progress.loss += loss * len(labels)
                progress.right += right
                progress.seconds += now - started
                started = now
                steps.advance(note=progress_note(progress))
                late = self.world.first and now - self.saved_at > SECONDS_BETWEEN_CHECKPOINTS
                self._stop_or_save(self.request.number is not None, late)

    def _validate(self) -> dict[str, float]:
        """What `EpochMetrics` says of the averaged weights on the validation images."""
        samples = self.dataset.splits["val"]
        self.world.copy_from_first(list(self.learner.average.buffers()))
        classifier = Classifier(self.learner.model(self.dataset.classes))
        classify = classifier_function(classifier, self.learner.device)

        def classify_or_stop(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
            if self.world.size == 1:  # of several, not all have as many batches to ask after
                self._stop_or_save(self.request.number is not None, False)
            return classify(pixels)

        probabilities = self.world.merge(predict_pixels(classify_or_stop, self.validation))
        labels = np.array([sample.label for sample in samples])
        loss = log_loss(labels, probabilities)
        if not math.isfinite(loss):
            what = f"the validation loss of epoch {self.progress.epoch + 1} is {loss}"
            name = value_not_finite(self.learner.average.module)
            raise Diverged(what, f"of the average, '{name}'" if name else "the network is finite")
        macro = self.recipe.select == "macro-f1"
        accuracy, f1 = top_k_accuracy(labels, probabilities, 1), macro_f1(labels, probabilities)
        return {
            "val_loss": loss,
            "val_accuracy": accuracy,
            "val_macro_f1": f1,
            "score": f1 if macro else accuracy,
            "score_error": standard_error(labels, probabilities, macro),
            "temperature": temperature(labels, probabilities) if self.recipe.calibrate else 1.0,
        }

    def _batches(self, epochs: range, start: int = 0) -> Batches:
        return recipe_batches(
            self.recipe,
            self.preprocess,
            self.dataset.splits["train"],
            epochs,
            start,
            share=(self.world.rank, self.world.size),
            cache=self.cache,
        )

    def _stop_or_save(self, asked: bool, late: bool) -> None:
        """Saves if any process was asked to stop or is late with a checkpoint, then stops."""
        asked, late = self.world.any(asked, late)
        if asked or late:
            self.save()
        if asked:
            raise Stopped(_how_to_go_on(self.run), self.request.number or signal.SIGTERM)


def _how_to_go_on(run: Run) -> str:
    return f"stopped; go on with: {resume_command(run.root)}"
