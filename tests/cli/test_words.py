"""Options that take a word or a unit."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from edgewise.cli.words import Bytes, Duration, NumberOr


def read(kind: click.ParamType, text: str) -> tuple[int, str]:  # type: ignore[type-arg]
    @click.command()
    @click.option("--value", type=kind)
    def command(value: object) -> None:
        click.echo(repr(value))

    result = CliRunner().invoke(command, ["--value", text])
    return result.exit_code, result.output.strip()


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Duration(), "20m", 20.0),
        (Duration(), "90s", 1.5),
        (Duration(), "1h30m", 90.0),
        (Duration(), "1.5h", 90.0),
        (Bytes(), "256MB", 256_000_000),
        (Bytes(), "1.5 gb", 1_500_000_000),
        (NumberOr(click.IntRange(2), "auto"), "auto", "auto"),
        (NumberOr(click.IntRange(2), "auto"), "16", 16),
        (NumberOr(click.FloatRange(0), "find"), "1e-3", 0.001),
    ],
)
def test_value(kind: click.ParamType, text: str, value: object) -> None:  # type: ignore[type-arg]
    assert read(kind, text) == (0, repr(value))


@pytest.mark.parametrize(
    ("kind", "text", "says"),
    [
        (Duration(), "20", "'20' is not a time such as 90s"),
        (Duration(), "5m later", "is not a time"),
        (Duration(), "0m", "is not a time"),
        (Bytes(), "256", "'256' is not a size such as 256MB"),
        (Bytes(), "0MB", "is not a size"),
        (NumberOr(click.IntRange(2), "auto"), "most", "'most' is neither a number nor 'auto'"),
        (NumberOr(click.IntRange(2), "auto"), "1", "1 is not in the range x>=2"),
    ],
)
def test_no_value(kind: click.ParamType, text: str, says: str) -> None:  # type: ignore[type-arg]
    status, told = read(kind, text)
    assert status == 2 and says in " ".join(told.split())
