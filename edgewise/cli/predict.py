"""`edgewise predict`: what is in these images?"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from edgewise.deploy.predict import Prediction

BAR = 20  # characters for probability 1


@click.command(
    epilog="""
    \b
    Examples:
      edgewise predict efficientnet_lite0 cat.jpg
      edgewise predict runs/first 'photos/**/*.jpg' --topk 1
      edgewise predict runs/first/export/onnx-fp32 photos/ --json > answers.json
    """
)
@click.argument("source")
@click.argument("images", nargs=-1, required=True)
@click.option("--topk", default=5, show_default=True, help="Classes to show for each image.")
@click.option("--batch", default=16, show_default=True, help="Images in the network at once.")
@click.option(
    "--runtime", metavar="NAME", help="What computes.  [default: the fastest here, measured once]"
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array, an object a file.")
def command(
    source: str,
    images: tuple[str, ...],
    topk: int,
    batch: int,
    runtime: str | None,
    as_json: bool,
) -> None:
    """Name what is in IMAGES: files, folders, or patterns in quotes.

    SOURCE is a model's name (with its ImageNet weights), a run, a model folder or an exported file;
    each gives the same answers. Files that can't be read are named and the others are still
    answered; the exit status is then 1.
    """
    from edgewise.deploy.predict import predict

    predictions = predict(source, images, topk, batch, runtime)
    unreadable = _print_json(predictions) if as_json else _print_bars(predictions)
    if unreadable:
        sys.exit(1)


def _print_json(predictions: Iterable[Prediction]) -> int:
    """Prints the array as the answers come; gives the number of unreadable files."""
    unreadable, before = 0, "[\n"
    for prediction in predictions:
        click.echo(before + json.dumps(prediction.to_json()), nl=False)
        unreadable += bool(prediction.error)
        before = ",\n"
    click.echo("\n]")
    return unreadable


def _print_bars(predictions: Iterable[Prediction]) -> int:
    """Prints a block of lines for each file; gives the number of unreadable ones."""
    unreadable = 0
    for prediction in predictions:
        click.secho(click.format_filename(prediction.path), bold=True)
        if prediction.error:
            unreadable += 1
            click.secho(f"  can't be read: {prediction.error}", fg="red")
        else:
            click.echo(_bars(prediction))
    return unreadable


def _bars(prediction: Prediction) -> str:
    from rich.cells import cell_len, set_cell_size  # a Chinese letter is two columns wide

    width = max(cell_len(guess.label) for guess in prediction.top)
    return "\n".join(
        f"  {set_cell_size(guess.label, width)}  {guess.probability:7.2%}  "
        f"{'█' * round(guess.probability * BAR)}".rstrip()
        for guess in prediction.top
    )
