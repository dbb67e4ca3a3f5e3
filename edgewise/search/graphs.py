"""Files to time before anything is trained: the graphs to be shipped, with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from edgewise import __version__
from edgewise.deploy.formats import FORMATS
from edgewise.deploy.onnx import INPUT, graph_of, to_bytes
from edgewise.errors import EdgewiseError, missing_package
from edgewise.files import write_bytes
from edgewise.measure.store import fingerprint
from edgewise.model import Model
from edgewise.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from edgewise.timing.subject import randomise
from edgewise.weights.create import create_model
from edgewise.weights.hub import cache_folder

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgewise.network import Network

FOLDER = "graphs"  # in the cache
FIRST_SIZE = 64  # pixels: of the graph that the other sizes are made of
CALIBRATION = 4  # random images: the weights are random too


def timing_graph(model: str, classes: int, imgsz: int, precision: str) -> Path:
    """An ONNX file as `edgewise export` writes it of a trained network, but with random weights.

    Exporting takes seconds, so it is done once for a network and precision and kept in the cache:
    the file for another size of image is the same graph with another input. That holds while all
    maps have whole sizes, at multiples of the network's whole stride, as padding is then the same;
    a graph that holds its sizes otherwise (attention's) is exported again at that size.

    Args:
        model: a name that `create_model` knows.
        classes: of the classifier.
        imgsz: height and width of the image, in pixels.
        precision: "fp32" or "int8".

    Raises:
        UsageError: the packages that write ONNX are not installed.
    """
    if missing := FORMATS["onnx"].missing():
        raise missing_package(missing, FORMATS["onnx"].extra)
    torch.manual_seed(0)
    network = create_model(model, num_classes=classes).eval()
    key = fingerprint(__version__, torch.__version__, network.spec.to_json())
    folder = cache_folder() / FOLDER / key
    wanted = folder / f"{precision}-{imgsz}.onnx"
    if not wanted.is_file():
        first = folder / f"{precision}-{FIRST_SIZE}.onnx"
        if not first.is_file():
            _write(network, FIRST_SIZE, precision, first)
        if not wanted.is_file() and not _resize(first, imgsz, wanted):
            _write(network, imgsz, precision, wanted)
    return wanted


def write_graph(model: Model, precision: str, path: Path) -> None:
    """A model's ONNX file to be timed: in int8 its ranges are those of random images.

    Args:
        model: of any network.
        precision: "fp32" or "int8".
        path: of the file.
    """
    from edgewise.deploy.quantize_keep import int8_graph

    proto = graph_of(model)
    if precision == "int8":
        proto, _ = int8_graph(proto, _noise(model.preprocess.size), keep_float=())
    _store(proto, path)


def _write(network: Network, imgsz: int, precision: str, path: Path) -> None:
    preprocess = Preprocess(imgsz, 1.0, "bilinear", IMAGENET_MEAN, IMAGENET_STD)
    with torch.no_grad():
        randomise(network, preprocess.normalise(torch.from_numpy(_noise(imgsz))))
    labels = tuple(str(number) for number in range(network.spec.classes))
    write_graph(Model(network, preprocess, labels), precision, path)


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
    _store(proto, path)
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


def _store(proto: Any, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EdgewiseError(
            f"can't write in {path.parent}: {error.strerror or error}. "
            "Name another folder in the environment variable EDGEWISE_CACHE."
        ) from error
    write_bytes(path, to_bytes(proto))
