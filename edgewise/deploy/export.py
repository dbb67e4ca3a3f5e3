"""From a trained model to folders for other runtimes, each with what it takes to check it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from edgewise import __version__
from edgewise.data.dataset import Sample, read_dataset
from edgewise.deploy import on_device
from edgewise.deploy.artifact import GOLDEN, MOST_CHANGED, PREDICT, Artifact, Info, making
from edgewise.deploy.calibration import calibration_pixels, some_pixels
from edgewise.deploy.engine import EnginePredictor
from edgewise.deploy.formats import Format, Job, format_named
from edgewise.deploy.golden import write_golden
from edgewise.deploy.isolated import isolated
from edgewise.deploy.predictor import open_classifier
from edgewise.errors import CantWrite, EdgewiseError, UsageError, missing_package, shortened
from edgewise.files import write_bytes
from edgewise.run_folder import Run

WRONG = 0.01  # more than rounding can do to a probability; `verify` is stricter
# These never crashed; the others convert in a process of their own.
TRUSTED = ("onnx", "openvino", "tensorrt")


def export(
    source: str | Path,
    format: str = "onnx",
    precision: str = "fp32",
    output: Path | None = None,
    calibrate: Path | None = None,
    keep_float: tuple[str, ...] | None = None,
    most_changed: float = MOST_CHANGED,
) -> Artifact:
    """Exports a run, a model folder or a model name (its ImageNet weights).

    Args:
        source: what to export.
        format: see `edgewise.deploy.formats.FORMATS`.
        precision: "fp32", "fp16", "bf16" or "int8", as far as the format has it.
        output: the folder in which "FORMAT-PRECISION" is made; None for a run's own export folder,
            and for NAME-export in the current one.
        calibrate: images for int8; a run's own training images if None.
        keep_float: layers, or modules of layers, that int8 leaves in float; None: as few as keep
            the answers.
        most_changed: what that means: the share of images that may get another top class.

    Raises:
        UsageError: an unknown format, precision or source; a package is missing; there are no
            images to calibrate on; layers to keep in float in a format that can't.
        EdgewiseError: the network can't be expressed in that format, the file's answers are not the
            model's, or it can't be written, or the temporary folder is full.
    """
    chosen = format_named(format)
    chosen.check(precision, keep_float or ())
    if missing := chosen.missing():
        raise missing_package(missing, chosen.extra)
    folder = (output or export_folder(source)) / f"{format}-{precision}"
    with TemporaryDirectory() as temporary:
        pixels: Path | None = None
        if precision == "int8":
            pixels = Path(temporary, "pixels.npz")
            chooses = keep_float is None and chosen.keeps_float
            _write_pixels(source, calibrate, _validation_images(source) if chooses else (), pixels)
        asked = (keep_float, most_changed, calibrate)
        if format in TRUSTED:
            _export(source, format, precision, folder, pixels, *asked)
        else:
            isolated(_export, source, format, precision, folder, pixels, *asked)
    return Artifact.read(folder)


def export_folder(source: str | Path) -> Path:
    """Where the artefacts of a source go."""
    if Run.is_run(Path(source)):
        return Run(Path(source)).exports
    return Path(f"{Path(source).resolve().name}-export")


def _write_pixels(
    source: str | Path, data: Path | None, checked_on: Sequence[Sample], path: Path
) -> None:
    """Writes what `Job` calls `calibration` and, where there is any, `checked`.

    Raises:
        CantWrite: the temporary folder is full.
        EdgewiseError: as `calibration_pixels`.
    """
    model = open_classifier(source)
    calibration = calibration_pixels(source, data, model.preprocess, model.labels)
    print(f"calibrating on {len(calibration):,} images", flush=True)
    pixels: dict[str, Any] = {"calibration": calibration}
    checked = some_pixels(checked_on, model.preprocess)
    if checked is not None:
        pixels["checked"] = checked
    try:
        np.savez(path, **pixels)
    except (OSError, ValueError) as error:  # ValueError: the zip file can't be ended either
        raise CantWrite(
            f"can't write the images for int8 in the temporary folder {path.parent.parent} "
            f"({shortened(error)}). Free some space there, or name another folder in the "
            "environment variable TMPDIR."
        ) from error


def _export(
    source: str | Path,
    format: str,
    precision: str,
    folder: Path,
    pixels: Path | None,
    keep_float: tuple[str, ...] | None,
    most_changed: float,
    calibrate: Path | None,
) -> None:
    from edgewise.deploy.pytorch import TorchPredictor
    from edgewise.training.rounding import as_learned

    model, chosen = open_classifier(source), format_named(format)
    arrays = {} if pixels is None else dict(np.load(pixels))
    with making(folder) as staging:
        job = Job(
            *(model, precision, staging / chosen.file),
            keep_float=keep_float,
            most_changed=most_changed,
            **arrays,
        )
        in_float = chosen.write(job)
        info = _info(job, chosen, in_float, calibrate)
        info.write(staging)
        for note in job.notes:
            print(f"note: {info.name}: {note}", file=sys.stderr)
        if chosen.readers:
            write_bytes(staging / PREDICT, Path(on_device.__file__).read_bytes())
        reader = chosen.readers[0] if chosen.readers else None
        here = reader if reader and reader.version() else None
        exported = EnginePredictor(here.open(job.path, info)) if here else None
        images = _validation_images(source)
        held_to = TorchPredictor(as_learned(model) if precision == "int8" else model)
        distance = write_golden(held_to, exported, images, staging / GOLDEN).distance
        # What fewer bits cost is for `verify` to judge, but NaN is no answer at all.
        finite = np.isfinite(distance)
        if not finite or (precision == "fp32" and distance > WRONG):
            off = f"off by {distance:.2g}" if finite else "not a number"
            raise EdgewiseError(
                f"{info.name} does not give the model's answers: a probability is {off} on its "
                "golden inputs, so it was not kept. This is a fault of the converter or of ours; "
                "try another format or precision."
            )


def _info(job: Job, chosen: Format, in_float: Sequence[str], calibrate: Path | None) -> Info:
    int8 = job.precision == "int8"
    versions = {"edgewise": __version__}
    versions |= {package: metadata.version(package) for package in ("torch", *chosen.packages)}
    return Info(
        file=chosen.file,
        format=chosen.name,
        precision=job.precision,
        labels=job.model.labels,
        preprocess=job.model.preprocess,
        input=chosen.input,
        output=chosen.output,
        batch=chosen.batch,
        spec=job.model.network.spec.name,
        made_with=tuple(f"{package} {version}" for package, version in versions.items()),
        float_layers=tuple(in_float),
        calibrated_on=0 if job.calibration is None else len(job.calibration),
        notes=tuple(job.notes),
        keep_float=job.keep_float if int8 and chosen.keeps_float else None,
        most_changed=job.most_changed,
        calibrate=str(calibrate) if int8 and calibrate else "",
    )


def _validation_images(source: str | Path) -> Sequence[Sample]:
    """A run's validation images; none where its data is not: an export doesn't need them."""
    if not Run.is_run(Path(source)):
        return ()
    try:
        return read_dataset(Run(Path(source))).splits["val"]
    except UsageError:
        return ()
