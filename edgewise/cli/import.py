"""`edgewise import`: weights from timm, torchvision or Keras -> a model folder."""

from __future__ import annotations

from pathlib import Path

import click

from edgewise.shell import command_line


@click.command(
    epilog="""
    \b
    Examples:
      edgewise import mobilenetv3_large_100.ra_in1k.safetensors --model mobilenet_v3_large
      edgewise import tf_efficientnet_b0.pth --model tf_efficientnet_b0 --out b0
      edgewise import birds.keras --model mobilenet_v2 --width 0.35 --labels birds.txt
    """
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--model", required=True, help="Our name of the network, or timm's.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="The folder to write; a model in it is replaced.  [default: FILE-edgewise, a new one]",
)
@click.option(
    "--source",
    metavar="timm|timm-tf|torchvision|keras",
    help="Whose weights they are.  [default: found out from the file]",
)
@click.option("--width", default=1.0, show_default=True, help="Multiplier of the channels.")
@click.option(
    "--labels",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A text file with a label a line.  [default: ImageNet's for 1000 classes, else numbers]",
)
def command(
    file: Path, model: str, out: Path | None, source: str | None, width: float, labels: Path | None
) -> None:
    """Make a model folder of weights in FILE: safetensors, .pth, .bin, .h5, .weights.h5 or .keras.

    The tensors are checked against the network of that name. Padding, epsilon and preprocessing are
    set as those weights need them. No code in FILE is ever run.
    """
    from edgewise.errors import UsageError
    from edgewise.files import holds_more_than, read_typed_labels
    from edgewise.weights.folder import check_labels, save_model
    from edgewise.weights.importing import read_weights

    folder = out or Path(f"{file.stem.removesuffix('.weights')}-edgewise")
    if out is None and holds_more_than(folder, ()):  # most files on the hub have the same name
        raise UsageError(
            f"{folder} is there already, maybe of another file of this name. Choose a folder with "
            f"--out; --out {folder} replaces the model in it."
        )
    names = None if labels is None else read_typed_labels(labels)
    imported = read_weights(file, model, source, width, names)
    if names is not None:
        try:
            check_labels(names, imported.model.network.spec.classes)
        except UsageError as error:
            raise UsageError(f"{labels}: {error}") from error
    save_model(imported.model, folder)

    spec, used, origin = imported.model.network.spec, imported.model.preprocess, imported.origin
    size = f"{used.size} x {used.size}, {used.interpolation}, crop {used.crop:.3g}"
    for name, value in (
        ("model", f"{spec.name}, {spec.classes} classes"),
        ("origin", origin.source),
        ("padding", spec.padding),
        ("epsilon", f"{spec.norm_eps:g}"),
        ("input", f"{size}, mean {_numbers(used.mean)}, std {_numbers(used.std)}"),
        ("tensors", f"{imported.tensors}"),
        ("folder", f"{folder}"),
    ):
        click.echo(f"{name:8}{value}")
    for note in imported.notes:
        click.echo(note)
    if spec.in_chans != 3:
        click.echo(
            f"It takes images of {spec.in_chans} channels; photos have 3, for which "
            "edgewise.create_model(folder, in_chans=3) makes one of its weights."
        )
    elif spec.classes:
        click.echo(f"next: {command_line('predict', folder, 'photo.jpg')}")
    else:
        click.echo("It has no classifier: edgewise.create_model(folder, num_classes=...) adds one.")


def _numbers(values: tuple[float, ...]) -> str:
    """Once, if all are alike."""
    shown = values[:1] if len(set(values)) == 1 else values
    return " ".join(f"{value:g}" for value in shown)
