"""The roofline's arithmetic, worked by hand on ceilings that are given; no speed is asserted."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from edgewise.errors import UsageError
from edgewise.families import variant
from edgewise.measure.profile import profile
from edgewise.network import build
from edgewise.timing import roofline
from edgewise.timing.roofline import Ceiling, bounds, ideal_ms, measure_ceilings

KB = 1024
# 2 GMAC/s; 8 GB/s up to 100 KB, then 4 GB/s.
SLOW_MEMORY = Ceiling("fp32", 1, 2.0, ((100 * KB, 8.0), (1000 * KB, 4.0)))


def two_convolutions() -> torch.nn.Module:
    """3x3 from 3 to 16 channels, then a 3x3 depthwise one, both on 32 x 32 maps."""
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3, padding=1, bias=False),
        torch.nn.ReLU(),
        torch.nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False),
    )


def test_bounds_of_two_convolutions_are_those_worked_by_hand() -> None:
    standard, depthwise = bounds(profile(two_convolutions(), 32), SLOW_MEMORY)
    # 16 * 3 * 9 * 1024 MACs at 2 GMAC/s, and 4 bytes of 3 * 1024 + 432 + 16 * 1024 at 8 GB/s.
    assert (standard.macs, standard.bytes) == (442_368, 4 * (3_072 + 432 + 16_384))
    assert standard.arithmetic_ms == pytest.approx(0.221_184)
    assert standard.memory_ms == pytest.approx(79_552 / 8e6)
    assert (standard.by, standard.ideal_ms) == ("arithmetic", standard.arithmetic_ms)
    # 16 * 9 * 1024 MACs; two maps of 64 KB, which no longer fit into what moves 8 GB/s.
    assert (depthwise.macs, depthwise.bytes) == (147_456, 4 * (2 * 16_384 + 144))
    assert depthwise.memory_ms == pytest.approx(131_648 / 4e6)
    assert depthwise.arithmetic_ms == pytest.approx(0.073_728)
    assert ideal_ms(profile(two_convolutions(), 32), SLOW_MEMORY) == pytest.approx(
        standard.ideal_ms + depthwise.ideal_ms
    )


def test_fast_sums_leave_the_memory_as_the_limit() -> None:
    fast = Ceiling("fp32", 1, 2000.0, SLOW_MEMORY.bandwidth)
    both = bounds(profile(two_convolutions(), 32), fast)
    assert [bound.by for bound in both] == ["memory", "memory"]
    assert [bound.ideal_ms for bound in both] == [bound.memory_ms for bound in both]


def test_a_number_takes_two_bytes_in_bf16_and_one_in_int8() -> None:
    counted = profile(two_convolutions(), 32)
    full, half, quarter = (
        [bound.bytes for bound in bounds(counted, Ceiling(precision, 1, 1.0, ((1, 1.0),)))]
        for precision in ("fp32", "bf16", "int8")
    )
    assert full == [2 * size for size in half] == [4 * size for size in quarter]


def test_bandwidth_is_that_of_the_next_larger_working_set() -> None:
    sizes = (1, 100 * KB, 100 * KB + 1, 1000 * KB, 9000 * KB)
    assert [SLOW_MEMORY.gbytes(size) for size in sizes] == [8.0, 8.0, 4.0, 4.0, 4.0]


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v4_hybrid_medium", "convnext_atto"])
def test_all_macs_of_a_network_are_under_the_roof(name: str) -> None:
    """At 1 GMAC/s and endless bandwidth the ideal time is the MACs, as PyTorch counts them."""
    network = build(variant(name).spec())
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(torch.zeros(1, 3, 64, 64))
    endless = Ceiling("fp32", 1, 1.0, ((1, 1e12),))
    milliseconds = ideal_ms(profile(network, 64), endless)
    assert milliseconds == pytest.approx(counter.get_total_flops() / 2 / 1e6)


def test_twice_the_batch_takes_twice_the_sums() -> None:
    endless = Ceiling("fp32", 1, 1.0, ((1, 1e12),))
    one, two = (ideal_ms(profile(two_convolutions(), 32, batch=n), endless) for n in (1, 2))
    assert two == pytest.approx(2 * one)


def test_ceilings_are_measured_and_the_number_of_threads_put_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(roofline, "SIDES", (64,))
    monkeypatch.setattr(roofline, "WORKING_SETS", (2**16, 2**18))
    monkeypatch.setattr(roofline, "SECONDS", 0.001)
    before = torch.get_num_threads()
    ceilings = measure_ceilings(threads=before + 1)
    assert torch.get_num_threads() == before
    assert list(ceilings) == ["fp32", "bf16", "int8"]
    for name, ceiling in ceilings.items():
        assert (ceiling.precision, ceiling.threads) == (name, before + 1)
        assert ceiling.gmacs >= ceilings["fp32"].gmacs > 0
        assert [size for size, _ in ceiling.bandwidth] == [2**16, 2**18]
        assert all(speed > 0 for _, speed in ceiling.bandwidth)


def test_int8_product_multiplies() -> None:
    """What is timed as int8 is a product of the matrices, and not something cheaper."""
    torch.manual_seed(0)
    product = roofline._int8_product(64)()
    torch.manual_seed(0)
    left = torch.randint(0, 127, (64, 64), dtype=torch.uint8)
    right = torch.randint(-127, 127, (64, 64), dtype=torch.int8)
    assert torch.equal(product, left.float() @ right.float().t())  # (out, in), as in a layer


def test_int8_reaches_what_float32_does_where_pytorch_has_no_onednn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(*arguments: object) -> None:
        raise RuntimeError("Unimplemented as onednn is not available.")

    monkeypatch.setattr(torch.ops.onednn, "qlinear_prepack", missing)
    monkeypatch.setattr(roofline, "SIDES", (64,))
    monkeypatch.setattr(roofline, "WORKING_SETS", (2**16,))
    monkeypatch.setattr(roofline, "SECONDS", 0.001)
    ceilings = measure_ceilings(("fp32", "int8"))
    assert ceilings["int8"].gmacs == ceilings["fp32"].gmacs > 0


def test_unknown_precision_and_no_thread_are_refused() -> None:
    with pytest.raises(UsageError, match="unknown precision 'fp8'"):
        measure_ceilings(("fp8",))
    with pytest.raises(UsageError, match="at least 1, not 0"):
        measure_ceilings(threads=0)
