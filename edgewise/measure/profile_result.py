"""What `edgewise.profile` gives back. Needs no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from edgewise.measure.ops_rules import MAC_KINDS, OTHER_KINDS, Shape
from edgewise.measure.profile_memory import Step, peak

BYTES = {"fp32": 4, "fp16": 2}
NEARLY_ALL = 0.75  # of the layers: a child that holds them is no stage, but holds the stages


@dataclass(frozen=True)
class Layer:
    """One call of an operator. Views and reshapes that copy nothing are left out.

    Attributes:
        name: of the module that calls it, such as "stages.1.0.depthwise.conv"; in an ONNX file, of
            its weight or of the node.
        op: the operator, as PyTorch or ONNX calls it.
        kind: "standard", "depthwise", "pointwise", "grouped" or "transposed" convolution,
            "linear" (a product with weights), "attention" (a product of two activations), "norm",
            "elementwise", "pool" (and other reductions), "copy", "unknown".
        inputs: the shapes of the tensors that it takes, weights among them.
        output: the shape of the (first) tensor that it gives.
        params: learned numbers that it is the first to read: a shared weight counts once.
        kernel: those of `params` that are a kernel or matrix, which int8 can hold.
        macs: multiply-accumulates.
        elementwise: other operations; the sums of a bias are among them.
        activations: numbers written, of an operator with MACs.
        moved: numbers that it reads and writes, weights among them.
    """

    name: str
    op: str
    kind: str
    inputs: tuple[Shape, ...]
    output: Shape
    params: int
    kernel: int
    macs: int
    elementwise: int
    activations: int
    moved: int

    @property
    def intensity(self) -> float:
        """MACs a byte moved, at 4 bytes a number."""
        return self.macs / (BYTES["fp32"] * self.moved) if self.moved else 0.0


@dataclass(frozen=True)
class Group:
    """Some layers together: a stage, a block, a kind. The sums of what `Layer` has."""

    name: str
    layers: int
    params: int
    macs: int
    elementwise: int
    activations: int


class Trace(NamedTuple):
    """What running a module or reading a file has shown, before anything is added up.

    Attributes:
        layers: in the order of execution.
        steps: what each layer reads and writes.
        sizes: bytes of each buffer of activations.
        inputs: the buffers of the input.
        outputs: the buffers of the answer.
        shapes: of the inputs.
        params: all learned numbers, read or not.
    """

    layers: tuple[Layer, ...]
    steps: list[Step]
    sizes: Mapping[Hashable, int]
    inputs: tuple[Hashable, ...]
    outputs: tuple[Hashable, ...]
    shapes: tuple[Shape, ...]
    params: int


@dataclass(frozen=True)
class Profile:
    """What a network costs for one input. Figures are of the whole batch.

    Attributes:
        name: of the network.
        inputs: the shapes of its inputs.
        params: learned numbers; batch norm's running statistics are not among them.
        macs: multiply-accumulates of convolutions, linear layers and products of matrices.
        elementwise: all other arithmetic: norms, activations, sums, pooling, biases. A rule for
            each operator is in `docs/counters.md`.
        activations: numbers written by the operators with MACs, those of attention's weights
            among them.
        peak_memory: the most bytes of activations that are alive at once, with the operators in
            this order and at the data type that they have here: a tensor lives from the operator
            that writes it to the last one that reads it, the answer to the end. A norm or an
            element-wise operator writes over an input of the same size that nobody reads later.
            Weights, and what an operator needs for itself, are apart.
        peak_layer: the name of the layer where that is.
        layers: every call of an operator, in the order of execution.
        stages: their sums for each stage.
        kinds: their sums for each kind of operator.
    """

    name: str
    inputs: tuple[Shape, ...]
    params: int
    macs: int
    elementwise: int
    activations: int
    peak_memory: int
    peak_layer: str
    layers: tuple[Layer, ...]
    stages: tuple[Group, ...]
    kinds: tuple[Group, ...]

    @property
    def weight_bytes(self) -> dict[str, int]:
        """Bytes of the weights by precision: "fp32", "fp16", "int8".

        In int8, kernels and matrices take one byte each and all else four. That is also what a
        convolution with batch norm comes to: of the norm's two numbers a channel remain a 32-bit
        bias and a 32-bit scale.
        """
        kernels = sum(layer.kernel for layer in self.layers)
        sizes = {precision: size * self.params for precision, size in BYTES.items()}
        return {**sizes, "int8": kernels + 4 * (self.params - kernels)}

    @property
    def intensity(self) -> float:
        """Arithmetic intensity: MACs a byte, over the operators that have MACs.

        Each reads its input and its weights once and writes its output once, 4 bytes a number.
        Norms and activations are left out, since runtimes fuse them.
        """
        moved = sum(layer.moved for layer in self.layers if layer.macs)
        return self.macs / (BYTES["fp32"] * moved) if moved else 0.0

    @property
    def unknown(self) -> tuple[Layer, ...]:
        """The operators that there is no rule for: their cost is in no figure."""
        return tuple(layer for layer in self.layers if layer.kind == "unknown")

    @property
    def unread_params(self) -> int:
        """Parameters that no operator has read; they are in `params`."""
        return self.params - sum(layer.params for layer in self.layers)

    def tree(self, depth: int = 1) -> tuple[Group, ...]:
        """Sums by stage (depth 1), by stage and block (2), and so on down to single modules.

        A group comes before its parts; a part has the longer name.
        """
        groups: dict[tuple[str, ...], list[Layer]] = {}
        for path, layer in zip(_paths(self.layers), self.layers, strict=True):
            for level in range(1, min(depth, len(path)) + 1):
                groups.setdefault(path[:level], []).append(layer)
        order = {path: i for i, path in enumerate(groups)}
        firsts = [[order[path[: i + 1]] for i in range(len(path))] for path in groups]
        ordered = [path for _, path in sorted(zip(firsts, groups, strict=True))]
        return tuple(_group(".".join(path), groups[path]) for path in ordered)

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values, under the same names."""
        plain = asdict(self)
        plain["layers"] = [{**asdict(layer), "intensity": layer.intensity} for layer in self.layers]
        for name in ("weight_bytes", "intensity", "unread_params"):
            plain[name] = getattr(self, name)
        plain["unknown"] = [asdict(layer) for layer in self.unknown]
        return plain


def profile_of(name: str, trace: Trace) -> Profile:
    """Adds up a trace."""
    layers = trace.layers
    memory, where = peak(trace.steps, trace.sizes, trace.inputs, trace.outputs)
    by_stage: dict[str, list[Layer]] = {}
    for path, layer in zip(_paths(layers), layers, strict=True):
        by_stage.setdefault(path[0], []).append(layer)
    kinds = [
        (kind, [layer for layer in layers if layer.kind == kind])
        for kind in (*MAC_KINDS, *OTHER_KINDS)
    ]
    return Profile(
        name=name,
        inputs=trace.shapes,
        params=trace.params,
        macs=sum(layer.macs for layer in layers),
        elementwise=sum(layer.elementwise for layer in layers),
        activations=sum(layer.activations for layer in layers),
        peak_memory=memory,
        peak_layer=layers[where].name if layers else "",
        layers=layers,
        stages=tuple(_group(stage, members) for stage, members in by_stage.items()),
        kinds=tuple(_group(kind, members) for kind, members in kinds if members),
    )


def _group(name: str, layers: Iterable[Layer]) -> Group:
    members = list(layers)
    return Group(
        name,
        len(members),
        sum(layer.params for layer in members),
        sum(layer.macs for layer in members),
        sum(layer.elementwise for layer in members),
        sum(layer.activations for layer in members),
    )


def _paths(layers: tuple[Layer, ...]) -> list[tuple[str, ...]]:
    """Each layer's name in parts, the first of which is its stage.

    Stages are the children of the network. Where one child holds nearly all of the layers, as
    "stages", "features" or a wrapper does, its children stand in its place.
    """
    names = [tuple(layer.name.split(".")) for layer in layers]
    counted = [name for name, layer in zip(names, layers, strict=True) if layer.macs] or names
    trunk: tuple[str, ...] = ()
    while True:
        children = Counter(n[: len(trunk) + 1] for n in counted if n[: len(trunk)] == trunk)
        child, size = max(children.items(), key=lambda item: item[1], default=(trunk, 0))
        if child == trunk or child[-1].isdigit() or size < NEARLY_ALL * len(counted):
            break
        trunk = child
    paths = []
    for name in names:
        shared = next((i for i, part in enumerate(trunk) if name[i : i + 1] != (part,)), len(trunk))
        paths.append((".".join(name[: shared + 1]), *name[shared + 1 :]))
    return paths
