"""Runs a module once, on the meta device, and writes down every operator that it calls.

A meta tensor has a shape and no numbers, so that nothing is computed or allocated: 660 million
parameters cost what one does. The operators are seen below the module's own code, by a dispatch
mode, so that functional calls, shared modules and attention look like everything else.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from functools import cache
from itertools import chain
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from edgewise.measure.ops_meta import output
from edgewise.measure.ops_rules import CONVOLUTIONS, MAC_KINDS
from edgewise.measure.ops_torch import costs, rule_of
from edgewise.measure.profile_memory import Step
from edgewise.measure.profile_result import Layer, Trace


def trace(module: nn.Module, inputs: tuple[Tensor, ...], meta: bool = True) -> Trace:
    """The operators of `module(*inputs)`, in the order of execution.

    It is run on the meta device, wherever it is, or else on its own. Its mode, its buffers and its
    hooks may change: give a `twin`.
    """
    with torch.inference_mode():
        arguments = tuple(x.to("meta") if meta else x.clone() for x in inputs)
        recorder = _Recorder(module, arguments, meta)
        with recorder:
            answer = module(*arguments)
    return recorder.result(answer)


def twin(module: nn.Module, meta: bool) -> nn.Module:
    """A copy of the module in evaluation mode. Tensors that two places share stay shared.

    With `meta`, parameters and buffers are without memory; else the parameters are the module's
    own, and the buffers copies.
    """
    memo: dict[int, Any] = {}
    for tensor in chain(module.parameters(), module.buffers()):
        if meta:
            memo[id(tensor)] = _without_memory(tensor)
        elif isinstance(tensor, nn.Parameter):
            memo[id(tensor)] = tensor
    for tensor in worked_out(module):
        memo[id(tensor)] = _without_memory(tensor) if meta else tensor.detach().clone()
    for part in module.modules():
        for value in vars(part).values():
            if isinstance(value, OrderedDict) and not value:  # a dozen a module, for its hooks
                memo[id(value)] = OrderedDict()
    return copy.deepcopy(module, memo).eval()


def worked_out(module: nn.Module) -> list[Tensor]:
    """What a forward pass left in it, with the way back to the weights: `deepcopy` refuses these.

    Such as the weight of an old-style `weight_norm`, or last activations that are kept, by
    themselves or in a list, a tuple or a dictionary.
    """
    kept = (value for part in module.modules() for value in vars(part).values())
    return [tensor for tensor in _tensors(kept) if not tensor.is_leaf]


def _without_memory(tensor: Tensor) -> Tensor:
    twin = torch.empty_like(tensor, device="meta", requires_grad=False)
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(twin, requires_grad=False)
    return twin


class _Operator(NamedTuple):
    """What is to be known of an operator, worked out at its first call."""

    name: str
    arguments: tuple[str, ...]
    mutable: bool
    known: bool
    composite: bool


@cache
def _operator(func: Any) -> _Operator:
    schema = func._schema
    known = rule_of(func) is not None
    composite = not known and func._can_decompose()
    names = tuple(argument.name for argument in schema.arguments)
    return _Operator(schema.name.removeprefix("aten::"), names, schema.is_mutable, known, composite)


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, module: nn.Module, inputs: tuple[Tensor, ...], meta: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.meta = meta
        self.root = type(module).__name__
        self.path: list[str] = []
        self.refs: dict[int, StorageWeakRef] = {}  # while one is held, no storage takes its number
        self.sizes: dict[Hashable, int] = {}  # of activations, in bytes
        self.layers: list[Layer] = []
        self.steps: list[Step] = []
        self.params = {id(p): p for p in module.parameters()}
        self.unread: dict[int, int] = {}  # how many parameters a storage has, until it is read
        for parameter in self.params.values():
            key = self._key(parameter)
            self.unread[key] = self.unread.get(key, 0) + parameter.numel()
        self.total = sum(self.unread.values())
        for buffer in module.buffers():
            self._key(buffer)
        self.weights = set(self.refs)  # the storages of parameters and buffers
        self.computed = {self._key(x) for x in inputs}  # those that depend on the input
        self.inputs = tuple(self.computed)
        self.sizes |= {self._key(x): x.untyped_storage().nbytes() for x in inputs}
        self.input_shapes = tuple(tuple(x.shape) for x in inputs)
        for name, part in module.named_modules():
            if name:
                part.register_forward_pre_hook(self._enter(name))
                part.register_forward_hook(self._leave(name), always_call=True)

    def result(self, answer: object) -> Trace:
        """What was seen."""
        outputs = tuple(self._key(x) for x in _tensors((answer,)))
        return Trace(
            tuple(self.layers),
            self.steps,
            self.sizes,
            self.inputs,
            outputs,
            self.input_shapes,
            self.total,
        )

    def _enter(self, name: str) -> Any:
        return lambda *_: self.path.append(name)

    def _leave(self, name: str) -> Any:
        def leave(*_: object) -> None:
            while self.path and self.path.pop() != name:  # what an exception has left
                pass

        return leave

    def _key(self, tensor: Tensor) -> int:
        """The same for all views of one storage."""
        storage = tensor.untyped_storage()
        key: int = storage._cdata
        if key not in self.refs:
            self.refs[key] = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
        return key

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: to skip it, PyTorch imports it first, for three seconds."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        operator = _operator(func)
        if self.meta:
            args, kwargs = _all_on_meta(args, kwargs)
        if operator.composite:
            with self:
                answer = func.decompose(*args, **kwargs)
            if answer is not NotImplemented:
                return answer
        arguments = dict(zip(operator.arguments, args, strict=False)) | kwargs
        answer = output(operator.name, arguments) if self.meta else None
        if answer is None:
            answer = func(*args, **kwargs)
        self._record(func, operator, arguments, answer)
        return answer

    def _record(
        self, func: Any, operator: _Operator, arguments: dict[str, Any], answer: Any
    ) -> None:
        reads = {self._key(x): x for x in _tensors(arguments.values())}
        outputs = list(_tensors((answer,)))
        writes = {self._key(x): x for x in outputs}
        if any(key in self.computed for key in reads):
            self.computed |= writes.keys() - self.weights
        if not outputs or (not operator.mutable and writes.keys() <= reads.keys()):
            return  # a view, or a question such as the size
        for key, x in writes.items():
            if key not in self.weights:
                self.sizes.setdefault(key, x.untyped_storage().nbytes())
        cost = costs(func, arguments, outputs[0], lambda x: self._key(x) in self.computed)
        shapes = tuple(tuple(x.shape) for x in _tensors(arguments.values()))
        params = sum(self.unread.pop(key, 0) for key in reads)
        self.steps.append(Step(cost.kind, tuple(reads), tuple(writes)))
        self.layers.append(
            Layer(
                name=self.path[-1] if self.path else self.root,
                op=operator.name,
                kind=cost.kind,
                inputs=shapes,
                output=tuple(outputs[0].shape),
                params=params,
                kernel=_kernel(cost.kind, arguments, params),
                macs=cost.macs,
                elementwise=cost.elementwise,
                activations=cost.activations,
                moved=sum(map(prod, shapes)) + sum(x.numel() for x in outputs),
            )
        )


def _kernel(kind: str, arguments: dict[str, Any], params: int) -> int:
    """How many of the parameters are a kernel or matrix: those that int8 can hold."""
    if kind not in MAC_KINDS or not params:
        return 0
    if kind in CONVOLUTIONS or "weight" in arguments:
        return min(params, int(arguments["weight"].numel()))
    matrices = (x.numel() for x in _tensors(arguments.values()) if x.ndim > 1)
    return max((n for n in matrices if n <= params), default=0)


def _tensors(values: Any) -> Iterator[Tensor]:
    """The tensors among values, lists of values and dictionaries of them."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from _tensors(value)
        elif isinstance(value, dict):
            yield from _tensors(value.values())


def _all_on_meta(args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Where one tensor is on the meta device, all are: also a table that is made in `forward`."""
    tensors = list(_tensors((*args, *kwargs.values())))
    if all(x.is_meta for x in tensors) or not any(x.is_meta for x in tensors):
        return args, kwargs

    def move(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value if value.is_meta else torch.empty_like(value, device="meta")
        if isinstance(value, (tuple, list)):
            return type(value)(move(item) for item in value)
        return value

    return tuple(map(move, args)), {name: move(value) for name, value in kwargs.items()}
