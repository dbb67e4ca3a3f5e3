"""`edgewise data`: pack images into shards, and show them as a network sees them."""

from __future__ import annotations

import os
from pathlib import Path

import click

from edgewise.cli.words import Bytes

MOST_NAMED = 5


@click.group(epilog="Examples: edgewise data pack photos/ shards/ ; edgewise data show photos/")
def command() -> None:
    """Pack images into shards, or show them as a network will see them."""


@command.command(
    epilog="""
    \b
    Examples:
      edgewise data pack photos/ shards/
      edgewise data pack labels.csv shards/ --size 1GB --resize 320
    """
)
@click.argument("data", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--size", type=Bytes(), default="256MB", show_default=True, help="Of a shard, at most."
)
@click.option(
    "--resize",
    type=click.IntRange(16),
    metavar="N",
    help="Make the shorter side of larger images N pixels; smaller ones stay as they are.",
)
def pack(data: Path, out: Path, size: int, resize: int | None) -> None:
    """Write the images of DATA as WebDataset shards into the new folder OUT.

    Each shard, such as train-000000.tar, holds KEY.jpg (or .png ...) and KEY.cls with the number of
    its line in classes.txt, from 0. Splits stay as they are; without any the shards are called
    data-000000.tar, and training splits them as it splits DATA. Where images may be written anew
    (BMP, arrays, --resize), they are packed by that split. `edgewise train OUT` reads the shards,
    and so does the package webdataset.
    """
    from edgewise.data.pack import pack as write
    from edgewise.reporting.numbers import plural

    packed = write(data, out, size, resize, workers=os.cpu_count() or 1)
    for path, reason in packed.left_out[:MOST_NAMED]:
        click.echo(f"left out: {path}: {reason}", err=True)
    if len(packed.left_out) > MOST_NAMED:
        click.echo(f"and {len(packed.left_out) - MOST_NAMED:,} more", err=True)
    counts = ", ".join(f"{count:,} {split}" for split, count in packed.images.items())
    click.echo(
        f"{plural(sum(packed.images.values()), 'image')} ({counts}) in "
        f"{plural(packed.shards, 'shard')} of {packed.size:,} bytes in all: {out}"
        + (f"; {len(packed.left_out):,} left out" if packed.left_out else "")
    )


@command.command(
    epilog="""
    \b
    Examples:
      edgewise data show photos/
      edgewise data show photos/ magnitude=15 mixup=0.2 imgsz=224 -o strong.png
      edgewise data show photos/ --recipe efficientnet_v2_s
    """
)
@click.argument("data", type=click.Path(path_type=Path))
@click.argument("settings", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--recipe", metavar="FILE|NAME", help="A recipe, as for `edgewise train`.")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("grid.png"),
    show_default=True,
    help="The picture to write.",
)
def show(data: Path, settings: tuple[str, ...], recipe: str | None, out: Path) -> None:
    """Draw some training images of DATA as the network will see them.

    Left is each image as it is evaluated, and beside it what augmentation makes of it in some
    epochs, with the class (after mixup or CutMix: the classes with their parts) below. KEY=VALUE is
    any setting of a recipe, as for `edgewise train`.
    """
    from edgewise.reporting.numbers import plural
    from edgewise.reporting.preview import write_preview
    from edgewise.training.recipe import Recipe
    from edgewise.training.recipe_file import laid_over, parse_settings, read_settings

    given = laid_over(read_settings(recipe) if recipe else {}, parse_settings(settings))
    given["data"] = str(data)
    shown = write_preview(Recipe(**given), out)
    click.echo(f"{plural(len(shown), 'image')} in {out}")
