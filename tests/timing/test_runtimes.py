"""Every runtime gives PyTorch's logits for a small network of each family."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from small import small_model

from edgewise.errors import EdgewiseError, UsageError
from edgewise.network import Network
from edgewise.timing.runtimes import RUNTIMES, Prepared, Runtime, random_images
from edgewise.timing.runtimes.graph import fingerprint

# Padding as TensorFlow's (Lite), attention (hybrid), squeeze-excite (V3), layer norm (ConvNeXt).
NETWORKS = (
    "mobilenet_v2",
    "mobilenet_v3_small",
    "mobilenet_v4_hybrid_medium",
    "efficientnet_lite0",
    "convnext_atto",
)
SHAPE = (2, 3, 64, 64)
SLOW = {"torch-compile", "executorch", "litert"}  # tens of seconds to prepare one network
# Largest difference of a logit, in standard deviations of all logits.
FP32 = 1e-3
# The least correlation of the logits. Small networks of random weights lose more than trained ones.
SHORT = {"bf16": 0.98, "int8": 0.8}


def cases(*precisions: str) -> list[object]:
    return [
        pytest.param(
            runtime,
            precision,
            marks=[pytest.mark.slow] if runtime.name in SLOW else [],
            id=f"{runtime.name}-{precision}",
        )
        for runtime in RUNTIMES.values()
        for precision in precisions
        if precision in runtime.precisions
    ]


def installed(runtime: Runtime) -> None:
    if runtime.version() is None:
        pytest.skip(f"edgewise[{runtime.extra}] is not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all: a graph that several runtimes read is exported once."""
    return tmp_path_factory.mktemp("prepared")


def network_of(name: str) -> Network:
    return small_model(name, tuple("abcdefghij"), SHAPE[2], width=0.5).network


def right_answer(network: Network, images: NDArray[np.float32]) -> NDArray[np.float32]:
    with torch.no_grad():
        logits: NDArray[np.float32] = network.eval()(torch.from_numpy(images)).numpy()
    return logits


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("runtime", "precision"), cases("fp32"))
def test_logits_are_those_of_pytorch(
    runtime: Runtime, precision: str, name: str, folder: Path
) -> None:
    installed(runtime)
    network, images = network_of(name), random_images(SHAPE, seed=5)[0]
    right = right_answer(network, images)
    prepared = runtime.prepare(network, SHAPE, precision, 1, folder)
    answer = prepared.run(images)
    assert answer.shape == right.shape
    assert answer.dtype == np.float32
    assert np.abs(answer - right).max() < FP32 * right.std()
    assert prepared.weight_bytes > 3 * sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "efficientnet_lite0"])
@pytest.mark.parametrize(("runtime", "precision"), cases("bf16", "int8"))
def test_short_numbers_give_nearly_the_same_logits(
    runtime: Runtime, precision: str, name: str, folder: Path
) -> None:
    installed(runtime)
    network, images = network_of(name), random_images(SHAPE, seed=5)[0]
    right = right_answer(network, images)
    try:
        answer = runtime.prepare(network, SHAPE, precision, 1, folder).run(images)
    except EdgewiseError as error:
        if "has no bfloat16" in str(error):
            pytest.skip(str(error))
        raise
    assert np.corrcoef(answer.ravel(), right.ravel())[0, 1] > SHORT[precision]
    # Else it would be float32 under another name.
    assert np.abs(answer - right).max() > FP32 * right.std()


@pytest.mark.parametrize(("runtime", "precision"), cases("fp32"))
def test_calls_follow_the_input_and_leave_the_network_alone(
    runtime: Runtime, precision: str, folder: Path
) -> None:
    installed(runtime)
    network = network_of("efficientnet_lite0").train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    first, second = random_images(SHAPE, count=2, seed=5)
    prepared = runtime.prepare(network, SHAPE, precision, 1, folder)
    answers = [prepared.run(images) for images in (first, second, first)]
    assert not np.allclose(answers[0], answers[1])
    assert np.array_equal(answers[0], answers[2])
    prepared.call()
    assert np.array_equal(prepared.logits(), answers[2])
    assert network.training
    assert all(torch.equal(before[name], now) for name, now in network.state_dict().items())


def threads_of_this_process() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads as Linux does")
@pytest.mark.parametrize("threads", [1, 3])
def test_onnxruntime_starts_as_many_threads_as_it_was_told(threads: int, folder: Path) -> None:
    installed(RUNTIMES["onnxruntime"])
    network, images = network_of("efficientnet_lite0"), random_images(SHAPE)[0]
    RUNTIMES["onnxruntime"].prepare(network, SHAPE, "fp32", 1, folder)  # exports: threads of torch
    before = threads_of_this_process()
    prepared = RUNTIMES["onnxruntime"].prepare(network, SHAPE, "fp32", threads, folder)
    prepared.run(images)
    assert threads_of_this_process() - before == threads - 1  # the caller is one of them


def test_pytorch_networks_of_other_thread_numbers_live_side_by_side(folder: Path) -> None:
    """PyTorch has one number for the process: each call must set its own."""
    network, images = network_of("efficientnet_lite0"), random_images(SHAPE)[0]
    before = torch.get_num_threads()
    seen = []
    network.head.register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))
    try:
        one, two = (RUNTIMES["torch"].prepare(network, SHAPE, "fp32", n, folder) for n in (1, 2))
        for prepared in (one, two, one):
            prepared.run(images)
    finally:
        torch.set_num_threads(before)
    assert seen == [1, 2, 1]


def test_openvino_has_the_threads_and_the_precision_it_was_told(folder: Path) -> None:
    installed(RUNTIMES["openvino"])
    network = network_of("efficientnet_lite0")
    prepared = RUNTIMES["openvino"].prepare(network, SHAPE, "fp32", 2, folder)
    compiled = prepared.request.get_compiled_model()  # type: ignore[attr-defined]
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 2
    assert compiled.get_property("NUM_STREAMS") == 1
    assert compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"


def test_ncnn_has_the_threads_it_was_told(folder: Path) -> None:
    installed(RUNTIMES["ncnn"])
    prepared = RUNTIMES["ncnn"].prepare(network_of("mobilenet_v2"), SHAPE, "fp32", 2, folder)
    assert prepared.net.opt.num_threads == 2  # type: ignore[attr-defined]


@pytest.mark.slow
def test_executorch_has_the_threads_it_was_told(folder: Path) -> None:
    installed(RUNTIMES["executorch"])
    from executorch.extension.pybindings import portable_lib

    for threads in (2, 1):
        RUNTIMES["executorch"].prepare(network_of("mobilenet_v2"), SHAPE, "fp32", threads, folder)
        assert portable_lib._threadpool_get_thread_count() == threads


def test_networks_share_a_folder_without_mixing_their_files(folder: Path) -> None:
    """The same architecture with other weights, padding or shape is another graph."""
    one, other = network_of("mobilenet_v2"), network_of("mobilenet_v2")
    assert fingerprint(one, SHAPE) == fingerprint(other, SHAPE)
    assert fingerprint(one, SHAPE) != fingerprint(one, (1, *SHAPE[1:]))
    with torch.no_grad():
        other.head.classifier.bias.add_(1.0)  # type: ignore[operator, union-attr]
    assert fingerprint(one, SHAPE) != fingerprint(other, SHAPE)
    images = random_images(SHAPE)[0]
    answers = [
        RUNTIMES["onnxruntime"].prepare(network, SHAPE, "fp32", 1, folder).run(images)
        for network in (one, other)
    ]
    assert np.abs(answers[1] - answers[0] - 1).max() < 1e-3


def test_a_runtime_that_is_not_installed_names_its_extra(tmp_path: Path) -> None:
    absent = Runtime("absent", "ncnn", ("torch", "no-such-package"), ("fp32",), _never)
    assert absent.version() is None
    with pytest.raises(UsageError, match=r"'no-such-package'.*'edgewise\[ncnn\]'"):
        absent.prepare(torch.nn.Identity(), SHAPE, "fp32", 1, tmp_path)


def test_a_precision_that_a_runtime_lacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="onnxruntime has no bf16 on a CPU"):
        RUNTIMES["onnxruntime"].prepare(torch.nn.Identity(), SHAPE, "bf16", 1, tmp_path)
    with pytest.raises(UsageError, match="unknown precision 'fp8'"):
        RUNTIMES["torch"].prepare(torch.nn.Identity(), SHAPE, "fp8", 1, tmp_path)


def _never(*_: object) -> Prepared:
    raise AssertionError("the checks come first")


def test_an_operator_that_the_runtime_lacks_is_named(tmp_path: Path) -> None:
    class Eigenvalues(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.linalg.eigvals(images).real.mean((1, 2))

    with pytest.raises(EdgewiseError, match=r"onnxruntime can't take it: .*eig"):
        RUNTIMES["onnxruntime"].prepare(Eigenvalues(), SHAPE, "fp32", 1, tmp_path)
    assert not logging.root.manager.disable  # the exporter's silence ended with it


def test_a_failure_of_a_run_is_an_error_of_ours(tmp_path: Path) -> None:
    prepared = RUNTIMES["torch"].prepare(network_of("mobilenet_v2"), SHAPE, "fp32", 1, tmp_path)
    with pytest.raises(EdgewiseError, match=r"it does not run: RuntimeError: .*channels"):
        prepared.run(np.zeros((1, 5, 64, 64), np.float32))
