"""Does the exported file give the model's own answers? Checked in its runtime, on real files."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewise.data.dataset import Dataset, read_dataset
from edgewise.deploy.decoded import answers, decode_batches
from edgewise.deploy.export import artifact
from edgewise.deploy.formats import FORMATS
from edgewise.deploy.golden import FILE, read_golden
from edgewise.deploy.predictor import Predictor, open_predictor
from edgewise.errors import UsageError
from edgewise.files import MANIFEST, changed_files, sha256_file, write_json
from edgewise.progress import bar
from edgewise.run_folder import Run
from edgewise.training.evaluate import Skipped

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The same float32 arithmetic in another order moves a probability by about 1e-6, at most 1e-5; a
# wrong padding, resize, epsilon or normalisation by 1e-2 and more. This stands between the two.
TOLERANCE = 1e-4
SPLIT = "val"
BATCH = 32


@dataclass(frozen=True)
class Verification:
    """What `verify` saw; `verify.json` has the same keys and "passed". None: not measured.

    Attributes:
        file: the exported file, relative to the run.
        sha256: of that file.
        model_sha256: of the weights of the PyTorch model.
        bytes: of that file.
        format: of that file.
        runtime: what ran it, with its version.
        golden: the number of golden inputs.
        golden_largest_difference: from the stored answers to those inputs, of the exported file and
            of the model.
        split: whose images were used.
        images: how many of them both runtimes answered.
        skipped: those that could not be read, now or when the data was checked.
        largest_difference: between two probabilities, over all these images and classes.
        agreement: the part of the images, 0 to 1, with the same top class.
        accuracy_model: top-1 accuracy of the PyTorch model on them, 0 to 1.
        accuracy_artifact: top-1 accuracy of the exported file on them, 0 to 1.
        tolerance: the largest difference that passes.
        failures: a sentence for each thing that is wrong; empty if it passed.
    """

    file: str
    sha256: str = ""
    model_sha256: str = ""
    bytes: int = 0
    format: str = "onnx"
    runtime: str = ""
    golden: int = 0
    golden_largest_difference: float | None = None
    split: str = SPLIT
    images: int = 0
    skipped: tuple[Skipped, ...] = ()
    largest_difference: float | None = None
    agreement: float | None = None
    accuracy_model: float | None = None
    accuracy_artifact: float | None = None
    tolerance: float = TOLERANCE
    failures: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return not self.failures

    def to_json(self) -> dict[str, Any]:
        """What `verify.json` holds."""
        return {**asdict(self), "passed": self.passed}

    def failed(self, *failures: str) -> Verification:
        """The same with `failures` added."""
        return replace(self, failures=(*self.failures, *failures))


def verify(run: Run) -> Verification:
    """Holds a run's exported file to its PyTorch model, and writes `verify.json` either way.

    Checked are the manifests of the export and of the model, labels and preprocessing, the golden
    inputs, and every image of the run's validation split in both runtimes.

    Raises:
        UsageError: the run has no export yet, or its data is gone.
    """
    if not (run.exports / MANIFEST).is_file():
        raise UsageError(
            f"{run.root} has not been exported yet. Run: edgewise export {run.root} --format onnx"
        )
    dataset = read_dataset(run)
    path = artifact(run, FORMATS["onnx"])
    seen = _check_files(run, path)
    try:
        model, exported = open_predictor(run.model), open_predictor(path)
    except UsageError as error:  # the call was right: it is the files that are wrong
        seen = seen.failed(str(error))
    else:
        seen = _check_metadata(model, exported, replace(seen, runtime=exported.runtime))
        if model.preprocess == exported.preprocess and len(model.labels) == len(exported.labels):
            seen = _compare_golden(run.exports / FILE, model, exported, seen)
            seen = _compare_images(dataset, model, exported, seen)
    write_json(run.verification, seen.to_json())
    return seen


def _check_files(run: Run, path: Path) -> Verification:
    seen = Verification(path.relative_to(run.root).as_posix()).failed(*changed_files(run.exports))
    if run.weights.is_file():
        seen = replace(seen, model_sha256=sha256_file(run.weights))
    if path.is_file():
        seen = replace(seen, sha256=sha256_file(path), bytes=path.stat().st_size)
    return seen


def _check_metadata(model: Predictor, exported: Predictor, seen: Verification) -> Verification:
    if exported.preprocess != model.preprocess:
        seen = seen.failed(
            f"{seen.file} has {exported.preprocess}, the model {model.preprocess}: export it again"
        )
    if len(exported.labels) != len(model.labels):
        counts = f"{len(exported.labels)} labels, the model {len(model.labels)}"
        return seen.failed(f"{seen.file} has {counts}: export it again")
    for index, labels in enumerate(zip(exported.labels, model.labels, strict=True)):
        if labels[0] != labels[1]:
            return seen.failed(
                f"{seen.file}: label {index} is '{labels[0]}', in the model '{labels[1]}': "
                "export it again"
            )
    return seen


def _compare_golden(
    path: Path, model: Predictor, exported: Predictor, seen: Verification
) -> Verification:
    try:
        golden = read_golden(path)
    except UsageError as error:
        return seen.failed(str(error))
    size = model.preprocess.size
    count = len(golden.pixels)
    if golden.pixels.shape != (count, size, size, 3) or golden.probabilities.shape != (
        count,
        len(model.labels),
    ):
        return seen.failed(f"{path} does not fit the model: export it again")
    of_model = _difference(model.probabilities(golden.pixels), golden.probabilities)
    of_exported = _difference(exported.probabilities(golden.pixels), golden.probabilities)
    if of_model > TOLERANCE:
        seen = seen.failed(
            f"the model's answers to the golden inputs are {of_model:.1e} away from those at the "
            "export: it was trained on since, or changed. Export it again"
        )
    if of_exported > TOLERANCE:
        seen = seen.failed(
            f"the answers of {seen.file} to the golden inputs are {of_exported:.1e} away from the "
            "stored ones: export it again"
        )
    return replace(seen, golden=count, golden_largest_difference=max(of_model, of_exported))


def _compare_images(
    dataset: Dataset, model: Predictor, exported: Predictor, seen: Verification
) -> Verification:
    label_of = {sample.path: sample.label for sample in dataset.splits[SPLIT]}
    bad = [item for item in dataset.quarantined if item.split == SPLIT]
    skipped = [Skipped(dataset.relative(item.path), item.reason) for item in bad]
    compared = []
    with bar("comparing", len(label_of)) as progress:
        for decoded in decode_batches(label_of, model.preprocess, BATCH):
            pairs = zip(answers(model, decoded), answers(exported, decoded), strict=True)
            for item, (ours, theirs) in zip(decoded, pairs, strict=True):
                path = dataset.relative(item.path)
                if ours is None or theirs is None:
                    skipped.append(Skipped(path, item.error))
                else:
                    compared.append(_Compared.of(path, label_of[item.path], ours, theirs))
            progress.advance(len(decoded))
    return _sum_up(compared, replace(seen, skipped=tuple(skipped)))


@dataclass(frozen=True)
class _Compared:
    """One image's answers: its class, the top class of both, and how far they are apart."""

    path: str
    truth: int
    of_model: int
    of_exported: int
    difference: float
    disputed: bool

    @classmethod
    def of(
        cls, path: str, truth: int, ours: NDArray[np.float32], theirs: NDArray[np.float32]
    ) -> _Compared:
        top, other = int(ours.argmax()), int(theirs.argmax())
        disputed = bool(ours[top] - ours[other] > TOLERANCE)  # else the two are a tie
        return cls(path, truth, top, other, _difference(ours, theirs), disputed)


def _sum_up(compared: list[_Compared], seen: Verification) -> Verification:
    count = len(compared)
    if not count:
        return seen.failed(
            f"no image of the split {SPLIT} can be read, so nothing was compared on real files"
        )
    largest = max(image.difference for image in compared)
    if largest > TOLERANCE:
        seen = seen.failed(f"probabilities differ by up to {largest:.1e}, over {TOLERANCE:.0e}")
    if disputed := [image.path for image in compared if image.disputed]:
        seen = seen.failed(
            f"{len(disputed)} images have another top class in {seen.file}, such as {disputed[0]}"
        )
    return replace(
        seen,
        images=count,
        largest_difference=largest,
        agreement=sum(image.of_model == image.of_exported for image in compared) / count,
        accuracy_model=sum(image.of_model == image.truth for image in compared) / count,
        accuracy_artifact=sum(image.of_exported == image.truth for image in compared) / count,
    )


def _difference(answer: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """The largest of all; 1, the most that two probabilities can differ, if one is not a number."""
    return float(np.nan_to_num(np.abs(answer - expected), nan=1.0).max())
