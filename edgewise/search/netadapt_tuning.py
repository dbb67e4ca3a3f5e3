"""How NetAdapt's proposals learn: a few steps on the images of the run that they are made of."""

from __future__ import annotations

import copy
import math
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from edgewise.compress.prune import recalibrate
from edgewise.compress.pruned_run import training_batches
from edgewise.data.dataset import read_dataset
from edgewise.model import Classifier, Model
from edgewise.run_folder import Run
from edgewise.training.batches import cache_of, recipe_batches
from edgewise.training.evaluate import classifier_function, images_at_once, predict_samples
from edgewise.training.learner import Learner
from edgewise.training.metrics import top_k_accuracy
from edgewise.training.recipe import Recipe
from edgewise.weights.folder import load_model, save_model

STEPS = 40
TIMED_STEPS = 4
RATE = 0.1  # of the run's learning rate: the weights are trained ones


class RunTuning:
    """A `Tuning` on a run's training and validation images, with the run's settings.

    Everything learns, at the run's image size, from the labels alone. There is no moving
    average: what counts is where the weights are at the end.
    """

    def __init__(self, run: Run, steps: int = STEPS, rate: float = RATE) -> None:
        """Reads the run.

        Args:
            run: trained.
            steps: of the optimiser, for each proposal.
            rate: the part of the run's learning rate.

        Raises:
            UsageError: the run has no model or no images any more.
        """
        dataset = read_dataset(run.trained())
        recipe, model = Recipe.read(run.recipe), load_model(run.model)
        size = model.preprocess.size
        self.steps, self.samples = steps, dataset.splits
        self.images = list(dataset.counts()["train"].values())
        self.inputs = [inputs for inputs, _ in training_batches(run, model)]
        self.recipe = replace(
            recipe,
            pretrained=False,
            imgsz=size,
            train_imgsz=size,
            epochs=1,  # of the schedule: the steps are all of it
            head_epochs=0,
            stages=1,
            warmup_epochs=0.0,
            lr=rate * recipe.lr,
            ema_decay=0.0,
            qat=False,
            cache="ram",
        )
        self.cache = cache_of(self.recipe, model.preprocess, dataset)

    def steps_within(self, seconds: float, model: Model) -> int:
        """How many steps a proposal can learn if it has so many seconds, its test included.

        It is timed on the whole model, which is slower than any proposal. At most `self.steps`.
        """
        most = self.steps
        spent = []
        for steps in (1, 1, 1 + TIMED_STEPS):  # the first fills the caches
            self.steps = steps
            began = time.perf_counter()
            self.accuracy(self.tune(copy.deepcopy(model), 0))
            spent.append(time.perf_counter() - began)
        self.steps = most
        each = max(spent[2] - spent[1], 0.0) / TIMED_STEPS
        around = max(spent[1] - each, 0.0)
        if around >= seconds:
            return 0
        return most if each == 0 else min(most, int((seconds - around) / each))

    def tune(self, model: Model, seed: int) -> Model:
        """See `Tuning`: the same images in the same order for the same seed.

        Raises:
            Diverged: its loss is not finite.
        """
        recalibrate(model.network, self.inputs)
        with TemporaryDirectory() as folder:
            save_model(model, Path(folder, "model"))
            recipe = replace(self.recipe, model=str(Path(folder, "model")), seed=seed)
            learner = Learner(recipe, model.preprocess, self.images, self.steps)
        learner.begin_epoch(0)
        train = self.samples["train"]
        epochs = range(math.ceil(self.steps * recipe.batch / len(train)) + 1)
        batches = recipe_batches(recipe, model.preprocess, train, epochs, cache=self.cache)
        for number, (pixels, labels) in enumerate(islice(batches, self.steps)):
            learner.step(pixels, labels, number)
        network = learner.network.to("cpu", memory_format=torch.contiguous_format)
        return replace(model, network=network.eval())

    def accuracy(self, model: Model) -> float:
        """Top-1 on the validation images."""
        samples = self.samples["val"]
        classify = classifier_function(Classifier(model), torch.device("cpu"))
        batch, workers = images_at_once(self.recipe), self.recipe.workers or 0
        answers = predict_samples(classify, samples, model.preprocess, batch, workers)
        return top_k_accuracy(np.array([sample.label for sample in samples]), answers, 1)
