"""What a search does before it begins, and the time that it counts."""

from __future__ import annotations

from pathlib import Path

import pytest
from commandline import edgewise
from search_device import FormulaDevice

pytest.importorskip("onnxruntime")


def test_what_is_wrong_is_said_while_nothing_is_written(
    photos: Path, device: FormulaDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that is taken could not be asked for otherwise."""
    monkeypatch.chdir(tmp_path)
    for wrong, words in (
        (("--models", "tiny224,tiny223"), "unknown model 'tiny223'. Nearest: tiny224"),
        (("--train-device", "nowhere"), "Try --train-device cpu."),
    ):
        called = edgewise(
            "run", photos, "--budget", "latency=6ms", "--name", "x", "--workers", 0, *wrong
        )
        assert called.status == 2
        assert words in " ".join(called.errors.split())
        assert not Path("runs").exists()
    assert not device.asked
