"""`edgewise report`: a run as a page to read."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(
    epilog="""
    \b
    Example:
      edgewise report runs/first
    """
)
@click.argument("run", type=click.Path(path_type=Path))
def command(run: Path) -> None:
    """Write RUN's report.html and MODEL_CARD.md.

    The report is one file that opens offline: the data, the curves, the confusions and the worst
    mistakes with their pictures, where the network looked (Grad-CAM), the cost, the verification.
    What hasn't been done yet it names, with the command that does it. The first report of a model
    also measures its latency, which takes a few seconds.
    """
    from edgewise.reporting.write import report
    from edgewise.run_folder import Run

    opened = Run.open(run)
    click.echo(report(opened))
    click.echo(opened.model_card)
