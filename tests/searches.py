"""Searches of tests: what is asked for, what they decided, and how one is stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from search_device import FormulaDevice

from edgewise.search.decisions import Decisions
from edgewise.search.request import Request, SearchFolder
from edgewise.search.state import Watch

OWN = ("seconds", "at", "epoch_seconds", "read_seconds")  # what differs between two equal searches
NAME = "tiny224"  # the network of the tests, as if it were published for images of 224 px


Found = tuple[SearchFolder, Path, FormulaDevice]


def request_for(photos: Path, budget: str, **more: Any) -> Request:
    settings: dict[str, Any] = {"models": (NAME,), "flip": False, "workers": 0, "minutes": 60.0}
    return Request(str(photos), budget, **{**settings, **more})


def numbers(folder: SearchFolder, root: Path) -> dict[str, Any]:
    """The decisions without their times, and with the search's folder taken out of paths."""
    text = json.dumps(Decisions(folder.decisions).made).replace(str(root), "ROOT")
    made = json.loads(text)
    made["choose"].pop("files")  # how long they should take
    return {s: {k: v for k, v in own.items() if k not in OWN} for s, own in made.items()}


class Enough(BaseException):
    """As a kill: nothing catches it."""


def until(last: str) -> Watch:
    """Stops a search once a step is decided."""

    def look(step: str, decided: dict[str, Any]) -> None:
        if step == last:
            raise Enough

    return Watch(decided=look)
