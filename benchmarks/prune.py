"""Accuracy against time: a network pruned, against its untouched smaller sisters.

    python benchmarks/prune.py            # three seeds: half an hour on two cores
    python benchmarks/prune.py --quick    # one seed and few epochs: some minutes

EfficientNet-Lite2 with ImageNet's weights learns emoji (9 classes, 32 pictures of each). It is
pruned by each criterion to the MACs of Lite1, and to those of Lite0, and learns again. The rivals
are Lite1 and Lite0 with their own weights of ImageNet, which learn for as many epochs as the pruned
ones had in all. All are tested once, on emoji that none has seen.

Rows are added to `prune.csv` one by one. A seed that is whole in it is not run again. Then all
widths are timed beside the whole network (`prune_times.csv`): they are the same for each criterion.
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
from edgewise.compress.groups import resized
from edgewise.compress.latency import relative_latency
from edgewise.compress.pruned_run import prune_run
from edgewise.compress.pruning import Pruning
from edgewise.compress.widths import sizes_for
from edgewise.families import variant
from edgewise.run_folder import Run
from edgewise.spec import Spec
from edgewise.weights.folder import load_model

MODEL, RIVALS = "efficientnet_lite2", ("efficientnet_lite1", "efficientnet_lite0")
TASK, SIZE, CLASSES = "emoji-own", 96, 9
CRITERIA = ("l2", "taylor")
WHOLE, UNTOUCHED = "whole", "untouched"
SPLITS = ("val", "test")
COLUMNS = ["seed", "epochs", "way", "like", "params", "macs", "val_top1", "test_top1"]
TIMES = ["way", "like", "params", "macs", "relative_ms"]


def main() -> None:
    """Runs what is missing, and prints each row."""
    parser = ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one seed and few epochs")
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    seeds, epochs = ((0,), (2, 2)) if args.quick else ((0, 1, 2), (13, 10))
    path = args.output / "prune.csv"
    for seed in seeds:
        key = (str(seed), str(sum(epochs)))
        rows = read_csv(path)
        own = [row for row in rows if (row["seed"], row["epochs"]) == key]
        if len(own) == 1 + len(RIVALS) * (len(CRITERIA) + 1):
            continue
        rows = [row for row in rows if row not in own]
        with TemporaryDirectory() as folder:
            for new in run_seed(Path(folder), seed, epochs):
                rows.append({name: str(new[name]) for name in COLUMNS})
                write_csv(path, rows, COLUMNS)
                print(rows[-1], flush=True)
    timed = list(times())
    write_csv(args.output / "prune_times.csv", timed, TIMES)
    print(*timed, sep="\n")


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
    whole = edgewise.train(recipe, folder / WHOLE)

    def row(run: Run, way: str, like: str) -> dict[str, object]:
        accuracies = {f"{split}_top1": edgewise.evaluate(run, split).top1 for split in SPLITS}
        spec = load_model(run.model).network.spec
        return {"seed": seed, "epochs": sum(epochs), **described(way, like, spec), **accuracies}

    yield row(whole, WHOLE, MODEL)
    for rival in RIVALS:
        for criterion in CRITERIA:
            pruned = prune_run(
                whole, folder / f"{rival}-{criterion}", pruning_to(rival, criterion), epochs[1]
            )
            yield row(pruned, criterion, rival)
        alone = replace(recipe, model=rival, epochs=sum(epochs))
        yield row(edgewise.train(alone, folder / f"{rival}-alone"), UNTOUCHED, rival)


def times() -> Iterator[dict[str, object]]:
    """Each width beside the whole network, in ONNX Runtime; weights don't matter."""
    whole = variant(MODEL).spec(classes=CLASSES)
    relative = relative_latency(edgewise.build(whole).eval(), SIZE)
    for rival in RIVALS:
        how = pruning_to(rival, CRITERIA[0])
        sizes = sizes_for(whole, how.part, how.multiple, macs)
        for way, spec in (
            ("pruned", resized(whole, sizes)),
            (UNTOUCHED, variant(rival).spec(classes=CLASSES)),
        ):
            yield described(way, rival, spec) | {"relative_ms": round(relative(spec), 3)}


def pruning_to(rival: str, criterion: str) -> Pruning:
    """What takes away as many MACs as the rival has fewer."""
    theirs, own = (macs(variant(name).spec(classes=CLASSES)) for name in (rival, MODEL))
    return Pruning(1 - theirs / own, "macs", criterion)


def macs(spec: Spec) -> int:
    """Of one image."""
    return edgewise.count(spec, SIZE).macs


def described(way: str, like: str, spec: Spec) -> dict[str, object]:
    """What both tables say of a network."""
    cost = edgewise.count(spec, SIZE)
    return {"way": way, "like": like, "params": cost.params, "macs": cost.macs}


if __name__ == "__main__":
    main()
