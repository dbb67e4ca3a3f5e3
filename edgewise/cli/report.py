"""`edgewise report`: a run, or a search, as a page to read."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(
    epilog="""
    \b
    Examples:
      edgewise report runs/first
      edgewise report runs/photos-search-1
    """
)
@click.argument("run", type=click.Path(path_type=Path))
def command(run: Path) -> None:
    """Write RUN's report.html and MODEL_CARD.md.

    The report is one file that opens offline: the data, the curves, the confusions and the worst
    mistakes with their pictures, where the network looked (Grad-CAM), the cost, the verification.
    What hasn't been done yet it names, with the command that does it. The first report of a model
    also measures its latency, which takes a few seconds.

    Of a search (a folder that `edgewise run` made, finished or not) there is report.html alone: the
    verdict, what was chosen and why, the accuracy and cost of all candidates, what it took.
    """
    from edgewise.reporting.search_page import write_search_report
    from edgewise.reporting.write import report
    from edgewise.run_folder import Run
    from edgewise.search.request import SearchFolder

    if SearchFolder.is_search(run):
        click.echo(write_search_report(SearchFolder(run)))
        return
    opened = Run.open(run)
    click.echo(report(opened))
    click.echo(opened.model_card)
