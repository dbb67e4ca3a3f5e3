"""Records of checked values: pydantic's dataclasses, with errors in our words.

The range of a field is in its type, such as `Annotated[int, Field(ge=1)]`. True is no number, and
neither is "3". What doesn't fit, whether it was read from a file, typed or computed, becomes a
`UsageError` that names the record and the place in it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar, cast

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from typing_extensions import dataclass_transform

from edgewise.errors import UsageError

T = TypeVar("T")
_STRICT = ConfigDict(extra="forbid", strict=True)
_IN_OUR_WORDS = {"missing": "is missing", "unexpected_keyword_argument": "no such field"}


@dataclass_transform(frozen_default=True, field_specifiers=(Field,))
def record(*, kw_only: bool = False) -> Callable[[type[T]], type[T]]:
    """A frozen dataclass whose values are checked when it is made."""

    def decorate(plain: type[T]) -> type[T]:
        kind: Any = dataclass(plain, frozen=True, kw_only=kw_only, config=_STRICT)
        construct = kind.__init__

        def __init__(self: T, *values: Any, **named: Any) -> None:
            try:
                construct(self, *values, **named)
            except ValidationError as error:
                raise _misfit(error, plain.__name__.lower()) from None

        kind.__init__ = __init__
        return cast(type[T], kind)

    return decorate


def one_of(*allowed: object) -> AfterValidator:
    """A check of a field's value, for `Annotated`."""

    def check(value: object) -> object:
        if value not in allowed:
            known = ", ".join(str(other) or "(none)" for other in allowed)
            raise ValueError(f"must be one of {known}")
        return value

    return AfterValidator(check)


def from_plain(kind: type[T], value: Any, what: str) -> T:
    """The record of plain JSON values, as `json.load` gives them.

    Raises:
        UsageError: it is no such record; the message names `what` and the place.
    """
    try:
        return TypeAdapter(kind).validate_json(json.dumps(value))
    except ValidationError as error:
        raise _misfit(error, what) from None


def _misfit(error: ValidationError, what: str) -> UsageError:
    """The first misfit, such as "spec: stages[2][0].kernel: must be one of 1, 3, 5, not 4"."""
    first = error.errors(include_url=False)[0]
    place = ""
    for part in first["loc"]:
        if isinstance(part, int):
            place += f"[{part}]"
        elif not place.endswith("]") or part.islower():  # else it is the name of a union's member
            place += f".{part}"
    text = first["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    if isinstance(first["input"], str | int | float):
        text += f", not {first['input']!r}"
    text = _IN_OUR_WORDS.get(first["type"], text)
    return UsageError(": ".join(filter(None, (what, place.lstrip("."), text))))
