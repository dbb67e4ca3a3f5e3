"""Kills training at random moments, resumes it to the end, and compares with a run left alone.

    python benchmarks/kill.py 20             # so many kills
    python benchmarks/kill.py 20 --seed 1    # at other moments

A small network with dropout, mixup and a moving average learns scikit-learn's digits, with 0 and 2
decoding processes in turn. Each run is killed (SIGKILL) up to four times: after a random time, or
then as soon as the temporary file of a checkpoint appears. Exit status 0: each ended with the
weights, the average, the optimiser's state, the kept model and the metrics of the run left alone,
to the bit.

Each run is a fork of this process, which has loaded torch and computes nothing itself.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import tiny

from edgewise.cli import train  # noqa: F401  so that no fork loads it
from edgewise.cli.main import main as edgewise
from edgewise.run_folder import Run
from edgewise.training import loop
from edgewise.training.checkpoint import LAST, PREVIOUS, load_checkpoint
from edgewise.training.history import read_history
from edgewise.weights.folder import load_model

KILLS_OF_A_RUN = 4
MOMENTS = ("at any time", "after a checkpoint", "in a checkpoint")
SETTINGS = [
    *("--model", "tiny", "--no-pretrained", "--imgsz", "32", "--epochs", "3", "--batch", "8"),
    *("--no-flip", "--device", "cpu", "mixup=0.2", "optimizer=rmsprop-tf"),
]


Files = set[tuple[str, int]]  # name, and when it was last written to


def main() -> None:
    """Kills, resumes, compares, and prints the counts."""
    parser = argparse.ArgumentParser(description="Kill training at random moments.")
    parser.add_argument("kills", type=int)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    tiny.register()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        write_digits(Path("digits"))
        sys.exit(0 if kill_many(options.kills, random.Random(options.seed)) else 1)


def kill_many(kills: int, draw: random.Random) -> bool:
    """Whether all runs ended as the one left alone."""
    started = time.monotonic()
    reference = Run(Path("runs/reference"))
    wait(start(reference, 0, 0.2))
    alone = time.monotonic() - started
    where: Counter[str] = Counter()
    runs = equal = 0
    while where.total() < kills:
        run, runs = Run(Path(f"runs/{runs}")), runs + 1
        workers = 2 * (runs % 2)
        for _ in range(min(KILLS_OF_A_RUN, kills - where.total())):
            before = written(run)
            process = start(run, workers, draw.choice((0.0, 0.3)))
            if not kill(process, run, before, draw.choice(MOMENTS), draw.uniform(0, alone / 3)):
                break
            where[moment(run, before)] += 1
        wait(start(run, workers, 0.2))
        same = equals(run, reference)
        equal += same
        print(f"run {runs}, workers {workers}: {'equal' if same else 'NOT EQUAL'}", flush=True)
    print(f"{where.total()} kills in {runs} runs; {equal} of {runs} ended equal to the bit")
    for name, count in where.most_common():
        print(f"  {count:3d} {name}")
    return equal == runs


def start(run: Run, workers: int, between: float) -> int:
    """Begins a run or goes on with it, in a process of its own; its number."""
    process = os.fork()
    if process:
        return process
    os.setsid()
    log = os.open("log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    loop.SECONDS_BETWEEN_CHECKPOINTS = between
    words = ["train", "digits", *SETTINGS, "--name", run.root.name]
    if Run.is_run(run.root):
        words = ["train", "--resume", str(run.root)]
    sys.argv = ["edgewise", *words, "--workers", str(workers)]
    status = 1
    try:
        edgewise()
        status = 0
    except SystemExit as stop:
        status = int(stop.code or 0)
    finally:
        sys.stdout.flush()
        os._exit(status)


def wait(process: int) -> None:
    """Until it has ended by itself, and well."""
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    if status:
        sys.exit(f"training ended with status {status}:\n{Path('log.txt').read_text()[-2000:]}")


def kill(process: int, run: Run, before: Files, when: str, seconds: float) -> bool:
    """Kills it after a time and, if not at any time, an event; False if it had ended by itself."""
    until = time.monotonic() + seconds
    while when != "at any time" and not ended(process):
        new = {name for name, _ in written(run) - before}
        if when == "after a checkpoint" and new & {LAST, PREVIOUS}:
            until = time.monotonic() + seconds
            break
        if when == "in a checkpoint" and time.monotonic() > until and new - {LAST, PREVIOUS}:
            break
        time.sleep(0.0002)
    while time.monotonic() < until and not ended(process):
        time.sleep(0.01)
    if ended(process):
        os.waitpid(process, 0)
        return False
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    with suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)  # its decoding processes, which would end in seconds
    return True


def ended(process: int) -> bool:
    """Whether it has ended; it can still be waited for."""
    return os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def written(run: Run) -> Files:
    """The files of checkpoints, finished or not, and when each was last written to."""
    found = set()
    for path in run.checkpoints.glob("*"):
        with suppress(FileNotFoundError):  # renamed meanwhile
            found.add((path.name, path.stat().st_mtime_ns))
    return found


def moment(run: Run, before: Files) -> str:
    """When a run was killed, by what it left since it was started."""
    if not Run.is_run(run.root):
        return "before the run folder was whole"
    new = {name for name, _ in written(run) - before}
    if new - {LAST, PREVIOUS} or (new and LAST not in new):
        return "while a checkpoint was written"
    if (run.root / ".model.incoming").exists() or any(run.root.glob(".*.tmp")):
        return "while the model or the metrics were written"
    if not new:
        return "before its first checkpoint since it was started"
    state, _ = load_checkpoint(run)
    assert state is not None
    return "in mid-epoch" if state["progress"]["batch"] else "around the end of an epoch"


def equals(run: Run, reference: Run) -> bool:
    """Whether all that counts is the same, to the bit."""
    states = []
    for each in (run, reference):
        state, problem = load_checkpoint(each)
        assert state is not None and not problem
        progress = state.pop("progress")
        assert progress["epoch"] == 3 and progress["batch"] == 0
        history = [replace(e, seconds=0, images_per_second=0) for e in read_history(each)]
        kept = load_model(each.model).network.state_dict()
        states.append({**state, "kept": kept, "metrics": [asdict(epoch) for epoch in history]})
    junk = [*run.root.rglob(".*.tmp"), *run.root.glob(".*.incoming")]
    return same(*states) and not junk


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same down to the types and the bits of their tensors."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        alike = one.dtype == other.dtype and one.stride() == other.stride()
        return alike and torch.equal(one, other)
    if isinstance(one, dict):
        return [*one] == [*other] and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def write_digits(root: Path) -> None:
    """Zeros, ones and fours, 40 of each, as PNG files."""
    images, labels = load_digits(return_X_y=True)
    for label in (0, 1, 4):
        (root / str(label)).mkdir(parents=True)
        for number, image in enumerate(images[labels == label][:40]):
            pixels = (image.reshape(8, 8) * 15.9).astype(np.uint8)
            Image.fromarray(pixels).save(root / str(label) / f"{number}.png")


if __name__ == "__main__":
    main()
