"""What a cheaper activation is worth, and what it costs after the network has learned again.

    python benchmarks/activation.py times           # five minutes, on a quiet machine
    python benchmarks/activation.py learn FOLDER    # three seeds: half an hour on two cores
    python benchmarks/activation.py table           # those of docs/activation.md

`times`: networks as they are and with each cheaper activation, in OpenVINO and ONNX Runtime in each
of their precisions, at 224 px; one image, one thread, all of one file in turns, of random weights.

`learn`: networks learn handwritten digits (as in `int8.py`), get each activation and learn on for
three epochs from their own answers. So does the network as it was, to tell the activation from the
epochs. All are tested on 1,000 digits, in float32 and as exported files. Runs stay in FOLDER.

Rows go to `activation_times.csv` and `activation.csv`; what is in the latter is not run again.
"""

from __future__ import annotations

import os
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `edgewise train` does

import numpy as np
import torch
from bench import RESULTS, read_csv, write_csv
from int8 import answers, digits, exported, tested, trained

import edgewise
from edgewise.compress.activation import with_activation
from edgewise.compress.other_runs import activation_run
from edgewise.compress.retrain import GENTLY, retrain
from edgewise.deploy.calibration import calibration_pixels
from edgewise.deploy.formats import FORMATS, Job
from edgewise.deploy.pytorch import TorchPredictor
from edgewise.errors import EdgewiseError
from edgewise.measure.rounds import Here, interleave
from edgewise.measure.store import machine_fingerprint
from edgewise.model import Model
from edgewise.preprocess import Preprocess
from edgewise.run_folder import Run
from edgewise.timing.runtimes import RUNTIMES
from edgewise.weights.folder import load_model

# What is tried in each network; its own activation is the first.
NETWORKS = {
    "efficientnet_b0": ("silu", "hard_swish", "relu6"),
    "convnext_atto": ("gelu", "hard_swish", "relu"),
    "mobilenet_v3_small": ("hard_swish", "relu"),
    "mobilenet_v3_large": ("hard_swish", "relu"),
    "convnext_v2_atto": ("gelu", "hard_swish", "relu"),
}
SEEDS, EPOCHS = (0, 1, 2), 3
SIZE, SECONDS = 224, 2.0
IN_RUNTIMES = ("openvino", "onnxruntime")
PRECISIONS = ("fp32", "bf16", "int8")
FILES = (("onnx", "int8"), ("openvino", "int8"), ("openvino", "bf16"))  # that are tested


def times(names: Sequence[str]) -> Iterator[dict[str, object]]:
    """A row for each network, runtime, precision and activation that can be had here."""
    images = np.random.default_rng(0).standard_normal((1, 3, SIZE, SIZE)).astype(np.float32)
    rule = Preprocess(SIZE, 1.0, "bilinear", (0.0,) * 3, (1.0,) * 3)
    for name in names:
        acts = NETWORKS[name]
        torch.manual_seed(0)
        plain = Model(edgewise.create_model(name).eval(), rule, ())
        networks = {act: with_activation(plain, act).network for act in acts[1:]}
        networks = {acts[0]: plain.network, **networks}
        for runtime in (RUNTIMES[runtime] for runtime in IN_RUNTIMES):
            if runtime.version() is None:
                continue
            for precision in (p for p in PRECISIONS if p in runtime.precisions):
                with TemporaryDirectory() as folder:
                    try:
                        ready = {
                            act: runtime.prepare(network, images.shape, precision, 1, Path(folder))
                            for act, network in networks.items()
                        }
                    except EdgewiseError as error:  # no bf16 here, or it can't express the network
                        print(name, runtime.name, precision, error, flush=True)
                        continue
                    for prepared in ready.values():
                        prepared.feed(images)
                    timed = {act: Here(prepared.call) for act, prepared in ready.items()}
                    found, _ = interleave(timed, SECONDS)
                for act, timing in found.items():
                    ratio = timing.latency.median_ms / found[acts[0]].latency.median_ms
                    yield {
                        "machine": machine_fingerprint(),
                        "network": name,
                        "runtime": runtime.name,
                        "precision": precision,
                        "activation": act,
                        "median_ms": round(timing.latency.median_ms, 3),
                        "of_its_own": round(ratio, 3),
                    }


def learn(folder: Path, name: str, seed: int) -> Iterator[dict[str, object]]:
    """The rows of a network and a seed: as it was, with more epochs, with each activation."""
    data = digits(folder / f"digits-{seed}", seed)
    whole = trained(name, data, folder / f"{name}-{seed}", seed)
    own, *others = NETWORKS[name]
    yield from rows(whole, data, {"seed": seed, "network": name, "activation": own, "epochs": 0})
    for act in (own, *others):
        root = folder / f"{name}-{seed}-{act}"
        if (root / "model").exists():
            run = Run(root)
        elif act == own:
            run = retrain(load_model(whole.model), whole, root, {}, EPOCHS, GENTLY)
        else:
            run = activation_run(whole, root, act, EPOCHS)
        key = {"seed": seed, "network": name, "activation": act, "epochs": EPOCHS}
        yield from rows(run, data, key)


def rows(run: Run, data: Path, key: dict[str, object]) -> Iterator[dict[str, object]]:
    """What of the 1,000 digits a run's model has right, in float32 and in each file."""
    model = load_model(run.model)
    pixels, labels = tested(data, model)
    seen = calibration_pixels(run.root, None, model.preprocess, model.labels)
    found = {"float32": answers(TorchPredictor(model), pixels)}
    for format, precision in FILES:
        with TemporaryDirectory() as folder:
            path = Path(folder, FORMATS[format].file)
            try:
                made = exported(Job(model, precision, path, seen, ()), format, pixels)
            except EdgewiseError as error:
                print(run.root, format, precision, error, flush=True)
                continue
        found[f"{made.runtime} {precision}"] = made.answers
    for file, probabilities in found.items():
        right = int((probabilities.argmax(1) == labels).sum())
        yield {**key, "file": file, "images": len(labels), "right": right}


def table() -> Iterator[str]:
    """The lines of both tables, in Markdown."""
    timed = read_csv(RESULTS / "activation_times.csv")
    ways = list(dict.fromkeys((row["runtime"], row["precision"]) for row in timed))
    yield f"| network | activation | {' | '.join(' '.join(way) for way in ways)} |"
    yield "|---" * (2 + len(ways)) + "|"
    for name, acts in NETWORKS.items():
        for act in acts:
            own = [row for row in timed if (row["network"], row["activation"]) == (name, act)]
            cells = {(r["runtime"], r["precision"]): f"{float(r['median_ms']):.3g}" for r in own}
            yield f"| {name} | {act} | {' | '.join(cells.get(way, '-') for way in ways)} |"
    yield ""
    learned = read_csv(RESULTS / "activation.csv")
    files = list(dict.fromkeys(row["file"] for row in learned))
    yield f"| network | activation | epochs more | {' | '.join(files)} |"
    yield "|---" * (3 + len(files)) + "|"
    for name, act, epochs in dict.fromkeys(
        (row["network"], row["activation"], row["epochs"]) for row in learned
    ):
        texts = []
        for file in files:
            each = [
                100 * int(row["right"]) / int(row["images"])
                for row in learned
                if (row["network"], row["activation"], row["epochs"], row["file"])
                == (name, act, epochs, file)
            ]
            texts.append(f"{mean(each):.1f} ({', '.join(f'{value:.1f}' for value in each)})")
        yield f"| {name} | {act} | {epochs} | {' | '.join(texts)} |"


def main() -> None:
    """Measures what was asked for."""
    parser = ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("times", "learn", "table"))
    parser.add_argument("folder", type=Path, nargs="?", help="for what is trained")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--seeds", nargs="+", type=int, choices=SEEDS, default=SEEDS)
    given = parser.parse_args()
    if given.what == "table":
        print(*table(), sep="\n")
    elif given.what == "times":
        path, here = RESULTS / "activation_times.csv", machine_fingerprint()
        timed: list[dict[str, object]] = [
            {**row}
            for row in read_csv(path)
            if row["machine"] != here or row["network"] not in given.networks
        ]
        for row in times(given.networks):
            timed.append(row)
            write_csv(path, timed, list(row))
    elif given.folder is None:
        parser.error("learn needs a FOLDER")
    else:
        for name in given.networks:
            for seed in given.seeds:
                record(learn(given.folder, name, seed), name, seed)


def record(new: Iterator[dict[str, object]], name: str, seed: int) -> None:
    """Adds the rows of a network and a seed, all at once, unless they are there."""
    path = RESULTS / "activation.csv"
    if any((row["network"], row["seed"]) == (name, str(seed)) for row in read_csv(path)):
        return
    made = list(new)
    write_csv(path, [*read_csv(path), *made], list(made[0]))
    print(*made, sep="\n", flush=True)


if __name__ == "__main__":
    main()
