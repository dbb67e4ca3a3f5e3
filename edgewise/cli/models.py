"""`edgewise models`: the networks known by name."""

from __future__ import annotations

import json
from typing import Any

import click

COLUMNS = {
    "NAME": "<",
    "PARAMS": ">",
    "MACS": ">",
    "SIZE": ">",
    "TOP-1": ">",
    "WHOSE": "<",
    "WEIGHTS": "<",
}


@click.command(
    epilog="""
    \b
    Examples:
      edgewise models
      edgewise models 'mobilenet*'
      edgewise models 'efficientnet_lite*' --json
    """
)
@click.argument("pattern", default="*")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array instead of a table.")
def command(pattern: str, as_json: bool) -> None:
    """List the networks whose names match PATTERN (a shell pattern; all by default).

    MACS are multiply-accumulates for one image of SIZE x SIZE pixels, in millions as PARAMS are.
    TOP-1 is the published ImageNet accuracy in percent, and WHOSE figure that is. WEIGHTS are
    ImageNet weights for `predict` and `train`: their licence, and whether they are installed.
    """
    from edgewise.errors import unknown
    from edgewise.families import VARIANTS, list_models

    names = list_models(pattern)
    if not names:
        raise unknown("model", pattern, VARIANTS)
    models = [_describe(name) for name in names]
    click.echo(json.dumps(models, indent=2) if as_json else _table(models))


def _describe(name: str) -> dict[str, Any]:
    from edgewise.families import variant
    from edgewise.measure.count import count
    from edgewise.weights.pretrained import PRETRAINED

    known = variant(name)
    cost = count(known.spec(), known.input_size)
    weights = None
    if checkpoint := PRETRAINED.get(name):
        weights = {
            "licence": checkpoint.licence,
            "installed": checkpoint.installed,
            "install": checkpoint.install,
            "top1": checkpoint.top1,
            "top1_source": checkpoint.top1_source,
        }
    return {
        "name": name,
        "params": cost.params,
        "macs": cost.macs,
        "input_size": known.input_size,
        "top1": known.top1,
        "top1_source": known.top1_source,
        "weights": weights,
    }


def _table(models: list[dict[str, Any]]) -> str:
    lines = [tuple(COLUMNS), *(_cells(model) for model in models)]
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    formats = list(zip(COLUMNS.values(), widths, strict=True))
    return "\n".join(
        "  ".join(
            f"{cell:{align}{width}}" for cell, (align, width) in zip(line, formats, strict=True)
        ).rstrip()
        for line in lines
    )


def _cells(model: dict[str, Any]) -> tuple[str, ...]:
    weights = model["weights"]
    return (
        model["name"],
        f"{model['params'] / 1e6:.2f} M",
        f"{model['macs'] / 1e6:,.0f} M",
        str(model["input_size"]),
        f"{model['top1']:.1f}",
        model["top1_source"],
        f"{weights['licence']}{'' if weights['installed'] else ', not installed'}"
        if weights
        else "-",
    )
