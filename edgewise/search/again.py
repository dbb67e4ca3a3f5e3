"""The last training of a search: its network once more, with the images that it was chosen by.

When nothing is left to choose, these images have done their work, and of few every one counts. So
the same pretrained weights learn once more, in the same way, from them too. How much that brings is
measured in docs/run.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from edgewise.data.dataset import Dataset
from edgewise.files import write_bytes
from edgewise.model import cooled
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

LEARNED, CALIBRATED = "learned", "calibrated"  # runs in `SearchFolder.again`
COPIED = (
    "data",
    "split",
    "quarantine",
    "environment",
    "metrics",
    "recipe",
)  # from one to the other


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
    learned, calibrated = Run(folder / LEARNED), Run(folder / CALIBRATED)
    trainer = replace(search.trainer, dataset=with_val(search.dataset))

    def learn() -> Numbers:
        entrant, minutes = trial.entrant, first["again"]
        # The images of val can't calibrate what has learned from them.
        settings = {"pretrained": entrant.pretrained, "calibrate": False}
        trainer.train(entrant.model, trial.imgsz, minutes, learned.root, **settings)
        calibrate(learned, kept_epoch(read_history(final)).temperature, calibrated)
        images = len(trainer.dataset.splits["train"])
        return {"epochs": len(read_history(learned)), "images": images}

    def export() -> Numbers:
        keep_float = tuple(best["float_layers"])
        (file,) = made_files(search, calibrated, [Way.of(best)], keep_float)
        return {"files": [_without_accuracy(file, best)]}

    if "failure" in search.decide("again", partial(tried, learn)):
        return []
    made: list[Numbers] = search.decide("files: again", export)["files"]
    return made


def with_val(dataset: Dataset) -> Dataset:
    """The same with the images of val in train as well."""
    splits = dataset.splits
    return replace(dataset, splits={**splits, "train": (*splits["train"], *splits["val"])})


def calibrate(learned: Run, temperature: float, calibrated: Run) -> None:
    """Makes the run `calibrated`: all of the other one, but its logits divided by `temperature`.

    Raises:
        EdgewiseError: it can't be written.
    """
    save_model(cooled(load_model(learned.model), temperature), calibrated.model)
    for name in COPIED:
        write_bytes(getattr(calibrated, name), getattr(learned, name).read_bytes())


def _without_accuracy(file: Numbers, best: Numbers) -> Numbers:
    """What is known of the file: not its accuracy, as val was learned from.

    It is only held against the old file's: one that knows less of what it learned is broken.
    """
    if not file["failure"] and file["accuracy"] < best["accuracy"]:
        failure = "it is less often right than before on the images that it learned from since"
        file = {**file, "failure": failure, "fits": False}
    unknown = dict.fromkeys(("accuracy", "low", "high", "accuracy_model"))
    return {**file, **unknown, "selected_by": selected_by(best)}
