"""Which layers int8 costs most in, and which are better left in float."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import erfc, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewise.deploy.artifact import MOST_CHANGED
from edgewise.deploy.quantize import Calibrated, calibrate
from edgewise.deploy.quantize_observe import BATCH, Batches, in_batches, run_maps
from edgewise.progress import track

SMALLEST = 1e-12  # error
NOTED = 3  # blocks that the note on a file names
CHECKED = 4  # where only the images to calibrate on are there, one in so many is kept apart
RANKED_ON = 64  # images that the blocks are compared on, each in a pass of its own
REMEMBERED = 2  # calibrations: without images to check on there are two of a graph
_LAST: dict[bytes, Calibrated] = {}  # the last ones, by their graph and images


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
    for block, layers in track(blocks.items(), "block by block in int8", len(blocks)):
        others = [layer.name for layer in calibrated.layers if layer.name not in layers]
        answers = _answers(calibrated.quantized(others), batches)
        costs.append(
            Cost(block, tuple(layers), divergence(exact, answers), _changed(exact, answers))
        )
    return sorted(costs, key=lambda cost: -cost.divergence)


@dataclass(frozen=True)
class Kept:
    """What was left in float, and why.

    Attributes:
        layers: in the order of the network.
        lost: the share of images that int8 everywhere gives another top class; see `risk`.
        left: the same of int8 with these layers in float.
        costs: of the blocks, the dearest first; none if int8 everywhere was good enough.
    """

    layers: tuple[str, ...]
    lost: float
    left: float
    costs: tuple[Cost, ...] = ()

    @property
    def note(self) -> str:
        """A sentence for a person; "" if there is nothing to say."""
        if not self.costs:
            return ""
        whole = sum(cost.divergence for cost in self.costs) or 1.0
        dearest = ", ".join(
            f"{cost.block} {cost.divergence / whole:.0%}" for cost in self.costs[:NOTED]
        )
        return (
            f"int8 everywhere would give about {self.lost:.1%} of images another top class; with "
            f"{len(self.layers)} layers in float it is {self.left:.1%}. It costs most in {dearest}"
        )


def keep_float_until(
    calibrated: Calibrated, batches: Batches, most_changed: float = MOST_CHANGED
) -> Kept:
    """Leaves block after block in float, the dearest first, until few enough answers change.

    Args:
        calibrated: a graph whose output is probabilities.
        batches: images to measure on; better none of those that it was calibrated on.
        most_changed: the share of images that may get another top class than in float, see `risk`.

    Raises:
        EdgewiseError: there are no images.
    """
    exact = _answers(calibrated.proto, batches)
    lost = left = risk(exact, _answers(calibrated.quantized(), batches))
    if lost <= most_changed:
        return Kept((), lost, left)
    costs = sensitivity(calibrated, list(batches)[: RANKED_ON // BATCH])
    kept: list[str] = []
    for cost in costs:
        kept += cost.layers
        left = risk(exact, _answers(calibrated.quantized(kept), batches))
        if left <= most_changed:
            break
    return Kept(calibrated.named(kept), lost, left, tuple(costs))


def int8_graph(
    proto: Any,
    pixels: NDArray[np.uint8],
    keep_float: Sequence[str] | None,
    checked: NDArray[np.uint8] | None = None,
    fuses: bool = False,
    learned: Mapping[str, tuple[float, float]] | None = None,
    most_changed: float = MOST_CHANGED,
) -> tuple[Any, Kept]:
    """A float graph in int8, and what of it is in float.

    Args:
        proto: an `onnx.ModelProto` from pixels to probabilities.
        pixels: uint8 (N, size, size, 3) to calibrate on.
        keep_float: layers, or modules of layers, to leave in float; None to choose them by
            `keep_float_until`, or none of a network that learned to compute in int8.
        checked: uint8 (N, size, size, 3) to choose them on; None for a quarter of `pixels`, which
            is kept apart for the choice. Of images that a network has learned it is surer than of
            others, so fewer of their answers change.
        fuses: see `Calibrated`.
        learned: see `calibrate`.
        most_changed: see `keep_float_until`.

    Raises:
        UsageError: there is no layer of such a name.
        EdgewiseError: there are no images, or the graph can't be calibrated.
    """
    if learned and keep_float is None:  # its answers in float are not those that it learned
        keep_float = ()
    seen = pixels
    if keep_float is None and checked is None and len(pixels) >= 2 * CHECKED:
        apart = np.arange(len(pixels)) % CHECKED == 0
        seen, checked = pixels[~apart], pixels[apart]
    kept = None
    if keep_float is None and checked is not None:
        calibrated = replace(_calibrated(proto, seen, learned), fuses=fuses)
        kept = keep_float_until(calibrated, in_batches(checked), most_changed)
    calibrated = replace(_calibrated(proto, pixels, learned), fuses=fuses)
    kept = kept or Kept(calibrated.named(keep_float or ()), 0.0, 0.0)
    return calibrated.quantized(kept.layers), kept


def _calibrated(
    proto: Any, pixels: NDArray[np.uint8], learned: Mapping[str, tuple[float, float]] | None
) -> Calibrated:
    """See `calibrate`. The last ones are remembered: two formats are often written one after the
    other, of the same graph and images."""
    whole = proto.SerializeToString(deterministic=True) + pixels.tobytes() + repr(learned).encode()
    key = hashlib.sha256(whole).digest()
    if key not in _LAST:
        made = calibrate(proto, in_batches(pixels), learned)
        for old in list(_LAST)[: len(_LAST) + 1 - REMEMBERED]:
            del _LAST[old]
        _LAST[key] = made
    return _LAST[key]


def risk(exact: NDArray[np.float32], answers: NDArray[np.float32]) -> float:
    """The share of images like these that gets another top class.

    A few images tell it badly when they are counted: none of 30 near a tie, and it is 0. So the
    error of the lead, in log-probability, that the best class has on the second is taken for
    normal and as large for each image: what lead is smaller than the error then turns over. One
    that does more harm than that is counted: but for one image, which decides nothing.

    Args:
        exact: (N, classes), probabilities in float.
        answers: the same in int8.
    """
    best = np.argsort(exact, axis=1)[:, -2:]
    logs = (_logs(np.take_along_axis(item, best, 1)) for item in (exact, answers))
    lead, found = (item[:, 1] - item[:, 0] for item in logs)
    error = max(float(np.sqrt(np.square(found - lead).mean())), SMALLEST)
    expected = np.mean([erfc(item / error / sqrt(2)) / 2 for item in lead.tolist()])
    counted = _changed(exact, answers)
    return float(max(expected, counted if counted > 1 / len(exact) else 0))


def divergence(exact: NDArray[np.float32], answers: NDArray[np.float32]) -> float:
    """Kullback-Leibler, mean over the rows of (N, classes), in nats."""
    return float((exact * (_logs(exact) - _logs(answers))).sum(1).mean())


def _logs(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))


def _changed(exact: NDArray[np.float32], answers: NDArray[np.float32]) -> float:
    return float((exact.argmax(1) != answers.argmax(1)).mean())


def _answers(proto: Any, batches: Batches) -> NDArray[np.float32]:
    output = proto.graph.output[0].name
    return np.concatenate([maps[output] for maps in run_maps(proto, [output], batches)])
