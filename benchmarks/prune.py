"""Accuracy against time: a network pruned, against its untouched smaller sisters.

    python benchmarks/prune.py            # three seeds: an hour on two cores
    python benchmarks/prune.py --quick    # one seed and few epochs: some minutes

EfficientNet-Lite2 with ImageNet's weights learns emoji (8 classes, 32 pictures of each). It is
pruned by each criterion to the latency of Lite1, and to that of Lite0, and learns again. The rivals
are Lite1 and Lite0 with their own weights of ImageNet, which learn for as many epochs as the pruned
ones had in all; and the same again, with Lite2's answers for the last of them. All are tested once,
on emoji that none has seen.

Rows are added to `prune.csv` one by one. A seed that is whole in it is not run again.
"""

from __future__ import annotations

import os
from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import replace
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
from edgewise.families import variant
from edgewise.run_folder import Run
from edgewise.weights.folder import load_model

MODEL, RIVALS = "efficientnet_lite2", ("efficientnet_lite1", "efficientnet_lite0")
TASK, SIZE = "emoji-own", 96
CRITERIA = ("l2", "taylor", "random")
COLUMNS = ["seed", "epochs", "way", "like", "params", "macs", "relative_ms", "test_top1"]


def main() -> None:
    """Runs what is missing, and prints each row."""
    parser = ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one seed and few epochs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    seeds, epochs = ([0], (2, 2)) if args.quick else (args.seeds, (13, 10))
    path = args.output / "prune.csv"
    for seed in seeds:
        key = (str(seed), str(sum(epochs)))
        rows = read_csv(path)
        own = [row for row in rows if (row["seed"], row["epochs"]) == key]
        if len(own) == 1 + len(RIVALS) * (len(CRITERIA) + 2):
            continue
        rows = [row for row in rows if row not in own]
        with TemporaryDirectory() as folder:
            for new in run_seed(Path(folder), seed, epochs):
                rows.append({name: str(new[name]) for name in COLUMNS})
                write_csv(path, rows, COLUMNS)
                print(rows[-1], flush=True)


def run_seed(folder: Path, seed: int, epochs: tuple[int, int]) -> Iterator[dict[str, object]]:
    """The rows of a seed: the whole network, the pruned ones, their rivals.

    Args:
        folder: for the pictures and the runs.
        seed: of the pictures that are learned from, and of training.
        epochs: of the whole network, and of the one that is made of it.
    """
    task = TASKS[TASK]
    data = write_task(task, task.pools(), folder / "pictures", seed)
    recipe = edgewise.Recipe(
        data=str(data),
        model=MODEL,
        pretrained=True,
        imgsz=SIZE,
        epochs=epochs[0],
        flip=task.flip,
        seed=seed,
        workers=0,
    )
    whole = edgewise.train(recipe, folder / "whole")
    network = load_model(whole.model).network
    relative = relative_latency(network, SIZE)

    def row(run: Run, way: str, like: str) -> dict[str, object]:
        spec = load_model(run.model).network.spec
        cost = edgewise.count(spec, SIZE)
        return {
            "seed": seed, "epochs": sum(epochs), "way": way, "like": like, "params": cost.params,
            "macs": cost.macs, "relative_ms": round(relative(spec), 3),
            "test_top1": edgewise.evaluate(run, "test").top1,
        }  # fmt: skip

    yield row(whole, "whole", MODEL)
    for rival in RIVALS:
        spec = variant(rival).spec(classes=network.spec.classes)
        part = 1 - relative(spec)
        for criterion in CRITERIA:
            how = Pruning(part, "latency", criterion, seed=seed)
            pruned = prune_run(whole, folder / f"{rival}-{criterion}", how, epochs[1])
            yield row(pruned, criterion, rival)
        alone = replace(recipe, model=rival, epochs=sum(epochs))
        yield row(edgewise.train(alone, folder / f"{rival}-alone"), "untouched", rival)
        short = edgewise.train(replace(alone, epochs=epochs[0]), folder / f"{rival}-short")
        # `retrain` takes data and settings from the run that it is given, and its teacher too.
        taught = retrain(load_model(short.model), whole, folder / f"{rival}-taught", {}, epochs[1])
        yield row(taught, "untouched, taught", rival)


if __name__ == "__main__":
    main()
