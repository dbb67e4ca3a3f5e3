"""Accuracy after equal time: `edgewise train` as it comes, against timm's usual fine-tuning.

    python benchmarks/train_accuracy.py                # 16 runs of 90 s: half an hour
    python benchmarks/train_accuracy.py --seconds 45   # 16 runs of 45 s
    python benchmarks/train_accuracy.py --seeds 8 --data mnist
    python benchmarks/train_accuracy.py --quick        # to see that it works: a minute or two

Both start from the same pretrained EfficientNet-Lite0, train on the same few pictures for the same
size of input, on all cores, for the same wall time: loading, validation and saving included, the
start of Python not. Four epochs, timed first, tell how many fit. Each keeps an epoch by its own
rule on the validation pictures, and is tested on pictures that neither saw.

Ours has its defaults. timm has those of its training script (AdamW as in its authors' own recipes,
cosine with warm-up, label smoothing, random crops and flips, colour jitter, moving average with
warm-up) and is given more: the memory layout that is the faster one on a CPU, a test on whole
pictures, and a choice of three settings by the validation pictures of the first seed, which is not
counted as its time.

Rows are added to `train_accuracy.csv` run by run. What is in it is not run again. Each run is a
process of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `edgewise train` does; for both

import numpy as np
import torch
from bench import RESULTS, read_csv, write_csv
from pictures import TASKS, Pools, Task, write_task, write_test
from scipy.stats import ttest_rel
from torch import nn

import edgewise
from edgewise.errors import EdgewiseError
from edgewise.measure.store import machine_fingerprint

MODEL = "efficientnet_lite0"
TRIAL = 4  # epochs that are timed; of two, the second was a fifth slower than those of a long run
TIMM_BATCH = 32  # the script's 128 would be three steps an epoch
OURS, TIMM = "edgewise", "timm"
TOGETHER = (("mnist",), ("emoji", "emoji-own"))  # tests of what was learned from the same pictures
# The script's crop with two rates, and a gentler crop for those who know their pictures.
TIMM_SETTINGS = (
    {"lr": 3e-4, "crop_scale": 0.08},
    {"lr": 1e-3, "crop_scale": 0.08},
    {"lr": 1e-3, "crop_scale": 0.5},
)


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        way: ours or timm's.
        data: the folder, with train, val and test in it.
        flip: whether mirrored pictures are of the same class.
        epochs: how many.
        imgsz: height and width of the input.
        seed: of everything random.
        tests: folders of a folder per class, by the name of what they test.
        settings: timm's that are chosen between.
    """

    way: str
    data: str
    flip: bool
    epochs: int
    imgsz: int
    seed: int
    tests: dict[str, str]
    settings: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What a training gave.

    Attributes:
        seconds: of all but the start of Python and the test.
        epoch_seconds: of each epoch with its validation.
        val_loss: of the epoch that was kept.
        val_accuracy: likewise.
        tested: likewise, the accuracy in each test.
    """

    seconds: float
    epoch_seconds: Sequence[float]
    val_loss: float
    val_accuracy: float
    tested: dict[str, float]


def train_ours(job: Job) -> Outcome:
    """As `edgewise train DATA --imgsz .. --epochs .. --seed ..` does."""
    from edgewise.training.history import kept_epoch, read_history

    with TemporaryDirectory() as folder:
        started = time.perf_counter()
        recipe = edgewise.Recipe(
            data=job.data,
            model=MODEL,
            imgsz=job.imgsz,
            epochs=job.epochs,
            flip=job.flip,
            seed=job.seed,
        )
        run = edgewise.train(recipe, Path(folder) / "run")
        seconds = time.perf_counter() - started
        history = read_history(run)
        kept = kept_epoch(history)
        runner = edgewise.load(run.root, "torch")
        tested = {name: _right(runner, Path(folder)) for name, folder in job.tests.items()}
    epochs = [epoch.seconds for epoch in history]
    return Outcome(seconds, epochs, kept.val_loss, kept.val_accuracy, tested)


def _right(runner: Any, folder: Path) -> float:
    """The part of the pictures in `folder/CLASS/` that are told right."""
    paths = sorted(folder.glob("*/*.png"))
    told = [guesses[0].label for guesses in runner.predict(paths)]
    true = [path.parent.name for path in paths]
    return float(np.mean([a == b for a, b in zip(told, true, strict=True)]))


def train_timm(job: Job) -> Outcome:
    """As its script does."""
    return fine_tune(job, timm_network(MODEL))[1]


def fine_tune(job: Job, network: nn.Module) -> tuple[nn.Module, Outcome]:
    """A pretrained network of timm's, trained as its script does; and the epoch that is kept."""
    import timm_train
    from timm.data import resolve_data_config
    from timm.utils import random_seed

    data, device, workers = Path(job.data), torch.device("cpu"), torch.get_num_threads()
    started = time.perf_counter()
    random_seed(job.seed)
    network.reset_classifier(len(list((data / "train").iterdir())))  # type: ignore[operator]
    chosen = resolve_data_config({"img_size": job.imgsz}, model=network)
    options = {name: chosen[name] for name in ("input_size", "mean", "std")}
    train = timm_train.loader(
        data,
        "train",
        TIMM_BATCH,
        workers,
        device,
        scale=(job.settings["crop_scale"], 1.0),
        hflip=0.5 if job.flip else 0.0,
        color_jitter=0.4,
        interpolation="random",
        **options,
    )
    options |= {"interpolation": chosen["interpolation"], "crop_pct": 1.0}
    val = timm_train.loader(data, "val", TIMM_BATCH, workers, device, **options)
    trainer = timm_train.Trainer(network, job.settings["lr"], job.epochs, len(train), True)
    epoch_seconds, best, kept = [], (-1.0, 0.0), trainer.ema.module
    for _ in range(job.epochs):
        began = time.perf_counter()
        network.train()
        for images, labels in train:
            trainer.step(images, labels)
        accuracy, loss = timm_train.validate(trainer.ema.module, val)
        if (accuracy, -loss) > best:
            best, kept = (accuracy, -loss), deepcopy(trainer.ema.module)
        epoch_seconds.append(time.perf_counter() - began)
    seconds = time.perf_counter() - started
    tested = {}
    for name, folder in job.tests.items():
        root, _, split = folder.rpartition("/")
        test = timm_train.loader(Path(root), split, TIMM_BATCH, workers, device, **options)
        tested[name] = timm_train.validate(kept, test)[0]
    return kept, Outcome(seconds, epoch_seconds, -best[1], best[0], tested)


def timm_network(model: str) -> nn.Module:
    """timm's network with our pretrained weights; it gives the same logits."""
    from edgewise.timing.peers import twin

    ours = edgewise.create_model(model, pretrained=True).eval()
    theirs = twin("timm", model, ours)
    images = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(theirs(images), ours(images), rtol=0, atol=1e-3)
    return theirs


def run(job: Job) -> Outcome:
    """`job` in a new process.

    Raises:
        EdgewiseError: it failed; the message has its last lines.
    """
    command = [sys.executable, __file__, "--one", json.dumps(asdict(job))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EdgewiseError(f"the run of {job.way} failed: {done.stderr[-2000:]}")
    return Outcome(**json.loads(done.stdout.splitlines()[-1]))


def epochs_within(seconds: float, job: Job) -> int:
    """How many epochs like those of `job` take so long: the first, and others like its fastest."""
    trial = run(job)
    first, *others = trial.epoch_seconds
    around = trial.seconds - sum(trial.epoch_seconds)
    return 1 + max(1, int((seconds - around - first) / min(others)))


@dataclass
class Session:
    """The runs of one task, those that were done before and those that are missing.

    Attributes:
        path: the CSV file.
        here: what the runs depend on, as columns.
        seconds: wall time of each run.
        imgsz: height and width of the input.
        task: what is learned.
        pools: its pictures, for each test: all are learned from the same.
        epochs: how many fit, of each way; timed when first asked for.
    """

    path: Path
    here: dict[str, Any]
    seconds: float
    imgsz: int
    task: Task
    pools: Mapping[str, Pools]
    epochs: dict[str, int] = field(default_factory=dict)

    def row(self, test: str, way: str, seed: int, settings: dict[str, float]) -> dict[str, Any]:
        """A test's row of a run; if it isn't in the file, those of all its tests are added."""
        given = {"lr": "", "crop_scale": ""} | settings
        key = {**self.here, "data": test, "way": way, "seed": seed, **given}
        wanted = {name: str(value) for name, value in key.items()}
        rows: list[dict[str, Any]] = [*read_csv(self.path)]
        for row in rows:
            if wanted.items() <= row.items():
                return row
        with TemporaryDirectory() as folder:
            root = Path(folder)
            data = write_task(self.task, next(iter(self.pools.values())), root / "data", seed)
            tests = {
                name: str(write_test(pools, root / name)) for name, pools in self.pools.items()
            }
            job = Job(way, str(data), self.task.flip, TRIAL, self.imgsz, seed, {}, settings)
            if way not in self.epochs:
                self.epochs[way] = epochs_within(self.seconds, job)
            epochs = self.epochs[way]
            outcome = run(replace(job, epochs=epochs, tests=tests))
        made = {
            name: {
                **key,
                "data": name,
                "epochs": epochs,
                "seconds": round(outcome.seconds, 1),
                "val_loss": round(outcome.val_loss, 4),
                "val_accuracy": round(outcome.val_accuracy, 4),
                "test_accuracy": round(accuracy, 4),
            }
            for name, accuracy in outcome.tested.items()
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_csv(self.path, [*rows, *made.values()], list(made[test]))
        return made[test]

    def compare(self, test: str, seeds: Sequence[int], choices: Sequence[dict[str, float]]) -> None:
        """Runs what is missing and prints the table of a test."""
        tried = [self.say(test, TIMM, seeds[0], settings) for settings in choices]
        best = max(
            range(len(tried)),
            key=lambda i: (float(tried[i]["val_accuracy"]), -float(tried[i]["val_loss"])),
        )
        ours, theirs = [self.say(test, OURS, seeds[0], {})], [tried[best]]
        for seed in seeds[1:]:
            ours.append(self.say(test, OURS, seed, {}))
            theirs.append(self.say(test, TIMM, seed, choices[best]))
        tests = {
            way: np.array([100 * float(row["test_accuracy"]) for row in rows])
            for way, rows in ((OURS, ours), (f"{TIMM} {choices[best]}", theirs))
        }
        for way, own in tests.items():
            spread = f" +- {own.std(ddof=1):.1f}" if len(own) > 1 else ""
            print(f"{test}: {way}: test top-1 {own.mean():.1f}{spread}")
        one, other = tests.values()
        interval = ""
        if len(seeds) > 1:  # Student's, over the seeds: each trains both on the same pictures
            low, high = ttest_rel(one, other).confidence_interval(0.95)
            interval = f" [{low:.1f}, {high:.1f}]"
        print(f"{test}: difference {(one - other).mean():+.1f}{interval}", flush=True)

    def say(self, test: str, way: str, seed: int, settings: dict[str, float]) -> dict[str, Any]:
        """`row`, printed."""
        row = self.row(test, way, seed, settings)
        print(
            f"{test} seed {seed} {way} {settings or ''}: {row['epochs']} epochs in "
            f"{row['seconds']} s, val {row['val_accuracy']}, test {row['test_accuracy']}",
            flush=True,
        )
        return row


def main() -> None:
    """All tasks, one after the other."""
    parser = ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one seed, a few digits, 32 px")
    parser.add_argument("--seconds", type=float, default=90.0, help="wall time of each training")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each way")
    parser.add_argument("--data", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    quick: bool = arguments.quick
    folder: Path = arguments.results / "quick" if quick else arguments.results
    for names in [("mnist",)] if quick else TOGETHER:
        tests = [name for name in names if quick or name in arguments.data]
        if not tests:
            continue
        task, pools = TASKS[names[0]], {name: TASKS[name].pools() for name in names}
        if quick:
            digits = {
                label: (learned, tested[:3]) for label, (learned, tested) in pools["mnist"].items()
            }
            task, pools = Task(task.pools, task.flip, train=4, val=1), {"mnist": digits}
        seconds, imgsz = (1.0, 32) if quick else (arguments.seconds, 128)
        here = {
            "machine": machine_fingerprint(),
            "torch": torch.__version__,
            "timm": metadata.version("timm"),
            "data": "",
            "model": MODEL,
            "imgsz": imgsz,
            "budget": seconds,
        }
        session = Session(folder / "train_accuracy.csv", here, seconds, imgsz, task, pools)
        seeds = range(1 if quick else arguments.seeds)
        for test in tests:
            session.compare(test, seeds, TIMM_SETTINGS[:1] if quick else TIMM_SETTINGS)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        asked = Job(**json.loads(sys.argv[2]))
        result = train_ours(asked) if asked.way == OURS else train_timm(asked)
        print(json.dumps(asdict(result)))
    else:
        try:
            main()
        except EdgewiseError as error:
            sys.exit(f"error: {error}")
