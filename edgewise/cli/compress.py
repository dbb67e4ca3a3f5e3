"""`edgewise compress`: a smaller model from a trained one, in a run of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgewise.cli.train import RUNS
from edgewise.cli.words import Part
from edgewise.compress.pruning import CRITERIA, TARGETS, Pruning

if TYPE_CHECKING:
    from edgewise.run_folder import Run


@click.command(
    epilog="""
    \b
    Examples:
      edgewise compress runs/first --prune 30%
      edgewise compress runs/first --prune 50% --target macs --criterion taylor --name half
    """
)
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--prune", "part", type=Part(), required=True, help="How much goes, such as 30%.")
@click.option(
    "--target",
    type=click.Choice(TARGETS),
    default="channels",
    show_default=True,
    help="Of what: the channels of each layer, the network's MACs, or its time here in ONNX "
    "Runtime, one image on one thread.",
)
@click.option(
    "--criterion",
    type=click.Choice(CRITERIA),
    default="l2",
    show_default=True,
    help="Which channels stay: those with the largest weights (l1, l2), those whose loss would "
    "cost most on training images (taylor), or any (random, to compare with).",
)
@click.option(
    "--round",
    "multiple",
    type=click.IntRange(1, 256),
    default=8,
    show_default=True,
    help="Widths are multiples of this, which runtimes like.",
)
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    help="Passes over the training images afterwards.  [default: as many as RUN had]",
)
@click.option("--name", help="Name of the new run, a folder in runs/.  [default: RUN-pruned-1 ...]")
def command(
    run: Path,
    part: float,
    target: str,
    criterion: str,
    multiple: int,
    epochs: int | None,
    name: str | None,
) -> None:
    """Make a smaller model of RUN's, in a new run that evaluates and exports like any other.

    Channels go where the network would miss them least, and all that hangs on them goes with them.
    Batch norm then gets new statistics, and the network learns again, from the same images and
    from the answers of RUN's model. RUN itself is not changed.

    Ctrl-C saves and stops; go on with `edgewise train --resume`.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in `edgewise train`

    from edgewise.compress.pruned_run import prune_run
    from edgewise.run_folder import Run
    from edgewise.training.interrupt import Stopped
    from edgewise.training.start import default_root

    if name and Path(name).name != name:
        raise click.UsageError(f"--name must be a folder's name without a path, not '{name}'.")
    original = Run.open(run)
    root = RUNS / name if name else default_root(f"{run.resolve().name}-pruned", RUNS)
    try:
        made = prune_run(original, root, Pruning(part, target, criterion, multiple), epochs or 0)
    except Stopped as stop:
        click.echo(str(stop), err=True)
        sys.exit(stop.exit_status)
    click.echo(_summary(original, made))


def _summary(original: Run, made: Run) -> str:
    """What it cost and what is left, before and after."""
    from edgewise.files import read_json
    from edgewise.reporting.columns import columns
    from edgewise.reporting.numbers import percent
    from edgewise.training.history import best_epoch, read_history

    facts = read_json(made.compression)
    lines = [("RUN", "PARAMETERS", "MACS", "VAL ACCURACY")]
    for which, run in enumerate((original, made)):
        known = run.metrics.is_file()
        accuracy = percent(best_epoch(read_history(run)).val_accuracy) if known else "-"
        params, macs = (f"{facts[what][which]:,}" for what in ("params", "macs"))
        lines.append((str(run.root), params, macs, accuracy))
    return (
        f"{columns(lines, '<>>>')}\n"
        f"next:  edgewise eval {made.root}\n"
        f"       edgewise export {made.root} --format onnx"
    )
