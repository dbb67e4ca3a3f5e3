"""The chart of a search: marks where the numbers are, labels that cover nothing."""

from __future__ import annotations

import random
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from made_search import NETWORKS, ROUND_1, ROUND_2, SIZES, all_decisions, write_search

from edgewise.reporting.charts import Mark
from edgewise.reporting.search_chart import (
    HEIGHT,
    LETTER,
    WIDTH,
    SearchChart,
    SearchMark,
    labelled,
    search_chart,
)
from edgewise.reporting.search_record import SearchRecord
from edgewise.reporting.search_rows import candidate_rows


def chart_of(root: Path, made: dict[str, Any], **asked: Any) -> SearchChart | None:
    record = SearchRecord.read(write_search(root / "search", made, **asked))
    return search_chart(record, candidate_rows(record))


def test_marks_are_on_their_scales(tmp_path: Path) -> None:
    chart = chart_of(tmp_path, all_decisions())
    assert chart
    places = {float(tick.text): tick.x for tick in chart.x_ticks}
    per_factor = (places[5] - places[1]) / 0.698970  # log10(5)
    budget = places[1] + 0.301030 * per_factor  # log10(2)
    assert chart.budget.x == pytest.approx(budget, abs=1e-3)
    assert chart.budget.text == "budget 2\xa0ms"
    heights = {float(tick.text.rstrip("%")): tick.y for tick in chart.y_ticks}
    (low, at_low), *_, (high, at_high) = sorted(heights.items())
    best = chart.marks[-1]
    assert best.kind == "chosen"
    shipped = all_decisions()["files"]["files"][2]
    accuracy = 100 * shipped["accuracy"]
    part = (accuracy - low) / (high - low)
    assert best.at.y == pytest.approx(at_low + part * (at_high - at_low))
    assert chart.interval
    ends = [at_low + (100 * shipped[e] - low) / (high - low) * (at_high - at_low) for e in _ENDS]
    assert chart.interval == pytest.approx(ends)


_ENDS = ("high", "low")


def test_there_is_a_mark_for_all_that_is_known(tmp_path: Path) -> None:
    chart = chart_of(tmp_path, all_decisions())
    assert chart
    kinds = [mark.kind for mark in chart.marks]
    assert (kinds.count("chosen"), kinds.count("file"), kinds.count("trial")) == (1, 3, 4)
    trials = {m.label: m.at.text for m in chart.marks if m.kind == "trial"}
    assert set(trials) == set(ROUND_1)
    assert f"{round(ROUND_2['mobilenet_v2-96'] * 83) / 83:.1%} right" in trials["mobilenet_v2-96"]
    assert len(chart.measured) == len(NETWORKS) * len(SIZES) - len(ROUND_1)
    assert all(mark.y == 100 and 0 < mark.x < 100 for mark in chart.measured)


def test_without_an_accuracy_there_is_no_chart(tmp_path: Path) -> None:
    made = all_decisions()
    some = {step: made[step] for step in ("device", "doctor", "survey", "choose")}
    assert chart_of(tmp_path, some) is None


@pytest.mark.parametrize("text", ["size=4MB", "memory=9MB", "latency=300us@p99,size=1MB"])
def test_the_axis_is_the_first_part_of_the_budget(tmp_path: Path, text: str) -> None:
    chart = chart_of(tmp_path, all_decisions(text), budget=text)
    assert chart
    assert (
        chart.x_name
        == {
            "size=4MB": "size, MB",
            "memory=9MB": "memory, MB",
            "latency=300us@p99,size=1MB": "latency (p99), ms",
        }[text]
    )


def test_labels_cover_neither_marks_nor_one_another() -> None:
    """Of many random charts; a label is as wide as its letters."""
    chance = random.Random(0)
    placed = every = 0
    for _ in range(50):
        marks = [
            SearchMark(
                *("trial", "fp32"),
                Mark(chance.uniform(2, 98), chance.uniform(5, 90), ""),
                "n" * chance.randrange(5, 25),
            )
            for _ in range(12)
        ]
        found = labelled(marks)
        assert [mark.at for mark in found] == [mark.at for mark in marks]
        assert found[-1].place, "the chosen one's label has the first choice"
        boxes = [box(mark) for mark in found if mark.place]
        for one, other in combinations(boxes, 2):
            assert apart(one, other)
        for mark in marks:
            x, y = mark.at.x / 100 * WIDTH, mark.at.y / 100 * HEIGHT
            assert all(apart((x - 5, y - 5, x + 5, y + 5), own) for own in boxes)
        placed, every = placed + len(boxes), every + len(marks)
    assert placed > 0.8 * every


def test_a_label_crosses_a_line_only_where_it_must() -> None:
    mark = SearchMark("trial", "fp32", Mark(45, 50, ""), "n" * 10)
    line = (0.5 * WIDTH - 3, 0.0, 0.5 * WIDTH + 3, float(HEIGHT))
    (free,) = labelled([mark])
    (beside,) = labelled([mark], [line])
    (must,) = labelled([mark], [(0.0, 0.0, float(WIDTH), float(HEIGHT))])
    assert free.place and free.place[2] == "start"
    assert beside.place and beside.place[2] == "end"
    assert must.place == free.place


def box(mark: SearchMark) -> tuple[float, float, float, float]:
    assert mark.place
    x = mark.at.x / 100 * WIDTH + mark.place[0]
    y = mark.at.y / 100 * HEIGHT + mark.place[1]
    width = LETTER * len(mark.label)
    left = {"start": x, "middle": x - width / 2, "end": x - width}[mark.place[2]]
    return left, y - 10, left + width, y + 2


def apart(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    beside = one[2] <= other[0] or other[2] <= one[0]
    return beside or one[3] <= other[1] or other[3] <= one[1]
