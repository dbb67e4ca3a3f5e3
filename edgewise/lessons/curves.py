"""Lines for a lesson's charts, in the report's form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from edgewise.reporting.charts import Line, Mark, Plot, ticks

STYLES = ("", "muted", "muted dashed")


def curves(
    title: str, x_name: str, xs: Iterable[float], lines: Mapping[str, Iterable[float]]
) -> Plot:
    """At most three lines over the same x, named, from their least to their greatest value."""
    across = [float(x) for x in xs]
    values = {name: [float(y) for y in line] for name, line in lines.items()}
    every = [y for line in values.values() for y in line]
    x_ticks, y_ticks = ticks(across[0], across[-1], 6), ticks(min(every), max(every), 5)
    left, right, low, high = x_ticks[0], x_ticks[-1], y_ticks[0], y_ticks[-1]

    def place(x: float, y: float, text: str) -> Mark:
        return Mark(100 * (x - left) / (right - left), 100 * (high - y) / (high - low), text)

    return Plot(
        title=title,
        alt=f"{title}: "
        + "; ".join(
            f"{name} goes from {line[0]:.3g} to {line[-1]:.3g}" for name, line in values.items()
        )
        + ".",
        x_name=x_name,
        x_ticks=tuple(place(x, low, f"{x:g}") for x in x_ticks),
        y_ticks=tuple(place(left, y, f"{y:g}") for y in y_ticks),
        lines=tuple(
            Line(
                name,
                style,
                tuple(
                    place(x, y, f"{x_name} {x:g}, {name}: {y:.3g}")
                    for x, y in zip(across, line, strict=True)
                ),
            )
            for style, (name, line) in zip(STYLES, values.items(), strict=False)
        ),
    )
