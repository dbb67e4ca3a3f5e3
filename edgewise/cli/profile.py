"""`edgewise profile`: what a network costs, as a tree of its stages."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgewise.cli.models import WIDTH
from edgewise.reporting.columns import columns

if TYPE_CHECKING:
    from edgewise.measure.profile_result import Group, Profile
    from edgewise.spec import Spec

FILE = click.Path(path_type=Path, dir_okay=False)


@click.command(
    epilog="""
    \b
    Examples:
      edgewise profile mobilenet_v3_large
      edgewise profile mobilenet_v2 --width 0.35 --imgsz 96 --depth 2
      edgewise profile convnext_v2_huge --imgsz 512 --json
      edgewise profile runs/first/export/onnx-fp32/model.onnx --csv layers.csv
      edgewise profile efficientnet_b0 --html b0.html --png b0.png
    """
)
@click.argument("model")
@click.option(
    "--imgsz", type=click.IntRange(min=1), help="Image side in pixels; the model's own by default."
)
@click.option(
    "--batch", type=click.IntRange(min=1), default=1, help="Images at once; 1 by default."
)
@click.option("--in-chans", type=click.IntRange(min=1), help="Channels of the images.")
@click.option("--width", type=float, help="Multiplies the channels of a named model.")
@click.option(
    "--depth",
    type=click.IntRange(min=0),
    default=1,
    help="Levels of the tree: 1 for stages, 2 for blocks, and so on; 0 for the kinds alone.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with every layer.")
@click.option("--csv", "csv_path", type=FILE, help="Write a row a layer.")
@click.option("--html", "html_path", type=FILE, help="Write a page.")
@click.option("--png", "png_path", type=FILE, help="Write a picture.")
def command(
    model: str,
    imgsz: int | None,
    batch: int,
    in_chans: int | None,
    width: float | None,
    depth: int,
    as_json: bool,
    csv_path: Path | None,
    html_path: Path | None,
    png_path: Path | None,
) -> None:
    """Count what MODEL costs: a name, a run or model folder, or any .onnx file.

    MACS are multiply-accumulates of convolutions, linear layers and products of matrices; OTHER
    are all other operations: norms, activations, sums, pooling, biases. ACTIVATIONS are numbers
    that the operators with MACs write. Peak memory is that of the activations, weights apart. All
    figures are of the whole batch. For a module of your own: edgewise.profile(module, 224).
    """
    from edgewise.measure.profile import profile

    if width is None:
        result = profile(model, imgsz, batch, in_chans)
    else:
        spec, size = _of_width(model, width)
        result = profile(spec, size if imgsz is None else imgsz, batch, in_chans)
    if csv_path:
        _write_csv(result, csv_path)
    if html_path or png_path:
        from edgewise.reporting.profile_page import write_page, write_picture

        if html_path:
            write_page(result, html_path)
        if png_path:
            write_picture(result, png_path)
    click.echo(json.dumps(result.to_json(), indent=2) if as_json else _text(result, depth))


def _of_width(name: str, width: float) -> tuple[Spec, int]:
    """The network of that name with its own width times `width`, and its published input size."""
    from edgewise.errors import UsageError
    from edgewise.families import variant
    from edgewise.weights.pretrained import resolve

    if Path(name).exists() or name.endswith(".onnx"):
        raise UsageError("--width is for a model's name: a file or folder already has its widths.")
    alias = resolve(name)
    return alias.spec(width), variant(alias.name).input_size


def _text(result: Profile, depth: int) -> str:
    from edgewise.reporting.numbers import NBSP, filesize, scaled

    shape = ", ".join(" x ".join(map(str, shape)) for shape in result.inputs)
    sizes = ", ".join(f"{filesize(n)} in {kind}" for kind, n in result.weight_bytes.items())
    facts = [
        f"{result.name}, input {shape}",
        f"{result.params:,} parameters, {result.macs:,} MACs",
        f"{scaled(result.elementwise)} other operations, {scaled(result.activations)} activations",
        f"{filesize(result.peak_memory)} of activations at the peak, in {result.peak_layer}",
        f"Weights: {sizes}",
        f"{result.intensity:.1f} MACs a byte in fp32",
    ]
    tables = [_table("KIND", result.kinds, result)]
    if depth:
        tables.insert(0, _table("STAGE" if depth == 1 else "MODULE", result.tree(depth), result))
    text = "\n\n".join(["\n".join(facts), *tables, *_notes(result)])
    return text.replace(NBSP, " ")


def _table(title: str, groups: tuple[Group, ...], result: Profile) -> str:
    from edgewise.reporting.numbers import scaled

    header = (title, "CALLS", "PARAMS", "MACS", "", "OTHER", "ACTIVATIONS")
    lines = [
        (
            _indented(group.name, [g.name for g in groups]),
            str(group.layers),
            scaled(group.params),
            scaled(group.macs),
            f"{group.macs / result.macs:.1%}" if group.macs else "",
            scaled(group.elementwise),
            scaled(group.activations),
        )
        for group in groups
    ]
    return columns([header, *lines], "<>>>>>>")


def _indented(name: str, names: list[str]) -> str:
    """Two spaces for each group that holds it."""
    return "  " * sum(name.startswith(f"{other}.") for other in names) + name


def _notes(result: Profile) -> list[str]:
    notes = []
    if result.unknown:
        calls = [
            f"  {layer.op} in {layer.name}: {', '.join(map(str, layer.inputs))} -> {layer.output}"
            for layer in result.unknown
        ]
        notes.append("\n".join(["Not counted, since there is no rule for them:", *calls]))
    if result.unread_params:
        note = f"{result.unread_params:,} parameters are read by no operator."
        notes.append(textwrap.fill(note, WIDTH))
    return notes


def _write_csv(result: Profile, path: Path) -> None:
    """A row a layer; shapes as in "1x3x224x224"."""
    import csv
    import io
    from dataclasses import fields

    from edgewise.files import write_text
    from edgewise.measure.profile_result import Layer

    text = io.StringIO()
    rows = [
        {
            **vars(layer),
            "inputs": " ".join("x".join(map(str, shape)) for shape in layer.inputs),
            "output": "x".join(map(str, layer.output)),
            "intensity": f"{layer.intensity:.6g}",
        }
        for layer in result.layers
    ]
    headings = [*(field.name for field in fields(Layer)), "intensity"]
    writer = csv.DictWriter(text, headings, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())
