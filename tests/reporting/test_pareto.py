"""The chart of accuracy against latency."""

from __future__ import annotations

import io
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from PIL import Image

from edgewise.errors import UsageError
from edgewise.families import variant
from edgewise.measure.store import Row
from edgewise.reporting.pareto import Point, frontier, make_charts, write_charts


def row(model: str, milliseconds: float, **changes: object) -> Row:
    blank = Row("s", "m", "A <b>CPU</b>", 2, 0.1, model, "g", 224, 1, 1, "edgewise", "torch", "2.0")
    times = {"median_ms": milliseconds, "low_ms": milliseconds, "high_ms": milliseconds}
    return replace(blank, **{"precision": "fp32", **times, **changes})  # type: ignore[arg-type]


ROWS = [
    row("mobilenet_v1", 10),  # 70.6 %
    row("mobilenet_v2", 8),  # 72.0 %
    row("mobilenet_v2", 3, runtime="onnxruntime", precision="int8"),
    row("mobilenet_v3_large", 9),  # 75.2 %
    row("mobilenet_v3_small", 2),  # 67.4 %
    row("efficientnet_b1", 20),  # published at 240 px
]


def test_a_mark_for_each_network_runtime_and_precision() -> None:
    (chart,) = make_charts(ROWS)
    marks = [(p.model, p.runtime, p.precision, p.top1, p.median_ms) for p in chart.points]
    assert marks == [
        (r.model, r.runtime, r.precision, variant(r.model).top1, r.median_ms) for r in ROWS
    ]
    assert [p.published for p in chart.points] == [True] * 5 + [False]
    assert "published at 240 px" in chart.points[-1].text


def test_what_is_not_ours_right_and_published_has_no_mark() -> None:
    others = [
        row("mobilenet_v2", 1, library="timm"),
        row("mobilenet_v2", 1, status="wrong"),
        replace(row("mobilenet_v2", 1), median_ms=None, status="failed"),
        row("runs/first", 1),
        row("mobilenetv2_050", 1),  # half as wide: another accuracy
    ]
    assert make_charts(others) == ()
    (chart,) = make_charts([row("mobilenetv4_conv_small", 1)])  # timm's name of ours
    assert chart.points[0].top1 == variant("mobilenet_v4_conv_small").top1


def test_the_frontier_is_what_nothing_beats_in_both() -> None:
    """By the definition, over all pairs."""
    (chart,) = make_charts(ROWS)

    def beaten(point: Point) -> bool:
        return any(
            other.median_ms <= point.median_ms
            and other.top1 >= point.top1
            and (other.median_ms, other.top1) != (point.median_ms, point.top1)
            for other in chart.points
        )

    assert set(chart.frontier) == {point for point in chart.points if not beaten(point)}
    assert [p.model for p in chart.frontier[:3]] == [
        "mobilenet_v3_small",
        "mobilenet_v2",
        "mobilenet_v3_large",
    ]
    assert frontier([]) == ()


def test_marks_are_on_their_scales() -> None:
    (chart,) = make_charts(ROWS)
    assert chart.x(4) - chart.x(2) == pytest.approx(chart.x(8) - chart.x(4))
    assert all(0 < chart.x(p.median_ms) < 100 and 0 <= chart.y(p.top1) <= 100 for p in chart.points)
    for tick in chart.y_ticks:
        assert chart.y(float(tick.text.rstrip("%"))) == tick.y
    (alone,) = make_charts([row("mobilenet_v1", 10)])
    assert 0 < alone.x(10) < 100


def test_threads_and_batches_have_charts_of_their_own() -> None:
    rows = [row("mobilenet_v2", 3, threads=t, batch=b) for t, b in product((1, 2), (1, 8))]
    assert [chart.title for chart in make_charts(rows)] == [
        "A <b>CPU</b>, 1 thread, 1 image a call",
        "A <b>CPU</b>, 1 thread, 8 images a call",
        "A <b>CPU</b>, 2 threads, 1 image a call",
        "A <b>CPU</b>, 2 threads, 8 images a call",
    ]


def test_the_page_opens_offline_and_holds_every_mark(tmp_path: Path) -> None:
    html, png = write_charts(ROWS, tmp_path / "charts")
    text = html.read_text(encoding="utf-8")
    assert "http" not in text and "@import" not in text and "url(" not in text
    markup, _, script = text.partition("<script>")
    assert script.count("</script>") == 1
    assert markup.count('class="mark') == len(ROWS)
    assert markup.count('class="mark other"') == 1
    assert "<b>CPU</b>" not in markup and "A &lt;b&gt;CPU&lt;/b&gt;" in markup
    for r in ROWS:
        assert f'data-model="{r.model}" data-runtime="{r.runtime}"' in markup
    with Image.open(io.BytesIO(png.read_bytes())) as picture:
        assert picture.format == "PNG"
        assert picture.width == 1600


def test_nothing_to_draw_is_said(tmp_path: Path) -> None:
    """Whatever was asked for: the networks may have been named, and measured."""
    with pytest.raises(UsageError, match="nothing to draw: no network with a published accuracy"):
        write_charts([row("runs/first", 1)], tmp_path)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("times", [(3.0, 3.6), (14.0, 15.0), (1.0, 30.0)])
def test_the_axis_of_times_has_numbers_however_near_they_are(times: tuple[float, ...]) -> None:
    (chart,) = make_charts([row("mobilenet_v2", time) for time in times])
    axis = chart.x_axis
    shown = [float(tick.text) for tick in axis.ticks]
    assert 2 <= len(shown) <= 6
    assert all(axis.low <= value <= axis.high for value in shown)
    assert [axis.place(value) for value in shown] == pytest.approx([t.x for t in axis.ticks])
