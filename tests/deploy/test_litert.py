"""A `.tflite` file is the model, in LiteRT's own interpreter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from in_format import opened, pictures, right_answer, written

from edgewise.deploy.formats import FORMATS

pytest.importorskip("ai_edge_litert")
pytest.importorskip("ai_edge_quantizer")
pytest.importorskip("litert_torch")
pytestmark = pytest.mark.slow  # half a minute for each network
FORMAT = "litert"
IN_INT8 = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}


def results(path: Path) -> list[tuple[str, type]]:
    """The operators of a file with the type of what each gives, before any delegate takes them."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(str(path), experimental_op_resolver_type=plain)
    interpreter.allocate_tensors()
    return [
        (item["op_name"], interpreter._get_tensor_details(item["outputs"][0], 0)["dtype"])
        for item in interpreter._get_ops_details()
    ]


@pytest.mark.parametrize("name", ["mobilenet_v4_hybrid_medium", "convnext_v2_atto"])
def test_answers_are_those_of_pytorch(name: str, tmp_path: Path) -> None:
    job, exported = written(name, FORMAT, "fp32", tmp_path)
    pixels = pictures(job.model, 0, 3)
    answers = exported.probabilities(pixels)
    assert np.abs(answers - right_answer(job.model, pixels)).max() < 1e-4
    data = job.path.read_bytes()
    assert str(Path(__file__).parents[2]).encode() not in data
    assert b".py" not in data


def test_fp16_stores_half_the_bytes_and_computes_in_float32(tmp_path: Path) -> None:
    """PyTorch with its weights rounded to half precision is the very same function."""
    job, exported = written("efficientnet_lite0", FORMAT, "fp16", tmp_path)
    pixels = pictures(job.model, 0, 4)
    answers, right = exported.probabilities(pixels), right_answer(job.model, pixels)
    assert 1e-6 < np.abs(answers - right).max() < 0.02
    assert all(kind is np.float32 for name, kind in results(job.path) if name in IN_INT8)
    weights = sum(item.numel() for item in job.model.network.parameters())
    assert job.path.stat().st_size < 3 * weights


def test_int8_is_calibrated_on_the_pictures_it_is_given(tmp_path: Path) -> None:
    job, exported = written("mobilenet_v3_small", FORMAT, "int8", tmp_path)
    made = results(job.path)
    assert {name for name, _ in made} >= IN_INT8
    assert all(kind is np.int8 for name, kind in made if name in IN_INT8)
    assert all(kind is np.float32 for name, kind in made if name in ("HARD_SWISH", "SOFTMAX"))
    pixels = pictures(job.model, 0, 16)
    right = right_answer(job.model, pixels)
    distance = np.abs(exported.probabilities(pixels) - right).mean()
    assert job.calibration is not None
    job.calibration[:] = 127  # the mean: a map of zeros
    FORMATS[FORMAT].write(job)
    blind = np.abs(opened(job, FORMAT).probabilities(pixels) - right).mean()
    assert distance < 0.8 * blind  # V3 of random weights loses much in int8: 0.13 against 0.18
