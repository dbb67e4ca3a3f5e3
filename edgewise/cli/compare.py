"""`edgewise compare`: runs side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from edgewise.reporting.compare import Comparison, Score


@click.command(
    epilog="""
    \b
    Examples:
      edgewise compare runs/first runs/second
      edgewise compare runs/* --png runs.png
    """
)
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--png",
    "picture",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Draw curves and intervals (a name that ends in .png, .svg or .pdf).",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(runs: tuple[Path, ...], picture: Path | None, as_json: bool) -> None:
    """Set RUNS side by side: accuracy with its 95 % interval, time, and how their settings differ.

    VAL is the kept epoch's accuracy on the images by which it was chosen, so a little flattering;
    TEST is that of `edgewise eval`. Where two intervals overlap much, the runs can't be told apart.
    Of a search it is the run in SEARCH/final.
    """
    from edgewise.reporting.compare import compare_runs, write_picture
    from edgewise.run_folder import Run

    runs = tuple(
        path if Run.is_run(path) or not Run.is_run(path / "final") else path / "final"
        for path in runs
    )
    comparison = compare_runs(runs)
    if picture:
        write_picture(runs, picture)
    click.echo(json.dumps(comparison.to_json(), indent=2) if as_json else _text(comparison))


def _text(comparison: Comparison) -> str:
    from edgewise.reporting.columns import columns
    from edgewise.reporting.numbers import NBSP, duration

    settings = list(comparison.runs[0].settings)
    header = ("RUN", "VAL", "TEST", "KEPT", "IMAGES/S", "TIME", *map(str.upper, settings))
    lines = [
        (
            *(run.run, _told(run.val), _told(run.test), f"{run.kept_epoch}/{run.epochs}"),
            *(f"{run.images_per_second:.0f}", duration(run.seconds)),
            *(str(run.settings[name]) for name in settings),
        )
        for run in comparison.runs
    ]
    table = columns([header, *lines], "<<<>>>" + "<" * len(settings)).replace(NBSP, " ")
    return "\n".join([table, *(f"warning: {warning}" for warning in comparison.warnings)])


def _told(score: Score | None) -> str:
    if score is None:
        return "-"
    return f"{score.accuracy:.1%} ({score.low:.1%}-{score.high:.1%} of {score.images:,})"
