"""The last training of a search: its network once more, with the images that it was chosen by.

When nothing is left to choose, these images have done their work, and of few every one counts. The
same pretrained weights learn once more, from them too, and the mean of both trainings' weights is
shipped: they lie near each other, and their mean does better than either ("model soups",
arXiv 2203.05482, section 3). How much better is measured in docs/run.md.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from edgewise.data.dataset import Dataset
from edgewise.model import Model, cooled
from edgewise.run_folder import Run
from edgewise.search.choice import Trial
from edgewise.search.decisions import Numbers
from edgewise.search.finishing import made_files, selected_by
from edgewise.search.shipping import best_file
from edgewise.search.state import State
from edgewise.search.trials import tried
from edgewise.search.ways import Way
from edgewise.training.history import kept_epoch, read_history
from edgewise.weights.folder import load_model, save_model

SECOND, MEAN = "second", "mean"  # runs in `SearchFolder.again`
# Of the first run, for the mean of both: what is calibrated and verified on is its.
COPIED = ("data", "split", "quarantine", "environment", "metrics", "recipe")


def learned_again(
    search: State, trials: Sequence[Trial], files: Sequence[Numbers]
) -> list[Numbers]:
    """The best file, made anew of a network that learned from all images but the test's.

    Only if the long training kept time for it, and if the best file is its: of one that learned
    from a teacher, smaller images or int8's rounding there is no second training like the first.
    """
    first, best = search.log.made["train"], best_file(files)
    final, folder = Run(search.folder.final), search.folder.again
    if not first.get("again") or best is None:
        return []
    if search.folder.at(best["folder"]).parent != final.exports:
        return []
    trial = next(trial for trial in trials if trial.name == first["trial"])
    second, mean = Run(folder / SECOND), Run(folder / MEAN)
    trainer = replace(search.trainer, dataset=with_val(search.dataset))

    def learn() -> Numbers:
        entrant, minutes = trial.entrant, first["again"]
        # The images of val can't calibrate what has learned from them.
        settings = {"pretrained": entrant.pretrained, "calibrate": False}
        trainer.train(entrant.model, trial.imgsz, minutes, second.root, **settings)
        average(final, second, mean)
        images = len(trainer.dataset.splits["train"])
        return {"epochs": len(read_history(second)), "images": images}

    def export() -> Numbers:
        keep_float = tuple(best["float_layers"])
        (file,) = made_files(search, mean, [Way.of(best)], keep_float)
        return {"files": [_without_accuracy(file, best)]}

    if "failure" in search.decide("again", partial(tried, learn)):
        return []
    made: list[Numbers] = search.decide("files: again", export)["files"]
    return made


def with_val(dataset: Dataset) -> Dataset:
    """The same with the images of val in train as well."""
    splits = dataset.splits
    return replace(dataset, splits={**splits, "train": (*splits["train"], *splits["val"])})


def average(first: Run, second: Run, mean: Run) -> None:
    """Makes the run `mean`: all of the first one's, but the mean of both models' weights.

    Args:
        first: its logits are divided by its temperature; the second's will be by the same.
        second: of the same network, from the same pretrained weights, not calibrated.
        mean: to be made; one that is there is made anew.

    Raises:
        EdgewiseError: it can't be written.
    """
    model, other = load_model(first.model), load_model(second.model)
    other = cooled(other, kept_epoch(read_history(first)).temperature)
    network, theirs = copy.deepcopy(model.network), other.network.state_dict()
    with_theirs = {
        name: own.lerp(theirs[name], 0.5) if own.is_floating_point() else own
        for name, own in network.state_dict().items()
    }
    network.load_state_dict(with_theirs)
    save_model(Model(network, model.preprocess, model.labels), mean.model)
    for name in COPIED:
        shutil.copyfile(getattr(first, name), getattr(mean, name))


def _without_accuracy(file: Numbers, best: Numbers) -> Numbers:
    """What is known of the file: not its accuracy, as val was learned from.

    It is only held against the old file's: one that knows less of what it learned is broken.
    """
    if not file["failure"] and file["accuracy"] < best["accuracy"]:
        failure = "it is less often right than before on the images that it learned from since"
        file = {**file, "failure": failure, "fits": False}
    unknown = dict.fromkeys(("accuracy", "low", "high", "accuracy_model"))
    return {**file, **unknown, "selected_by": selected_by(best)}
