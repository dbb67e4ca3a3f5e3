"""The profile of an ONNX file, read from its graph: nothing is run, large weights are not kept."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from math import prod
from pathlib import Path
from typing import Any

from edgewise.errors import missing_package
from edgewise.measure.onnx_shapes import element_size, read_graph
from edgewise.measure.ops_onnx import OF_WEIGHTS, QUANTISED, VIEWS, Node, costs, weight_inputs
from edgewise.measure.ops_rules import MAC_KINDS, Costs, Shape
from edgewise.measure.profile_memory import Step
from edgewise.measure.profile_result import Layer, Profile, Trace, profile_of


def profile_onnx(
    path: Path, sides: tuple[int, int] | None, batch: int, in_chans: int | None
) -> Profile:
    """As `edgewise.profile`; free dimensions of the input are filled with what is given.

    Raises:
        UsageError: onnx is not installed; the file can't be read; its input has a fixed size that
            is not the one asked for.
    """
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        raise missing_package("onnx", "onnx") from error
    return profile_of(path.stem, _Reader(read_graph(path, sides, batch, in_chans)).trace())


class _Reader:
    """Goes through the nodes in their order, as the recorder does through a module's calls."""

    def __init__(self, graph: Any) -> None:
        import onnx

        self.graph = graph
        self.attribute = onnx.helper.get_attribute_value
        self.shapes: dict[str, Shape | None] = {}
        self.bytes: dict[str, int] = {}  # of one number
        for value in (*graph.value_info, *graph.input, *graph.output):
            kind = value.type.tensor_type
            sides = [d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim]
            known = kind.HasField("shape") and -1 not in sides
            self.shapes[value.name] = tuple(sides) if known else None
            self.bytes[value.name] = element_size(kind.elem_type)
        # What each constant is made of, and the learned numbers that nobody has read yet.
        self.sources: dict[str, tuple[str, ...]] = {}
        self.unread: dict[str, int] = {}
        constants = {x.name: x for x in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant":
                (constants[node.output[0]],) = map(self.attribute, node.attribute)
        self.learned = _learned(graph, constants)
        for name, value in constants.items():
            self._constant(name, tuple(getattr(value, "dims", ())))
        self.inputs = [x.name for x in graph.input if x.name not in self.sources]
        self.computed = set(self.inputs)
        self.base: dict[str, str] = {}  # of a view, the tensor whose numbers it has
        self.sizes: dict[Hashable, int] = {x: self._size(x) for x in self.inputs}
        dotted = any("." in name for name in self.learned)
        self.place = "input" if dotted else ""  # the module whose weight was read last
        self.layers: list[Layer] = []
        self.steps: list[Step] = []

    def trace(self) -> Trace:
        """Reads all nodes."""
        params = sum(self.unread.values())
        for node in self.graph.node:
            if node.op_type == "Constant":
                continue
            if self._is_weight(node):
                self.sources[node.output[0]] = self.sources[node.input[0]]
            else:
                self._read(node)
        outputs = tuple(self._base(x.name) for x in self.graph.output)
        shapes = tuple(self.shapes[x] or () for x in self.inputs)
        return Trace(
            tuple(self.layers), self.steps, self.sizes, tuple(self.inputs), outputs, shapes, params
        )

    def _constant(self, name: str, dims: Shape) -> None:
        self.sources[name] = (name,)
        self.shapes[name] = dims
        if name in self.learned:
            self.unread[name] = prod(dims)

    def _is_weight(self, node: Any) -> bool:
        """A stored weight on its way: dequantised, cast or transposed."""
        return node.op_type in OF_WEIGHTS and node.input[0] in self.sources

    def _read(self, node: Any) -> None:
        attributes = {a.name: self.attribute(a) for a in node.attribute}
        attributes = {k: v.decode() if isinstance(v, bytes) else v for k, v in attributes.items()}
        names = [name for name in node.input if name]
        if any(name in self.computed for name in names):
            self.computed.update(node.output)
        if node.op_type in VIEWS:
            self.base[node.output[0]] = self._base(node.input[0])
            return
        shaped = Node(
            node.op_type,
            attributes,
            tuple(self.shapes.get(name) if name else None for name in node.input),
            tuple(self.shapes.get(name) for name in node.output if name),
            tuple(name in self.computed for name in node.input),
        )
        cost = costs(shaped)
        writes = [name for name in node.output if name]
        self.sizes |= {name: self._size(name) for name in writes}
        weights = [source for name in names for source in self.sources.get(name, ())]
        sizes = [self.unread.pop(name, 0) for name in weights]
        reads = tuple(self._base(name) for name in names)
        shapes = tuple(self.shapes.get(name) or () for name in names)
        output = shaped.outputs[0] if shaped.outputs else None
        self.steps.append(Step(cost.kind, reads, tuple(writes)))
        self.layers.append(
            Layer(
                name=self._name(node, weights),
                op=node.op_type,
                kind=cost.kind,
                inputs=shapes,
                output=output or (),
                params=sum(sizes),
                kernel=_kernel(cost, sizes),
                macs=cost.macs,
                elementwise=cost.elementwise,
                activations=cost.activations,
                moved=sum(map(prod, (*shapes, output or (0,)))),
            )
        )

    def _base(self, name: str) -> str:
        return self.base.get(name, name)

    def _size(self, name: str) -> int:
        return prod(self.shapes.get(name) or (0,)) * self.bytes.get(name, 4)

    def _name(self, node: Any, weights: list[str]) -> str:
        """The module of its weight; else the node's own name, beside the weight read last."""
        if node.name.startswith("/"):  # the exporter before `dynamo` wrote the module there
            return str(node.name).strip("/").replace("/", ".")
        for name in weights:
            module, _, part = name.rpartition(".")
            if module and part:
                self.place = module.rpartition(".")[0] or module
                return module
        own = node.name or node.op_type
        return f"{self.place}.{own}" if self.place else own


def _learned(graph: Any, constants: Mapping[str, Any]) -> set[str]:
    """The constants that hold weights: not single numbers, indices, statistics or scales."""
    import onnx

    whole = (onnx.TensorProto.INT32, onnx.TensorProto.INT64, onnx.TensorProto.BOOL)
    exact, any_type = set[str](), set[str]()
    for node in graph.node:
        wanted = weight_inputs(node.op_type)
        names = [n for i, n in enumerate(node.input) if wanted is None or i in wanted]
        (any_type if node.op_type in QUANTISED else exact).update(names)
    tensors = {k: x for k, x in constants.items() if isinstance(x, onnx.TensorProto) and x.dims}
    return {
        name
        for name, x in tensors.items()
        if name in any_type or (name in exact and x.data_type not in whole)
    }


def _kernel(cost: Costs, sizes: list[int]) -> int:
    return max(sizes, default=0) if cost.kind in MAC_KINDS else 0
