"""`edgewise compress`: a smaller model from a trained one, in a run of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgewise.cli.train import RUNS
from edgewise.cli.words import Part, given
from edgewise.compress.activation_spec import CHEAP
from edgewise.compress.pruning import CRITERIA, TARGETS, Pruning
from edgewise.shell import command_line

if TYPE_CHECKING:
    from edgewise.compress.separate import Report
    from edgewise.run_folder import Run

# The options that each way takes, --name apart; it would ignore the others.
TAKEN = {
    "--prune": {"--target", "--criterion", "--round", "--epochs"},
    "--qat": {"--epochs"},
    "--activation": {"--epochs"},
    "--separate of a RUN": {"--macs", "--rank", "--epochs"},
    "--separate of a MODEL that is no run": {"--macs", "--rank", "--calibrate"},
}


@click.command(
    epilog="""
    \b
    Examples:
      edgewise compress runs/first --prune 30%
      edgewise compress runs/first --prune 50% --target macs --name half
      edgewise compress runs/resnet --separate --macs 40%
      edgewise compress runs/first --activation hard_swish
      edgewise compress runs/first --qat --epochs 3
      edgewise compress resnet18 --separate --calibrate photos/ --name resnet18-separated
    """
)
@click.pass_context
@click.argument("source", metavar="RUN|MODEL")
@click.option("--prune", "part", type=Part(), help="Take channels out: how much goes, as in 30%.")
@click.option(
    "--separate", is_flag=True, help="Take dense convolutions apart into depthwise and pointwise."
)
@click.option(
    "--qat", is_flag=True, help="Keep the network, and train it with the rounding of int8."
)
@click.option(
    "--activation",
    type=click.Choice(CHEAP),
    help="Put this in the place of dearer activations: of SiLU and GELU, and of h-swish too with "
    "relu6 and relu.",
)
@click.option(
    "--target",
    type=click.Choice(TARGETS),
    default="channels",
    show_default=True,
    help="With --prune, of what: the channels of each layer, the network's MACs, or its time here "
    "in ONNX Runtime, one image on one thread.",
)
@click.option(
    "--criterion",
    type=click.Choice(CRITERIA),
    default="taylor",
    show_default=True,
    help="With --prune: which channels stay: those whose loss would cost most on training images "
    "(taylor), those with the largest weights (l1, l2), or any (random, to compare with).",
)
@click.option(
    "--round",
    "multiple",
    type=click.IntRange(1, 256),
    default=8,
    show_default=True,
    help="With --prune: widths are multiples of this, which runtimes like.",
)
@click.option(
    "--macs",
    type=Part(),
    help="With --separate: the part of the MACs that is left.  [default: 50%]",
)
@click.option(
    "--rank",
    type=click.IntRange(min=1),
    help="With --separate, instead: how many separable convolutions for each dense one.",
)
@click.option(
    "--calibrate",
    type=click.Path(path_type=Path),
    metavar="IMAGES",
    help="With --separate and a MODEL that is no run: images to fit the parts on.",
)
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    help="Passes over the training images afterwards.  [default: as many as RUN had]",
)
@click.option(
    "--name",
    help="Name of the new run, a folder in runs/; of a MODEL's, a folder here.  "
    "[default: RUN-pruned-1 ...]",
)
def command(
    context: click.Context,
    source: str,
    part: float | None,
    separate: bool,
    qat: bool,
    activation: str | None,
    target: str,
    criterion: str,
    multiple: int,
    macs: float | None,
    rank: int | None,
    calibrate: Path | None,
    epochs: int | None,
    name: str | None,
) -> None:
    """Make a smaller or faster model of a run's, in a new run that is like any other.

    --prune takes channels out where the network would miss them least. --separate takes dense
    convolutions (of a ResNet or VGG, say) apart. --activation makes what an EfficientNet or
    ConvNeXt computes between its layers cheaper. --qat makes the network used to int8. It then
    learns again, from the same images and from the answers of RUN's model. RUN is not changed.

    A MODEL that is no run, a folder or a name, can be separated only, and is not trained.

    Ctrl-C saves and stops; go on with `edgewise train --resume`.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in `edgewise train`

    from edgewise.run_folder import Run

    if (part is not None) + separate + qat + (activation is not None) != 1:
        raise click.UsageError(
            "say what to do: one of --prune 30%, --separate, --activation hard_swish and --qat."
        )
    of_run = Run.is_run(Path(source))
    if separate:
        way = f"--separate of a {'RUN' if of_run else 'MODEL that is no run'}"
    else:
        way = "--qat" if qat else "--activation" if activation else "--prune"
    ignored = set[str]().union(*TAKEN.values()) - TAKEN[way]
    if words := [word for word in given(context) if word in ignored]:
        raise click.UsageError(f"{way} takes no {', '.join(words)}.")
    if name and Path(name).name != name:
        raise click.UsageError(f"--name must be a folder's name without a path, not '{name}'.")
    if separate and not of_run:
        folder = Path(name or f"{Path(source).resolve().name}-separated")  # "." has no name
        _separate_model(source, folder, rank, macs, calibrate)
        return
    how = None if part is None else Pruning(part, target, criterion, multiple)
    _make_run(Run.open(Path(source)), how, qat, activation, rank, macs, epochs or 0, name)


def _separate_model(
    source: str, folder: Path, rank: int | None, macs: float | None, calibrate: Path | None
) -> None:
    from edgewise.compress.separate_model import separate_model
    from edgewise.errors import UsageError
    from edgewise.files import holds_more_than

    if holds_more_than(folder, ()):
        raise UsageError(f"{folder} is there already. Choose another --name.")
    report = separate_model(source, folder, rank, macs, calibrate)
    _tell(report)
    if not report.images:
        click.echo(
            "warning: without --calibrate only the kernels were fitted, not what they give on "
            "images: train it before you use it.",
            err=True,
        )
    click.echo(f"next:  {command_line('train', 'photos/', '--model', folder)}")


def _make_run(
    original: Run,
    how: Pruning | None,
    qat: bool,
    activation: str | None,
    rank: int | None,
    macs: float | None,
    epochs: int,
    name: str | None,
) -> None:
    from edgewise.compress.other_runs import activation_run, round_run, separate_run
    from edgewise.compress.pruned_run import prune_run
    from edgewise.run_folder import new_root
    from edgewise.training.interrupt import Stopped

    done = "pruned" if how else "int8" if qat else activation or "separated"
    with new_root(name, f"{original.root.resolve().name}-{done}", RUNS) as root:
        try:
            if how:
                made = prune_run(original, root, how, epochs)
            elif qat:
                made = round_run(original, root, epochs)
            elif activation:
                made = activation_run(original, root, activation, epochs)
            else:
                made, report = separate_run(original, root, rank, macs, epochs)
                _tell(report)
        except Stopped as stop:
            click.echo(str(stop), err=True)
            sys.exit(stop.exit_status)
    click.echo(_summary(original, made))


def _tell(report: Report) -> None:
    from edgewise.reporting.columns import columns

    click.echo(columns(report.lines(), "<>>>>>"))


def _summary(original: Run, made: Run) -> str:
    """What it cost and what is left, before and after."""
    from edgewise.files import read_json
    from edgewise.reporting.columns import columns
    from edgewise.reporting.numbers import percent
    from edgewise.reporting.record import learned_val
    from edgewise.training.history import kept_epoch, read_history

    facts = read_json(made.compression)
    lines = [("RUN", "PARAMETERS", "MACS", "VAL ACCURACY")]
    for which, run in enumerate((original, made)):
        known = run.metrics.is_file() and not learned_val(run)
        accuracy = percent(kept_epoch(read_history(run)).val_accuracy) if known else "-"
        params, macs = (f"{facts[what][which]:,}" for what in ("params", "macs"))
        lines.append((str(run.root), params, macs, accuracy))
    return (
        f"{columns(lines, '<>>>')}\n"
        f"next:  {command_line('eval', made.root)}\n"
        f"       {command_line('export', made.root, '--precision', 'fp32,int8')}"
    )
