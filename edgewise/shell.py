"""The command lines of ours that messages and reports tell a person to paste."""

from __future__ import annotations

import shlex
from pathlib import Path


def command_line(*words: str | Path) -> str:
    """`edgewise` and its words as a shell takes them: a name with spaces in it is quoted."""
    return shlex.join(["edgewise", *map(str, words)])
