"""`edgewise VERB`: each verb is one file beside this one, imported only when it is called."""

from __future__ import annotations

import io
import os
import sys
from importlib import import_module
from typing import TextIO

import click

from edgewise import __version__
from edgewise.errors import EdgewiseError, gpu_is_full, unknown

VERBS = {
    "models": "List the networks: parameters, MACs, published accuracy.",
    "profile": "Count parameters, MACs and memory: by stage, by kind, by layer.",
    "explain": "Teach a part or a network, with its numbers and measured times.",
    "bench": "Time networks on this machine in every runtime, side by side.",
    "import": "Turn weights of timm, torchvision or Keras into a model folder.",
    "run": "Find, train and export the best model that fits a budget on a device.",
    "doctor": "Look at every image: would training on them be sound?",
    "data": "Pack images into shards; show them as a network sees them.",
    "train": "Train a model on a folder of labelled images.",
    "eval": "Measure a run's accuracy on images that it has not seen.",
    "compress": "Make a smaller model of a trained one.",
    "export": "Write a model as one file for another runtime.",
    "verify": "Check that the exported file gives the model's own answers.",
    "predict": "Name what is in images.",
    "report": "Write a run's report and model card.",
    "compare": "Set runs side by side: accuracies with intervals, and their settings.",
    "demo": "Do all of this on 5,000 handwritten digits.",
}


class _Verbs(click.Group):
    """A group that knows its verbs' names and one-line helps without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        if cmd_name not in VERBS:
            raise unknown("verb", cmd_name, VERBS)
        command: click.Command = import_module(f"edgewise.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


@click.group(
    cls=_Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: edgewise train photos/ --model efficientnet_lite0 --name first",
)
@click.version_option(__version__, prog_name="edgewise")
def cli() -> None:
    """From a folder of labelled images to a small, exported and verified model.

    Each verb has its own help: edgewise VERB --help
    """


def main() -> None:
    """The `edgewise` command.

    Exit status: 0 done, 1 the work failed, 2 the call was wrong, 3 nothing fits (`edgewise run`).
    """
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        # An answer with a letter that the encoding has not (Windows' own, in a file) is an answer.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        cli.main(prog_name="edgewise", standalone_mode=False)
    except EdgewiseError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_status)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        sys.exit(130)
    except RuntimeError as error:  # torch raises this of its processes, whatever is at work
        if gpu_is_full(error):
            click.echo(
                "Error: the GPU has too little memory: end what else is at work on it, or "
                "--device cpu",
                err=True,
            )
            sys.exit(1)

        from edgewise.data.loader import worker_lost

        lost = worker_lost(error)
        if lost is None:
            raise
        click.echo(f"Error: {lost}", err=True)
        sys.exit(lost.exit_status)
    except BrokenPipeError:  # `edgewise models | head`
        _drop(sys.stdout)
        sys.exit(1)
    except OSError as error:  # a full disk, or what is in a folder that this user may not enter
        if isinstance(error, PermissionError) and error.filename:
            click.echo(f"Error: {error.strerror}: {error.filename}", err=True)
            sys.exit(1)
        if not _is_of_output(error):
            raise
        _drop(sys.stdout)
        try:
            click.echo(f"Error: can't write the output: {error.strerror or error}", err=True)
        except OSError:  # it is the same disk
            _drop(sys.stderr)
        sys.exit(1)


def _is_of_output(error: OSError) -> bool:
    """Whether one more line fails in the same way. What doesn't come of printing is to be seen."""
    try:
        click.echo()
    except OSError as another:
        return another.errno == error.errno
    return False


def _drop(stream: TextIO) -> None:
    """What is left in it goes nowhere: else Python would write it at its end, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
