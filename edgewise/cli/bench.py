"""`edgewise bench`: how fast networks are on this machine, in every runtime."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgewise.cli.bench_text import advice, print_rows
from edgewise.cli.words import given

if TYPE_CHECKING:
    from edgewise.errors import EdgewiseError
    from edgewise.measure.store import Row, Store
    from edgewise.timing.plan import Group

# Of the options of a measurement, those that the other ways take; they would ignore the others.
TAKEN = {
    "--show": {"--chart"},
    "--choose": set[str](),
    "--roofline": {"--precision", "--threads", "--batch", "--imgsz"},
}
MEASURING = {
    *("--runtime", "--precision", "--threads", "--batch", "--imgsz", "--against", "--seconds"),
    "--chart",
}


def _words(ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, ...]:
    """`a,b,c` -> ("a", "b", "c")."""
    return tuple(word.strip() for word in value.split(",") if word.strip())


def _numbers(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, ...]:
    """`1,2` -> (1, 2)."""
    try:
        return tuple(int(word) for word in _words(ctx, param, value))
    except ValueError:
        raise click.BadParameter(
            f"'{value}' is not a list of whole numbers such as 1,2", ctx, param
        ) from None


@click.command(
    epilog="""
    \b
    Examples:
      edgewise bench mobilenet_v2
      edgewise bench mobilenet_v2 efficientnet_lite0 --precision fp32,bf16,int8 --threads 1,2
      edgewise bench mobilenet_v3_large --runtime torch,onnxruntime --against timm
      edgewise bench model.onnx --runtime onnxruntime,openvino
      edgewise bench mobilenet_v2 --choose
      edgewise bench --show --chart charts/
      edgewise bench mobilenet_v2 --roofline
    """
)
@click.pass_context
@click.argument("models", nargs=-1)
@click.option(
    "--runtime",
    "runtimes",
    callback=_words,
    metavar="A,B,...",
    default="all",
    show_default=True,
    help="What runs them; all: those that are installed.",
)
@click.option(
    "--precision",
    "precisions",
    callback=_words,
    metavar="A,B,...",
    default="fp32",
    show_default=True,
    help="fp32, bf16, int8: each runtime takes those that it has.",
)
@click.option(
    "--threads",
    callback=_numbers,
    metavar="N,N,...",
    default="1",
    show_default=True,
    help="Numbers of them.",
)
@click.option(
    "--batch", type=click.IntRange(1), default=1, show_default=True, help="Images a call."
)
@click.option(
    "--imgsz",
    type=click.IntRange(1),
    help="Height and width of the images.  [default: what each network was published for]",
)
@click.option(
    "--against",
    callback=_words,
    metavar="A,B,...",
    default="",
    help="Time the same network of timm,torchvision too.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0, min_open=True),
    default=2.0,
    show_default=True,
    help="Of timed calls of each candidate.",
)
@click.option("--show", is_flag=True, help="Measure nothing: print what was measured before.")
@click.option(
    "--choose",
    "choosing",
    is_flag=True,
    help="Which runtime and precision to use here, by the last session of each size and number of "
    "threads; it names what only earlier ones had.",
)
@click.option(
    "--roofline", is_flag=True, help="The least time that this machine could take, by layer."
)
@click.option(
    "--chart",
    type=click.Path(path_type=Path, file_okay=False),
    help="A folder for pareto.png and pareto.html: accuracy against latency.",
)
@click.option(
    "--store",
    "store_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file that rows are added to.  [default: bench.sqlite in edgewise's cache folder]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array instead of tables.")
def command(
    context: click.Context,
    models: tuple[str, ...],
    runtimes: tuple[str, ...],
    precisions: tuple[str, ...],
    threads: tuple[int, ...],
    batch: int,
    imgsz: int | None,
    against: tuple[str, ...],
    seconds: float,
    show: bool,
    choosing: bool,
    roofline: bool,
    chart: Path | None,
    store_path: Path | None,
    as_json: bool,
) -> None:
    """Time MODELS (names, run or model folders, .onnx files) in the runtimes that are installed.

    All candidates of a network are timed in turns, each in a process of its own that is bound to as
    many cores as it has threads. A name has random weights; a file is timed as it is, whoever made
    it. Every answer is held against PyTorch's, a file's against ONNX's own evaluator's: a fast
    wrong answer is not timed, and the exit status is then 1.

    MEDIAN, P90 and P99 are of single calls; the interval is the median's, at 95 %. FIRST is the
    first inference, after export or compilation. MEMORY is the most that the whole process had
    while it ran, Python and the exporter included. Ctrl-C keeps what was measured so far.
    """
    from edgewise.measure.store import Store

    words = given(context)
    ways = [way for way in TAKEN if way in words]
    if len(ways) > 1:
        raise click.UsageError("give one of --show, --choose and --roofline.")
    for way in ways:
        if ignored := [word for word in words if word in MEASURING - TAKEN[way]]:
            raise click.UsageError(f"{way} takes no {', '.join(ignored)}.")
    if not models and not show:
        raise click.UsageError("name the networks to measure: edgewise bench mobilenet_v2")
    store = Store(store_path)
    if choosing:
        _choose(models, store, as_json)
    elif show:
        rows = store.latest(models)
        print_rows(rows, as_json)
        _chart(rows, chart)
    else:
        from edgewise.errors import EdgewiseError
        from edgewise.timing.plan import absent, make_plan
        from edgewise.timing.runtimes import RUNTIMES

        plan = make_plan(models, RUNTIMES, runtimes, precisions, threads, batch, imgsz, against)
        if chart:
            _check_published(models)
        if roofline:
            from edgewise.cli.bench_roofline import print_roofline

            print_roofline(plan, precisions, store, as_json)
            return
        for name, extra in absent(RUNTIMES).items():
            mend = f": pip install 'edgewise[{extra}]'" if extra else ""
            click.echo(f"not here: {name}{mend}", err=True)
        store.add(())  # what can't be kept is not worth measuring
        rows, signal, error = _measure(plan, seconds, store)
        wrong = any(row.status == "wrong" for row in rows)
        failed = wrong or all(row.status != "ok" for row in rows)
        if rows or not error:
            print_rows(rows, as_json)
            try:
                _chart(rows, chart)
            except EdgewiseError as undrawn:
                if not (error or signal or failed):  # which say more than this
                    raise
                click.echo(f"no chart: {undrawn}", err=True)
        if error:
            raise error
        if signal:
            click.echo(f"stopped; what was measured is in {store.path}", err=True)
            sys.exit(128 + signal)
        if failed:
            sys.exit(1)


def _measure(
    plan: Sequence[Group], seconds: float, store: Store
) -> tuple[list[Row], int, EdgewiseError | None]:
    """The rows, each group stored as soon as it is measured; the signal that ended it or 0; the
    error that did.
    """
    from edgewise.errors import EdgewiseError
    from edgewise.progress import bar
    from edgewise.timing.run import Watch, bench, steps
    from edgewise.timing.runtimes import RUNTIMES
    from edgewise.training.interrupt import stop_on_signals

    rows: list[Row] = []
    with stop_on_signals() as request, bar("bench", steps(plan)) as progress:
        watch = Watch(
            stopped=lambda: request.number is not None,
            on_step=lambda what, steps: progress.advance(steps, what),
        )
        try:
            for measured in bench(plan, RUNTIMES, seconds, watch):
                rows += measured
                store.add(measured)
        except EdgewiseError as error:
            return rows, 0, error
        return rows, request.number or 0, None


def _choose(models: Sequence[str], store: Store, as_json: bool) -> None:
    from edgewise.measure.choose import choose
    from edgewise.measure.store import machine_fingerprint
    from edgewise.timing.subject import unchanged

    here = machine_fingerprint()
    choices = []
    for model in models:
        rows = [row for row in store.rows() if row.model == model]
        choices += choose(unchanged(rows, model), model, here)
    if as_json:
        click.echo(json.dumps([asdict(choice) for choice in choices], indent=2))
    else:
        click.echo("\n\n".join(map(advice, choices)))


def _check_published(models: Sequence[str]) -> None:
    from edgewise.errors import UsageError
    from edgewise.reporting.pareto import published

    if not any(map(published, models)):
        raise UsageError(
            "a chart needs published networks: there is no published accuracy of "
            f"{', '.join(models)}. Leave out --chart, or add a name of `edgewise models`."
        )


def _chart(rows: Sequence[Row], folder: Path | None) -> None:
    if folder:
        from edgewise.reporting.pareto import write_charts

        for path in write_charts(rows, folder):
            click.echo(f"wrote {path}", err=True)
