"""Where the parameters, MACs, memory and milliseconds of a network go, stage by stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from edgewise.lessons.clock import Clock
from edgewise.lessons.lesson import Bars, Lesson, Table
from edgewise.lessons.parts import FLOAT, check_cost
from edgewise.lessons.words import ratio, two
from edgewise.measure.count import count
from edgewise.measure.latency import Latency
from edgewise.measure.profile import profile, spec_of
from edgewise.measure.profile_result import Profile
from edgewise.network import Network, build
from edgewise.reporting.numbers import filesize, milliseconds, percent, scaled
from edgewise.spec import Spec


@dataclass(frozen=True)
class Stage:
    """What one stage, the stem or the head takes.

    `written` are the bytes of the maps of its layers with MACs, `moved` all that its layers read
    and write, as float32.
    """

    name: str
    params: int
    macs: int
    written: int
    moved: int
    time: Latency


def network_lesson(clock: Clock, subject: str, size: int = 0) -> Lesson:
    """A network by name or of a run or model folder; its own image size if `size` is 0."""
    spec, own = spec_of(subject)
    size = size or own
    cost = profile(spec, size)
    if size > own:  # at which it may take its time
        moved = FLOAT * sum(layer.moved for layer in cost.layers)
        check_cost(spec.name, cost.macs, moved, "a smaller --size")
    network = cache(lambda: _Running(spec, size))
    stages = []
    for prefix, name in _names(spec, size):
        layers = [layer for layer in cost.layers if _is_in(prefix, layer.name)]
        stages.append(
            Stage(
                name,
                sum(layer.params for layer in layers),
                sum(layer.macs for layer in layers),
                FLOAT * sum(layer.activations for layer in layers),
                FLOAT * sum(layer.moved for layer in layers),
                clock.time(prefix, lambda prefix=prefix: network().run(prefix)),  # type: ignore[misc]
            )
        )
    whole = clock.time("whole network", lambda: network().run(""))
    return Lesson(
        name=subject,
        title=f"Where {spec.name} spends",
        settings={"size": size},
        idea=(
            f"{spec.name} on one image of {size} x {size} pixels: {cost.params:,} parameters, "
            f"{cost.macs:,} MACs, {milliseconds(whole.median_ms)} (p90 "
            f"{milliseconds(whole.p90_ms)}) in PyTorch on one thread, with fresh weights. Memory "
            "is what convolutions, linear layers and attention write, as float32."
        ),
        paper="",
        bars=_picture(stages),
        tables=(_table(stages),),
        findings=_five(cost, stages),
    )


class _Running:
    """The network with the inputs that its stages really get."""

    def __init__(self, spec: Spec, size: int) -> None:
        self.network = fresh(spec, size)
        self.inputs: dict[str, Tensor] = {}
        self.modules = {"": self.network, "stem": self.network.stem, "head": self.network.head}
        x = self.inputs[""] = self.inputs["stem"] = torch.randn(1, spec.in_chans, size, size)
        x = self.network.stem(x)
        for s, stage in enumerate(self.network.stages):
            self.modules[f"stages.{s}"], self.inputs[f"stages.{s}"] = stage, x
            x = stage(x)
        self.inputs["head"] = x

    def run(self, prefix: str) -> Callable[[], object]:
        """One call of that module."""
        module, x = self.modules[prefix], self.inputs[prefix]
        return lambda: module(x)


@torch.no_grad()
def fresh(spec: Spec, size: int) -> Network:
    """With fresh weights, for use, its batch norms' statistics those of random images.

    With fresh statistics the maps of a deep network would shrink to numbers that may be slower.
    """
    network = build(spec)
    if next(network.parameters()).is_meta:
        return network.eval()
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    network.train()(torch.randn(2, spec.in_chans, size, size))
    return network.eval()


def _names(spec: Spec, size: int) -> list[tuple[str, str]]:
    """Each module's name, and the name for people with the side of its output."""
    layers = count(spec, size).layers
    stages = [(f"stages.{s}", f"stage {s}") for s, stage in enumerate(spec.stages) if stage]
    names = []
    for prefix, name in [("stem", "stem"), *stages]:
        last = [layer for layer in layers if _is_in(prefix, layer.name)][-1]
        names.append((prefix, f"{name}, {last.side} px"))
    return [*names, ("head", "head")]


def _is_in(prefix: str, name: str) -> bool:
    """Whether a layer of that name is in the module of that prefix."""
    return f"{name}.".startswith(f"{prefix}.")


def _picture(stages: Sequence[Stage]) -> Bars:
    return Bars(
        "Stage by stage",
        ("parameters", "MACs", "memory", "time"),
        tuple(
            (
                stage.name,
                (
                    (stage.params, scaled(stage.params)),
                    (stage.macs, scaled(stage.macs)),
                    (stage.written, filesize(stage.written)),
                    (stage.time.median_ms, milliseconds(stage.time.median_ms)),
                ),
            )
            for stage in stages
        ),
    )


def _table(stages: Sequence[Stage]) -> Table:
    return Table(
        "Exact figures",
        ("stage", "parameters", "MACs", "bytes written", "median ms", "p90 ms", "GMAC/s"),
        tuple(
            (s.name, s.params, s.macs, s.written, s.time.median_ms, s.time.p90_ms, _speed(s))
            for s in stages
        ),
    )


def _speed(stage: Stage) -> float:
    return stage.macs / stage.time.median_ms / 1e6


def _five(cost: Profile, stages: Sequence[Stage]) -> tuple[str, ...]:
    """Five sentences: parameters, MACs, memory, milliseconds, and what sets the last two apart."""
    params, macs = cost.params, cost.macs
    written, total = sum(s.written for s in stages), sum(s.time.median_ms for s in stages)
    owner = max(stages, key=lambda s: s.params)
    worker = max(stages, key=lambda s: s.macs)
    writer = max(stages, key=lambda s: s.written)
    waiter = max(stages, key=lambda s: s.time.median_ms)
    busy = [s for s in stages if s.macs * 50 > macs]
    fast, slow = max(busy, key=_speed), min(busy, key=_speed)
    return (
        f"Parameters: {percent(owner.params / params)} of the {scaled(params)} are in "
        f"{_short(owner)}, which does {percent(owner.macs / macs)} of the MACs.",
        f"MACs: {percent(worker.macs / macs)} of the {scaled(macs)} are in {_short(worker)}, "
        f"which has {percent(worker.params / params)} of the parameters.",
        f"Memory: {percent(writer.written / written)} of the {filesize(written)} written are "
        f"{_short(writer)}'s; at most {filesize(cost.peak_memory)} are needed at once, in "
        f"{cost.peak_layer}.",
        f"Milliseconds: {percent(waiter.time.median_ms / total)} of the {milliseconds(total)} that "
        f"the stages took one by one went to {_short(waiter)}, for "
        f"{percent(waiter.macs / macs)} of the MACs.",
        f"A MAC isn't a MAC: {_short(fast)} did {_speed(fast):.3g} GMAC/s and {_short(slow)} "
        f"{_speed(slow):.3g}, {ratio(_speed(fast) / _speed(slow))} times "
        f"fewer, {_because(fast, slow)}.",
    )


def _because(fast: Stage, slow: Stage) -> str:
    """Whether the traffic explains the speeds."""
    figures = f"{two(_intensity(fast))} against {two(_intensity(slow))}"
    if _intensity(fast) > _intensity(slow):
        return f"which goes with more MACs for each byte that it moves: {figures}"
    return (
        f"and not for the traffic: MACs for each byte moved are {figures}, so it is the kind "
        "of layers"
    )


def _intensity(stage: Stage) -> float:
    return stage.macs / stage.moved


def _short(stage: Stage) -> str:
    """Without the size: "stage 3", "the head"."""
    name = stage.name.partition(",")[0]
    return name if name.startswith("stage") else f"the {name}"
