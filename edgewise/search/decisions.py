"""What a search decided, step by step, with its numbers: a log from which it goes on after a kill.

A line of `decisions.jsonl` is one decision: its step, when it was made, how long the work for it
took, and the numbers that it was made by. What is in the log is never worked out again. How long
the work took that was stopped before a decision is in `stopped.json` until that is made.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edgewise.errors import EdgewiseError, UsageError
from edgewise.files import read_json, write_json
from edgewise.shell import command_line

Numbers = dict[str, Any]


class Decisions:
    """The log in one file, to which lines are only added.

    Attributes:
        made: the decisions by their step, in the order in which they were made.

    Raises:
        UsageError: the file is damaged in its middle. A half last line, which a kill leaves, or a
            search that is at work just now, does not count; the next decision takes its place.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._stopped = path, path.with_name("stopped.json")
        self.made: dict[str, Numbers] = {}
        self._bytes = self._whole = 0  # of the file, and of whole lines
        if path.is_file():
            self._read()

    def decide(self, step: str, work: Callable[[], Numbers]) -> Numbers:
        """The numbers of a step: those in the log, or else those that `work` gives now.

        Raises:
            EdgewiseError: the line can't be written, or another process has written into the file;
                or what `work` raises.
        """
        if step not in self.made:
            began = time.monotonic() - self._before(step)
            try:
                numbers = work()
            except BaseException:  # a Ctrl-C most often
                with suppress(EdgewiseError):  # the disk may be full
                    write_json(self._stopped, {step: round(time.monotonic() - began, 2)})
                raise
            at = datetime.now(timezone.utc).isoformat(timespec="seconds")
            took = round(time.monotonic() - began, 2)
            self._add({"step": step, "at": at, "seconds": took, **numbers})
            with suppress(OSError):
                self._stopped.unlink(missing_ok=True)
        return self.made[step]

    def _before(self, step: str) -> float:
        """Seconds that the step has taken already, in a process that was stopped."""
        if not self._stopped.is_file():
            return 0.0
        return float(read_json(self._stopped).get(step, 0.0))

    def _add(self, line: Numbers) -> None:
        text = json.dumps(line, ensure_ascii=False) + "\n"
        data = text.encode()
        try:
            with self.path.open("ab") as file:
                if file.tell() != self._bytes:  # what is there now may not be cut off
                    raise EdgewiseError(
                        f"{self.path} was changed by another process meanwhile, so nothing was "
                        "added. Once no other search is at work there, go on with: "
                        f"{command_line('run', '--resume', self.path.parent)}"
                    )
                file.truncate(self._whole)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise EdgewiseError(
                f"can't write {self.path}: {error.strerror or error}. Free some space, then go on "
                f"with: {command_line('run', '--resume', self.path.parent)}"
            ) from error
        self._whole += len(data)
        self._bytes = self._whole
        self.made[line["step"]] = json.loads(text)  # as it will be read: tuples are lists

    def _read(self) -> None:
        data = self.path.read_bytes()
        self._bytes, self._whole = len(data), data.rfind(b"\n") + 1
        lines = data[: self._whole].decode(errors="replace").split("\n")[:-1]
        for number, line in enumerate(lines, 1):
            try:
                numbers = json.loads(line)
                self.made[numbers["step"]] = numbers
            except (ValueError, KeyError, TypeError) as error:
                raise UsageError(
                    f"{self.path}, line {number}, is damaged ({error}). Remove that line and those "
                    "after it: what they decided is then worked out again."
                ) from None
