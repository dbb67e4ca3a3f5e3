"""The lesson about 8-bit integers in the place of floats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edgewise import reference
from edgewise.errors import missing_package
from edgewise.layers import Conv2d
from edgewise.lessons.clock import Clock
from edgewise.lessons.lesson import Lesson, Part, Step, Table
from edgewise.lessons.parts import FLOAT, check_cost, costs, part
from edgewise.lessons.words import compare, ratio
from edgewise.reporting.numbers import filesize

Array = NDArray[np.float64]

MOST = 127  # of a signed weight; -128 is left out, so that zero is in the middle
LEVELS = 255  # of an unsigned activation
SPREAD = 1.0  # standard deviation of the logarithm of the channels' factors


def int8(
    clock: Clock, in_chans: int = 64, out: int = 64, kernel: int = 3, size: int = 28
) -> Lesson:
    """A quarter of the bytes, integer sums."""
    weights, terms = kernel**2 * in_chans * out, kernel**2 * in_chans
    check_cost("float32", weights * size**2, FLOAT * (weights + (in_chans + out) * size**2))
    x, kernels = _example(in_chans, out, kernel, size)
    exact = reference.conv(x, kernels, padding=kernel // 2)
    low, high = float(x.min()), float(x.max())
    step = (high - low) / LEVELS
    rounded = np.round(x / step) * step  # x is not negative, so its zero point is 0
    sizes = np.abs(kernels).max((1, 2, 3))
    scales = {"one for all": np.full_like(sizes, sizes.max()), "one a channel": sizes}
    rows = []
    for name, largest in scales.items():
        scale = (largest / MOST)[:, None, None, None]
        answer = reference.conv(rounded, np.round(kernels / scale) * scale, padding=kernel // 2)
        each = [_decibels(exact[:, c], answer[:, c]) for c in range(out)]
        rows.append((name, _decibels(exact, answer), min(each), max(each)))
    (_, whole_all, worst_all, _), (_, whole_each, worst_each, _) = rows
    largest_sum = terms * LEVELS * MOST
    parts = (
        _timed(clock, "float32", x, kernels, quantized=False),
        _timed(clock, "int8", x, kernels, quantized=True),
    )
    floats, integers = parts
    return Lesson(
        name="int8",
        title="Eight-bit integers",
        settings={},
        idea=(
            "A float is replaced by an integer of 8 bits and a scale that many share: r = s · (q - "
            "z). The sums are then integer sums, and only their end is scaled. Weights lie around "
            "zero, so z is 0 for them. What a scale costs in accuracy is rounding: half a step, "
            "for the smallest number as for the largest. So channels of very different size, which "
            "batch norm makes when it is folded in, must not share one."
        ),
        paper="Integer-arithmetic-only inference, arXiv 1712.05877, section 2",
        mistake="15-dynamic-quantization-of-conv2d",
        code=("conv_loops",),
        runtime="ONNX Runtime",
        steps=(
            Step("scale of the input", "(max - min) / 255", f"{high - low:.3f} / 255", step),
            Step(
                "scale, largest channel",
                "max |w| / 127",
                f"{sizes.max():.3f} / 127",
                float(sizes.max()) / MOST,
            ),
            Step("weights, float32", "4 · k² · in · out", f"4 · {weights:,}", 4 * weights),
            Step(
                "weights, int8",
                "k² · in · out + 4 · out",
                f"{weights:,} + {4 * out}",
                weights + 4 * out,
            ),
            Step("terms of a sum", "k² · in", f"{kernel**2} · {in_chans}", terms),
            Step("largest sum", "terms · 255 · 127", f"{terms:,} · 255 · 127", largest_sum),
            Step(
                "that in bits",
                "log2, and a sign",
                "32 are there",
                int(largest_sum).bit_length() + 1,
            ),
        ),
        parts=parts,
        bars=costs("MACs and time", parts),
        tables=(
            Table(
                "Signal over rounding error of the answer, in dB (6 dB are one bit)",
                ("scale of the weights", "all channels", "worst channel", "best channel"),
                tuple(rows),
            ),
        ),
        findings=(
            f"The weights take {filesize(weights + 4 * out)} and not {filesize(4 * weights)}. The "
            "MACs are the same; int8 took "
            f"{compare(integers.time.median_ms, floats.time.median_ms, 'time')} float32 in ONNX "
            "Runtime on this processor.",
            f"The channels' largest weights differ by {ratio(float(sizes.max() / sizes.min()))} "
            f"times here. With one scale for all, the worst channel has {worst_all:.1f} dB of "
            f"signal over error; with one a channel {worst_each:.1f}. Over all channels it is "
            f"{whole_all:.1f} and {whole_each:.1f} dB: the loud channels hide the lost ones.",
            f"A sum of {terms:,} products needs at most {int(largest_sum).bit_length() + 1} bits, "
            "so 32-bit integers "
            + ("can't overflow." if largest_sum < 2**31 else "could overflow here."),
            "Weights and maps here are random, their sizes drawn as a folded batch norm spreads "
            "them: the dB show the effect and are no forecast for a trained network. edgewise "
            "verify measures a real one.",
        ),
    )


def _example(in_chans: int, out: int, kernel: int, size: int) -> tuple[Array, Array]:
    """A map after ReLU, and kernels whose channels differ in size."""
    random = np.random.default_rng(0)
    x = np.maximum(random.standard_normal((1, in_chans, size, size)), 0)
    factors = np.exp(SPREAD * random.standard_normal((out, 1, 1, 1)))
    return x, factors * random.standard_normal((out, in_chans, kernel, kernel))


def _decibels(exact: Array, answer: Array) -> float:
    return float(10 * np.log10((exact**2).sum() / ((exact - answer) ** 2).sum()))


def _timed(clock: Clock, name: str, x: Array, kernels: Array, quantized: bool) -> Part:
    out, in_chans, kernel, _ = kernels.shape
    counted = part(
        clock,
        name,
        lambda: Conv2d(in_chans, out, kernel),
        x.shape,
        copied=False,
        prepare=lambda: _session(x, kernels, quantized),
    )
    return replace(counted, bytes=counted.bytes // 4) if quantized else counted


def _session(x: Array, kernels: Array, quantized: bool) -> Callable[[], object]:
    """One convolution in ONNX Runtime on one thread: of floats, or of bytes to bytes."""
    try:
        import onnxruntime
        from onnx import TensorProto, helper, numpy_helper
    except ImportError as error:
        raise missing_package(error.name or "onnxruntime", "onnx") from error

    sizes = np.abs(kernels).max((1, 2, 3))
    if quantized:
        scale = sizes / MOST
        values = {
            "x_scale": np.float32(x.max() / LEVELS),
            "x_zero": np.uint8(0),
            "w": np.round(kernels / scale[:, None, None, None]).astype(np.int8),
            "w_scale": scale.astype(np.float32),
            "w_zero": np.zeros(len(kernels), np.int8),
            "y_scale": np.float32(1.0),
            "y_zero": np.uint8(128),
        }
        operator, kind = "QLinearConv", TensorProto.UINT8
        data = np.round(x / x.max() * LEVELS).astype(np.uint8)
    else:
        values, operator, kind = {"w": kernels.astype(np.float32)}, "Conv", TensorProto.FLOAT
        data = x.astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node(operator, ["x", *values], ["y"], pads=[kernels.shape[2] // 2] * 4)],
        "one",
        [helper.make_tensor_value_info("x", kind, x.shape)],
        [helper.make_tensor_value_info("y", kind, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda: session.run(None, {"x": data})
