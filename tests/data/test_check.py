"""The one look at every image: what it notes, and that it can be stopped."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from photos import picture

from edgewise.data import check as module
from edgewise.data.check import Check, check_images


def test_results_are_in_the_order_asked(tmp_path: Path) -> None:
    paths = []
    for number in range(20):
        paths.append(tmp_path / f"{number}.png")
        if number % 3:
            picture(number).save(paths[-1])
        else:
            paths[-1].write_bytes(b"x" * number)
    checks = check_images(paths, workers=4)
    assert [bool(check.reason) for check in checks] == [number % 3 == 0 for number in range(20)]
    assert len({check.sha256 for check in checks}) == 20
    assert checks == check_images(paths, workers=0)


def test_ctrl_c_begins_no_more_images(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []

    def slow(path: Path) -> Check:
        begun.append(path)
        time.sleep(0.02)
        return Check("", "")

    def interrupted(items: Iterable[Check], what: str, total: int) -> Iterator[Check]:
        yield next(iter(items))
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_check", slow)
    monkeypatch.setattr(module, "track", interrupted)
    with pytest.raises(KeyboardInterrupt):
        check_images([Path("photo.jpg")] * 500, workers=2)
    assert len(begun) < 50
