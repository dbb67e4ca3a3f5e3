"""The errors a person sees: each names the thing at fault and the mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MOST_NAMED = 5  # examples that a message names before it only counts
LONGEST_REASON = 200  # characters of a library's own words in our error
OPENVINO = "Exception from ", "Check '"  # so its errors begin: with files of its source


class EdgewiseError(Exception):
    """The work failed. The command line prints the message and exits with status 1."""

    exit_status = 1


class UsageError(EdgewiseError):
    """The call was wrong: known before any work began. The command line exits with status 2."""

    exit_status = 2


class CantWrite(EdgewiseError):
    """A disk is full or can't be written: that says nothing of what was to be written there."""


def unknown(what: str, name: str, known: Iterable[str]) -> UsageError:
    """An error for a name that is not in `known`, with the nearest three that are."""
    near = sorted(known, key=lambda other: _likeness(name, other), reverse=True)[:3]
    return UsageError(f"unknown {what} '{name}'. Nearest: {', '.join(near)}.")


def _likeness(typed: str, known: str) -> tuple[float, float]:
    """First how much of what was typed is in the name, so that a name's beginning is near it."""
    matcher = difflib.SequenceMatcher(a=typed, b=known, autojunk=False)
    return sum(block.size for block in matcher.get_matching_blocks()), matcher.ratio()


def gpu_is_full(error: RuntimeError) -> bool:
    """Whether it is torch's, of a GPU without room: for a tensor, or for the program at all."""
    kind, said = type(error).__name__, str(error)  # torch need not be loaded to ask
    return kind == "OutOfMemoryError" or said.startswith("CUDA error: out of memory")


def some(items: Iterable[object]) -> str:
    """The first few, and how many more there are."""
    names = [str(item) for item in items]
    more = len(names) - MOST_NAMED
    return "; ".join(names[:MOST_NAMED]) + (f"; and {more:,} more" if more > 0 else "")


def missing_package(package: str, extra: str) -> UsageError:
    """An error for an optional dependency that is not installed, with the extra that brings it."""
    return UsageError(
        f"this needs the package '{package}'. Install it with: pip install 'edgewise[{extra}]'"
    )


def shortened(error: BaseException) -> str:
    """The kind of the error that began it all, and the line of its words that says most."""
    while error.__cause__:
        error = error.__cause__
    line = telling_line(str(error))
    if len(line) > LONGEST_REASON:
        line = f"{line[:LONGEST_REASON]} ..."
    return f"{type(error).__name__}: {line}"


def telling_line(text: str) -> str:
    """The first line that is not empty; the last, where OpenVINO first says where it found out."""
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [""]
    return lines[-1] if lines[0].startswith(OPENVINO) else lines[0]


def reason(error: Exception) -> str:
    """What to say of any error in a few words: ours say it themselves."""
    return str(error) if isinstance(error, EdgewiseError) else shortened(error)
