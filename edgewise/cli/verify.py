"""`edgewise verify`: is the exported file the same model?"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from edgewise.deploy.verify import Verification


@click.command(
    epilog="""
    \b
    Examples:
      edgewise verify runs/first
      edgewise verify runs/first --json
    """
)
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def command(run: Path, as_json: bool) -> None:
    """Check that RUN's exported file gives the answers of its PyTorch model.

    The file is run in its own runtime, on the run's validation images and on the 16 inputs that
    were stored with it. Changed files, missing labels and another top class are failures, and so is
    a probability that is off by more than 0.0001; the exit status is then 1.
    """
    from edgewise.deploy.verify import verify
    from edgewise.run_folder import Run

    seen = verify(Run.open(run))
    if as_json:
        click.echo(json.dumps(seen.to_json(), indent=2))
    else:
        _print(seen)
    if not seen.passed:
        sys.exit(1)


def _print(seen: Verification) -> None:
    click.echo(_table(seen))
    for skipped in seen.skipped:
        click.echo(f"not compared: {skipped.path}: {skipped.reason}")
    for failure in seen.failures:
        click.secho(f"failure: {failure}", fg="red")
    click.secho("PASS" if seen.passed else "FAIL", fg="green" if seen.passed else "red", bold=True)


def _table(seen: Verification) -> str:
    rows = [
        ("exported file", f"{seen.file}, {seen.bytes:,} bytes"),
        ("run by", seen.runtime or "nothing: it can't be opened"),
        (f"{seen.split} images compared", f"{seen.images:,}"),
        ("same top class", _percent(seen.agreement)),
        ("accuracy of the model", _percent(seen.accuracy_model)),
        ("accuracy of the file", _percent(seen.accuracy_artifact)),
        ("largest difference", _difference(seen.largest_difference, seen.tolerance)),
        (
            f"on {seen.golden} golden inputs",
            _difference(seen.golden_largest_difference, seen.tolerance),
        ),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _percent(part: float | None) -> str:
    return "not measured" if part is None else f"{part:.2%}"


def _difference(value: float | None, tolerance: float) -> str:
    return "not measured" if value is None else f"{value:.1e} (at most {tolerance:.0e} passes)"
