"""Does an exported file give the model's own answers? Checked in its runtime, on real files."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgewise.data.dataset import Dataset, ImagesGoneError, Sample, read_dataset
from edgewise.data.labelled import relative
from edgewise.deploy.artifact import GOLDEN, Artifact, changes, digest
from edgewise.deploy.decoded import answers, decode_batches, decoded_once
from edgewise.deploy.export import TRUSTED
from edgewise.deploy.formats import FORMATS
from edgewise.deploy.golden import Golden, read_golden
from edgewise.deploy.isolated import NotStartedError, isolated
from edgewise.deploy.predictor import Predictor, open_model, open_predictor
from edgewise.deploy.verification import NOT_RUN, Seen, Verification, seen_before
from edgewise.errors import EdgewiseError, UsageError
from edgewise.files import in_turn, sha256_file, write_json
from edgewise.measure.latency import benchmark
from edgewise.progress import bar
from edgewise.run_folder import Run
from edgewise.shell import command_line
from edgewise.training.evaluate import Skipped
from edgewise.training.metrics import wilson

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgewise.model import Model
    from edgewise.preprocess import Preprocess

# The same float32 arithmetic in another order moves a probability by about 1e-6, at most 1e-5; a
# wrong padding, resize, epsilon or normalisation by 1e-2 and more. This stands between the two.
TOLERANCE = 1e-4
# A file of fewer bits answers otherwise than the model, but always in the same way, up to the
# kernels of another processor.
OWN_TOLERANCE = 0.05
MOST_LOST = 0.01  # of the accuracy, by a file of fewer bits
SPLIT = "val"
BATCH = 32
SECONDS = 1.0  # of timed calls


@dataclass(frozen=True)
class _Truth:
    """What an exported file is held to.

    Attributes:
        root: what the paths are relative to, for the messages.
        samples: the images.
        labels: of the images, int64 (N,).
        probabilities: of the PyTorch model, float32 (N, classes).
        classes: the model's labels.
        preprocess: the model's.
        gone: whether the images are, so that only the golden inputs are left.
    """

    root: Path
    samples: tuple[Sample, ...]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    classes: tuple[str, ...]
    preprocess: Preprocess
    gone: bool = False


class _HeldTo:
    """The model that files are held to, and its answers.

    A network that learned to compute in int8 gives other answers in float: an int8 file is held to
    the former, all others are to the latter.

    Attributes:
        skipped: images that can't be read.
    """

    def __init__(self, model: Model, dataset: Dataset | None) -> None:
        self._model, self._dataset = model, dataset
        self._known: dict[bool, tuple[Predictor, _Truth]] = {}
        self.skipped: tuple[Skipped, ...] = ()

    def file_in(self, precision: str) -> tuple[Predictor, _Truth]:
        """What a file of that precision is held to."""
        from edgewise.deploy.pytorch import TorchPredictor
        from edgewise.training.rounding import as_learned

        rounds = precision == "int8" and bool(self._model.int8_ranges)
        if rounds not in self._known:
            predictor = TorchPredictor(as_learned(self._model) if rounds else self._model)
            if self._dataset is None:
                truth = _without_images(predictor)
            else:
                truth, self.skipped = _answers_of_model(self._dataset, predictor)
            self._known[rounds] = predictor, truth
        return self._known[rounds]


def verify(run: Run, names: Sequence[str] = (), exports: Path | None = None) -> Verification:
    """Holds a run's exported files to its PyTorch model, and writes `verify.json` either way.

    What is written there of artefacts that are not named, or whose runtime is not installed here,
    stays if they and the model are the same. Of artefacts in another folder than the run's own,
    nothing is written. Where it can't be written, that is said on standard error.

    Checked are the manifests, labels and preprocessing, the golden inputs, and every image of the
    run's validation split, in the runtime that a file is for. Where the images are gone, all else
    is checked, and nothing is written.

    Args:
        run: what was exported.
        names: of the artefacts, such as "onnx-int8"; all of them if none is named.
        exports: the folder that they are in; None for the run's own.

    Raises:
        UsageError: there is no such export yet, or the list of the images was edited.
        EdgewiseError: the process that a file is to be run in can't be started; nothing is written.
    """
    folders = _folders(exports or run.exports)
    found = [item for item in folders if not names or item.name in names]
    if not found:
        wanted = f" as {', '.join(names)}" if names else ""
        raise UsageError(
            f"{run.root} has not been exported{wanted} yet. "
            f"Run: {command_line('export', run.root, '--format', 'onnx')}"
        )
    dataset: Dataset | None = None
    gone = ""
    try:
        dataset = read_dataset(run)
    except ImagesGoneError as error:
        gone = str(error)
    weights = sha256_file(run.weights) if run.weights.is_file() else ""
    try:
        model = open_model(run.model)
    except UsageError as error:  # the call was right: it is the files that are wrong
        seen = tuple(Seen(path.name, _in(run.root, path)).failed(str(error)) for path in found)
        skipped: tuple[Skipped, ...] = ()
    else:
        held_to = _HeldTo(model, dataset)
        with decoded_once():
            seen = tuple(_check(path, run, held_to) for path in found)
        skipped = held_to.skipped
    verification = Verification(weights, SPLIT, skipped, TOLERANCE, MOST_LOST, seen, gone)
    # What a report is made of are comparisons on images.
    if not gone and (exports is None or exports.resolve() == run.exports.resolve()):
        try:
            _write(verification, run)
        except EdgewiseError as error:  # what was seen is worth telling all the same
            print(f"not kept: {error}", file=sys.stderr)
    return verification


def _write(verification: Verification, run: Run) -> None:
    """With what is known of artefacts of the same model that were not named, or run, this time."""
    with in_turn(run.verification):  # two exports of a run may end at once
        known = seen_before(run.verification, run.root, verification.model_sha256)
        every = {item.name: item for item in known}
        for item in verification.artifacts:
            if not (item.not_here and item.status == NOT_RUN and item.name in every):
                every[item.name] = item
        artifacts = tuple(every[name] for name in sorted(every))
        write_json(run.verification, replace(verification, artifacts=artifacts).to_json())


def verify_alone(folder: Path) -> Seen:
    """Holds an artefact that was copied here to its golden inputs; there are no images then.

    Raises:
        UsageError: it is no artefact.
        EdgewiseError: the process that it is to be run in can't be started.
    """
    artifact = Artifact.read(folder)
    seen = replace(_described(folder.name, artifact, folder.parent), folder=str(folder))
    seen = seen.failed(*changes(folder))
    try:
        golden = read_golden(folder / GOLDEN)
        work = partial(_golden_alone, artifact, seen, golden)
        return work() if artifact.info.format in TRUSTED else isolated(work)
    except NotStartedError:
        raise
    except EdgewiseError as error:
        return seen.failed(str(error))


def _golden_alone(artifact: Artifact, seen: Seen, golden: Golden) -> Seen:
    if not (format := FORMATS[artifact.info.format]).runs_here():
        return replace(seen, not_here=format.not_here())
    exported = open_predictor(artifact.folder)
    seen = replace(seen, runtime=exported.runtime)
    size, classes = exported.preprocess.size, len(exported.labels)
    if (golden.pixels.shape[1], golden.probabilities.shape[1]) != (size, classes):
        return seen.failed(f"{GOLDEN} does not fit {artifact.path}: export it again")
    return _timed(exported, _compare_golden_alone(golden, exported, seen))


def _folders(exports: Path) -> list[Path]:
    """The artefacts, and what is left of those that lost a file."""
    if not exports.is_dir():
        return []
    return sorted(
        path for path in exports.iterdir() if path.is_dir() and not path.name.startswith(".")
    )


def _in(root: Path, path: Path) -> str:
    """What `path` is called in `root`; its whole name if it is elsewhere."""
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()


def _answers_of_model(dataset: Dataset, model: Predictor) -> tuple[_Truth, tuple[Skipped, ...]]:
    sample_at = {sample.path: sample for sample in dataset.splits[SPLIT]}
    bad = [item for item in dataset.quarantined if item.split == SPLIT]
    skipped = [Skipped(dataset.relative(item.path), item.reason) for item in bad]
    samples, rows = [], []
    with bar("answers of the model", len(sample_at)) as progress:
        for decoded in decode_batches(sample_at.values(), model.preprocess, BATCH):
            for item, answer in zip(decoded, answers(model, decoded), strict=True):
                if answer is None:
                    skipped.append(Skipped(dataset.relative(item.path), item.error))
                else:
                    samples.append(sample_at[item.path])
                    rows.append(answer)
            progress.advance(len(decoded))
    labels = np.array([sample.label for sample in samples], np.int64)
    probabilities = np.array(rows, np.float32).reshape(len(rows), len(model.labels))
    truth = _Truth(
        dataset.root, tuple(samples), labels, probabilities, model.labels, model.preprocess
    )
    return truth, tuple(skipped)


def _without_images(model: Predictor) -> _Truth:
    nothing = np.zeros((0, len(model.labels)), np.float32)
    return _Truth(
        *(Path(), (), np.zeros(0, np.int64), nothing, model.labels, model.preprocess), gone=True
    )


def _check(folder: Path, run: Run, held_to: _HeldTo) -> Seen:
    """One artefact, from its files to its answers."""
    seen = Seen(folder.name, _in(run.root, folder))
    try:
        seen = seen.failed(*changes(folder))
        artifact = Artifact.read(folder)
    except UsageError as error:
        return seen.failed(f"{error}: export it again")
    seen = replace(_described(folder.name, artifact, run.root), failures=seen.failures)
    model, truth = held_to.file_in(artifact.info.precision)
    seen, golden = _check_golden(folder / GOLDEN, model, seen)
    try:
        work = partial(_check_answers, artifact, seen, truth, golden)
        return work() if artifact.info.format in TRUSTED else isolated(work)
    except NotStartedError:
        raise
    except EdgewiseError as error:
        return seen.failed(str(error))


def _described(name: str, artifact: Artifact, root: Path) -> Seen:
    """What there is to say of an artefact before it is run."""
    info, path = artifact.info, artifact.path
    return Seen(
        name=name,
        folder=_in(root, artifact.folder),
        file=_in(root, path),
        bytes=artifact.bytes,
        format=info.format,
        precision=info.precision,
        float_layers=info.float_layers,
        sha256=digest(artifact.folder),
    )


def _check_golden(path: Path, model: Predictor, seen: Seen) -> tuple[Seen, Golden | None]:
    """Whether the model still answers as it did at the export."""
    try:
        golden = read_golden(path)
    except UsageError as error:
        return seen.failed(str(error)), None
    size, classes = model.preprocess.size, len(model.labels)
    if (golden.pixels.shape[1], golden.probabilities.shape[1]) != (size, classes):
        return seen.failed(f"{path} does not fit the model: export it again"), None
    distance = _difference(model.probabilities(golden.pixels), golden.probabilities)
    if distance > TOLERANCE:
        seen = seen.failed(
            f"the model's answers to the golden inputs are {distance:.1e} away from those at the "
            "export: it was trained on since, or changed. Export it again"
        )
    return seen, golden


def _check_answers(artifact: Artifact, seen: Seen, truth: _Truth, golden: Golden | None) -> Seen:
    """What the exported file says, in its own runtime."""
    if not (format := FORMATS[artifact.info.format]).runs_here():
        return replace(seen, not_here=format.not_here())
    exported = open_predictor(artifact.folder)
    seen = _check_metadata(truth, exported, replace(seen, runtime=exported.runtime))
    if exported.preprocess != truth.preprocess or len(exported.labels) != len(truth.classes):
        return seen
    if golden is not None:
        compare = _compare_golden_alone if truth.gone else _compare_golden
        seen = compare(golden, exported, seen)
    if not truth.gone:
        seen = _compare_images(truth, exported, seen)
    return _timed(exported, seen)


def _timed(exported: Predictor, seen: Seen) -> Seen:
    """With the latency of one image."""
    size = exported.preprocess.size
    pixels = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), dtype=np.uint8)
    latency = benchmark(lambda: exported.probabilities(pixels), SECONDS)
    return replace(seen, median_ms=latency.median_ms, p90_ms=latency.p90_ms)


def _check_metadata(truth: _Truth, exported: Predictor, seen: Seen) -> Seen:
    if exported.preprocess != truth.preprocess:
        seen = seen.failed(
            f"{seen.file} has {exported.preprocess}, the model {truth.preprocess}: export it again"
        )
    if len(exported.labels) != len(truth.classes):
        counts = f"{len(exported.labels)} labels, the model {len(truth.classes)}"
        return seen.failed(f"{seen.file} has {counts}: export it again")
    for index, labels in enumerate(zip(exported.labels, truth.classes, strict=True)):
        if labels[0] != labels[1]:
            return seen.failed(
                f"{seen.file}: label {index} is '{labels[0]}', in the model '{labels[1]}': "
                "export it again"
            )
    return seen


def _compare_golden(golden: Golden, exported: Predictor, seen: Seen) -> Seen:
    theirs = exported.probabilities(golden.pixels)
    seen = replace(seen, golden=len(theirs))
    expected = golden.probabilities if seen.exact else golden.answers
    if expected is None:
        return seen
    distance = _difference(theirs, expected)
    if distance > (TOLERANCE if seen.exact else OWN_TOLERANCE):
        seen = seen.failed(
            f"the answers of {seen.file} to the golden inputs are {distance:.1e} away from the "
            "stored ones: export it again"
        )
    return replace(seen, golden_largest_difference=distance)


def _compare_golden_alone(golden: Golden, exported: Predictor, seen: Seen) -> Seen:
    """With what is otherwise seen on images."""
    theirs = exported.probabilities(golden.pixels)
    same = float((theirs.argmax(1) == golden.probabilities.argmax(1)).mean())
    return replace(_compare_golden(golden, exported, seen), agreement=same)


def _compare_images(truth: _Truth, exported: Predictor, seen: Seen) -> Seen:
    rows: list[NDArray[np.float32]] = []
    with bar(f"comparing {seen.name}", len(truth.samples)) as progress:
        for decoded in decode_batches(truth.samples, truth.preprocess, BATCH):
            for item, answer in zip(decoded, answers(exported, decoded), strict=True):
                if answer is None:
                    raise EdgewiseError(f"{item.path} can't be read any more: {item.error}")
                rows.append(answer)
            progress.advance(len(decoded))
    count = len(rows)
    if not count:
        return seen.failed(
            f"no image of the split {SPLIT} can be read, so nothing was compared on real files"
        )
    theirs = np.stack(rows)
    top, other = truth.probabilities.argmax(1), theirs.argmax(1)
    accuracy_model, right = float((top == truth.labels).mean()), int((other == truth.labels).sum())
    low, high = wilson(right, count)
    seen = replace(
        seen,
        images=count,
        largest_difference=_difference(theirs, truth.probabilities),
        agreement=float((top == other).mean()),
        accuracy=right / count,
        accuracy_low=low,
        accuracy_high=high,
        accuracy_model=accuracy_model,
    )
    return _judged(seen, truth, theirs)


def _judged(seen: Seen, truth: _Truth, theirs: NDArray[np.float32]) -> Seen:
    """A float32 file must answer as the model does; another may lose a little accuracy."""
    largest, accuracy, model = seen.largest_difference, seen.accuracy, seen.accuracy_model
    assert largest is not None and accuracy is not None and model is not None
    if not np.isfinite(theirs).all():
        return seen.failed("an answer is not a number: probabilities differ by up to 1.0e+00")
    if not seen.exact:
        lost = model - accuracy
        # One image more or less decides nothing.
        if lost > max(MOST_LOST, 1.5 / seen.images):
            seen = seen.failed(
                f"{seen.precision} loses {100 * lost:.1f} points of accuracy: "
                f"{model:.1%} of {seen.images:,} images are right in the model, {accuracy:.1%} in "
                f"{seen.file}"
            )
        return seen
    if largest > TOLERANCE:
        seen = seen.failed(f"probabilities differ by up to {largest:.1e}, over {TOLERANCE:.0e}")
    top, other = truth.probabilities.argmax(1), theirs.argmax(1)
    ours = np.take_along_axis(truth.probabilities, np.stack([top, other], 1), 1)
    disputed = np.flatnonzero(ours[:, 0] - ours[:, 1] > TOLERANCE)  # else the two are a tie
    if len(disputed):
        first = relative(truth.samples[disputed[0]].path, truth.root)
        seen = seen.failed(
            f"{len(disputed)} images have another top class in {seen.file}, such as {first}"
        )
    return seen


def _difference(answer: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """The largest of all; 1, the most that two probabilities can differ, if one is not a number."""
    if not answer.size:
        return 0.0
    return float(np.nan_to_num(np.abs(answer - expected), nan=1.0).max())
