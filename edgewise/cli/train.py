"""`edgewise train`: from labelled images to a model in a run folder."""

from __future__ import annotations

import json
import os
import sys
import textwrap
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edgewise.cli.words import Duration, NumberOr
from edgewise.shell import command_line
from edgewise.training.recipe import Recipe

if TYPE_CHECKING:
    from edgewise.run_folder import Run

RUNS = Path("runs")
F = TypeVar("F", bound=Callable[..., None])


def recipe_option(name: str, word: str = "", least: int | None = None) -> Callable[[F], F]:
    """The option for a field of the recipe, with the field's help, default and range.

    It is None if it was not given, so that on resume the run's own setting holds. If there is a
    `word`, it may stand for a number; `least` stands over a range that begins with 0 for "chosen".
    """
    setting = Recipe.__pydantic_fields__[name]  # type: ignore[attr-defined]
    low, high = (
        next((getattr(limit, end) for limit in setting.metadata if hasattr(limit, end)), None)
        for end in ("ge", "le")
    )
    low = low if least is None else least
    types = {int: click.IntRange(low, high), float: click.FloatRange(low, high)}
    kind: Any = types.get(setting.annotation, types[int] if low is not None else click.STRING)
    if word:
        kind = NumberOr(kind, word)
    help = setting.description + (f" Or: {word}." if word else "")
    if setting.default:
        help += f"  [default: {setting.default}]"
    metavar = f"NUMBER|{word}" if word else None
    return click.option(f"--{name}", type=kind, metavar=metavar, help=help)


@click.command(
    epilog="""
    \b
    Examples:
      edgewise train photos/ --epochs 5 --imgsz 128 --name first
      edgewise train photos/ --time 20m --batch auto --lr find
      edgewise train photos/ --model mobilenet_v3_small teacher=runs/large
      edgewise train labels.csv --model mobilenet_v2 --no-flip
      edgewise train photos/ --recipe mine.toml optimizer=sgd lr=0.05 mixup=0.2
      edgewise train --resume runs/first
      torchrun --nproc-per-node 4 -m edgewise train photos/ --name four
    """
)
@click.argument("data", required=False)
@click.argument("settings", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--recipe", metavar="FILE|NAME", help="A TOML file of settings, or one of ours; see below."
)
@recipe_option("model")
@recipe_option("epochs", least=1)
@click.option(
    "--time",
    "minutes",
    type=Duration(),
    metavar="TIME",
    help="Plan as many epochs as end in this time here, such as 90s, 20m or 1h30m. It begins once "
    "the images are read, and cached if asked for, and the trials are over.",
)
@recipe_option("batch", "auto", least=2)
@recipe_option("imgsz")
@recipe_option("lr", "find")
@recipe_option("patience")
@recipe_option("seed")
@recipe_option("device")
@recipe_option("workers")
@recipe_option("cache")
@click.option(
    "--no-pretrained", is_flag=True, help="Start from fresh weights, not from ImageNet's."
)
@click.option(
    "--no-flip",
    is_flag=True,
    help="Never mirror an image: for digits, text, anything with a left and a right.",
)
@click.option(
    "--deterministic",
    is_flag=True,
    help="The same sums in each run on a GPU too; says what it costs.",
)
@click.option(
    "--recipe-help",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=lambda ctx, param, asked: _print_settings(ctx) if asked else None,
    help="List all settings and the published recipes, and exit.",
)
@click.option(
    "--name", help="Name of the run, a folder in runs/.  [default: MODEL-1, MODEL-2, ...]"
)
@click.option(
    "--resume", "resumed", metavar="RUN", type=click.Path(path_type=Path), help="Go on with a run."
)
def command(
    data: str | None,
    settings: tuple[str, ...],
    recipe: str | None,
    no_pretrained: bool,
    no_flip: bool,
    deterministic: bool,
    name: str | None,
    resumed: Path | None,
    **options: Any,
) -> None:
    """Train a network on the labelled images in DATA.

    DATA is a folder with a folder per class, with or without train/, val/ and test/ above them; a
    CSV or Parquet file with the columns path, label and optionally split; or images in tar shards,
    Parquet, Hugging Face's or NumPy's files: see docs/data.md. Nothing in it is changed.

    KEY=VALUE sets anything that a recipe holds: optimizer, schedule, mixup, stages and the others
    that have no option here (`edgewise train --recipe-help`). An option stands over KEY=VALUE, and
    that over --recipe, which is a file or one of the published recipes in edgewise/recipes.

    Ctrl-C saves and stops; --resume goes on as if there had been no stop.
    """
    # Read when torch is loaded. Without it torch's threads spin while they wait, for a core that
    # the decoding processes or another program need: on two busy cores a step took 5 times as much.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

    from edgewise.run_folder import Run, new_root
    from edgewise.training.interrupt import Stopped
    from edgewise.training.loop import train
    from edgewise.training.recipe_file import laid_over, parse_settings, read_settings
    from edgewise.training.world import of_torchrun

    world = of_torchrun()

    if data is not None and "=" in data and not Path(data).exists():
        settings = (data, *settings)
        data = None
    asked = parse_settings(settings)
    asked |= {setting: value for setting, value in options.items() if value is not None}
    given = laid_over(read_settings(recipe) if recipe else {}, asked)
    if data is not None:
        given["data"] = data
    if no_pretrained:
        given["pretrained"] = False
    if no_flip:
        given["flip"] = False
    if deterministic:
        given["deterministic"] = True
    if resumed:
        if name:
            raise click.UsageError("--name is for a new run; leave it out with --resume.")
        resolved = replace(Recipe.read(Run.open(resumed).recipe), **given)
        place: AbstractContextManager[Path] = nullcontext(resumed)
    elif "data" not in given:
        raise click.UsageError("name the folder or file with your images: edgewise train DATA")
    elif name and Path(name).name != name:
        raise click.UsageError(f"--name must be a folder's name without a path, not '{name}'.")
    elif world.size > 1 and not name:
        raise click.UsageError("with torchrun, give the run a --name: all processes share it.")
    else:
        resolved = Recipe(**given)
        model = resolved.folder.resolve() if resolved.folder else Path(resolved.model)
        # The last part alone: a path that was mistyped is for `resolve` to refuse.
        place = new_root(name, model.name, RUNS)
    with place as root:
        try:
            run = train(resolved, root, resume=resumed is not None)
        except Stopped as stop:
            if world.first:
                click.echo(str(stop), err=True)
            sys.exit(stop.exit_status)
    if world.first:
        _print_end(run)


def _print_settings(ctx: click.Context) -> None:
    from edgewise.training.recipe_file import recipe_names

    for name, setting in Recipe.__pydantic_fields__.items():  # type: ignore[attr-defined]
        default = "" if setting.is_required() else f"  [{json.dumps(setting.default)}]"
        click.echo(
            textwrap.fill(f"{name}: {setting.description}{default}", 100, subsequent_indent="    ")
        )
    click.echo(f"\nrecipes: {', '.join(recipe_names())}")
    ctx.exit()


def _print_end(run: Run) -> None:
    from edgewise.training.history import kept_epoch, read_history

    history = read_history(run)
    kept, epochs = kept_epoch(history), Recipe.read(run.recipe).epochs
    early = f" of {epochs}, for want of a better one" if len(history) < epochs else ""
    click.echo(
        f"{run.root} is finished after {len(history)} epochs{early}. Epoch {kept.epoch} is kept, "
        f"with a validation accuracy of {kept.val_accuracy:.4f}.\n"
        f"model: {run.model}\n"
        f"next:  {command_line('eval', run.root)}\n"
        f"       {command_line('export', run.root, '--format', 'onnx')}"
    )
