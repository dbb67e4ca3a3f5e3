"""From a float ONNX graph to one that computes in int8: with QuantizeLinear and DequantizeLinear
around each layer (QDQ), as ONNX Runtime and OpenVINO read it.

Static: the ranges of the maps are those of calibration images. Weights are symmetric with a scale
for each output channel, maps are uint8 with one scale each. Convolutions and products with constant
matrices compute in int8. All else stays in float: normalisation, softmax, layer norm, gates,
activations that are no bound, and the sums that skip connections add up.

What a layer writes goes into bytes at once for ONNX Runtime, which else computes it in float. Other
runtimes fuse what follows into the layer, as long as no bytes are in between.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewise.deploy.quantize_entry import Entry, entry_of
from edgewise.deploy.quantize_equalise import equalise
from edgewise.deploy.quantize_layers import Layer, constants, layers_of, named
from edgewise.deploy.quantize_observe import Batches, observe
from edgewise.deploy.quantize_weights import Rounded, round_layer
from edgewise.errors import EdgewiseError
from edgewise.progress import track

LEVELS = 255  # of a map
LARGEST = 2.0**30  # of a bias, an int32
SMALLEST = 1e-30  # scale, of a map that is always 0
# Shares of a map's range that are tried; what lies beyond is cut off.
SHARES = np.concatenate([np.linspace(1.0, 0.3, 36), np.geomspace(0.28, 0.02, 20)])
FEWER = 1 << 16  # values that they are tried on


@dataclass(frozen=True)
class Range:
    """How a map is written in bytes: value = scale * (byte - zero); the zero may be by channel."""

    scale: np.float32
    zero: np.uint8 | NDArray[np.uint8]


@dataclass(frozen=True)
class Calibrated:
    """A float graph with all that it takes to write it in int8, whichever layers stay in float.

    Attributes:
        proto: the float graph, equalised.
        layers: those that can compute in int8.
        ranges: of the maps.
        rounded: the layers' weights.
        images: that were seen.
        entry: what the first layer reads where `fuses`; None if it is a map like others.
        fuses: whether the runtime computes activations inside of the layer before, whichever they
            are; then only what an int8 layer reads is put into bytes.
    """

    proto: Any
    layers: tuple[Layer, ...]
    ranges: dict[str, Range]
    rounded: dict[str, Rounded]
    images: int
    entry: Entry | None = None
    fuses: bool = False

    def named(self, names: Sequence[str]) -> tuple[str, ...]:
        """The layers of those names, or below a module of that name.

        Raises:
            UsageError: there is none; the message has the nearest.
        """
        return named(self.layers, names)

    def quantized(self, keep_float: Sequence[str] = ()) -> Any:
        """The graph as an `onnx.ModelProto` in int8 but for these layers, or modules of layers.

        Raises:
            UsageError: there is no layer of that name.
        """
        kept = set(self.named(keep_float))
        chosen = [layer for layer in self.layers if layer.name not in kept]
        entry = self.entry if self.fuses else None
        if entry is None or entry.layer in kept:
            return _Writer(self, chosen).write()
        return _Writer(self._with(entry), chosen).write()

    def _with(self, entry: Entry) -> Calibrated:
        """With pixels as the first layer's input."""
        (layer,) = (layer for layer in self.layers if layer.name == entry.layer)
        rounded = self.rounded[entry.layer]
        weights = layer.as_weight(rounded.integers * rounded.scales[:, None])
        shifted = replace(rounded, shift=rounded.shift + entry.shift(weights))
        return replace(
            self,
            proto=entry.placed(self.proto),
            ranges={**self.ranges, entry.name: Range(np.float32(1), entry.zeros)},
            rounded={**self.rounded, entry.layer: shifted},
        )


def calibrate(
    proto: Any, batches: Batches, learned: Mapping[str, tuple[float, float]] | None = None
) -> Calibrated:
    """Measures the ranges of a float graph's maps and rounds its weights for them.

    Args:
        proto: an `onnx.ModelProto` with one input; it is not changed.
        batches: what to feed it: arrays of whole images.
        learned: `Model.int8_ranges`: where a network learned to compute in int8, its layers have
            the ranges and the integers that they learned with.

    Raises:
        EdgewiseError: there are no images, no layers, or the network gives no finite numbers.
    """
    import onnx

    learned = learned or {}
    copied = onnx.ModelProto()
    copied.CopyFrom(proto)
    if not layers_of(copied):
        raise EdgewiseError("the graph has no convolution or matrix that could compute in int8")
    entry = None
    if not learned:
        entry = entry_of(copied)
        equalise(copied, batches)
    layers = tuple(layers_of(copied))
    plain = [layer for layer in layers if layer.name not in learned]
    observed = observe(copied, layers, plain, batches)
    ranges = {name: range_of(np.concatenate(parts)) for name, parts in observed.values.items()}
    for layer in layers:
        if layer.name in learned:
            ranges[layer.input] = _range(*learned[layer.name])
    values = constants(copied)
    rounded = {}
    for layer in track(layers, "rounding weights", len(layers)):
        bias = np.abs(values[layer.bias]) if layer.bias else np.zeros(len(layer.rows))
        least = bias.astype(np.float64) / (float(ranges[layer.input].scale) * LARGEST)
        moments = observed.moments.pop(layer.name, None)
        rounded[layer.name] = round_layer(layer, moments, least)
    images = sum(len(batch) for batch in batches)
    return Calibrated(copied, layers, ranges, rounded, images, entry)


def range_of(values: NDArray[np.float32]) -> Range:
    """The range with 256 steps that moves these values least, by the squares; it holds 0."""
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    some = np.ascontiguousarray(values[:: max(1, len(values) // FEWER)])
    for moved in ((1, 1), (0, 1), (1, 0)):  # both ends, then each alone
        ways = [np.where(moved, share, 1.0) * (low, high) for share in SHARES]
        errors = [_error(some, _range(*way)) for way in ways]
        low, high = map(float, ways[int(np.argmin(errors))])
    return _range(low, high)


def _range(low: float, high: float) -> Range:
    scale = np.float32(max((high - low) / LEVELS, SMALLEST))
    return Range(scale, np.uint8(np.clip(np.round(-low / scale), 0, LEVELS)))


def _error(values: NDArray[np.float32], range: Range) -> float:
    """By how much the values move in that range: the sum of the squares."""
    steps = values / range.scale  # in place from here on: this is done hundreds of times
    np.rint(steps, out=steps)
    zero = np.float32(range.zero)
    np.clip(steps, -zero, LEVELS - zero, out=steps)
    steps *= range.scale
    steps -= values
    return float(np.dot(steps, steps))


class _Writer:
    """Writes a graph anew, with the layers of `chosen` in int8."""

    def __init__(self, calibrated: Calibrated, chosen: Sequence[Layer]) -> None:
        self.calibrated = calibrated
        self.chosen = {layer.node.output[0]: layer for layer in chosen}
        # ONNX Runtime's int8 convolution writes bytes, its matrix product may write floats.
        self.ends = {layer.end for layer in chosen if layer.is_conv and not calibrated.fuses}
        self.inputs = {layer.input for layer in chosen}
        self.in_float = {
            layer.node.output[0]: layer
            for layer in calibrated.layers
            if layer.node.output[0] not in self.chosen
        }
        self.values = constants(calibrated.proto)
        self.nodes: list[Any] = []
        self.back: dict[str, str] = {}  # of a map that was written in bytes: its floats
        self.extra: dict[str, NDArray[Any]] = {}

    def write(self) -> Any:
        import onnx

        products = [item for item in self.chosen.values() if item.node.op_type == "MatMul"]
        shifts = {layer.adder: layer for layer in products if layer.bias}
        for name in (item.name for item in self.calibrated.proto.graph.input):
            self._bytes_of(name)
        for old in self.calibrated.proto.graph.node:
            node = onnx.NodeProto()
            node.CopyFrom(old)
            layer = self.chosen.get(old.output[0])
            for at, name in enumerate(old.input):
                if name in self.back and (layer or name in self.ends):
                    plain = self.in_float.get(old.output[0])
                    node.input[at] = self._by_channel(name, plain) if plain else self.back[name]
                adds = shifts.get(old.output[0])
                if adds and name == adds.bias:
                    node.input[at] = self._shifted(adds)
            if layer:
                self._int8(node, layer)
            self.nodes.append(node)
            for name in old.output:
                self._bytes_of(name)
        return self._proto()

    def _bytes_of(self, name: str) -> None:
        """Puts a map into bytes and back, if an int8 layer reads or writes it."""
        if name not in self.ends | self.inputs:
            return
        range = self.calibrated.ranges[name]
        axis = 1 if np.ndim(range.zero) else None
        scale = self._constant(f"{name}_scale", np.full_like(range.zero, range.scale, np.float32))
        zero = self._constant(f"{name}_zero", range.zero)
        self._node("QuantizeLinear", [name, scale, zero], f"{name}_bytes", axis)
        self.back[name] = self._node(
            "DequantizeLinear", [f"{name}_bytes", scale, zero], f"{name}_back", axis
        )

    def _by_channel(self, name: str, layer: Layer) -> str:
        """The floats of a map in bytes, for a layer that is to stay in float.

        Between bytes and bytes ONNX Runtime rounds a layer's weights by itself, with one scale for
        all of them: not where the bytes have a scale for each channel.
        """
        range, count = self.calibrated.ranges[name], layer.rows.shape[1]
        if layer.is_conv:
            count = layer.groups * layer.shape[1]
        scale = self._constant(f"{name}_scales", np.full(count, range.scale))
        zero = self._constant(f"{name}_zeros", np.full(count, range.zero))
        return self._node(
            "DequantizeLinear", [f"{name}_bytes", scale, zero], f"{layer.weight}_input", axis=1
        )

    def _int8(self, node: Any, layer: Layer) -> None:
        """Puts constants in int8 in the place of a layer's weight, and in int32 of its bias."""
        rounded = self.calibrated.rounded[layer.name]
        node.input[1] = self._dequantized(
            layer.weight, layer.as_weight(rounded.integers), rounded.scales, layer.axis
        )
        if node.op_type != "MatMul":  # with a bias in float ONNX Runtime has no integer kernel
            bias = rounded.shift + (self.values[layer.bias] if layer.bias else 0)
            scales = rounded.scales * self.calibrated.ranges[layer.input].scale
            integers = np.round(bias.astype(np.float64) / scales).astype(np.int32)
            name = self._dequantized(f"{layer.weight}_bias", integers, scales, 0)
            node.input[2:] = [name]  # which may have had none

    def _shifted(self, layer: Layer) -> str:
        """What is added behind a matrix product, in float."""
        shift = self.calibrated.rounded[layer.name].shift
        bias = self.values[layer.bias] if layer.bias else 0
        return self._constant(f"{layer.weight}_bias", shift + bias)

    def _dequantized(
        self, name: str, integers: NDArray[Any], scales: NDArray[np.float32], axis: int
    ) -> str:
        zeros = np.zeros(len(scales), integers.dtype)
        inputs = [
            self._constant(f"{name}_integers", integers),
            self._constant(f"{name}_scale", scales),
            self._constant(f"{name}_zero", zeros),
        ]
        return self._node("DequantizeLinear", inputs, f"{name}_back", axis=axis)

    def _node(self, kind: str, inputs: list[str], output: str, axis: int | None = None) -> str:
        import onnx

        self.nodes.append(onnx.helper.make_node(kind, inputs, [output], name=output, axis=axis))
        return output

    def _constant(self, name: str, value: Any) -> str:
        self.extra[name] = np.asarray(value)
        return name

    def _proto(self) -> Any:
        import onnx

        proto = onnx.ModelProto()
        proto.CopyFrom(self.calibrated.proto)
        graph = proto.graph
        del graph.node[:], graph.value_info[:]
        graph.node.extend(self.nodes)
        used = {name for node in self.nodes for name in node.input}
        kept = [item for item in graph.initializer if item.name in used]
        del graph.initializer[:]
        graph.initializer.extend(kept)
        graph.initializer.extend(
            onnx.numpy_helper.from_array(value, name) for name, value in self.extra.items()
        )
        onnx.checker.check_model(proto, full_check=True)
        return proto
