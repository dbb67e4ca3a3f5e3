"""What taking dense convolutions apart costs in accuracy and saves in time.

    python benchmarks/separate.py            # three seeds: about half an hour on a quiet machine
    python benchmarks/separate.py --quick    # to see that it works: a minute

A ResNet-18 of a quarter of the width learns handwritten digits (28 px; 4,000 to learn from, 1,000
others to test). It is then taken apart at several ranks and budgets, from its weights alone and
from 64 of its training images, tested, trained for two more epochs and tested again. The rivals are
untouched ResNet-18s of smaller widths, which learn for as many epochs as all of that together.

Times are of float32 ONNX files, one image and one thread, in two runtimes: each network in turn, in
five rounds, of which the middle one is taken. Those of networks of full size (224 px) need no
training: what a weight is takes no time; VGG-16 is without its hidden layers.

Writes `separate.csv` (a row for each network of each seed) and `separate_times.csv` into
benchmarks/results/.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np
import torch
from bench import RESULTS, write_csv
from pictures import mnist
from torch import Tensor, nn

from edgewise.compress.separate import separate
from edgewise.deploy.onnx import to_bytes, to_onnx
from edgewise.libraries import openvino_core
from edgewise.measure.count import count
from edgewise.measure.latency import benchmark
from edgewise.network import Network
from edgewise.spec import Head, Spec
from edgewise.weights.create import create_model

SIZE, BATCH, FITTED_ON = 28, 64, 64
WIDTH, RIVALS = 0.25, (0.125, 0.1875)
WAYS: tuple[dict[str, Any], ...] = (
    *({"rank": rank, "weights_only": True} for rank in (1, 2, 4)),
    *({"rank": rank} for rank in (1, 2, 3)),
    *({"macs": part} for part in (0.2, 0.25, 0.5)),
)
FULL_SIZE, RIVAL_WIDTHS = ("resnet18", "resnet50", "vgg16"), (0.5, 0.75)
Digits = tuple[Tensor, Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Effort:
    """How much to do: epochs of training and of training again, seconds of timing."""

    epochs: int = 5
    again: int = 2
    seconds: float = 0.4
    rounds: int = 5


def digits() -> Digits:
    """Pictures and labels to learn from, and to test."""
    packed = []
    for part in (0, 1):
        pairs = [(np.asarray(p), int(d)) for d, pools in mnist().items() for p in pools[part]]
        pixels = torch.tensor(np.stack([image for image, _ in pairs]))[:, None]
        packed += [(pixels / 255 - 0.13) / 0.31, torch.tensor([label for _, label in pairs])]
    return packed[0], packed[1], packed[2], packed[3]


def learn(network: Network, data: Digits, epochs: int, lr: float) -> float:
    """Trains in place; returns the accuracy on the test."""
    images, labels = data[:2]
    optimizer = torch.optim.AdamW(network.parameters(), lr, weight_decay=0.02)
    steps = len(images) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, epochs * steps)
    for _ in range(epochs):
        network.train()
        order = torch.randperm(len(images))
        for step in range(steps):
            some = order[step * BATCH : (step + 1) * BATCH]
            shift = torch.randint(-2, 3, (2,)).tolist()
            logits = network(torch.roll(images[some], shift, (2, 3)))
            optimizer.zero_grad()
            nn.functional.cross_entropy(logits, labels[some]).backward()
            optimizer.step()
            schedule.step()
    return accuracy(network, data)


def accuracy(network: Network, data: Digits) -> float:
    """Of the test."""
    with torch.inference_mode():
        found = torch.cat([network.eval()(batch).argmax(1) for batch in data[2].split(BATCH)])
    return float((found == data[3]).double().mean())


def one_seed(seed: int, data: Digits, effort: Effort) -> Iterator[tuple[dict[str, Any], Spec]]:
    """A row for each network, and its spec."""
    torch.manual_seed(seed)

    def fresh(width: float) -> Network:
        return create_model("resnet18", num_classes=10, in_chans=1, width=width, stem="small")

    def row(way: str, network: Network, before: float, after: float) -> dict[str, Any]:
        cost = count(network.spec, SIZE)
        numbers = {"macs": cost.macs, "params": cost.params, "top1": before, "top1_tuned": after}
        return {"seed": seed, "way": way} | numbers

    whole = fresh(WIDTH)
    reached = learn(whole, data, effort.epochs, 4e-3)
    longer = deepcopy(whole)
    yield row("dense", whole, reached, learn(longer, data, effort.again, 1e-3)), whole.spec
    images = data[0][torch.randperm(len(data[0]))[:FITTED_ON]]
    for way in WAYS:
        apart, _ = separate(whole.eval(), images, **way)
        before = accuracy(apart, data)
        after = learn(apart, data, effort.again, 1e-3)
        name = " ".join(f"{key} {value}" for key, value in way.items() if value is not True)
        kind = "weights" if "weights_only" in way else "images"
        yield row(f"{kind}, {name}", apart, before, after), apart.spec
    for width in RIVALS:
        rival = fresh(width)
        reached = learn(rival, data, effort.epochs + effort.again, 4e-3)
        yield row(f"rival, width {width}", rival, reached, reached), rival.spec


def families() -> Iterator[dict[str, tuple[Spec, int]]]:
    """Networks for 224 px, whole and at some ranks, and their input's size."""
    for name in FULL_SIZE:
        network = create_model(name)
        if name == "vgg16":  # most of its weights, but not of its time, are in the hidden layers
            network = create_model(replace(network.spec, head=Head()))
        found = {name: (network.spec, 224)}
        for rank in (1, 2, 3):
            apart, _ = separate(network, torch.zeros(1, 3, 224, 224), rank, weights_only=True)
            found[f"{name}, rank {rank}"] = apart.spec, 224
        for width in RIVAL_WIDTHS if name == "resnet18" else ():
            found[f"{name}, width {width}"] = create_model(name, width=width).spec, 224
        yield found


def times(networks: dict[str, tuple[Spec, int]], effort: Effort) -> dict[str, dict[str, float]]:
    """Milliseconds of each in each runtime."""
    runs = {name: calls(spec, size) for name, (spec, size) in networks.items()}
    taken: dict[tuple[str, str], list[float]] = {}
    for _ in range(effort.rounds):
        for name, by_runtime in runs.items():
            for runtime, call in by_runtime.items():
                spent = benchmark(call, effort.seconds).median_ms
                taken.setdefault((name, runtime), []).append(spent)
    found: dict[str, dict[str, float]] = {name: {} for name in networks}
    for (name, runtime), spent_ms in taken.items():
        found[name][f"{runtime}_ms"] = round(median(spent_ms), 4)
    return found


def calls(spec: Spec, size: int) -> dict[str, Callable[[], object]]:
    """One image through the network, by runtime."""
    import onnxruntime

    image = torch.randn(1, spec.in_chans, size, size)
    file = to_bytes(to_onnx(create_model(spec).eval(), (image,), "x", "y"))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    core = openvino_core()
    hints = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(core.read_model(file), "CPU", hints).create_infer_request()
    pixels = image.numpy()
    return {
        "onnxruntime": lambda: session.run(None, {"x": pixels}),
        "openvino": lambda: request.infer([pixels]),
    }


def write_full_size(effort: Effort) -> None:
    """Measures all `families`; what is measured is written after each."""
    rows: list[dict[str, Any]] = []
    for networks in families():
        for name, spent_ms in times(networks, effort).items():
            cost = count(*networks[name])
            counted = {"network": name, "macs": cost.macs, "params": cost.params}
            rows.append(counted | spent_ms)
            print(rows[-1], flush=True)
        write_csv(RESULTS / "separate_times.csv", rows, list(rows[0]))


def main() -> None:
    """See the top of the file."""
    parser = ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="writes nothing")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    effort, data = Effort(), digits()
    if arguments.quick:
        effort = Effort(1, 1, 0.05, 1)
        data = data[0][::20], data[1][::20], data[2][::5], data[3][::5]
    rows: list[dict[str, Any]] = []
    for seed in range(1 if arguments.quick else arguments.seeds):
        made = list(one_seed(seed, data, effort))
        spent = times({row["way"]: (spec, SIZE) for row, spec in made}, effort)
        rows += [row | spent[row["way"]] for row, _ in made]
        print(*rows, sep="\n", flush=True)
        if not arguments.quick:
            write_csv(RESULTS / "separate.csv", rows, list(rows[0]))
    if arguments.quick:
        return
    write_full_size(effort)


if __name__ == "__main__":
    main()
