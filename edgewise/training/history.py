"""What each epoch brought: `metrics.csv`."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import get_type_hints

from edgewise.errors import UsageError
from edgewise.files import remove_halves, write_text
from edgewise.run_folder import Run
from edgewise.shell import command_line


@dataclass(frozen=True)
class EpochMetrics:
    """One line of `metrics.csv`.

    Attributes:
        epoch: from 1.
        phase: "head" while the classifier learns alone, else "all".
        lr: learning rate of the last step.
        train_loss: mean over the epoch, on augmented images, with label smoothing.
        train_accuracy: likewise.
        val_loss: mean cross-entropy of the averaged weights on the validation images.
        val_accuracy: likewise.
        val_macro_f1: mean F1 of the classes that the validation images have.
        score: by which an epoch is kept: the accuracy, or macro-F1 (recipe: select).
        images_per_second: of training, validation not counted.
        seconds: of training and validation.
        temperature: by which the kept model's logits are divided, for the least validation loss.
        score_error: the score's standard error, by the number of validation images.
    """

    epoch: int
    phase: str
    lr: float
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    val_macro_f1: float
    score: float
    images_per_second: float
    seconds: float
    temperature: float = 1.0
    score_error: float = 0.0


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        epoch: epochs that are finished.
        batch: batches done in the epoch under way.
        images: images in them.
        loss: sum of the loss over these images.
        right: how many of them were right.
        seconds: time spent on them.
        history: the finished epochs.
        divergences: how often the run went back after one; each halved the learning rate.
    """

    epoch: int = 0
    batch: int = 0
    images: int = 0
    loss: float = 0.0
    right: int = 0
    seconds: float = 0.0
    history: list[EpochMetrics] = field(default_factory=list)
    divergences: int = 0


def highest_epoch(history: Sequence[EpochMetrics]) -> EpochMetrics:
    """The epoch of the highest score, then of the lowest validation loss."""
    return max(history, key=lambda epoch: (epoch.score, -epoch.val_loss))


def kept_epoch(history: Sequence[EpochMetrics]) -> EpochMetrics:
    """The epoch whose weights are kept: the last that is not worse than the highest before it.

    Not worse is: by no more than one standard error (the 1 SE rule of Breiman et al.,
    Classification and Regression Trees, 1984). The highest of many scores on a few images is the
    luckiest, while the network goes on learning as the rate falls: see docs/training.md.
    """
    kept = highest = history[0]
    for epoch in history:
        highest = highest_epoch((highest, epoch))
        if epoch.score >= highest.score - highest.score_error:
            kept = epoch
    return kept


def progress_note(progress: Progress) -> str:
    """What the progress bar of an epoch says."""
    return (
        f"loss {progress.loss / progress.images:.3f}  "
        f"accuracy {progress.right / progress.images:.3f}  "
        f"{progress.images / progress.seconds:.0f} images/s"
    )


def epoch_line(metrics: EpochMetrics, epochs: int, is_kept: bool) -> str:
    """What is printed of an epoch of so many."""
    return (
        f"epoch {metrics.epoch}/{epochs} ({metrics.phase})  "
        f"train: loss {metrics.train_loss:.3f}, accuracy {metrics.train_accuracy:.3f}  "
        f"val: loss {metrics.val_loss:.3f}, accuracy {metrics.val_accuracy:.3f}"
        f"{' (kept)' if is_kept else ''}  "
        f"{metrics.images_per_second:.0f} images/s, {metrics.seconds:.0f} s"
    )


def write_history(run: Run, history: Sequence[EpochMetrics]) -> None:
    """Writes `metrics.csv`, the whole of it, so that it never ends in half a line.

    Raises:
        EdgewiseError: it can't be written; the old one is unchanged.
    """
    text = io.StringIO()
    names = [column.name for column in fields(EpochMetrics)]
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(epoch) for epoch in history)
    remove_halves(run.metrics)
    write_text(run.metrics, text.getvalue())


def read_history(run: Run) -> list[EpochMetrics]:
    """The epochs in `metrics.csv`.

    Raises:
        UsageError: there is no such file, or it was edited into nonsense.
    """
    types = get_type_hints(EpochMetrics)
    try:
        with run.metrics.open(newline="", encoding="utf-8") as file:
            return [
                EpochMetrics(**{name: types[name](text) for name, text in row.items()})
                for row in csv.DictReader(file)
            ]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"can't read {run.metrics} ({error}); "
            f"`{command_line('train', '--resume', run.root)}` writes it"
        ) from None
