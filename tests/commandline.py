"""Calls the command line as a person does, without the cost of a new process."""

from __future__ import annotations

import contextlib
import io
import sys
from dataclasses import dataclass
from unittest import mock

from edgewise.cli.main import main


@dataclass
class Called:
    """What a call left behind."""

    status: int
    output: str
    errors: str


def edgewise(*arguments: object) -> Called:
    """`edgewise ARGUMENTS`: its exit status and what it printed."""
    output, errors = io.StringIO(), io.StringIO()
    status = 0
    with (
        mock.patch.object(sys, "argv", ["edgewise", *map(str, arguments)]),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
    ):
        try:
            main()
        except SystemExit as stop:
            status = int(stop.code or 0)
    return Called(status, output.getvalue(), errors.getvalue())
