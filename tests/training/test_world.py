"""Two processes are one: the same batches, gradients and metrics; one that dies is replaced."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.distributed as dist

from edgewise.data.augment import Augment
from edgewise.data.dataset import load_dataset
from edgewise.data.loader import View, training_batches
from edgewise.errors import UsageError
from edgewise.preprocess import Preprocess
from edgewise.run_folder import Run
from edgewise.training.device import pick_device
from edgewise.training.history import read_history
from edgewise.training.loop import train
from edgewise.training.recipe import Recipe
from edgewise.training.world import World, joined, resume_command

# ConvNeXt has no batch norm, whose statistics would be of half a batch.
SETTINGS = [
    *("--model", "convnext_atto", "--no-pretrained", "--imgsz", "32", "--epochs", "2"),
    *("--batch", "15", "--workers", "0", "--device", "cpu", "drop_path=0.0", "lr=1e-4"),
    *("--cache", "disk"),  # which the processes share
]


def environment(folder: Path) -> dict[str, str]:
    settings = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return {**os.environ, **settings, "EDGEWISE_CACHE": str(folder / "cache")}


def command(digits: Path, processes: int, *options: str) -> list[str]:
    start = ["-m", "edgewise"]
    if processes > 1:
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
        start = [*torchrun, str(processes), *options, *start]
    return [sys.executable, *start, "train", str(digits), *SETTINGS, "--name", f"of-{processes}"]


def weights(run: Run) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(run.weights)


@pytest.mark.slow
def test_two_processes_equal_one_and_a_killed_one_is_replaced(digits: Path, tmp_path: Path) -> None:
    """Killed after the first epoch: torchrun starts both again, and nothing is lost."""
    runs = {}
    for name, processes in (("one", 1), ("two", 2), ("killed", 2)):
        folder = tmp_path / name
        folder.mkdir()
        run = runs[name] = Run(folder / "runs" / f"of-{processes}")
        process = subprocess.Popen(
            command(digits, processes, "--max-restarts", "2"),
            cwd=folder,
            env=environment(tmp_path),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        if name == "killed":
            until = time.monotonic() + 120
            while not run.metrics.is_file() and time.monotonic() < until:
                time.sleep(0.05)
            workers = subprocess.run(
                ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True
            )
            os.kill(int(workers.stdout.split()[-1]), signal.SIGKILL)
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        if name != "killed":
            assert output.count("\nepoch ") == 2 and output.count("is finished") == 1
    for ours, theirs in zip(read_history(runs["one"]), read_history(runs["two"]), strict=True):
        assert theirs.train_loss == pytest.approx(ours.train_loss, rel=1e-5)
        assert theirs.val_loss == pytest.approx(ours.val_loss, rel=1e-5)
        assert (theirs.train_accuracy, theirs.val_accuracy) == (
            *(ours.train_accuracy, ours.val_accuracy),
        )
    one, two, killed = (weights(run) for run in runs.values())
    for name, tensor in two.items():
        assert torch.allclose(tensor, one[name], rtol=1e-4, atol=1e-6), name
        assert torch.equal(killed[name], tensor), name
    assert (runs["killed"].checkpoints / "last.safetensors").is_file()
    histories = [
        [(e.train_loss, e.val_loss) for e in read_history(runs[name])] for name in ("two", "killed")
    ]
    assert histories[0] == histories[1]


def both(folder: Path, digits: Path, restarts: tuple[int, int]) -> list[str]:
    """The errors of two processes, as of two hosts on which torchrun counts so many restarts."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "LOCAL_RANK": "0"}
    size = {"WORLD_SIZE": "2", "GROUP_WORLD_SIZE": "2"}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "edgewise", "train", str(digits), *SETTINGS, "--name", "hosts"],
            cwd=folder,
            env={
                **environment(folder),
                **place,
                **size,
                "RANK": str(rank),
                "TORCHELASTIC_RESTART_COUNT": str(count),
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, count in enumerate(restarts)
    ]
    try:
        errors = [process.communicate(timeout=120)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    return [said for process, said in zip(started, errors, strict=True) if process.returncode]


@pytest.mark.slow
def test_a_restart_is_told_by_one_host_to_all(digits: Path, tmp_path: Path) -> None:
    """torchrun counts it on the host of the process that was lost."""
    assert both(tmp_path, digits, (0, 0)) == []
    run = Run(tmp_path / "runs" / "hosts")
    expected = weights(run)
    for restarts in ((0, 1), (1, 0)):
        (run.checkpoints / "last.safetensors").unlink()  # the end of the first epoch is left
        assert both(tmp_path, digits, restarts) == []
        assert (run.checkpoints / "last.safetensors").is_file()
        for name, tensor in weights(run).items():
            assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize("name", ["second", "none"])
def test_a_restart_leaves_a_run_that_another_torchrun_began(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """One that died before it could say that its name is taken."""
    recipe, run = replace(recipe, epochs=1), Run(tmp_path / "run")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", name)
    monkeypatch.setattr(os, "getppid", lambda: 2)
    train(recipe, run.root)
    before = weights(run)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    train(recipe, run.root)  # nothing is left to do

    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "third" if name == "second" else "none")
    monkeypatch.setattr(os, "getppid", lambda: 3)
    with pytest.raises(UsageError, match="is a run already"):
        train(recipe, run.root)
    for key, tensor in weights(run).items():
        assert torch.equal(tensor, before[key])


def test_the_others_wait_while_the_first_reads_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which may take hours: as long as their store and their group let them."""
    store, own, waits = dist.HashStore(), dist.init_process_group, []

    def watched(*arguments: Any, **options: Any) -> None:
        waits.append(options.get("timeout"))
        own(*arguments, **options)

    monkeypatch.setattr(dist, "init_process_group", watched)
    monkeypatch.setattr("edgewise.training.world.rendezvous", lambda url: iter([(store, 0, 1)]))
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with joined(torch.device("cpu")):
        pass
    assert [*waits, store.timeout] == [timedelta(days=1)] * 2


def test_every_image_of_a_batch_goes_to_one_process(digits: Path) -> None:
    samples = load_dataset(digits, workers=1).splits["train"]
    rule = Preprocess(16, 1.0, "bilinear", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    arguments = {"batch": 7, "workers": 0, "seed": 3, "epochs": range(1, 2)}
    view = View(rule, Augment(magnitude=5))
    whole = training_batches(samples, lambda epoch: view, **arguments)
    parts = [
        training_batches(samples, lambda epoch: view, share=(rank, 2), **arguments)
        for rank in range(2)
    ]
    assert len(parts[0]) == len(parts[1]) in (len(whole), len(whole) - 1)
    for (pixels, labels), (first, left), (second, right) in zip(whole, *parts, strict=False):
        if len(labels) != len(left) + len(right):
            break  # what is left over joins the last one, and for two that is sooner
        assert torch.equal(first, pixels[0::2]) and torch.equal(second, pixels[1::2])
        assert torch.equal(left, labels[0::2]) and torch.equal(right, labels[1::2])
    assert sum(len(labels) for part in parts for _, labels in part) == len(samples)


def test_alone_there_is_nobody_to_ask() -> None:
    world = World()
    assert world.first and world.any(True, False) == (True, False)
    assert world.sum(2.0, 3.5) == (2.0, 3.5)
    rows = np.eye(3, dtype=np.float32)
    assert world.merge(rows) is rows
    assert world.share([1, 2, 3]) == [1, 2, 3]
    assert World(rank=1, size=2).share([1, 2, 3]) == [2]


@pytest.mark.parametrize("name", ["auto", "cuda", "cuda:0"])
def test_each_process_takes_the_gpu_of_its_number(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also on resume: the recipe names the first one's, cuda:0."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "empty", lambda count, device: None)
    monkeypatch.setenv("WORLD_SIZE", "8")
    for local in range(4):
        monkeypatch.setenv("RANK", str(4 + local))
        monkeypatch.setenv("LOCAL_RANK", str(local))
        assert pick_device(name) == torch.device("cuda", local)
        assert pick_device("cpu") == torch.device("cpu")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert pick_device("cuda:3") == torch.device("cuda:3")


def test_what_torchrun_started_goes_on_with_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path("runs/my first")
    assert resume_command(root) == "edgewise train --resume 'runs/my first'"
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert resume_command(root) == "torchrun ... -m edgewise train --resume 'runs/my first'"


def test_a_run_of_several_needs_a_name(digits: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edgewise", "train", str(digits)],
        cwd=tmp_path,
        env={**environment(tmp_path), "WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "give the run a --name" in done.stderr
    assert list(tmp_path.iterdir()) == []
