"""What `verify` saw of a run's exported files."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edgewise.deploy.artifact import Artifact, digest
from edgewise.errors import UsageError
from edgewise.files import changed_files, read_json, sha256_file
from edgewise.training.evaluate import Skipped
from edgewise.validation import from_plain

PASSED, FAILED, NOT_RUN = "passed", "failed", "converted, not run"


@dataclass(frozen=True)
class Seen:
    """What `verify` saw of one artefact. None: not measured.

    Attributes:
        name: as in "onnx-int8".
        folder: of the artefact, relative to the run if it is in there.
        file: that the runtime loads, likewise.
        sha256: of all that the runtime loads, see `edgewise.deploy.artifact.digest`.
        bytes: likewise.
        format: of it.
        precision: of it.
        runtime: what ran it, with its version; "" if nothing here can.
        golden: the number of golden inputs that it answered.
        golden_largest_difference: of a probability from the stored answers to those inputs.
        images: how many of the split both runtimes answered.
        largest_difference: between two probabilities, over all these images and classes.
        agreement: the part of the images, 0 to 1, with the same top class; of the golden inputs
            where there are no images.
        accuracy: top-1 accuracy on them, 0 to 1.
        accuracy_low: the lower end of its 95 % interval.
        accuracy_high: the upper end.
        accuracy_model: top-1 accuracy of the PyTorch model on them.
        median_ms: of one image, from pixels to probabilities, on all cores.
        p90_ms: likewise.
        float_layers: layers that an int8 file computes in float.
        not_here: what to install to run it here; "" where it was run, or nothing would do.
        failures: a sentence for each thing that is wrong; empty if it passed.
    """

    name: str
    folder: str
    file: str = ""
    sha256: str = ""
    bytes: int = 0
    format: str = ""
    precision: str = ""
    runtime: str = ""
    golden: int = 0
    golden_largest_difference: float | None = None
    images: int = 0
    largest_difference: float | None = None
    agreement: float | None = None
    accuracy: float | None = None
    accuracy_low: float | None = None
    accuracy_high: float | None = None
    accuracy_model: float | None = None
    median_ms: float | None = None
    p90_ms: float | None = None
    float_layers: tuple[str, ...] = ()
    not_here: str = ""
    failures: tuple[str, ...] = ()

    @property
    def status(self) -> str:
        """Whether it passed."""
        return FAILED if self.failures else PASSED if self.runtime else NOT_RUN

    @property
    def exact(self) -> bool:
        """Whether its answers should be the model's own but for rounding."""
        return self.precision == "fp32"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, with the status."""
        return {**asdict(self), "status": self.status}

    def failed(self, *failures: str) -> Seen:
        """The same with `failures` added."""
        return replace(self, failures=(*self.failures, *failures))


@dataclass(frozen=True)
class Verification:
    """What `verify` saw; `verify.json` has the same keys, "passed", and each artefact's "status".

    Attributes:
        model_sha256: of the weights of the PyTorch model.
        split: whose images were used.
        skipped: those that could not be read, now or when the data was checked, or were changed.
        tolerance: the largest difference of a probability that a float32 file may have.
        most_lost: of the accuracy that any other file may lose.
        artifacts: one after the other.
        gone: says that the run's images are gone, so that the files were held to their golden
            inputs alone; "" if they are there.
    """

    model_sha256: str
    split: str
    skipped: tuple[Skipped, ...]
    tolerance: float
    most_lost: float
    artifacts: tuple[Seen, ...]
    gone: str = ""

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return not any(seen.failures for seen in self.artifacts)

    def to_json(self) -> dict[str, Any]:
        """What `verify.json` holds."""
        seen = [item.to_json() for item in self.artifacts]
        return {**asdict(self), "artifacts": seen, "passed": self.passed}


def seen_before(path: Path, root: Path, model_sha256: str) -> tuple[Seen, ...]:
    """What the `verify.json` at `path` has of artefacts below `root` that are as they were then.

    Nothing if the model is another one now, or the file is not there or was edited.
    """
    try:
        told = read_json(path)
        if told["model_sha256"] != model_sha256:
            return ()
        seen = [from_plain(Seen, item, path.name) for item in told["artifacts"]]
    except (UsageError, KeyError, TypeError):
        return ()
    return tuple(s for s in seen if is_as_it_was(root, s.folder, s.file, s.sha256))


def is_as_it_was(root: Path, folder: str, file: str, sha256: str) -> bool:
    """Whether an artefact in the run at `root` is there as `verify` saw it; see `Seen`."""
    artifact, path = root / folder, root / file
    if not artifact.is_dir():
        return False
    if not file or digest(artifact) == sha256:
        return True
    # A `verify.json` of before has the digest of `file` alone, or none of a folder. The manifest
    # says of the files beside it that they are those of the export.
    of_file = sha256_file(path) if path.is_file() else ""
    return of_file == sha256 and Artifact.is_artifact(artifact) and not changed_files(artifact)
