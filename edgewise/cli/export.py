"""`edgewise export`: one file for another runtime."""

from __future__ import annotations

from pathlib import Path

import click

from edgewise.deploy.formats import FORMATS


def _formats_help() -> str:
    return "; ".join(f"{format.name}: {format.summary}" for format in FORMATS.values()) + "."


@click.command(
    epilog="""
    \b
    Examples:
      edgewise export runs/first --format onnx
      edgewise export efficientnet_lite0 --output lite0.onnx
    """
)
@click.argument("source")
@click.option(
    "--format", default="onnx", show_default=True, metavar="|".join(FORMATS), help=_formats_help()
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="The file to write. Not for a run, which keeps its exports in its own folder.  "
    "[default: NAME.SUFFIX here]",
)
def command(source: str, format: str, output: Path | None) -> None:
    """Write SOURCE as one file that takes uint8 RGB pixels and gives probabilities.

    SOURCE is a run, a model folder or a model's name (with its ImageNet weights). Normalisation is
    inside of the file; labels and the rule for resizing and cropping are in its metadata. A run
    also gets 16 golden inputs with their expected answers.
    """
    from edgewise.deploy.export import export
    from edgewise.run_folder import Run

    path = export(source, format, output)
    click.echo(f"{path}  {path.stat().st_size:,} bytes")
    if Run.is_run(Path(source)):
        click.echo(f"next: edgewise verify {source}")
    else:
        click.echo(f"next: edgewise predict {path} IMAGES")
