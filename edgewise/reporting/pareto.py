"""Published accuracy against measured latency: a page to look into, and a picture of it."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path

from edgewise.errors import UsageError, missing_package
from edgewise.families import VARIANTS
from edgewise.files import write_bytes, write_text
from edgewise.measure.store import OK, OURS, Row
from edgewise.reporting.charts import LogAxis, Mark, ticks
from edgewise.reporting.numbers import NBSP, milliseconds, plural
from edgewise.reporting.templates import render
from edgewise.table import Variant
from edgewise.weights.pretrained import ALIASES

HTML, PNG = "pareto.html", "pareto.png"
TEMPLATE = "pareto.html.j2"
# Okabe and Ito's colours, which people with any colour vision tell apart; grey for the ninth.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#8f7be8", "#a08a3c")
OTHER = "#808080"
SHAPES = {"fp32": "o", "bf16": "D", "int8": "s"}  # matplotlib's names
LABEL_HEIGHT = 0.04  # of the chart's
LABEL_LEFT, LABEL_ROOM = 1.12, 4.0  # factors of time: from a mark to its label, and for the label
ROOM = 1.15  # left and right of the marks, as a factor of time


@dataclass(frozen=True)
class Point:
    """One mark: a network in one runtime at one precision.

    Attributes:
        model: its name.
        runtime: that ran it.
        precision: that it ran in.
        top1: published, in percent, for fp32.
        median_ms: of a call.
        published: whether it ran at the size that it was published for.
        text: all that is known of it, in a line.
    """

    model: str
    runtime: str
    precision: str
    top1: float
    median_ms: float
    published: bool
    text: str


@dataclass(frozen=True)
class Chart:
    """All points that may be compared: of one machine, batch and number of threads."""

    title: str
    points: tuple[Point, ...]

    @property
    def frontier(self) -> tuple[Point, ...]:
        """The points that no other one beats in both time and accuracy, the fastest first."""
        return frontier(self.points)

    @property
    def x_axis(self) -> LogAxis:
        """In milliseconds."""
        times = [point.median_ms for point in self.points]
        return LogAxis(min(times) / ROOM, max(times) * ROOM)

    @property
    def y_ticks(self) -> tuple[Mark, ...]:
        """Round percents around the points."""
        return tuple(Mark(0, self.y(value), f"{value:g}%") for value in self._tops())

    def x(self, median_ms: float) -> float:
        """Percent from the left."""
        return self.x_axis.place(median_ms)

    def y(self, top1: float) -> float:
        """Percent from the top."""
        tops = self._tops()
        return 100 * (tops[-1] - top1) / (tops[-1] - tops[0])

    def _tops(self) -> list[float]:
        tops = [point.top1 for point in self.points]
        return ticks(min(tops), max(tops), 6)


def frontier(points: Iterable[Point]) -> tuple[Point, ...]:
    """Those that no other one beats in both time and accuracy, the fastest first."""
    best: list[Point] = []
    for point in sorted(points, key=lambda point: (point.median_ms, -point.top1)):
        if not best or point.top1 > best[-1].top1:
            best.append(point)
    return tuple(best)


def make_charts(rows: Sequence[Row]) -> tuple[Chart, ...]:
    """A chart for each machine, batch and number of threads; our networks with right answers."""
    points: dict[str, list[Point]] = {}
    for row in rows:
        point = _point(row)
        if point:
            threads = plural(row.threads, "thread")
            title = f"{row.cpu}, {threads}, {plural(row.batch, 'image')} a call"
            points.setdefault(title.replace(NBSP, " "), []).append(point)
    return tuple(Chart(title, tuple(found)) for title, found in points.items())


def write_charts(rows: Sequence[Row], folder: Path) -> tuple[Path, Path]:
    """Writes `pareto.html`, one file that opens offline, and `pareto.png`.

    Args:
        rows: of the store; of a thing that was measured again, the last one only.
        folder: made if it is not there.

    Raises:
        UsageError: no row has a published accuracy and a time; jinja2 or matplotlib is missing.
        EdgewiseError: the files can't be written.
    """
    charts = make_charts(rows)
    if not charts:
        raise UsageError(
            "nothing to draw: no network with a published accuracy was measured with right answers."
        )
    write_text(folder / HTML, _page(charts))
    write_bytes(folder / PNG, _picture(charts))
    return folder / HTML, folder / PNG


def published(name: str) -> Variant | None:
    """The network of that name, ours or timm's, that has a published accuracy."""
    if name not in VARIANTS and name in ALIASES and ALIASES[name].width == 1:
        name = ALIASES[name].name
    return VARIANTS.get(name)


def _point(row: Row) -> Point | None:
    known = published(row.model)
    if not known or row.library != OURS or row.status != OK or row.median_ms is None:
        return None
    as_published = row.imgsz == known.input_size
    size = f"{row.imgsz} px" + ("" if as_published else f", published at {known.input_size} px")
    text = (
        f"{row.model} ({size}), {row.runtime} {row.version} {row.precision}: "
        f"{milliseconds(row.median_ms)} ({row.low_ms:.3g}-{row.high_ms:.3g}), "
        f"top-1 {known.top1:.1f}% ({known.top1_source})"
    )
    return Point(
        *(row.model, row.runtime, row.precision, known.top1, row.median_ms, as_published),
        text=text.replace(NBSP, " "),
    )


def _colours(charts: Sequence[Chart]) -> dict[str, str]:
    runtimes = dict.fromkeys(point.runtime for chart in charts for point in chart.points)
    colours = (*COLOURS, *[OTHER] * len(runtimes))
    return dict(zip(runtimes, colours, strict=False))


def _page(charts: Sequence[Chart]) -> str:
    values = {
        "charts": charts,
        "colours": _colours(charts),
        "precisions": [
            precision
            for precision in SHAPES
            if any(point.precision == precision for chart in charts for point in chart.points)
        ],
    }
    return render(TEMPLATE, values)


def _picture(charts: Sequence[Chart]) -> bytes:
    """A PNG, 1600 pixels wide, one plot below the other."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import FuncFormatter, NullFormatter
    except ImportError as error:
        raise missing_package("matplotlib", "bench") from error
    colours = _colours(charts)
    figure = Figure((10, 5.6 * len(charts)), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    for chart, axes in zip(charts, figure.subplots(len(charts), squeeze=False)[:, 0], strict=True):
        best = chart.frontier
        axes.step(
            [p.median_ms for p in best], [p.top1 for p in best], "0.6", where="post", zorder=1
        )
        for point in chart.points:
            colour = colours[point.runtime]
            axes.plot(
                *(point.median_ms, point.top1, SHAPES[point.precision]),
                color=colour,
                markerfacecolor=colour if point.published else "white",
                markersize=6,
            )
        tops = [point.top1 for point in chart.points]
        below = inf
        for point in reversed(best):  # from the top, each label below the one before
            below = min(point.top1, below - max(max(tops) - min(tops), 1) * LABEL_HEIGHT)
            axes.annotate(
                f"{point.model}, {point.runtime} {point.precision}",
                (point.median_ms, point.top1),
                (point.median_ms / LABEL_LEFT, below),
                ha="right",
                va="center",
                fontsize=7,
                arrowprops={"arrowstyle": "-", "color": "0.7", "lw": 0.6},
            )
        axes.set(
            xscale="log",
            title=chart.title,
            xlabel="median latency, ms",
            ylabel="published top-1, %",
        )
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        times = chart.x_axis
        axes.set_xticks([float(mark.text) for mark in times.ticks])
        axes.margins(0.05, 0.08)
        axes.set_xlim(times.low / LABEL_ROOM, times.high)
        axes.grid(alpha=0.3)
        for runtime in dict.fromkeys(point.runtime for point in chart.points):
            axes.plot([], [], "o", color=colours[runtime], label=runtime)
        for precision in dict.fromkeys(point.precision for point in chart.points):
            axes.plot([], [], SHAPES[precision], color="0.5", label=precision)
        axes.legend(loc="lower right", fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
