"""Files to time before anything is trained: the graphs to be shipped, with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from edgewise import __version__
from edgewise.deploy import openvino
from edgewise.deploy.formats import FORMATS, Job
from edgewise.deploy.onnx import INPUT, to_bytes
from edgewise.errors import CantWrite, missing_package
from edgewise.files import write_bytes
from edgewise.measure.store import fingerprint
from edgewise.model import Model
from edgewise.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from edgewise.search.ways import ONNX, OPENVINO
from edgewise.timing.subject import randomise
from edgewise.weights.create import create_model
from edgewise.weights.hub import cache_folder

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgewise.network import Network

FOLDER = "graphs"  # in the cache
FIRST_SIZE = 64  # pixels: of the graph that the other sizes are made of
CALIBRATION = 4  # random images: the weights are random too


def graphs_folder() -> Path:
    """Where the files to be timed are kept; it is made.

    Raises:
        CantWrite: it can't be.
    """
    folder = cache_folder() / FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CantWrite(
            f"can't write in {folder}: {error.strerror or error}. "
            "Name another folder in the environment variable EDGEWISE_CACHE."
        ) from error
    return folder


def timing_graph(model: str, classes: int, imgsz: int, precision: str, format: str = ONNX) -> Path:
    """The graph that `edgewise export` writes of a trained network, but with random weights.

    Exporting takes seconds, so it is done once for a network and precision and kept in the cache:
    the file for another size of image is the same graph with another input. That holds while all
    maps have whole sizes, at multiples of the network's whole stride, as padding is then the same;
    a graph that holds its sizes otherwise (attention's) is exported again at that size.

    Args:
        model: a name that `create_model` knows.
        classes: of the classifier.
        imgsz: height and width of the image, in pixels.
        precision: "fp32" or "int8".
        format: "onnx" or "openvino", whose runtime computes the same from the graph that its file
            is converted from.

    Raises:
        UsageError: the packages that write ONNX are not installed.
        EdgewiseError: the file can't be written.
    """
    if missing := FORMATS[ONNX].missing():
        raise missing_package(missing, FORMATS[ONNX].extra)
    torch.manual_seed(0)
    network = create_model(model, num_classes=classes).eval()
    key = fingerprint(__version__, torch.__version__, network.spec.to_json())
    folder = graphs_folder() / key
    prefix = "" if format == ONNX else f"{format}-"
    wanted = folder / f"{prefix}{precision}-{imgsz}.onnx"
    if not wanted.is_file():
        first = folder / f"{prefix}{precision}-{FIRST_SIZE}.onnx"
        if not first.is_file():
            write_random(network, FIRST_SIZE, format, precision, first)
        if not wanted.is_file() and not _resize(first, imgsz, wanted):
            write_random(network, imgsz, format, precision, wanted)
    return wanted if format == ONNX else _own(wanted)


def _own(path: Path) -> Path:
    """The graph as OpenVINO reads it, beside the one that is made another size in ONNX Runtime."""
    import onnx

    own = path.with_name(f"own-{path.name}")
    if not own.is_file():
        write_bytes(own, to_bytes(openvino.own_graph(onnx.load(path))))
    return own


def write_random(network: Network, imgsz: int, format: str, precision: str, path: Path) -> None:
    """The file of a network that gets weights as a trained one might have them.

    Args:
        network: with the weights of `create_model`; they are changed.
        imgsz: height and width of the image, in pixels.
        format: see `write_file`.
        precision: likewise.
        path: likewise.

    Raises:
        EdgewiseError: see `write_file`.
    """
    preprocess = Preprocess(imgsz, 1.0, "bilinear", IMAGENET_MEAN, IMAGENET_STD)
    with torch.no_grad():
        randomise(network, preprocess.normalise(torch.from_numpy(_noise(imgsz))))
    labels = tuple(str(number) for number in range(network.spec.classes))
    write_file(Model(network, preprocess, labels), format, precision, path)


def write_file(model: Model, format: str, precision: str, path: Path) -> None:
    """A model's file to be timed: in int8 its ranges are those of random images.

    A path that ends in ".onnx" gets the graph that the format "openvino" is made from.

    Args:
        model: of any network.
        format: see `edgewise.deploy.formats.FORMATS`.
        precision: one that the format has.
        path: of the file that the runtime loads; others may go beside it.

    Raises:
        UsageError: what writes it is not installed.
        EdgewiseError: the format can't express the network, or the file can't be written.
    """
    images = _noise(model.preprocess.size) if precision == "int8" else None
    job = Job(model, precision, path, images, keep_float=())
    if format == OPENVINO and path.suffix == FORMATS[ONNX].suffix:
        write_bytes(path, to_bytes(openvino.job_graph(job)[0]))
    else:
        FORMATS[format].write(job)


def _noise(imgsz: int) -> NDArray[np.uint8]:
    random = np.random.default_rng(0)
    return random.integers(0, 256, (CALIBRATION, imgsz, imgsz, 3), dtype=np.uint8)


def _resize(source: Path, imgsz: int, path: Path) -> bool:
    """Writes the graph for another size of image; False if it can't be made of this one."""
    import onnx

    proto = onnx.load(source)
    for taken in proto.graph.input:
        if taken.name == INPUT:
            for side in (1, 2):
                taken.type.tensor_type.shape.dim[side].dim_value = imgsz
    del proto.graph.value_info[:]  # sizes of the maps, as they were
    data = to_bytes(proto)
    if not _runs(data, imgsz):
        return False
    write_bytes(path, data)
    return True


def _runs(data: bytes, imgsz: int) -> bool:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        session.run(None, {INPUT: np.zeros((1, imgsz, imgsz, 3), np.uint8)})
    except Exception:  # its exceptions have no common class but this
        return False
    return True
