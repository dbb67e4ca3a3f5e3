"""Where the lines, bars and tick labels of the report's charts go.

The template draws them as SVG with every position in percent of the plot: a chart then fits a phone
and a desktop with text of one size, and takes its colours from the page, light or dark. That, and
2 kB a chart, is why no plotting library draws them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor, isfinite, log10

from edgewise.reporting.numbers import percent, scaled
from edgewise.reporting.record import Json
from edgewise.training.history import EpochMetrics


@dataclass(frozen=True)
class Mark:
    """A point, in percent from the plot's left and top, and the text that it stands for."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Line:
    """A line through points. `style` is its class in the style sheet."""

    name: str
    style: str
    points: tuple[Mark, ...]


@dataclass(frozen=True)
class Plot:
    """One chart.

    Attributes:
        title: what is drawn, for the heading.
        alt: the same and its main figures, for those who can't see it.
        x_name: the name of the horizontal axis.
        x_ticks: their `y` is unused.
        y_ticks: their `x` is unused.
        lines: drawn over the bars.
        bars: the middle of each bar's upper end.
        bar_width: in percent of the plot's width.
        shaded: how much of the plot's width, from the left, has a tinted ground.
    """

    title: str
    alt: str
    x_name: str
    x_ticks: tuple[Mark, ...]
    y_ticks: tuple[Mark, ...]
    lines: tuple[Line, ...] = ()
    bars: tuple[Mark, ...] = ()
    bar_width: float = 0.0
    shaded: float = 0.0


PERCENTS = tuple(Mark(share, 0, f"{share}%") for share in range(0, 101, 20))


def ticks(low: float, high: float, most: int) -> list[float]:
    """At most about `most` round numbers (1, 2 or 5 times a power of ten apart) around low..high.

    The first is at or below `low` and the last at or above `high`.
    """
    span = (high - low) or abs(high) or 1.0
    power = 10 ** floor(log10(span / most))
    step = next(power * m for m in (1, 2, 5, 10) if power * m * most >= span * (1 - 1e-9))
    first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
    return [i * step for i in range(first, max(last, first + 1) + 1)]


@dataclass(frozen=True)
class LogAxis:
    """A logarithmic scale from `low` to `high`, both above 0."""

    low: float
    high: float

    @property
    def ticks(self) -> tuple[Mark, ...]:
        """Round numbers in the range, at most about six, where the logarithm puts them.

        In a narrow range they are less round: one number alone says nothing of a scale.
        """
        choices = self._digits((1, 2, 5)), self._digits(range(1, 10)), ticks(self.low, self.high, 5)
        inside = [[v for v in values if self.low <= v <= self.high] for values in choices]
        enough = next((values for values in inside if len(values) > 1), inside[-1])
        shown = enough[:: max(1, ceil(len(enough) / 6))]
        return tuple(Mark(self.place(value), 0, f"{value:g}") for value in shown)

    def _digits(self, digits: Iterable[int]) -> list[float]:
        """These times each power of ten around the range."""
        powers = range(floor(log10(self.low)), ceil(log10(self.high)) + 1)
        return [digit * 10.0**power for power in powers for digit in digits]

    def place(self, value: float) -> float:
        """Percent of the way from `low` to `high`."""
        return 100 * log10(value / self.low) / log10(self.high / self.low)


def curve(
    epochs: Sequence[EpochMetrics], title: str, columns: Sequence[tuple[str, str, str]], unit: str
) -> Plot | None:
    """Columns of metrics.csv against the epoch, or None if none of them has a number.

    Args:
        epochs: at least one.
        title: the chart's heading.
        columns: the column, the line's name and its style, for each line.
        unit: "%" for shares in [0, 1], else "".
    """
    factor = 100 if unit == "%" else 1
    values = {
        name: [(e.epoch, factor * getattr(e, column)) for e in epochs]
        for column, name, _ in columns
    }
    for name, points in values.items():  # a loss may overflow
        values[name] = [(epoch, value) for epoch, value in points if isfinite(value)]
    every = [value for points in values.values() for _, value in points]
    if not every:
        return None
    y_values = ticks(min(every), max(every), 5)
    x_low, x_high = epochs[0].epoch, max(epochs[-1].epoch, epochs[0].epoch + 1)

    def place(epoch: float, value: float, words: str) -> Mark:
        return Mark(
            100 * (epoch - x_low) / (x_high - x_low),
            100 * (y_values[-1] - value) / (y_values[-1] - y_values[0]),
            words,
        )

    lines = tuple(
        Line(
            name,
            style,
            tuple(place(e, v, f"epoch {e}, {name}: {v:.4g}{unit}") for e, v in values[name]),
        )
        for _, name, style in columns
    )
    ends = ", ".join(
        f"{name} ends at {points[-1][1]:.4g}{unit}" for name, points in values.items() if points
    )
    x_step = max(1, ceil((x_high - x_low) / 6))
    head = [e.epoch for e in epochs if e.phase == "head"]
    return Plot(
        title=title,
        alt=f"{title} by epoch, {x_low} to {epochs[-1].epoch}: {ends}.",
        x_name="epoch",
        x_ticks=tuple(place(e, 0, str(e)) for e in range(x_low, x_high + 1, x_step)),
        y_ticks=tuple(place(0, v, f"{v:g}{unit}") for v in y_values),
        lines=lines,
        shaded=min(100.0, place(head[-1] + 0.5, 0, "").x) if head else 0.0,
    )


def reliability(calibration: Sequence[Json]) -> Plot:
    """Accuracy against confidence, in the bins of eval/SPLIT.json; the diagonal is perfect."""
    filled = [b for b in calibration if b["count"]]
    sentence = "; ".join(
        f"of {b['count']:,} answers at {percent(b['confidence'])}, "
        f"{percent(b['accuracy'])} were right"
        for b in filled
    )
    return Plot(
        title="Right answers by stated confidence",
        alt=f"Reliability diagram. {sentence}.",
        x_name="confidence",
        x_ticks=PERCENTS,
        y_ticks=tuple(Mark(0, 100 - share, f"{share}%") for share in (0, 50, 100)),
        lines=(Line("perfect", "muted dashed", (Mark(0, 100, ""), Mark(100, 0, ""))),),
        bars=tuple(
            Mark(
                50 * (b["low"] + b["high"]),
                100 - 100 * b["accuracy"],
                f"{percent(b['accuracy'])} of {b['count']:,} were right, "
                f"mean confidence {percent(b['confidence'])}",
            )
            for b in filled
        ),
        bar_width=100 / len(calibration),
    )


def confidences(calibration: Sequence[Json]) -> Plot:
    """How many answers fell into each bin of confidence."""
    most = max(b["count"] for b in calibration) or 1
    return Plot(
        title="Number of answers",
        alt="How many answers were given with each confidence; the figures are in the chart above.",
        x_name="confidence",
        x_ticks=PERCENTS,
        y_ticks=(Mark(0, 100, "0"), Mark(0, 0, scaled(most))),
        bars=tuple(
            Mark(
                50 * (b["low"] + b["high"]),
                100 - 100 * b["count"] / most,
                f"{b['count']:,} answers",
            )
            for b in calibration
        ),
        bar_width=100 / len(calibration),
    )
