"""`edgewise models show`: one network as its paper's table, with the cost of each row."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from edgewise.cli.models import WIDTH, weights
from edgewise.reporting.columns import columns

if TYPE_CHECKING:
    from edgewise.cli.paper_table import PaperRow
    from edgewise.table import Variant

ACTS = {"relu": "RE", "hard_swish": "HS"}  # as MobileNetV3's tables have it


@click.command(
    epilog="""
    \b
    Examples:
      edgewise models show mobilenet_v3_large
      edgewise models show mobilenet_v2 --width 0.35 --imgsz 96
      edgewise models show efficientnet_b0 --json
    """
)
@click.argument("name")
@click.option("--width", default=1.0, help="Multiplies the channels; 1 by default.")
@click.option("--imgsz", type=int, help="Image side in pixels; the published one by default.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, all numbers exact.")
def command(name: str, width: float, imgsz: int | None, as_json: bool) -> None:
    """Print the network NAME, ours or timm's, as its paper's table.

    A line is a row of that table: height and width ("²") and channels of its input, its operator
    and its output. "s" is the stride of its first block, "n" its number of blocks, "NL" its
    activation, "SE" the ratio of squeeze-excite. MACs are multiply-accumulates for one image.
    Below stand the published accuracy and the published weights.
    """
    from edgewise.cli.paper_table import paper_table
    from edgewise.families import variant
    from edgewise.weights.pretrained import resolve

    alias = resolve(name)
    known = variant(alias.name)
    width *= alias.width
    size = known.input_size if imgsz is None else imgsz
    rows = paper_table(known, width, size)
    params, macs = sum(row.params for row in rows), sum(row.macs for row in rows)
    checkpoints = weights(known.name)
    if as_json:
        model = {
            "name": known.name,
            "width": width,
            "input_size": size,
            "params": params,
            "macs": macs,
            "rows": [asdict(row) for row in rows],
            "published_input_size": known.input_size,
            "top1": known.top1,
            "top1_source": known.top1_source,
            "weights": checkpoints,
        }
        click.echo(json.dumps(model, indent=2))
        return
    published = (
        f"Published for width 1 and {known.input_size} px: ImageNet top-1 {known.top1:.1f} %, "
        f"from {known.top1_source}"
    )
    click.echo(f"{known.name}, width {width:g}, {size} x {size} px")
    click.echo(f"{params:,} parameters, {macs:,} MACs\n\n{_table(known, rows)}\n")
    click.echo(textwrap.fill(published, WIDTH))
    if checkpoints:
        click.echo(f"\n{_weights(checkpoints)}")


def _table(known: Variant, rows: list[PaperRow]) -> str:
    from edgewise.cli.paper_table import words
    from edgewise.reporting.numbers import NBSP, scaled

    inside = words(known).inside
    acts = {row.act for row in rows} - {""}
    cells: dict[str, Callable[[PaperRow], object]] = {
        "input": lambda row: f"{row.input_size}² x {row.in_chans}",
        "operator": lambda row: row.operator,
        inside: lambda row: row.expand if inside == "t" else row.inside,
        "out": lambda row: row.out,
        "SE": lambda row: row.squeeze,
        "NL": lambda row: ACTS.get(row.act, row.act) if len(acts) > 1 else "",
        "s": lambda row: row.stride,
        "n": lambda row: row.repeats if row.repeats > 1 else "",
        "output": lambda row: f"{row.output_size}²",
        "params": lambda row: scaled(row.params),
        "MACs": lambda row: scaled(row.macs),
    }
    texts = {head: [str(cell(row) or "") for row in rows] for head, cell in cells.items()}
    # A paper's table has the columns that its blocks need, and so has this one.
    used = {head: text for head, text in texts.items() if head and any(text)}
    lines = [tuple(used), *zip(*used.values(), strict=True)]
    return columns(lines, "<<" + ">" * (len(used) - 2)).replace(NBSP, " ")


def _weights(checkpoints: list[dict[str, Any]]) -> str:
    header = ("WEIGHTS", "WIDTH", "SIZE", "TOP-1", "LICENCE", "STATE", "WHOSE TOP-1")
    lines = [
        (
            f"{c['tag']}{' *' if c['default'] else ''}",
            f"{c['width']:g}",
            str(c["input_size"]),
            "-" if c["top1"] is None else f"{c['top1']:.1f}",
            c["licence"],
            c["state"],
            "-" if c["top1"] is None else c["top1_source"],
        )
        for c in checkpoints
    ]
    notes = [f"{c['tag']}: {c['how']}" for c in checkpoints if c["state"] == "package"]
    if any(c["default"] for c in checkpoints):
        notes.append("* is what pretrained=True takes at this width; others are asked for by name")
    for c in checkpoints:
        if not c["classifier"]:
            notes.append(
                f"{c['tag']} learned without labels: it has no classes, and starts a training."
            )
    if not all(c["commercial"] for c in checkpoints):
        notes.append("The licence forbids commercial use, so these are only taken by their tag.")
    return "\n".join([columns([header, *lines], "<>>><<<"), *notes])
