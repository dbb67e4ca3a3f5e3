"""Values of options that are more than a number: a word instead of one, a time or size with its
unit; and which options were given.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import click
from click.core import ParameterSource

from edgewise.errors import unknown

MINUTES = {"h": 60.0, "m": 1.0, "s": 1 / 60}
UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9}


def given(context: click.Context) -> list[str]:
    """The options and arguments on the command line, as in `["RUN", "--name"]`."""
    return [
        param.human_readable_name if isinstance(param, click.Argument) else param.opts[0]
        for param in context.command.params
        if param.name and context.get_parameter_source(param.name) is ParameterSource.COMMANDLINE
    ]


class NumberOr(click.ParamType):  # type: ignore[type-arg]  # not generic in older clicks
    """A number of another type, or one word."""

    name = "number"

    def __init__(self, number: Any, word: str) -> None:
        self.number, self.word = number, word

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number, or the word as it is."""
        if value == self.word:
            return value
        try:
            float(value)
        except ValueError:
            self.fail(f"'{value}' is neither a number nor '{self.word}'", param, ctx)
        return self.number.convert(value, param, ctx)


class Duration(click.ParamType):  # type: ignore[type-arg]
    """90s, 20m, 1.5h or 1h30m, as minutes."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The minutes."""
        parts = re.findall(r"(\d+(?:\.\d+)?)([hms])", str(value))
        minutes = sum(float(number) * MINUTES[unit] for number, unit in parts)
        if "".join(map("".join, parts)) != value or not minutes:
            self.fail(f"'{value}' is not a time such as 90s, 20m or 1h30m", param, ctx)
        return minutes


class Part(click.ParamType):  # type: ignore[type-arg]
    """30% or 0.3, as a number above 0 and below 1."""

    name = "part"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The part."""
        match = re.fullmatch(r"(\d*\.?\d+)( *%)?", str(value).strip())
        part = float(match[1]) / (100 if match[2] else 1) if match else 0.0
        if not 0 < part < 1:
            self.fail(f"'{value}' is not a part such as 30% or 0.3", param, ctx)
        return part


class Bytes(click.ParamType):  # type: ignore[type-arg]
    """256MB or 1.5GB, as bytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The bytes."""
        match = re.fullmatch(r"(\d+(?:\.\d+)?) *([KMG]B)", str(value).strip().upper())
        if not match or not float(match[1]):
            self.fail(f"'{value}' is not a size such as 256MB or 1GB", param, ctx)
        return round(float(match[1]) * UNITS[match[2]])


class Names(click.ParamType):  # type: ignore[type-arg]
    """One or more of some names with commas between, or "all"."""

    name = "names"

    def __init__(self, what: str, known: Collection[str]) -> None:
        self.what, self.known = what, known

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """The names, each once."""
        if not isinstance(value, str):
            return tuple(value)
        if value == "all":
            return tuple(self.known)
        names = dict.fromkeys(name.strip() for name in value.split(","))
        for name in names:
            if name not in self.known:
                raise unknown(self.what, name, self.known)
        return tuple(names)
