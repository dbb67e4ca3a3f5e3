"""What int8 needs to know of a network's maps, seen while it computes real images in float."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgewise.deploy.quantize_layers import Layer, attribute
from edgewise.errors import EdgewiseError
from edgewise.progress import track

if TYPE_CHECKING:
    from torch import Tensor

SAMPLES = 1 << 19  # of each map, from all images together
# Inputs of each layer's sums, likewise: at least; at least for each term; and where that makes no
# more than so many numbers, up to the last. Lite0's answers lost half as much by them as by 8,192.
INPUTS, INPUTS_A_TERM, NUMBERS, MOST_INPUTS = 8192, 16, 1 << 24, 1 << 16
TOGETHER = 1024  # inputs that are multiplied at once: the products are as large as the layer

BATCH = 4  # images whose maps are held at once

Batches = Sequence[NDArray[Any]]


def in_batches(pixels: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """(N, ...) in parts of `BATCH`."""
    return [pixels[at : at + BATCH] for at in range(0, len(pixels), BATCH)]


@dataclass
class Moments:
    """Of the inputs of a layer's sums, over images and places.

    Attributes:
        second: the mean of x xᵀ, float64 (groups, terms, terms).
        first: the mean of x, float64 (groups, terms).
        count: of the inputs seen.
    """

    second: Tensor
    first: Tensor
    count: int = 0
    _waiting: list[Tensor] = field(default_factory=list)

    @classmethod
    def of(cls, layer: Layer) -> Moments:
        """Before anything was seen."""
        import torch

        terms = layer.rows.shape[1]
        second = torch.zeros(layer.groups, terms, terms, dtype=torch.float64)
        return cls(second, torch.zeros(layer.groups, terms, dtype=torch.float64))

    def add(self, inputs: Tensor) -> None:
        """Takes (groups, many, terms) into account; `settle` after the last ones."""
        self._waiting.append(inputs)
        if sum(some.shape[1] for some in self._waiting) >= TOGETHER:
            self.settle()

    def settle(self) -> None:
        """Counts what was added."""
        import torch

        if not self._waiting:
            return
        inputs = torch.cat(self._waiting, 1)
        self._waiting.clear()
        new = inputs.shape[1]
        share = new / (self.count + new)
        # Few terms are cheap enough to sum in float64; products of many are summed in float32.
        inputs = inputs.double() if inputs.shape[2] <= 64 else inputs
        second = torch.bmm(inputs.transpose(1, 2), inputs).double() / new
        self.second.mul_(1 - share).add_(second, alpha=share)
        self.first.mul_(1 - share).add_(inputs.mean(1, dtype=torch.float64), alpha=share)
        self.count += new

    def centred(self) -> Tensor:
        """The covariance (groups, terms, terms): a bias takes up what the mean does."""
        return self.second - self.first[:, :, None] * self.first[:, None, :]


@dataclass
class Observed:
    """Seen on the calibration images.

    Attributes:
        values: numbers drawn from each map.
        moments: by the layer's name.
    """

    values: dict[str, list[NDArray[np.float32]]] = field(default_factory=dict)
    moments: dict[str, Moments] = field(default_factory=dict)


def observe(
    proto: Any, layers: Sequence[Layer], summed: Sequence[Layer], batches: Batches
) -> Observed:
    """Runs the float graph on all batches; the same batches give the same.

    Args:
        proto: the graph.
        layers: whose maps are looked at.
        summed: those of them of whose inputs the moments are wanted.
        batches: images.

    Raises:
        EdgewiseError: there are none, or a map is not finite.
    """
    observed = Observed(moments={layer.name: Moments.of(layer) for layer in summed})
    names = list(dict.fromkeys(name for layer in layers for name in (layer.input, layer.end)))
    each = SAMPLES // max(1, len(batches))
    random = np.random.default_rng(0)
    for maps in track(run_maps(proto, names, batches), "ranges of maps", len(batches)):
        for name, values in maps.items():
            flat = values.ravel()
            drawn = flat if flat.size <= each else flat[random.integers(0, flat.size, each)]
            # The ends are the one thing that a sample could miss.
            ends = np.array([flat.min(), flat.max()], np.float32)
            if not np.isfinite(ends).all():
                raise EdgewiseError(
                    f"the map '{name}' is not finite on the calibration images, so it has no int8 "
                    "range: the network has diverged"
                )
            observed.values.setdefault(name, []).append(np.concatenate([drawn, ends]))
        for layer in summed:
            most = inputs_of(layer) // len(batches) or 1
            observed.moments[layer.name].add(_terms(layer, maps[layer.input], most))
    for moments in observed.moments.values():
        moments.settle()
    return observed


def inputs_of(layer: Layer) -> int:
    """How many inputs of a layer's sums are looked at, in each group."""
    terms = int(layer.rows.shape[1])
    cheap = min(NUMBERS // (layer.groups * terms), MOST_INPUTS)
    return max(INPUTS, INPUTS_A_TERM * terms, cheap)


def run_maps(
    proto: Any, names: Sequence[str], batches: Batches
) -> Iterator[dict[str, NDArray[np.float32]]]:
    """The named tensors of a graph for each batch, from ONNX Runtime.

    Raises:
        EdgewiseError: there are no batches.
    """
    import onnx
    import onnxruntime

    if not sum(len(batch) for batch in batches):
        raise EdgewiseError("int8 needs images to measure its ranges on, and saw none")
    wider = onnx.ModelProto()
    wider.CopyFrom(proto)
    there = {item.name for item in wider.graph.output}
    for name in names:
        if name not in there:
            wider.graph.output.append(onnx.ValueInfoProto(name=name))
    session = onnxruntime.InferenceSession(
        wider.SerializeToString(), _options(), providers=["CPUExecutionProvider"]
    )
    feed = session.get_inputs()[0].name
    for batch in batches:
        yield dict(zip(names, session.run(list(names), {feed: batch}), strict=True))


def _terms(layer: Layer, values: NDArray[np.float32], most: int) -> Tensor:
    """Inputs of a layer's sums: float32 (groups, about `most`, terms), spread over the places."""
    import torch
    from torch.nn import functional

    x, groups, terms = torch.from_numpy(values), layer.groups, layer.rows.shape[1]
    if not layer.is_conv:
        rows = x.reshape(1, -1, terms)
        return rows[:, :: max(1, rows.shape[1] // most)].clone()  # not the whole map
    top, left, bottom, right = attribute(layer.node, "pads", [0, 0, 0, 0])
    if top or left or bottom or right:
        x = functional.pad(x, (left, right, top, bottom))
    images, channels, *sides = x.shape
    at = torch.arange(sides[0] * sides[1]).reshape(sides)  # where each number of a map is
    for axis, (side, step, apart) in enumerate(
        zip(
            layer.shape[2:],
            attribute(layer.node, "strides", [1, 1]),
            attribute(layer.node, "dilations", [1, 1]),
            strict=True,
        )
    ):
        at = at.unfold(axis, apart * (side - 1) + 1, step)[..., ::apart]
    at = at.reshape(-1, *at.shape[2:])  # (places, *kernel)
    at = at[:: max(1, images * len(at) // most)]
    chosen = x.reshape(images * channels, -1).index_select(1, at.ravel())
    chosen = chosen.reshape(images, groups, channels // groups, len(at), -1)
    return chosen.permute(1, 0, 3, 2, 4).reshape(groups, -1, terms)


def _options() -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised as well
    return options
