"""`edgewise run`: labelled photos and a budget in, the most accurate model that fits out."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgewise.cli.train import RUNS
from edgewise.cli.words import Duration, Names, given
from edgewise.deploy.formats import FORMATS, PRECISIONS
from edgewise.errors import EdgewiseError, UsageError
from edgewise.search.budget import EXAMPLE, Budget
from edgewise.search.ways import SEARCHED
from edgewise.shell import command_line

if TYPE_CHECKING:
    from edgewise.search.decisions import Numbers
    from edgewise.search.request import Request, SearchFolder

OVER_BUDGET = 3  # the exit status where the best file that could be made does not fit


@click.command(
    epilog="""
    \b
    Examples:
      edgewise run photos/ --budget latency=5ms --time 30m
      edgewise run photos/ --budget latency=5ms@p90,size=4MB,memory=64MB
      edgewise run photos/ --budget latency=20ms --device ssh:pi@board --precision int8
      edgewise run photos/ --budget latency=5ms --format onnx,litert --precision fp32,bf16,int8
      edgewise run --resume runs/photos-search-1
    """
)
@click.argument("data", required=False)
@click.option("--budget", metavar="PART=MOST,...", help=f"What the device affords: {EXAMPLE}.")
@click.option(
    "--time", "minutes", type=Duration(), default="30m", show_default=True, help="For all of it."
)
@click.option(
    "--device",
    default="local",
    show_default=True,
    help="Where files are timed: local, or ssh:USER@HOST, which needs Python and a runtime.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="That a call may use on the device.",
)
@click.option(
    "--format",
    "formats",
    type=Names("format", FORMATS),
    default="onnx,openvino",
    show_default=True,
    help=f"Kinds of file that may be shipped: {', '.join(SEARCHED)}. What computes the same as "
    "another isn't timed twice.",
)
@click.option(
    "--precision",
    "precisions",
    type=Names("precision", PRECISIONS),
    default="fp32,int8",
    show_default=True,
    help=f"Of these files, as far as a format has it: {', '.join(PRECISIONS)}.",
)
@click.option(
    "--models",
    help="Networks that may take part, with commas between.  [default: all whose pretrained "
    "weights can be had]",
)
@click.option("--no-flip", is_flag=True, help="Mirrored images are not of the same class.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--workers", type=click.IntRange(0, 256), help="Processes that decode images.")
@click.option("--train-device", default="auto", show_default=True, help="As train's --device.")
@click.option("--name", help="Name of the search, a folder in runs/.  [default: DATA-search-1 ...]")
@click.option(
    "--resume",
    "resumed",
    type=click.Path(path_type=Path),
    metavar="SEARCH",
    help="Go on with a search that was stopped.",
)
@click.pass_context
def command(
    context: click.Context,
    data: str | None,
    budget: str | None,
    minutes: float,
    device: str,
    threads: int,
    formats: tuple[str, ...],
    precisions: tuple[str, ...],
    models: str | None,
    no_flip: bool,
    seed: int,
    workers: int | None,
    train_device: str,
    name: str | None,
    resumed: Path | None,
) -> None:
    """Find, train and export the most accurate model for DATA that fits a budget on a device.

    DATA is a folder or file as for `edgewise train`. Networks are timed on the device before any is
    trained; those that fit are tried on DATA, the best is trained, exported, and tested on images
    that no decision has seen. Every decision is logged in SEARCH/decisions.jsonl.

    The exit status is 0 if the file fits the budget on the device, and 3 if nothing does; then the
    nearest is there.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in `edgewise train`
    if resumed:
        if others := [word for word in given(context) if word != "--resume"]:
            raise click.UsageError(
                f"--resume goes on as it was asked for: leave {', '.join(others)} out."
            )
        _search(_stored(resumed), resumed)
    else:
        if not data or not budget:
            raise click.UsageError(
                "name the images and what the device affords: edgewise run photos/ --budget "
                "latency=5ms"
            )
        if name and Path(name).name != name:
            raise click.UsageError(f"--name must be a folder's name without a path, not '{name}'.")
        Budget.parse(budget)  # what is wrong with it is said before anything is loaded
        from edgewise.run_folder import new_root
        from edgewise.search.request import Request

        names = tuple(part.strip() for part in models.split(",")) if models else ()
        data = str(Path(data).absolute())  # a search may be gone on with from another directory
        request = Request(data, budget, minutes, device, threads, precisions, names)
        request = replace(
            request,
            seed=seed,
            flip=not no_flip,
            workers=workers,
            train_device=train_device,
            formats=formats,
        )
        with new_root(name, f"{Path(data).resolve().stem}-search", RUNS) as root:
            _search(request, root)


def _stored(root: Path) -> Request:
    from edgewise.search.request import Request, SearchFolder

    if not SearchFolder.is_search(root):
        raise UsageError(f"{root} is not a search: `edgewise run DATA --budget ...` makes one.")
    return Request.read(SearchFolder(root).request)


def _search(request: Request, root: Path) -> None:
    from edgewise.cli.run_table import LiveTable
    from edgewise.cli.run_text import told
    from edgewise.search.choosing import NothingFits
    from edgewise.search.ladder import run
    from edgewise.search.request import SearchFolder
    from edgewise.search.state import Settled, Watch
    from edgewise.training.interrupt import Stopped, ended_by_sigterm

    table = LiveTable(request, SearchFolder(root))

    def decided(step: str, numbers: Numbers) -> None:
        table.decided(step, numbers)
        if "folder" in numbers:  # in the search's
            numbers = {**numbers, "folder": str(SearchFolder(root).at(numbers["folder"]))}
        if text := told(step, numbers):
            click.echo(text)

    def tell(what: str) -> None:
        click.echo(f"{what} ...", err=True)

    click.echo(f"searching in {root}")
    try:
        with ended_by_sigterm(), table:
            made = run(request, root, Watch(tell, decided, table.measured))
    except Stopped as stop:
        click.echo(str(stop), err=True)
        sys.exit(stop.exit_status)
    except (KeyboardInterrupt, SystemExit) as stop:  # between trainings, which save themselves
        if SearchFolder.is_search(root):
            click.echo(f"stopped; go on with: {command_line('run', '--resume', root)}", err=True)
        sys.exit(130 if isinstance(stop, KeyboardInterrupt) else stop.code)
    except NothingFits:
        _report(SearchFolder(root))
        raise
    except EdgewiseError as error:
        again = command_line("run", "--resume", root)
        # A wrong call says what a right one is.
        said = isinstance(error, (Settled, UsageError)) or again in str(error)
        if said or not SearchFolder.is_search(root):
            raise
        # Of a device that went away, a full disk: once that is mended.
        raise EdgewiseError(f"{error}\ngo on with: {again}") from error
    _end(made)


def _end(made: SearchFolder) -> None:
    from edgewise.search.decisions import Decisions

    _report(made)
    test = Decisions(made.decisions).made["test"]
    if not test["fits"]:
        sys.exit(OVER_BUDGET)


def _report(made: SearchFolder) -> None:
    """A search is worth its minutes without the page, too."""
    from edgewise.reporting.search_page import write_search_report

    try:
        click.echo(f"report: {write_search_report(made)}")
    except EdgewiseError as error:
        click.echo(f"no report: {error} Then: {command_line('report', made.root)}", err=True)
