"""`edgewise verify`: are the exported files the same model?"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click


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
    any other file, a loss of more than one point of accuracy. The exit status is then 1. An
    artefact that is not in its run, or whose run's images are gone, is held to the stored inputs
    alone.
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
        _end({whole.name: alone.failures}, as_json)
        return
    seen = verify(above, [whole.name]) if of_run else verify(Run.open(source))
    if as_json:
        click.echo(json.dumps(seen.to_json(), indent=2))
    else:
        click.echo(verified_table(seen))
        for skipped in seen.skipped:
            click.echo(f"not compared: {skipped.path}: {skipped.reason}")
    _end({item.name: item.failures for item in seen.artifacts}, as_json)


def _end(failures: dict[str, tuple[str, ...]], quiet: bool) -> None:
    passed = not any(failures.values())
    if not quiet:
        for name, texts in failures.items():
            for text in texts:
                click.secho(f"failure: {name}: {text}", fg="red")
        click.secho("PASS" if passed else "FAIL", fg="green" if passed else "red", bold=True)
    if not passed:
        sys.exit(1)
