"""What a lesson says, as plain values: text, page and JSON are made of this."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

from edgewise.measure.latency import Latency
from edgewise.reporting.charts import Plot

Cell = int | float | Fraction | str


@dataclass(frozen=True)
class Step:
    """One step of the calculation: a formula, the same with its numbers, and the result."""

    what: str
    formula: str
    numbers: str
    value: Cell


@dataclass(frozen=True)
class Part:
    """Something that was counted and timed.

    Attributes:
        name: what it is.
        output: its shape without the batch, such as (channels, height, width).
        params: learned numbers.
        macs: multiply-accumulates.
        bytes: what must be read and written at least, as float32: inputs, weights, outputs of
            each of its layers.
        time: of one call.
        copy_ms: median time of only copying as many bytes; None where it wasn't measured.
    """

    name: str
    output: tuple[int, ...]
    params: int
    macs: int
    bytes: int
    time: Latency
    copy_ms: float | None = None

    @property
    def intensity(self) -> float:
        """MACs for each byte that is read or written."""
        return self.macs / self.bytes

    @property
    def speed(self) -> float:
        """GMAC/s."""
        return self.macs / self.time.median_ms / 1e6


@dataclass(frozen=True)
class Table:
    """Figures side by side. Each row has a cell for each name of the header."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class Bars:
    """A picture: for each row a bar in each column, as long as its share of the column's largest.

    Attributes:
        title: what is drawn.
        columns: what each column measures.
        rows: the name of each row, and for each column the value and its text.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[tuple[float, str], ...]], ...]


@dataclass(frozen=True)
class Lesson:
    """A lesson with its numbers.

    Attributes:
        name: what it is called on the command line.
        title: for people.
        settings: what it was called with, defaults included.
        idea: what the thing does and why, in a few sentences.
        paper: where it is from.
        findings: sentences made of these numbers.
        bars: where the cost goes.
        mistake: the section of docs/mistakes.md about it; "" for none.
        code: the functions of `edgewise.reference` that define it.
        steps: the calculation.
        parts: what was timed.
        tables: other figures.
        plots: charts.
        runtime: what was timed.
        machine: where it was timed, see `latency.machine`.
        share: of a core that it had meanwhile, see `clock.Clock`.
    """

    name: str
    title: str
    settings: dict[str, int | str]
    idea: str
    paper: str
    findings: tuple[str, ...]
    bars: Bars
    steps: tuple[Step, ...] = ()
    parts: tuple[Part, ...] = ()
    tables: tuple[Table, ...] = ()
    plots: tuple[Plot, ...] = ()
    code: tuple[str, ...] = ()
    mistake: str = ""
    runtime: str = "PyTorch, float32"
    machine: dict[str, str | int] = field(default_factory=dict)
    share: float = 1.0
