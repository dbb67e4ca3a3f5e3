"""`edgewise explain`: a part of these networks, or a network, in its own numbers."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command(
    epilog="""
    \b
    Examples:
      edgewise explain                              # the lessons
      edgewise explain depthwise-separable --in 32 --out 64 --kernel 3 --size 112
      edgewise explain uib --html uib.html
      edgewise explain mobilenet_v4_conv_small
      edgewise explain efficientnet_b0 --size 320 --json
    """
)
@click.argument("subject", required=False)
@click.option("--in", "in_chans", type=int, help="Channels that come in.")
@click.option("--out", type=int, help="Channels that go out.")
@click.option("--kernel", type=int, help="Side of the kernel; odd.")
@click.option("--size", type=int, help="Side of the map, or of a network's image, in pixels.")
@click.option("--stride", type=int, help="Step of the kernel.")
@click.option("--dilation", type=int, help="Distance of the kernel's pixels.")
@click.option("--expand", type=int, help="How many times wider a block is inside.")
@click.option("--heads", type=int, help="Heads of attention.")
@click.option("--dim", type=int, help="Channels of a head.")
@click.option("--model", help="The network that a lesson scales.")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write a page here.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, all numbers exact.")
def command(
    subject: str | None, html: Path | None, as_json: bool, **settings: int | str | None
) -> None:
    """Explain SUBJECT: a lesson, a network's name, or a run or model folder.

    A lesson shows the formula, each step with its numbers, and the times that were measured here,
    on one thread, beside the MACs. A network is told stage by stage: where its parameters, MACs,
    memory and milliseconds go. Without a SUBJECT the lessons are listed with their settings.
    """
    from edgewise.lessons.explain import explain
    from edgewise.lessons.text import plain, text

    if subject is None:
        click.echo(_lessons())
        return
    if html:
        from edgewise.lessons.page import write_page
    lesson = explain(subject, **{name: v for name, v in settings.items() if v is not None})
    click.echo(json.dumps(plain(lesson), indent=2) if as_json else text(lesson))
    if html:
        write_page(lesson, html)
        click.echo(f"\nThe page: {html}", err=as_json)


def _lessons() -> str:
    """The lessons with their settings, for whoever doesn't know their names yet."""
    from edgewise.lessons.explain import OPTIONS, defaults
    from edgewise.lessons.table import LESSONS
    from edgewise.reporting.columns import columns

    lines = [
        (name, " ".join(f"{OPTIONS[key]} {value}" for key, value in known.items() if value))
        for name, known in ((name, defaults(function)) for name, function in LESSONS.items())
    ]
    return columns([("LESSON", "SETTINGS"), *lines], "<<")
