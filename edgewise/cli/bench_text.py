"""What `edgewise bench` prints: tables of what was measured, and advice."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from edgewise.measure.choose import Choice
    from edgewise.measure.store import Row


def print_rows(rows: Sequence[Row], as_json: bool) -> None:
    """A table for each network that was timed in turns, or one JSON array."""
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], indent=2))
        return
    if not rows:
        click.echo("nothing was measured yet", err=True)
    for _, group in groupby(rows, key=lambda row: row.group):
        _print_group(list(group))


def setting(model: str, imgsz: int, batch: int, threads: int) -> str:
    """What was timed, and how; `imgsz` is 0 for a file whose input is no square image."""
    from edgewise.reporting.numbers import plural

    size = f", {imgsz} px" if imgsz else ""
    return f"{model}{size}, batch {batch}, {plural(threads, 'thread')}"


def _print_group(rows: list[Row]) -> None:
    """Rows that were timed in turns, the fastest first; then what went wrong."""
    from edgewise.reporting.columns import columns
    from edgewise.reporting.numbers import NBSP

    first = rows[0]
    click.secho(setting(first.model, first.imgsz, first.batch, first.threads), bold=True)
    timed = sorted((r for r in rows if r.median_ms is not None), key=lambda row: row.median_ms or 0)
    if timed:
        header = (
            *("LIBRARY", "RUNTIME", "PRECISION", "MEDIAN", "INTERVAL", "P90", "P99"),
            *("FIRST", "MEMORY", "WEIGHTS"),
        )
        lines = [header, *map(_cells, timed)]
        click.echo(columns(lines, "<<<>>>>>>>").replace(NBSP, " "))
    for row in rows:
        if row.status != "ok":
            name = f"{row.library} {row.runtime} {row.precision}"
            click.secho(f"{row.status}: {name}: {row.reason}", fg="red")
    for warning in _warnings(first, timed):
        click.secho(f"warning: {warning}", fg="yellow")
    click.echo()


def _cells(row: Row) -> tuple[str, ...]:
    from edgewise.reporting.numbers import filesize, milliseconds

    return (
        row.library,
        row.runtime,
        row.precision,
        milliseconds(row.median_ms or 0),
        _interval(row.low_ms or 0, row.high_ms or 0),
        *("-" if v is None else milliseconds(v) for v in (row.p90_ms, row.p99_ms, row.first_ms)),
        *("-" if v is None else filesize(v) for v in (row.peak_bytes, row.weight_bytes)),
    )


def _interval(low: float, high: float) -> str:
    return f"{low:.3g}-{high:.3g}"


def _warnings(first: Row, timed: Sequence[Row]) -> list[str]:
    from edgewise.measure.rounds import WIDE
    from edgewise.timing.run import BUSY

    warnings = []
    if first.load is not None and first.load > BUSY * first.cores:
        warnings.append(
            f"the machine was busy before we began, with a load of {first.load:.1f} on "
            f"{first.cores} cores: ratios are worth more than times"
        )
    wide = [
        f"{row.runtime} {row.precision}"
        for row in timed
        if (row.high_ms or 0) - (row.low_ms or 0) > WIDE * (row.median_ms or 0)
    ]
    if wide:
        warnings.append(f"wide intervals, over {WIDE:.0%} of the median: {', '.join(wide)}")
    return warnings


def advice(choice: Choice) -> str:
    """Which to use, how many times as fast it is as each of the others, and what is not known."""
    from edgewise.reporting.numbers import NBSP, milliseconds

    best = choice.best
    lines = [
        f"{setting(best.model, best.imgsz, best.batch, best.threads)}: "
        f"{best.runtime} {best.precision}, {milliseconds(best.median_ms or 0)} "
        f"({_interval(best.low_ms or 0, best.high_ms or 0)})"
    ]
    for row, times in choice.others:
        tie = "  a tie" if times.tie else ""
        lines.append(
            f"  {times.value:5.2f} x as fast as {_candidate(row)} "
            f"({_interval(times.low, times.high)}){tie}"
        )
    for row in choice.earlier:
        lines.append(
            f"  not in the last session: {_candidate(row)}, which took "
            f"{milliseconds(row.median_ms or 0)} on {row.session[:10]}"
        )
    if best.precision != "fp32":
        lines.append(
            f"  {best.precision} may cost accuracy: check it on your own images before you ship it"
        )
    return "\n".join(lines).replace(NBSP, " ")


def _candidate(row: Row) -> str:
    ours = "" if row.library == "edgewise" else f"{row.library} in "
    return f"{ours}{row.runtime} {row.precision}"
