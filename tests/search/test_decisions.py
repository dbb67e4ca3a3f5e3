"""The log of decisions, and what a kill leaves of it."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from edgewise.errors import EdgewiseError, UsageError
from edgewise.search.decisions import Decisions


def never() -> dict[str, object]:
    raise AssertionError("this was decided before")


def test_what_is_decided_is_not_worked_out_again(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    log = Decisions(path)
    first = log.decide("choose", lambda: {"kept": ("a", "b"), "score": 0.5})
    assert log.decide("choose", never) == first
    again = Decisions(path)
    assert again.decide("choose", never) == first
    assert first["kept"] == ["a", "b"]


def test_a_half_line_is_taken_off_wherever_the_kill_came(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    Decisions(path).decide("one", lambda: {"a": "é"})
    whole = path.read_bytes()
    Decisions(path).decide("two", lambda: {"b": 2})
    both = path.read_bytes()
    for cut in range(len(whole), len(both)):
        path.write_bytes(both[:cut])
        log = Decisions(path)
        assert list(log.made) == ["one"]
        log.decide("two", lambda: {"b": 3})
        lines = path.read_text(encoding="utf-8").splitlines()
        assert [json.loads(line)["step"] for line in lines] == ["one", "two"]
        assert Decisions(path).made["two"]["b"] == 3


def test_reading_changes_nothing(tmp_path: Path) -> None:
    """As `edgewise report` does while a search writes a line."""
    path = tmp_path / "decisions.jsonl"
    Decisions(path).decide("one", lambda: {"a": 1})
    with path.open("a", encoding="utf-8") as file:
        file.write('{"step": "two", "b": 1')
        file.flush()
        assert list(Decisions(path).made) == ["one"]
        file.write("}\n")
    assert Decisions(path).made["two"]["b"] == 1


def test_a_name_may_hold_any_line_separator(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    names = ["a\u2028b", "a\x85b", "a\nb"]
    Decisions(path).decide("doctor", lambda: {"classes": names})
    assert Decisions(path).made["doctor"]["classes"] == names


def test_damage_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    path.write_text('{"step": "one", "seconds": 1}\n{"step"\n{"step": "two", "seconds": 1}\n')
    with pytest.raises(UsageError, match="line 2"):
        Decisions(path)


def test_work_that_fails_leaves_nothing(tmp_path: Path) -> None:
    log = Decisions(tmp_path / "decisions.jsonl")

    def fail() -> dict[str, object]:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        log.decide("one", fail)
    assert not log.made
    assert not log.path.exists()


def test_the_time_before_a_stop_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search that is gone on with has that much less left; a full disk hides no Ctrl-C."""
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])

    def after(seconds: float, stops: bool = False) -> Callable[[], dict[str, object]]:
        def work() -> dict[str, object]:
            clock[0] += seconds
            if stops:
                raise KeyboardInterrupt
            return {}

        return work

    path = tmp_path / "decisions.jsonl"
    Decisions(path).decide("doctor", after(1.0))
    for seconds in (10.0, 5.0):
        with pytest.raises(KeyboardInterrupt):
            Decisions(path).decide("survey", after(seconds, stops=True))
        clock[0] += 1000.0  # until somebody goes on
    log = Decisions(path)
    assert list(log.made) == ["doctor"]
    assert log.decide("survey", after(2.0))["seconds"] == 17.0
    assert log.decide("drift", after(2.0))["seconds"] == 2.0
    assert [file.name for file in tmp_path.iterdir()] == ["decisions.jsonl"]
    monkeypatch.setattr(os, "fsync", lambda number: no_space())
    with pytest.raises(KeyboardInterrupt):
        log.decide("choose", after(3.0, stops=True))


def no_space() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_what_another_process_decided_is_not_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    Decisions(path).decide("one", lambda: {"a": 1})
    two, other = Decisions(path), Decisions(path)
    two.decide("two", lambda: {"b": 2})
    whole = path.read_bytes()
    with pytest.raises(EdgewiseError, match=r"changed by another process.*--resume"):
        other.decide("two", lambda: {"b": 3})
    assert path.read_bytes() == whole
    two.decide("three", lambda: {"c": 3})
    assert list(Decisions(path).made) == ["one", "two", "three"]


def test_a_folder_that_is_gone_is_said(tmp_path: Path) -> None:
    log = Decisions(tmp_path / "gone" / "decisions.jsonl")
    with pytest.raises(EdgewiseError, match="--resume"):
        log.decide("one", dict)
