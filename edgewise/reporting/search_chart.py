"""Accuracy against what a device can afford: what a search chose, tried, and only measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from edgewise.reporting.charts import LogAxis, Mark, ticks
from edgewise.reporting.numbers import filesize, milliseconds, percent, plural
from edgewise.reporting.search_record import MadeFile, SearchRecord
from edgewise.reporting.search_rows import CandidateRow
from edgewise.search.budget import Budget, Spent
from edgewise.search.decisions import Numbers
from edgewise.search.ways import Way

CHOSEN, FILE, TRIAL = "chosen", "file", "trial"
ROOM = 1.25  # left and right of what is drawn, as a factor
BELOW = 0.05  # of the accuracies' span is free below them
# Labels have a place where the plot is at least so wide; in pixels, as all that follows.
WIDTH, HEIGHT = 640, 340
LETTER, LINE, CLEAR = 6.9, 15, 8  # a letter's width, a line's height, a mark's half width
# From a mark to its label's base line, and which end of the label is there: the best place first.
PLACES = (
    *((12, 4, "start"), (-12, 4, "end"), (0, -13, "middle"), (0, 23, "middle")),
    *((11, -9, "start"), (11, 18, "start"), (-11, -9, "end"), (-11, 18, "end")),
    *((0, -28, "middle"), (0, 38, "middle")),
)
Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class SearchMark:
    """One mark with its label.

    Attributes:
        kind: CHOSEN, FILE or TRIAL.
        precision: of the file.
        at: where, in percent from the plot's left and top, and all that is known of it.
        label: a few words.
        place: see `PLACES`; None where there is no room for the label.
    """

    kind: str
    precision: str
    at: Mark
    label: str
    place: tuple[float, float, str] | None = None


@dataclass(frozen=True)
class SearchChart:
    """The chart.

    Attributes:
        title: what is drawn against what.
        alt: the same and its main figures, for those who can't see it.
        x_name: the name of the horizontal axis.
        x_ticks: their `y` is unused.
        y_ticks: their `x` is unused.
        budget: where it ends, in percent from the left, and how much it is.
        marks: the chosen one last, so that it lies on top.
        interval: the upper and the lower end of the chosen one's, in percent from the top.
        measured: what was measured and not trained: no accuracy is known.
    """

    title: str
    alt: str
    x_name: str
    x_ticks: tuple[Mark, ...]
    y_ticks: tuple[Mark, ...]
    budget: Mark
    marks: tuple[SearchMark, ...]
    interval: tuple[float, float] | None
    measured: tuple[Mark, ...]


@dataclass(frozen=True)
class Quantity:
    """What the horizontal axis shows: the first of the budget's parts."""

    name: str
    unit: str
    most: float
    of: Callable[[Numbers], float | None]  # of a "spent", in the unit
    text: Callable[[float], str]


@dataclass(frozen=True)
class _Seen:
    """A mark, or what was only measured, in its own units."""

    kind: str
    precision: str
    x: float
    accuracy: float
    text: str
    label: str


def quantity(budget: Budget) -> Quantity:
    """What a chart of this budget has on its horizontal axis."""
    if budget.latency_ms:
        return Quantity(
            f"latency ({budget.percentile})",
            "ms",
            budget.latency_ms,
            lambda spent: budget.latency_of(Spent(**spent)),
            milliseconds,
        )
    name = "size" if budget.size_bytes else "memory"
    most = (budget.size_bytes or budget.memory_bytes or 0) / 1e6

    def of(spent: Numbers) -> float | None:
        taken = spent[f"{name}_bytes"]
        return None if taken is None else float(taken) / 1e6

    return Quantity(name, "MB", most, of, lambda value: filesize(value * 1e6))


def search_chart(record: SearchRecord, rows: Sequence[CandidateRow]) -> SearchChart | None:
    """The chart of a search, or None where nothing has an accuracy yet.

    Args:
        record: of the search.
        rows: its candidates.
    """
    x = quantity(record.budget)
    seen = [*_trials(rows, x), *_files(record, x)]
    if not seen:
        return None
    measured = list(_measured(rows, x))
    every = [*(mark.x for mark in seen), *(value for value, _ in measured), x.most]
    axis = LogAxis(min(every) / ROOM, max(every) * ROOM)
    chosen = record.chosen
    ends = [chosen.selected_by["low"], chosen.selected_by["high"]] if chosen else []
    tops = [100 * value for value in [*ends, *(mark.accuracy for mark in seen)]]
    below = (max(tops) - min(tops)) * BELOW
    y_values = ticks(max(0.0, min(tops) - below), max(tops), 5)

    def height(share: float) -> float:
        return 100 * (y_values[-1] - 100 * share) / (y_values[-1] - y_values[0])

    marks = [
        SearchMark(
            mark.kind,
            mark.precision,
            Mark(axis.place(mark.x), height(mark.accuracy), mark.text),
            mark.label,
        )
        for mark in seen
    ]
    budget = Mark(axis.place(x.most), 0, f"budget {x.text(x.most)}")
    interval = (height(ends[1]), height(ends[0])) if ends else None
    lines = [_upright(budget.x, 0, 100)]
    if interval:
        lines.append(_upright(marks[-1].at.x, *interval))
    return SearchChart(
        title=f"Accuracy against {x.name}",
        alt=_alt(seen, measured, x),
        x_name=f"{x.name}, {x.unit}",
        x_ticks=axis.ticks,
        y_ticks=tuple(Mark(0, height(v / 100), f"{v:g}%") for v in y_values),
        budget=budget,
        marks=tuple(labelled(marks, lines)),
        interval=interval,
        measured=tuple(Mark(axis.place(value), 100, text) for value, text in measured),
    )


def labelled(marks: Sequence[SearchMark], lines: Sequence[Box] = ()) -> list[SearchMark]:
    """The same with places for their labels, where no label covers another or a mark.

    The last mark's label has the first choice; where there is no room, a label has no place.

    Args:
        marks: all that there are.
        lines: what a label covers only where it has no other place.
    """
    spots = [(mark.at.x / 100 * WIDTH, mark.at.y / 100 * HEIGHT) for mark in marks]
    taken: list[Box] = [(x - CLEAR, y - CLEAR, x + CLEAR, y + CLEAR) for x, y in spots]
    found = []
    for mark, (x, y) in reversed(list(zip(marks, spots, strict=True))):
        boxes = {place: _box(x, y, place, mark.label) for place in PLACES}
        free = [place for place, box in boxes.items() if _inside(box) and not _any(taken, box)]
        best = [place for place in free if not _any(lines, boxes[place])] or free
        if best:
            taken.append(boxes[best[0]])
        found.append(replace(mark, place=best[0] if best else None))
    return found[::-1]


def _upright(x: float, top: float, bottom: float) -> Box:
    """A line from top to bottom, all in percent."""
    return x / 100 * WIDTH - 3, top / 100 * HEIGHT, x / 100 * WIDTH + 3, bottom / 100 * HEIGHT


def _box(x: float, y: float, place: tuple[float, float, str], label: str) -> Box:
    width = LETTER * len(label)
    left = x + place[0] - {"start": 0.0, "middle": width / 2, "end": width}[place[2]]
    return left, y + place[1] - LINE + 3, left + width, y + place[1] + 3


def _inside(box: Box) -> bool:
    return box[0] >= 0 and box[1] >= 0 and box[2] <= WIDTH and box[3] <= HEIGHT - 2 * CLEAR


def _any(taken: Iterable[Box], box: Box) -> bool:
    return any(
        box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]
        for other in taken
    )


def _trials(rows: Sequence[CandidateRow], x: Quantity) -> Iterable[_Seen]:
    for row in reversed(rows):
        own = next((own for own in reversed(row.rounds) if own and "accuracy" in own), None)
        value = x.of(row.least["spent"]) if row.least["spent"] else None
        if own and value:
            candidate = row.least["candidate"]
            text = (
                f"{row.name}, a short training ({plural(own['epochs'], 'epoch')}): "
                f"{percent(own['accuracy'])} right; {x.text(value)} as its cheapest file, "
                f"{Way.of(candidate)}"
            )
            yield _Seen(TRIAL, candidate["precision"], value, own["accuracy"], text, row.name)


def _files(record: SearchRecord, x: Quantity) -> Iterable[_Seen]:
    chosen = record.chosen
    able = [f for f in record.files if f.able and f.selected_by["accuracy"] is not None]
    many = len({(file.model, file.imgsz) for file in able}) > 1
    for file in sorted(able, key=lambda file: file is chosen):
        value = x.of(file.numbers["spent"])
        if value:
            kind = CHOSEN if file is chosen else FILE
            accuracy = file.selected_by["accuracy"]
            how = f", {file.how}" if file.how else ""
            text = (
                f"{kind}: {file.model} at {file.imgsz} px{how}, {_way(file)}: "
                f"{percent(accuracy)} right, {x.text(value)}"
            )
            label = f"{file.model}-{file.imgsz}, {_way(file)}" if many else _way(file)
            label = f"chosen: {label}" if file is chosen else label
            yield _Seen(kind, file.numbers["precision"], value, accuracy, text, label)


def _way(file: MadeFile) -> str:
    way = Way.of(file.numbers)
    return f"{way.file} {way.runtime}"


def _measured(rows: Sequence[CandidateRow], x: Quantity) -> Iterable[tuple[float, str]]:
    for row in rows:
        value = x.of(row.least["spent"]) if row.least["spent"] else None
        if value and not row.final and not any(own and "accuracy" in own for own in row.rounds):
            yield value, f"{row.name}: {x.text(value)}, not trained ({row.fate})"


def _alt(seen: Sequence[_Seen], measured: Sequence[object], x: Quantity) -> str:
    best = next((mark.text for mark in seen if mark.kind == CHOSEN), "")
    files = sum(mark.kind != TRIAL for mark in seen)
    return (
        f"Accuracy against {x.name}: {plural(files, 'file')}, "
        f"{plural(len(seen) - files, 'short training')}, and {plural(len(measured), 'candidate')} "
        f"measured and not trained; the budget is {x.text(x.most)}. {best}"
    ).strip()
