"""Which layers int8 costs most in, and which are better left in float."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewise.deploy.quantize import Calibrated, calibrate
from edgewise.deploy.quantize_observe import Batches, run_maps

MOST_CHANGED = 0.02  # of the images' top classes
BATCH = 4  # images whose maps are held at once
CHECKED = 4  # one image in so many decides which layers stay in float, and is not calibrated on


@dataclass(frozen=True)
class Cost:
    """What one block in int8 does to the answers of a network that is else in float.

    Attributes:
        block: the name of the module: "stem", "stages.1.0", "head".
        layers: its layers.
        divergence: of the answers from those in float, Kullback-Leibler, mean over images, in nats.
        changed: the share of images with another top class.
    """

    block: str
    layers: tuple[str, ...]
    divergence: float
    changed: float


def sensitivity(calibrated: Calibrated, batches: Batches) -> list[Cost]:
    """The cost of each block, the dearest first.

    Args:
        calibrated: a graph whose output is probabilities.
        batches: images to measure on.

    Raises:
        EdgewiseError: there are no images.
    """
    exact = _answers(calibrated.proto, batches)
    blocks: dict[str, list[str]] = {}
    for layer in calibrated.layers:
        blocks.setdefault(layer.block, []).append(layer.name)
    costs = []
    for block, layers in blocks.items():
        others = [layer.name for layer in calibrated.layers if layer.name not in layers]
        answers = _answers(calibrated.quantized(others), batches)
        costs.append(
            Cost(block, tuple(layers), divergence(exact, answers), _changed(exact, answers))
        )
    return sorted(costs, key=lambda cost: -cost.divergence)


def keep_float_until(
    calibrated: Calibrated, batches: Batches, most_changed: float = MOST_CHANGED
) -> tuple[str, ...]:
    """Leaves block after block in float, the dearest first, until few enough answers change.

    Args:
        calibrated: a graph whose output is probabilities.
        batches: images to measure on; better none of those that it was calibrated on.
        most_changed: the share of images that may get another top class than in float; one image
            always may.

    Returns:
        The layers, in the order of the network; none if int8 is good enough as it is.

    Raises:
        EdgewiseError: there are no images.
    """
    exact = _answers(calibrated.proto, batches)
    most_changed = max(most_changed, 1 / len(exact))  # one image decides nothing
    kept: list[str] = []
    if _changed(exact, _answers(calibrated.quantized(), batches)) > most_changed:
        for cost in sensitivity(calibrated, batches):
            kept += cost.layers
            if _changed(exact, _answers(calibrated.quantized(kept), batches)) <= most_changed:
                break
    return calibrated.named(kept)


def int8_graph(
    proto: Any, pixels: NDArray[np.uint8], keep_float: Sequence[str] | None, bits: int = 8
) -> tuple[Any, tuple[str, ...]]:
    """A float graph in int8, and the layers of it that are in float.

    Args:
        proto: an `onnx.ModelProto` from pixels to probabilities.
        pixels: uint8 (N, size, size, 3) to calibrate on.
        keep_float: layers, or modules of layers, to leave in float; None to choose them by
            `keep_float_until`, on a quarter of the images that is kept apart for it.
        bits: see `edgewise.deploy.quantize.calibrate`.

    Raises:
        UsageError: there is no layer of such a name.
        EdgewiseError: there are no images, or the graph can't be calibrated.
    """
    everything = _batches(pixels)
    if keep_float is None and len(pixels) >= 2 * CHECKED:
        apart = np.arange(len(pixels)) % CHECKED == 0
        tried = calibrate(proto, _batches(pixels[~apart]), bits)
        keep_float = keep_float_until(tried, _batches(pixels[apart]))
    calibrated = calibrate(proto, everything, bits)
    kept = calibrated.named(keep_float or ())
    return calibrated.quantized(kept), kept


def divergence(exact: NDArray[np.float32], answers: NDArray[np.float32]) -> float:
    """Kullback-Leibler, mean over the rows of (N, classes), in nats."""
    tiny = np.finfo(np.float32).tiny
    logs = np.log(np.maximum(exact, tiny)) - np.log(np.maximum(answers, tiny))
    return float((exact * logs).sum(1).mean())


def _changed(exact: NDArray[np.float32], answers: NDArray[np.float32]) -> float:
    return float((exact.argmax(1) != answers.argmax(1)).mean())


def _answers(proto: Any, batches: Batches) -> NDArray[np.float32]:
    output = proto.graph.output[0].name
    return np.concatenate([maps[output] for maps in run_maps(proto, [output], batches)])


def _batches(pixels: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    return [pixels[at : at + BATCH] for at in range(0, len(pixels), BATCH)]
