"""The files that a survey times, in any format: those in the cache, or else written now."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import torch

from edgewise import __version__
from edgewise.deploy.formats import FORMATS, Format
from edgewise.deploy.isolated import Apart
from edgewise.errors import CantWrite, reason
from edgewise.files import of_disk, whole_folder
from edgewise.measure.store import fingerprint
from edgewise.progress import track
from edgewise.search.costs import Candidate
from edgewise.search.device import TimedFile, input_shape
from edgewise.search.graphs import graphs_folder, timing_graph, write_random
from edgewise.search.ways import ONNX, OPENVINO
from edgewise.spec import Spec
from edgewise.weights.create import create_model


def timed_files(
    candidates: Sequence[Candidate], classes: int
) -> tuple[dict[Candidate, TimedFile], dict[Candidate, str]]:
    """The candidates' files with random weights, by what `str` says of each.

    Args:
        candidates: one at least.
        classes: that are to be told apart; the files have up to a tenth of the next power of ten
            more, see `round_up`.

    Returns:
        The files; and why there is none of those that can't be written.

    Raises:
        CantWrite: there is no place for them.
    """
    graphs_folder()  # without it all would fail one by one
    made: dict[Candidate, Path | str] = {}
    kinds = {candidate: replace(candidate, runtime="") for candidate in candidates}
    with Apart() as apart:
        different = dict.fromkeys(kinds.values())
        for kind in track(different, f"files of {candidates[0].model}", len(different)):
            try:
                made[kind] = timing_file(kind, round_up(classes), apart)
            except Exception as error:  # every converter has its own kinds
                if of_disk(error):
                    raise CantWrite(reason(error)) from error
                made[kind] = reason(error)
    files, failures = {}, {}
    for candidate, kind in kinds.items():
        path = made[kind]
        if isinstance(path, Path):
            shape = input_shape(FORMATS[candidate.format].input, candidate.imgsz)
            way = candidate.runtime, candidate.precision
            files[candidate] = TimedFile(str(candidate), path, *way, shape)
        else:
            failures[candidate] = path
    return files, failures


def round_up(classes: int) -> int:
    """The next number of one digit and zeros, and 10 at least: 7 and 10 give 10, 101 gives 200.

    A classifier's size hardly shows in what a network costs, and a search of other data then finds
    its files written and timed. What is shipped is timed as it is.
    """
    unit: int = 10 ** max(1, len(str(classes - 1)) - 1)
    return unit * math.ceil(classes / unit)


def timing_file(candidate: Candidate, classes: int, apart: Apart) -> Path:
    """The file of a candidate, in whichever runtime; what was written once is in the cache.

    ONNX files are made as `timing_graph` says, and what OpenVINO has of its own as an ONNX file too
    where that can hold it. Those of the other formats are written at each size, by `Format.write`
    in a process of its own, and again when a package that writes them is another.

    Args:
        candidate: its network, size, format and precision.
        classes: of the classifier.
        apart: the process.

    Raises:
        UsageError: what writes it is not installed.
        EdgewiseError: the format can't express the network, or the file can't be written.
    """
    model, imgsz, precision = candidate.model, candidate.imgsz, candidate.precision
    if candidate.format == ONNX or (
        candidate.format == OPENVINO and precision in FORMATS[ONNX].precisions
    ):
        return timing_graph(model, classes, imgsz, precision, candidate.format)
    format = FORMATS[candidate.format]
    spec = create_model(model, num_classes=classes).spec
    folder = graphs_folder() / _key(format, spec) / f"{format.name}-{precision}-{imgsz}"
    if not folder.is_dir():
        with whole_folder(folder) as staging:
            apart.call(_write, spec, imgsz, format.name, precision, staging / format.file)
    return folder / format.file


def _key(format: Format, spec: Spec) -> str:
    """Of all that the files of a network in this format are made by."""
    writers = {package: metadata.version(package) for package in format.packages}
    return fingerprint(__version__, torch.__version__, writers, spec.to_json())


def _write(spec: Spec, imgsz: int, format: str, precision: str, path: Path) -> None:
    torch.manual_seed(0)
    write_random(create_model(spec).eval(), imgsz, format, precision, path)
