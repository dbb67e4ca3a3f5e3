"""`edgewise doctor`: would training on these images be sound?"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgewise.data.doctor import Examination, Opinion, SecondOpinion
    from edgewise.data.findings import Finding
    from edgewise.data.labelled import Labelled

SHOWN = 3  # examples of a finding
COLOURS = {"error": "red", "warning": "yellow", "note": None}


@click.command(
    epilog="""
    \b
    Examples:
      edgewise doctor photos/
      edgewise doctor labels.csv --html doctor.html
      edgewise doctor photos/ --json > findings.json
      edgewise doctor photos/ --no-probe
    """
)
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "--workers",
    type=click.IntRange(0, 256),
    help="Processes that decode; 0 is none.  [default: one a core]",
)
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a page with the pictures in question.",
)
@click.option(
    "--probe/--no-probe",
    default=None,
    help="Look for wrong labels in all images, or in none.  [default: in 5,000 of them, if "
    "pretrained weights are on hand]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    data: Path, workers: int | None, html: Path | None, probe: bool | None, as_json: bool
) -> None:
    """Look at every image in DATA, a folder or a file as for `edgewise train`.

    Each file is decoded. Named are files that can't be used, copies (to the byte or nearly, across
    splits and labels), classes that are missing, small or unbalanced, images that are tiny, blank
    or very long, and names that differ only in case. Nothing is changed.

    Labels that look wrong are found with a small pretrained network, at about 75 images a second
    and core. They are advice: a hard image looks like a wrong label.

    The exit status is 0 if training would be sound, and 1 if there is an error to mend first.
    """
    from edgewise.data.doctor import examine

    processes = os.cpu_count() or 1 if workers is None else workers
    seen = examine(data, processes, _second_opinion(probe, processes))
    if html:
        from edgewise.reporting.doctor_page import write_page

        write_page(seen, html)
    if as_json:
        click.echo(json.dumps(seen.to_json(), indent=2, ensure_ascii=False))
    else:
        _print(seen)
    if not seen.sound:
        sys.exit(1)


def _second_opinion(probe: bool | None, workers: int) -> SecondOpinion | None:
    if probe is False:
        return None
    if probe:  # asked for: what is missing is said before the images are read
        from edgewise.training.probe import on_hand

        on_hand()

    def look(images: Sequence[Labelled]) -> Opinion:
        from edgewise.training.probe import second_opinion  # torch, which few processes need

        return second_opinion(images, everything=bool(probe), workers=workers)

    return look


def _print(seen: Examination) -> None:
    from edgewise.reporting.numbers import plural

    width, height = seen.sizes
    click.echo(
        f"{plural(seen.usable, 'usable image')} of {plural(len(seen.classes), 'class')} in "
        f"{seen.root}, {width} x {height} pixels at the median"
    )
    if seen.labels:
        click.echo(seen.labels.text)
    for finding in seen.findings:
        click.secho(f"\n{finding.severity}: {finding.kind}", fg=COLOURS[finding.severity])
        click.echo(f"  {finding.text}")
        for line in _examples(finding):
            click.echo(f"    {line}")
    errors = sum(finding.severity == "error" for finding in seen.findings)
    click.echo()
    if errors:
        click.secho(f"not sound: {plural(errors, 'error')} to mend before training", fg="red")
    else:
        click.secho("sound: nothing stands against training on this", fg="green")


def _examples(finding: Finding) -> list[str]:
    lines = [
        " = ".join(group[:SHOWN]) + (" = .." if len(group) > SHOWN else "")
        for group in finding.groups[:SHOWN]
    ]
    for i, detail in enumerate(finding.details[:SHOWN]):
        lines[i] += f": {detail}"
    more = len(finding.groups) - SHOWN
    return [*lines, f"and {more:,} more"] if more > 0 else lines
