"""`edgewise verify`: are the exported files the same model?"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from edgewise.deploy.verification import Seen


@click.command(
    epilog="""
    \b
    Examples:
      edgewise verify runs/first
      edgewise verify runs/first/export/onnx-int8
      edgewise verify runs/first --json
    """
)
@click.argument("source", metavar="RUN|ARTIFACT", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def command(source: Path, as_json: bool) -> None:
    """Check that exported files give the answers of their PyTorch model.

    Each file is run in its own runtime, on the run's validation images and on the 16 inputs that
    were stored with it. Files that were changed, lost or added and missing labels are failures. So
    is, of a float32 file, another top class or a probability that is off by more than 0.0001; of
    any other file, a loss of more than one point of accuracy, or one image where that is more. The
    exit status is then 1; it is 2 if a file could not be run because its runtime is not installed
    here. An artefact that is not in its run, or whose run's images are gone, is held to the stored
    inputs alone.
    """
    from edgewise.cli.artifacts import golden_table, verified_table
    from edgewise.deploy.artifact import Artifact
    from edgewise.deploy.verify import verify, verify_alone
    from edgewise.run_folder import Run

    whole = source.resolve()  # "." has no name
    above = Run(whole.parent.parent)
    of_run = Run.is_run(above.root) and whole.parent == above.exports
    if Artifact.is_artifact(whole) and not of_run:
        alone = verify_alone(whole)
        click.echo(json.dumps(alone.to_json(), indent=2) if as_json else golden_table(alone))
        _end([alone], as_json)
        return
    seen = verify(above, [whole.name]) if of_run else verify(Run.open(source))
    if as_json:
        click.echo(json.dumps(seen.to_json(), indent=2))
    else:
        click.echo(verified_table(seen))
        for skipped in seen.skipped:
            click.echo(f"not compared: {skipped.path}: {skipped.reason}")
    _end(seen.artifacts, as_json)


def _end(artifacts: Sequence[Seen], quiet: bool) -> None:
    failed = any(item.failures for item in artifacts)
    unknown = any(item.not_here for item in artifacts)
    if not quiet:
        for item in artifacts:
            for text in item.failures:
                click.secho(f"failure: {item.name}: {text}", fg="red")
    word, colour, status = "PASS", "green", 0
    if failed or unknown:
        word, colour, status = ("FAIL", "red", 1) if failed else ("NOT ALL RUN", "yellow", 2)
    if not quiet:
        click.secho(word, fg=colour, bold=True)
    if status:
        sys.exit(status)
