"""The errors a person sees: each names the thing at fault and the mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class EdgewiseError(Exception):
    """The work failed. The command line prints the message and exits with status 1."""

    exit_status = 1


class UsageError(EdgewiseError):
    """The call was wrong: known before any work began. The command line exits with status 2."""

    exit_status = 2


def unknown(what: str, name: str, known: Iterable[str]) -> UsageError:
    """An error for a name that is not in `known`, with the nearest three that are."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.0)
    return UsageError(f"unknown {what} '{name}'. Nearest: {', '.join(near)}.")


def missing_package(package: str, extra: str) -> UsageError:
    """An error for an optional dependency that is not installed, with the extra that brings it."""
    return UsageError(
        f"this needs the package '{package}'. Install it with: pip install 'edgewise[{extra}]'"
    )
