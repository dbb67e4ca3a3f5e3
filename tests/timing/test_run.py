"""The whole loop on a tiny network, with runtimes that are right, wrong, refuse and crash."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_runtime import RUNTIMES
from small import small_model
from torch import nn

from edgewise.errors import EdgewiseError
from edgewise.measure.store import Row, new_row
from edgewise.network import build
from edgewise.timing import run
from edgewise.timing.answers import fault, liken
from edgewise.timing.peers import twin
from edgewise.timing.plan import make_plan
from edgewise.timing.run import Watch, bench, steps
from edgewise.timing.subject import make_subject, open_subject, unchanged
from edgewise.timing.worker import Job, Worker
from edgewise.weights.folder import save_model


@pytest.fixture(scope="module")
def rows() -> dict[str, Row]:
    (found,) = bench(make_plan(["tiny"], RUNTIMES, imgsz=48), RUNTIMES, seconds=0.1)
    return {row.runtime: row for row in found}


@pytest.mark.slow
def test_a_right_candidate_is_timed(rows: dict[str, Row]) -> None:
    row = rows["right"]
    assert (row.status, row.model, row.imgsz, row.precision) == ("ok", "tiny", 48, "fp32")
    assert row.low_ms and row.median_ms and row.high_ms and row.p90_ms and row.p99_ms
    assert 0 < row.low_ms <= row.median_ms <= row.high_ms
    assert row.median_ms <= row.p90_ms <= row.p99_ms
    assert len(row.rounds_ms) == run.ROUNDS
    assert row.runs and row.runs >= run.ROUNDS
    assert row.first_ms and row.first_ms > 0
    assert row.weight_bytes == 1234
    assert row.largest_error is not None and row.largest_error < 1e-3
    assert row.correlation == pytest.approx(1)
    assert row.agreement == 1
    assert row.peak_bytes is None or row.peak_bytes > 50e6  # Python and PyTorch


@pytest.mark.slow
def test_a_fast_wrong_answer_is_flagged_and_not_timed(rows: dict[str, Row]) -> None:
    """0.1 on one logit of standard deviation 1."""
    row = rows["wrong"]
    assert (row.status, row.median_ms) == ("wrong", None)
    assert row.largest_error == pytest.approx(0.1, rel=0.2)
    assert "standard deviations away from the right ones" in row.reason


@pytest.mark.slow
def test_what_fails_says_why_and_the_others_go_on(rows: dict[str, Row]) -> None:
    assert list(rows) == ["right", "wrong", "refuses", "crashes"]
    assert (rows["refuses"].status, rows["refuses"].reason) == (
        "failed",
        "it has no operator Swish",
    )
    assert (rows["crashes"].status, rows["crashes"].reason) == (
        "failed",
        "crashed (SIGKILL) out of luck",
    )


@pytest.mark.slow
def test_stopping_keeps_what_was_measured() -> None:
    """Stopped at the first turn of the second network: the first one's rows are whole."""
    plan = make_plan(["tiny", "mobilenet_v3_small"], RUNTIMES, ["right"], imgsz=48)
    said: list[str] = []
    done: list[int] = []

    def on_step(what: str, count: int) -> None:
        said.append(what)
        done.append(count)

    watch = Watch(stopped=lambda: said.count("preparing right fp32") == 2, on_step=on_step)
    first, second = bench(plan, RUNTIMES, seconds=0.1, watch=watch)
    assert [(row.model, row.status) for row in first] == [("tiny", "ok")]
    assert second == []
    assert sum(done[: said.index("preparing right fp32", 1)]) == steps(plan[:1])


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="cores are bound on Linux only")
def test_a_process_is_bound_to_its_cores_and_ends(tmp_path: Path) -> None:
    make_subject("tiny", 32, 1).save(tmp_path)
    job = Job("tiny", "edgewise", RUNTIMES["right"], "fp32", 1, tmp_path, tmp_path / "log.txt")
    worker = Worker(job)
    process = worker.process
    assert process.pid and len(os.sched_getaffinity(process.pid)) == 1
    assert len(worker.time(3)) == 3
    worker.close()
    assert not process.is_alive()
    with pytest.raises(EdgewiseError, match="crashed"):
        worker.time(1)


@pytest.mark.skipif(sys.platform != "linux", reason="where it says what a process blocks")
def test_an_interrupt_is_for_the_parent_from_the_very_start(tmp_path: Path) -> None:
    """Blocked since before the process ran any Python; the parent is interrupted as ever."""
    make_subject("tiny", 32, 1).save(tmp_path)
    job = Job("tiny", "edgewise", RUNTIMES["right"], "fp32", 1, tmp_path, tmp_path / "log.txt")
    worker = Worker(job)
    status = Path(f"/proc/{worker.process.pid}/status").read_text()
    worker.close()
    blocked = next(line.split()[1] for line in status.splitlines() if line.startswith("SigBlk"))
    assert int(blocked, 16) >> (signal.SIGINT - 1) & 1
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_a_subject_is_the_same_in_another_process(tmp_path: Path) -> None:
    subject = make_subject("tiny", 40, 3)
    subject.save(tmp_path)
    again = open_subject(tmp_path)
    assert subject.shape == again.shape == (3, 3, 40, 40)
    assert subject.graph == again.graph != make_subject("tiny", 40, 1).graph
    with torch.no_grad():
        logits = np.concatenate([again.network(x).numpy() for x in torch.from_numpy(again.inputs)])
    np.testing.assert_array_equal(logits, subject.right)
    assert len(subject.right) == 18  # 16 or more, in whole batches


def test_rows_of_another_network_in_the_same_folder_do_not_count(tmp_path: Path) -> None:
    folder = str(tmp_path)

    def timed(width: float) -> list[Row]:
        save_model(small_model("mobilenet_v1", ("a", "b"), 32, width), tmp_path)
        graphs = [make_subject(folder, imgsz, 2).graph for imgsz in (32, 48)]
        shapes = zip(graphs, (32, 48), strict=True)
        return [new_row("s", 0.1, folder, graph, imgsz, 2, 1) for graph, imgsz in shapes]

    old, new = timed(0.25), timed(0.5)
    assert unchanged([*old, *new], folder) == new
    assert unchanged(old, "mobilenet_v1") == old  # a name stands for one network


@pytest.mark.parametrize("name", ["tiny", "convnext_v2_atto", "mobilenet_v4_hybrid_medium"])
def test_random_weights_hide_nothing(name: str) -> None:
    """Each class has logits of mean 0 and standard deviation 1, and no block is the identity."""
    subject = make_subject(name, 64, 1)
    logits = subject.right[:16]
    np.testing.assert_allclose(logits.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(logits.std(0, ddof=1), 1, atol=1e-2)
    for module in subject.network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert float(module.running_var.std()) > 0
    with torch.no_grad():
        x = subject.network.stem(torch.from_numpy(subject.inputs[0]))
        stages = list(subject.network.stages)
        for number, stage in enumerate(stages):
            rest = nn.Sequential(*stages[number:], subject.network.head)  # what a change reaches
            for block in stage.modules():
                if isinstance(block, nn.Conv2d):
                    kept = block.weight.clone()
                    block.weight.zero_()
                    changed = rest(x).numpy()
                    block.weight.copy_(kept)
                    assert np.abs(changed - subject.right[0]).max() > 0.05
            np.testing.assert_allclose(rest(x).numpy(), subject.right[:1], atol=1e-4)
            x = stage(x)


@pytest.mark.parametrize(
    ("library", "model"),
    [
        ("timm", "mobilenet_v2"),
        ("timm", "efficientnet_lite0"),  # with TensorFlow's padding
        ("timm", "tf_efficientnetv2_b0"),
        ("timm", "convnext_v2_atto"),
        ("torchvision", "mobilenet_v3_small"),
    ],
)
def test_a_peer_with_our_weights_gives_our_answers(library: str, model: str) -> None:
    subject = make_subject(model, 64, 4)
    peer = twin(library, model, subject.network)
    assert type(peer).__module__.startswith(library)
    with torch.no_grad():
        theirs = np.concatenate([peer(x).numpy() for x in torch.from_numpy(subject.inputs)])
    assert fault(liken(theirs, subject.right), "fp32") == ""


def test_a_network_that_a_peer_does_not_have_is_said() -> None:
    network = build(make_subject("tiny", 32, 16).network.spec)
    with pytest.raises(EdgewiseError, match="torchvision has no tiny"):
        twin("torchvision", "tiny", network)
    with pytest.raises(EdgewiseError, match="timm has no tiny"):
        twin("timm", "tiny", network)


def test_likeness_is_numpys() -> None:
    random = np.random.default_rng(0)
    right = random.standard_normal((5, 10)).astype(np.float32)
    answer = right + 0.1 * random.standard_normal((5, 10)).astype(np.float32)
    found = liken(answer, right)
    assert found
    assert found.largest_error == pytest.approx(np.abs(answer - right).max() / right.std())
    assert found.correlation == pytest.approx(np.corrcoef(answer.ravel(), right.ravel())[0, 1])
    assert found.agreement == np.mean(answer.argmax(1) == right.argmax(1))
    assert fault(found, "fp32") and not fault(found, "int8")


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_an_answer_that_is_no_answer_is_wrong(precision: str) -> None:
    right = np.random.default_rng(0).standard_normal((5, 10)).astype(np.float32)
    broken = right.copy()
    broken[2, 3] = np.nan
    shuffled = np.roll(right, 1, axis=1)
    for answer in (broken, right[:, :9], np.zeros_like(right), shuffled):
        assert fault(liken(answer, right), precision)
    assert fault(liken(right, right), precision) == ""
