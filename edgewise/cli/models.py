"""`edgewise models`: the networks known by name, and one of them as its paper's table."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable
from string import ascii_lowercase
from typing import Any

import click

# What comes first under `--sort`: the cheapest, the most accurate.
ORDERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "macs": lambda model: model["macs"],
    "params": lambda model: model["params"],
    "top1": lambda model: -model["top1"],
    "name": lambda model: model["name"],
    "size": lambda model: model["input_size"],
}
WIDTH = 80  # of a terminal, in characters


class _Models(click.Command):
    """Takes a pattern, unless the first word is `show`, which no network is called."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        if args[:1] != ["show"]:
            return super().make_context(info_name, args, parent, **extra)
        from edgewise.cli.models_show import command as show

        return show.make_context(f"{info_name} show", args[1:], parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        return super().invoke(ctx) if ctx.command is self else ctx.command.invoke(ctx)


@click.command(
    cls=_Models,
    epilog="""
    \b
    Examples:
      edgewise models
      edgewise models 'mobilenet*' --sort macs
      edgewise models 'efficientnet_lite*' --json
      edgewise models show mobilenet_v3_large
      edgewise models show --help
    """,
)
@click.argument("pattern", default="*")
@click.option(
    "--sort",
    type=click.Choice(list(ORDERS)),
    help="Cheapest or best first; else in the papers' order.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array instead of a table.")
def command(pattern: str, sort: str | None, as_json: bool) -> None:
    """List the networks whose names match PATTERN (a shell pattern; all by default).

    `edgewise models show NAME` prints the table of one network, as its paper has it.

    MACS are multiply-accumulates for one image of SIZE x SIZE pixels. TOP-1 is the published
    ImageNet accuracy in percent; the letter says whose figure it is. WEIGHTS are published
    ImageNet checkpoints for `predict` and `train`: how many, and the licence of the one that is
    taken if you name none. Those that forbid commercial use are only taken by their tag.
    """
    from edgewise.errors import unknown
    from edgewise.families import VARIANTS, list_models

    names = list_models(pattern)
    if not names:
        raise unknown("model", pattern, VARIANTS)
    models = [_describe(name) for name in names]
    if sort:
        models.sort(key=ORDERS[sort])
    click.echo(json.dumps(models, indent=2) if as_json else _table(models))


def _describe(name: str) -> dict[str, Any]:
    from edgewise.families import variant
    from edgewise.measure.count import count

    known = variant(name)
    cost = count(known.spec(), known.input_size)
    return {
        "name": name,
        "params": cost.params,
        "macs": cost.macs,
        "input_size": known.input_size,
        "top1": known.top1,
        "top1_source": known.top1_source,
        "weights": weights(name),
    }


def weights(name: str) -> list[dict[str, Any]]:
    """The published checkpoints of a network, as plain values for JSON.

    Their state is "installed" or "cached" on this machine, or "package" or "download" if not.
    """
    from edgewise.weights.hub import HubFile
    from edgewise.weights.packages import Package
    from edgewise.weights.pretrained import PRETRAINED, preferred

    states = {Package: ("package", "installed"), HubFile: ("download", "cached")}
    return [
        {
            "tag": checkpoint.tag,
            "width": checkpoint.width,
            "default": checkpoint is preferred(name, checkpoint.width),
            "licence": checkpoint.licence,
            "commercial": checkpoint.commercial,
            "classifier": checkpoint.classifier,
            "input_size": checkpoint.preprocess.size,
            "top1": checkpoint.top1,
            "top1_source": checkpoint.top1_source,
            "state": states[type(checkpoint.source)][checkpoint.source.ready],
            "how": checkpoint.source.how,
        }
        for checkpoint in PRETRAINED.get(name, ())
    ]


def _table(models: list[dict[str, Any]]) -> str:
    from edgewise.reporting.columns import columns
    from edgewise.reporting.numbers import NBSP, scaled

    sources = list(dict.fromkeys(model["top1_source"] for model in models))
    letters = dict(zip(sources, ascii_lowercase, strict=False))
    header = ("NAME", "PARAMS", "MACS", "SIZE", "TOP-1 ", "WEIGHTS")
    lines = (
        (
            model["name"],
            scaled(model["params"]),
            scaled(model["macs"]),
            str(model["input_size"]),
            f"{model['top1']:.1f} {letters[model['top1_source']]}",
            _weights(model["weights"]),
        )
        for model in models
    )
    figures = (f"{letter}: {source}" for source, letter in letters.items())
    notes = ["TOP-1 is from " + "; ".join(figure.replace(" ", NBSP) for figure in figures)]
    if any(here(checkpoint) for model in models for checkpoint in model["weights"]):
        notes.append("WEIGHTS: * some are on this machine; others are downloaded when first used")
    wrapped = (textwrap.fill(note, WIDTH, subsequent_indent="  ") for note in notes)
    return "\n".join([columns([header, *lines], "<>>>><"), "", *wrapped]).replace(NBSP, " ")


def _weights(checkpoints: list[dict[str, Any]]) -> str:
    """As in "4* Apache-2.0"."""
    if not checkpoints:
        return "-"
    taken = next((c for c in checkpoints if c["default"]), checkpoints[0])
    star = "*" if any(map(here, checkpoints)) else " "
    return f"{len(checkpoints)}{star} {taken['licence']}"


def here(checkpoint: dict[str, Any]) -> bool:
    """Whether it can be had without a network."""
    return checkpoint["state"] in ("installed", "cached")
