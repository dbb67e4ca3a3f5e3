"""The files of a trained run: what it means where one can't be made."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
from search_device import FormulaDevice

from edgewise.errors import CantWrite, EdgewiseError
from edgewise.run_folder import Run
from edgewise.search import shipping
from edgewise.search.budget import Budget
from edgewise.search.decisions import Numbers
from edgewise.search.shipping import ship
from edgewise.search.ways import Way

WAYS = [Way("onnx", precision, "onnxruntime") for precision in ("fp32", "int8")]


def shipped(monkeypatch: pytest.MonkeyPatch, error: Exception) -> list[Numbers]:
    """What is said of a run of which no file can be made."""

    def fail(*given: Any, **more: Any) -> None:
        raise error

    monkeypatch.setattr(shipping, "export", fail)
    return ship(Run(Path("run")), WAYS, FormulaDevice(), Budget.parse("latency=5ms"))


@pytest.mark.parametrize(
    "error",
    [
        CantWrite("can't write onnx-fp32: No space left on device. Free some space."),
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EROFS, "no space left to write on"),
    ],
)
def test_a_full_disk_is_no_fault_of_the_network(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """A search that kept it as one would never try again."""
    with pytest.raises(CantWrite, match=r"(?i)no space left"):
        shipped(monkeypatch, error)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (EdgewiseError("it lacks the operator magic"), "it lacks the operator magic"),
        (OSError("no libfast.so"), "OSError: no libfast.so"),
    ],
)
def test_files_that_can_not_be_made_have_their_reasons(
    monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    found = shipped(monkeypatch, error)
    assert [(one["precision"], one["failure"], one["fits"]) for one in found] == [
        ("fp32", reason, False),
        ("int8", reason, False),
    ]
