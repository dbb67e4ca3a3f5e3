"""A module or function as a `Part`: counted, then timed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from edgewise.errors import UsageError
from edgewise.lessons.clock import Clock, Run
from edgewise.lessons.lesson import Bars, Part
from edgewise.measure.profile import profile
from edgewise.reporting.numbers import milliseconds, scaled

Make = Callable[[], Callable[..., Tensor]]

MOST_MACS = 20_000_000_000  # about a second; it is called at least twenty times
MOST_BYTES = 4_000_000_000
FLOAT = 4  # bytes
MATMUL = 512  # the side of the matrices whose product shows what this core can do


def part(
    clock: Clock,
    name: str,
    make: Make,
    *shapes: tuple[int, ...],
    copied: bool = True,
    channels_last: bool = False,
    prepare: Callable[[], Run] | None = None,
) -> Part:
    """Counts and times what `make` makes, on random inputs of these shapes.

    Args:
        clock: where the times come from.
        name: the part's.
        make: makes a module, or a function of tensors; in evaluation mode.
        shapes: of the inputs, with the batch.
        copied: whether to time a mere copy of as many bytes.
        channels_last: whether maps are stored pixel by pixel and not channel by channel.
        prepare: times this instead of what was made.

    Raises:
        UsageError: it is too large to be timed.
    """
    with torch.device("meta"), torch.no_grad():
        made, inputs = _module(make), tuple(torch.empty(shape) for shape in shapes)
        output = made(*inputs).shape[1:]
    counted = profile(made, inputs=inputs)
    macs, bytes_ = counted.macs, FLOAT * sum(layer.moved for layer in counted.layers)
    check_cost(name, macs, bytes_)

    def made_for_real() -> Run:
        module, real = _module(make), [torch.randn(shape) for shape in shapes]
        if channels_last:
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            real = [x.to(memory_format=torch.channels_last) for x in real]
        return lambda: module(*real)

    time = clock.time(name, prepare or made_for_real)
    copy_ms = _copy_ms(clock, bytes_) if copied else None
    return Part(name, tuple(output), counted.params, macs, bytes_, time, copy_ms)


def check_cost(
    name: str, macs: int, bytes_: int, mend: str = "a smaller --size or fewer channels"
) -> None:
    """Before anything is computed.

    Raises:
        UsageError: it is too large to be timed.
    """
    if macs > MOST_MACS or bytes_ > MOST_BYTES:
        raise UsageError(
            f"{name} takes {scaled(macs)} MACs and {scaled(bytes_)}B: too much to be timed again "
            f"and again. Choose {mend}."
        )


def peak(clock: Clock) -> float:
    """GMAC/s of one core of this machine in a float32 matrix product: what sums can reach."""

    def prepare() -> Run:
        a, b = torch.randn(MATMUL, MATMUL), torch.randn(MATMUL, MATMUL)
        return lambda: a @ b

    return MATMUL**3 / clock.time("matrix product", prepare).median_ms / 1e6


def costs(title: str, parts: Sequence[Part]) -> Bars:
    """MACs and time of each part, as a picture."""
    return Bars(
        title,
        ("MACs", "time"),
        tuple(
            (
                p.name,
                (
                    (p.macs, scaled(p.macs)),
                    (p.time.median_ms, milliseconds(p.time.median_ms)),
                ),
            )
            for p in parts
        ),
    )


def _copy_ms(clock: Clock, size: int) -> float:
    """Reads and writes `size` bytes in all."""

    def prepare() -> Run:
        source = torch.randn(max(1, size // FLOAT // 2))
        target = torch.empty_like(source)
        return lambda: target.copy_(source)

    return clock.time(f"copying {size:,} bytes", prepare).median_ms


class _Function(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        """What the function gives."""
        return self.function(*inputs)


def _module(make: Make) -> nn.Module:
    made = make()
    return made.eval() if isinstance(made, nn.Module) else _Function(made)
