"""Runs side by side: what was asked of each, what came of it, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgewise.errors import UsageError, missing_package
from edgewise.files import write_atomic
from edgewise.reporting.record import Json, Record, read_record
from edgewise.run_folder import Run
from edgewise.training.history import kept_epoch
from edgewise.training.metrics import wilson

PICTURE_FORMATS = (".png", ".svg", ".pdf")
NOT_OF_THE_RESULT = ("device", "tensorboard", "workers")  # settings that change no weight


@dataclass(frozen=True)
class Score:
    """An accuracy of so many images, with its 95 % interval (Wilson's)."""

    split: str
    images: int
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class Compared:
    """One run.

    Attributes:
        run: its folder.
        settings: those in which the runs differ.
        epochs: that were finished.
        kept_epoch: whose weights were kept.
        val: the kept epoch's validation accuracy; it was chosen on these images, so expect less.
            None if the run learned from them, too, as the last training of a search may.
        test: of the kept weights on the test split, by `edgewise eval`; None if not evaluated.
        images_per_second: of training, the mean over the epochs.
        seconds: of all epochs.
    """

    run: str
    settings: dict[str, Any]
    epochs: int
    kept_epoch: int
    val: Score | None
    test: Score | None
    images_per_second: float
    seconds: float


@dataclass(frozen=True)
class Comparison:
    """Runs, in the order given, and what stands against comparing them."""

    runs: tuple[Compared, ...]
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """A dictionary of plain JSON values."""
        return asdict(self)


def compare_runs(folders: Sequence[Path]) -> Comparison:
    """Reads the runs.

    Raises:
        UsageError: no such run, or one without a finished epoch.
    """
    records = [read_record(Run.open(folder)) for folder in folders]
    for record in records:
        if not record.epochs:
            raise UsageError(f"{record.run.root} has no finished epoch yet")
    recipes = [asdict(record.recipe) for record in records]
    differing = [
        name
        for name in recipes[0]
        if name not in NOT_OF_THE_RESULT and len({repr(recipe[name]) for recipe in recipes}) > 1
    ]
    listed = [record for record in records if record.images]
    # Not by their fingerprints, in which an image counts once for each split that it is in.
    data = {frozenset((row["sha256"], row["label"]) for row in r.images) for r in listed}
    warnings = ["the runs are not on the same images"] if len(data) > 1 else []
    # Of the same images, others may be in val or in test.
    validated = {_val_images(record) for record in listed if not record.learned_val}
    warnings += ["the runs are not validated on the same images"] if len(validated) > 1 else []
    tested = {_test_images(record) for record in records if _tested(record)}
    warnings += ["the runs are not tested on the same images"] if len(tested) > 1 else []
    warnings += [
        f"{record.run.root} learned from val's images, too: only the test tells its accuracy"
        for record in records
        if record.learned_val
    ]
    return Comparison(
        tuple(
            _compared(record, {name: recipe[name] for name in differing})
            for record, recipe in zip(records, recipes, strict=True)
        ),
        tuple(warnings),
    )


def _compared(record: Record, settings: dict[str, Any]) -> Compared:
    kept = kept_epoch(record.epochs)
    counts = record.data["counts"]["val"] if record.data else {}
    test = None
    if (evaluation := _tested(record)) is not None:
        test = _score("test", evaluation["images"], evaluation["top1"])
    return Compared(
        run=str(record.run.root),
        settings=settings,
        epochs=len(record.epochs),
        kept_epoch=kept.epoch,
        val=None if record.learned_val else _score("val", sum(counts.values()), kept.val_accuracy),
        test=test,
        images_per_second=sum(e.images_per_second for e in record.epochs) / len(record.epochs),
        seconds=sum(epoch.seconds for epoch in record.epochs),
    )


def _tested(record: Record) -> Json | None:
    """The evaluation on the test split, if there is one."""
    evaluation = record.evaluation
    return evaluation if evaluation and evaluation["split"] == "test" else None


def _val_images(record: Record) -> frozenset[str]:
    """The SHA-256 of each image of the val split."""
    return frozenset(row["sha256"] for row in record.images if row["split"] == "val")


def _test_images(record: Record) -> frozenset[str]:
    """The SHA-256 of each image of the test split that was classified."""
    answered = {row["path"] for row in record.predictions}
    return frozenset(
        row["sha256"] for row in record.images if row["split"] == "test" and row["path"] in answered
    )


def _score(split: str, images: int, accuracy: float) -> Score:
    return Score(split, images, accuracy, *wilson(round(accuracy * images), max(images, 1)))


def write_picture(folders: Sequence[Path], path: Path) -> None:
    """Validation accuracy by epoch, and the runs' accuracies with their intervals.

    A run that learned from val's images, too, has no curve.

    Raises:
        UsageError: matplotlib is not installed, another suffix, or as `compare_runs`.
        EdgewiseError: the file can't be written.
    """
    if path.suffix.lower() not in PICTURE_FORMATS:
        raise UsageError(f"a picture's name ends in {', '.join(PICTURE_FORMATS)}, not {path}")
    try:
        from matplotlib.figure import Figure
        from matplotlib.lines import Line2D
        from matplotlib.ticker import MaxNLocator
    except ImportError as error:
        raise missing_package("matplotlib", "bench") from error
    comparison = compare_runs(folders)
    height = max(4.5, 1 + 0.4 * len(folders))
    figure = Figure(figsize=(11, height), layout="constrained", dpi=120)
    curves, scores = figure.subplots(1, 2)
    for place, (folder, run) in enumerate(zip(folders, comparison.runs, strict=True)):
        epochs = read_record(Run(folder)).epochs if run.val else ()
        (line,) = curves.plot(
            [e.epoch for e in epochs],
            [100 * e.val_accuracy for e in epochs],
            marker=".",
            label=str(folder),
        )
        for score, marker, shift in ((run.val, "o", -0.1), (run.test, "s", 0.1)):
            if score:
                scores.errorbar(
                    100 * score.accuracy,
                    place + shift,
                    xerr=[
                        [100 * (score.accuracy - score.low)],
                        [100 * (score.high - score.accuracy)],
                    ],
                    fmt=marker,
                    color=line.get_color(),
                    capsize=3,
                )
    curves.set(xlabel="epoch", ylabel="validation accuracy, %")
    curves.legend(fontsize=8)
    scores.set_yticks(range(len(folders)), [str(folder) for folder in folders])
    scores.set_ylim(len(folders) - 0.5, -0.5)
    scores.set(xlabel="accuracy, %, with its 95 % interval")
    handles = [
        Line2D([], [], color="grey", marker=marker, label=name)
        for name, marker in (("validation", "o"), ("test", "s"))
    ]
    scores.legend(handles=handles, fontsize=8)
    curves.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (curves, scores):
        axes.grid(alpha=0.3)
    kind = path.suffix.lower().removeprefix(".")
    write_atomic(path, lambda file: figure.savefig(file, format=kind))
