"""Converters are silent, and what they lack is said in the network's own words."""

from __future__ import annotations

import os
import sys

import pytest
import torch
from torch import nn

from edgewise.deploy.converting import converting, lacking, silent
from edgewise.errors import EdgewiseError, UsageError


class Spectrum(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.fft.fft(x).real


NETWORK = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.ReLU(), Spectrum()))
EXAMPLE = (torch.zeros(1, 4),)


def test_nothing_is_printed_and_afterwards_all_is_again(capfd: pytest.CaptureFixture[str]) -> None:
    with silent():
        print("python")
        print("python", file=sys.stderr)
        os.write(1, b"C++")
        os.write(2, b"C++")
    os.write(1, b"out")
    os.write(2, b"err")
    assert capfd.readouterr() == ("out", "err")


def test_printing_goes_on_after_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="inside"), silent():
        raise ValueError("inside")
    os.write(2, b"err")
    assert capfd.readouterr().err == "err"


def test_the_operator_that_is_named_is_found_in_the_network() -> None:
    reason = lacking("Lowering not found: aten._fft_r2c.default", NETWORK, EXAMPLE)
    assert reason == "it lacks the operator _fft_r2c, which 1.1 needs"


def test_an_operator_that_is_not_in_the_network_is_named_all_the_same() -> None:
    reason = lacking("no aten.made_up.default here", NETWORK, EXAMPLE)
    assert reason == "it lacks the operator made_up"
    assert not lacking("something else", NETWORK, EXAMPLE)


def test_a_converters_error_is_one_of_ours_but_a_full_disk_is_none_of_the_networks() -> None:
    with (
        pytest.raises(EdgewiseError, match="tiny can't express this network: KeyError: 'x'"),
        converting("tiny", NETWORK, EXAMPLE),
    ):
        raise KeyError("x")
    with pytest.raises(OSError, match="full"), converting("tiny", NETWORK, EXAMPLE):
        raise OSError(28, "full")
    with pytest.raises(UsageError, match="ours"), converting("tiny", NETWORK, EXAMPLE):
        raise UsageError("ours")
