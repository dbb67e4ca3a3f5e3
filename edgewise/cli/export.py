"""`edgewise export`: a model as files for other runtimes, each verified."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from edgewise.cli.words import Names, Part
from edgewise.deploy.artifact import BUILD, MOST_CHANGED
from edgewise.deploy.formats import FORMATS, PRECISIONS
from edgewise.errors import EdgewiseError
from edgewise.shell import command_line


class KeepFloat(click.ParamType):  # type: ignore[type-arg]  # not generic in older clicks
    """auto, auto:1%, none or names with commas: `export`'s keep_float and most_changed."""

    name = "layers"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[tuple[str, ...] | None, float]:
        """The layers, None for auto; and what that may change."""
        word, _, part = str(value).partition(":")
        if word == "auto":
            return None, Part().convert(part, param, ctx) if part else MOST_CHANGED
        if value == "none":
            return (), MOST_CHANGED
        return tuple(name.strip() for name in value.split(",")), MOST_CHANGED


def _formats_help() -> str:
    return "; ".join(
        f"{format.name} ({', '.join(format.precisions)}): {format.summary}"
        for format in FORMATS.values()
    )


@click.command(
    epilog="""
    \b
    Examples:
      edgewise export runs/first
      edgewise export runs/first --format onnx,openvino --precision fp32,int8
      edgewise export efficientnet_lite0 --precision int8 --calibrate photos/
      edgewise export runs/first --precision int8 --keep-float auto:0.5%
    """
)
@click.argument("source")
@click.option(
    "--format",
    "formats",
    type=Names("format", FORMATS),
    default="onnx",
    show_default=True,
    help=f"One or more, or all. {_formats_help()}.",
)
@click.option(
    "--precision",
    "precisions",
    type=Names("precision", PRECISIONS),
    default="fp32",
    show_default=True,
    help="One or more, or all; those that a format doesn't have are left out.",
)
@click.option(
    "--calibrate",
    type=click.Path(path_type=Path),
    metavar="IMAGES",
    help="A folder of images that int8's ranges are measured on.  [default: a run's own]",
)
@click.option(
    "--keep-float",
    type=KeepFloat(),
    metavar="auto[:1%]|LAYER,...|none",
    help="Layers, or modules of them, that int8 leaves in float; auto: as few as keep all but 2% "
    "of the answers, auto:0.5% all but so many.  [default: auto]",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Where the FORMAT-PRECISION folders go.  [default: in the run, or NAME-export here]",
)
def command(
    source: str,
    formats: tuple[str, ...],
    precisions: tuple[str, ...],
    calibrate: Path | None,
    keep_float: tuple[tuple[str, ...] | None, float] | None,
    output: Path | None,
) -> None:
    """Write SOURCE as files for other runtimes, which take uint8 RGB pixels.

    SOURCE is a run, a model folder or a model's name (with its ImageNet weights). Each file gets a
    folder with its labels, the rule for resizing and cropping, golden inputs with their expected
    answers, and checksums. The files of a run are verified: see `edgewise verify`.
    """
    from edgewise.cli.artifacts import exported_table, verified_table
    from edgewise.deploy.decoded import decoded_once
    from edgewise.deploy.export import export
    from edgewise.deploy.verify import verify
    from edgewise.run_folder import Run

    pairs = [
        (format, precision)
        for format in formats
        for precision in precisions
        if precision in FORMATS[format].precisions
    ]
    if not pairs:
        for format in formats:
            FORMATS[format].check(precisions[0])
    if not any(precision == "int8" for _, precision in pairs):
        for name, value in (("--calibrate", calibrate), ("--keep-float", keep_float)):
            if value is not None:
                raise click.UsageError(
                    f"{name} is for int8 files, and none is made. Add int8 to --precision, of a "
                    "format that has it."
                )
    kept = keep_float or (None, MOST_CHANGED)
    made, failed = [], []
    verified, is_run = None, Run.is_run(Path(source))
    with decoded_once():  # for all files, and for what verifies them
        for format, precision in pairs:
            click.echo(f"exporting {format}-{precision}", err=True)
            try:
                made.append(export(source, format, precision, output, calibrate, *kept))
            except EdgewiseError as error:
                if len(pairs) == 1:
                    raise
                failed.append((f"{format}-{precision}", str(error)))
        if made and is_run:
            names = [artifact.info.name for artifact in made]
            try:
                verified = verify(Run(Path(source)), names, output)
            except EdgewiseError as error:  # the files are there all the same
                failed.append(("verification", str(error)))
    if verified:
        click.echo(verified_table(verified))
        failed += [(item.name, text) for item in verified.artifacts for text in item.failures]
    else:
        click.echo(exported_table(made))
    if not (made and is_run):
        if here := [item for item in made if FORMATS[item.info.format].runs_here()]:
            click.echo(f"next: {command_line('predict', here[0].folder, 'IMAGES')}")
        for artifact in made:
            if (artifact.folder / BUILD).is_file():
                click.echo(f"next: copy {artifact.folder} to the device; there: python3 {BUILD}")
    for name, reason in failed:
        click.secho(f"failed: {name}: {reason}", fg="red", err=True)
    if failed:
        sys.exit(1)
