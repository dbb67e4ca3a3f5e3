"""How many times as fast is the file that we would ship, with a gate on its accuracy?

    python benchmarks/int8.py trained FOLDER && python benchmarks/activation.py learn FOLDER
    python benchmarks/shipped.py [--networks mobilenet_v2 ...]    # a minute or two each, alone
    python benchmarks/shipped.py --networks                       # prints the table of docs/int8.md

In one run per network, all in turns, one image on one thread: timm's network (eager, compiled, and
exported plainly to ONNX Runtime, which take float32 planes that somebody has normalised), and our
files of it as `edgewise export` writes them, which take the bytes of the pixels and give
probabilities: of OpenVINO and ONNX Runtime, in each precision, with the network's own activation
and with cheaper ones. Weights are random.

The fastest of ours is what would be shipped; but a file of less than float32, or with another
activation, only where the same network, trained by `int8.py` or `activation.py`, lost no more than
a point in it. Networks that were not trained are left out.

Rows go to `shipped.csv`, in the place of the same machine's and network's. Then all of this machine
and their geometric means are printed.
"""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import exp, log
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `edgewise train` does

import numpy as np
import torch
from activation import EPOCHS, NETWORKS
from bench import PEER, PEER_RUNTIMES, RESULTS, read_csv, write_csv
from int8 import HALF, IN_HALF, KEPT
from numpy.typing import NDArray

import edgewise
from edgewise.compress.activation import with_activation
from edgewise.deploy.formats import FORMATS, Job
from edgewise.errors import EdgewiseError
from edgewise.families import VARIANTS
from edgewise.measure.latency import machine
from edgewise.measure.rounds import Here, interleave, ratio
from edgewise.measure.store import machine_fingerprint
from edgewise.model import Model
from edgewise.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from edgewise.timing.answers import fault, liken
from edgewise.timing.peers import twin
from edgewise.timing.runtimes import RUNTIMES, Prepared
from edgewise.timing.runtimes.openvino import PreparedOpenVino
from edgewise.timing.subject import randomise

BOUNDS = "value", "low", "high"  # of a ratio
GATE = 1.0  # points of accuracy
UNKNOWN = 100.0
SECONDS = 2.0  # of timed calls of each
CHECKED = 8  # random images, that int8 is calibrated on and all answers are compared on
Lost = Mapping[tuple[str, str, str], float]


@dataclass(frozen=True)
class Way:
    """A file that may be shipped.

    Attributes:
        format: "onnx" or "openvino".
        precision: of the file.
        keep: a key of `KEPT`.
    """

    format: str
    precision: str
    keep: str = "none"

    @property
    def runtime(self) -> str:
        """That reads it."""
        return FORMATS[self.format].readers[0].name

    @property
    def half(self) -> bool:
        """Whether it computes in bfloat16, all of it or what is not in int8."""
        return self.precision == "bf16" or self.keep == HALF

    def __str__(self) -> str:
        """As in the tables: "openvino int8", "openvino int8 and bf16"."""
        return f"{self.runtime} {self.precision}" + " and bf16" * (self.keep == HALF)


WAYS = (
    *(Way("openvino", precision) for precision in ("fp32", "bf16", "int8")),
    Way(IN_HALF, "int8", HALF),
    *(Way("onnx", precision) for precision in ("fp32", "int8")),
)
FLOAT = "float32"  # of the runs, in PyTorch: what a file in fp32 has as well


def points_lost(folder: Path) -> Lost:
    """By network, way and activation ("" is its own), in points.

    What bf16 or another activation lost is the mean over seeds, from the same network in float32
    after as many epochs.
    """
    names = {(way.runtime, way.keep): str(way) for way in WAYS if way.precision == "int8"}
    lost = {
        (row["network"], names[row["runtime"], row["keep_float"]], ""): float(row["points_lost"])
        for row in read_csv(folder / "int8_trained.csv")
        if (row["runtime"], row["keep_float"]) in names
    }
    right: dict[tuple[str, str, str], list[float]] = {}
    for row in read_csv(folder / "activation.csv"):
        if row["epochs"] == str(EPOCHS):
            own = row["activation"] == NETWORKS[row["network"]][0]
            key = row["network"], row["file"], "" if own else row["activation"]
            right.setdefault(key, []).append(100 * int(row["right"]) / int(row["images"]))
    for (network, file, act), values in right.items():
        before = mean(right[network, FLOAT, ""])
        for way in (str(way) for way in WAYS if file in (str(way), FLOAT)):
            if file != FLOAT or way.endswith("fp32"):
                lost.setdefault((network, way, act), round(before - mean(values), 2))
    return lost


def loses(lost: Lost, network: str, way: Way, act: str) -> float:
    """Points of accuracy; `UNKNOWN` of a file that nobody has trained and asked."""
    exact = 0.0 if way.precision == "fp32" and not act else UNKNOWN
    return lost.get((network, str(way), act), exact)


@dataclass(frozen=True)
class Ours:
    """A file of ours, ready to run on pixels.

    Attributes:
        act: its activation; "" for the network's own.
        way: what it is.
        megabytes: of all that the runtime loads.
        prepared: the runtime with it.
    """

    act: str
    way: Way
    megabytes: float
    prepared: Prepared


def files(
    name: str, plain: Model, pixels: NDArray[np.uint8], lost: Lost, folder: Path
) -> Iterator[Ours]:
    """Those that are let through by the gate, and whose answers are about those of float32."""
    for act in ("", *NETWORKS.get(name, ())[1:]):
        model = with_activation(plain, act) if act else plain
        right = None
        for way in WAYS:
            if loses(lost, name, way, act) > GATE:
                continue
            path = folder / f"{act}-{way.format}-{way.precision}-{way.keep}"
            path.mkdir()
            path = path / FORMATS[way.format].file
            seen = pixels if way.precision == "int8" else None
            FORMATS[way.format].write(Job(model, way.precision, path, seen, KEPT[way.keep]))
            try:
                prepared = opened(way, path, plain.preprocess.size)
                found = np.concatenate([prepared.run(image[None]) for image in pixels])
            except EdgewiseError as error:  # no bf16 here
                print(name, act, way, error, flush=True)
                continue
            right = found if right is None else right  # of the first way, which is float32
            if wrong := fault(liken(found, right), way.precision):
                print(name, act, way, wrong, flush=True)
                continue
            megabytes = sum(file.stat().st_size for file in path.parent.iterdir()) / 1e6
            yield Ours(act, way, megabytes, prepared)


def opened(way: Way, path: Path, size: int) -> Prepared:
    """A file for one image, on one thread."""
    shape = 1, size, size, 3
    if way.format == "openvino":
        return PreparedOpenVino(path, shape, "bf16" if way.half else "fp32", threads=1)
    return RUNTIMES[way.runtime].prepare_file(path, shape, threads=1)


def measured(name: str, lost: Lost) -> dict[str, object]:
    """The row of a network in `shipped.csv`."""
    size = VARIANTS[name].input_size
    shape = 1, 3, size, size
    rule = Preprocess(size, 1.0, "bilinear", IMAGENET_MEAN, IMAGENET_STD)
    torch.manual_seed(0)
    network = edgewise.create_model(name).eval()
    images = np.random.default_rng(0).integers(0, 256, (1 + CHECKED, size, size, 3), np.uint8)
    with torch.no_grad():
        planes = rule.normalise(torch.from_numpy(images))
        randomise(network, planes)
    model = Model(network, rule, tuple(str(number) for number in range(network.spec.classes)))
    peer = twin(PEER, name, network)
    with TemporaryDirectory() as folder:
        theirs = {
            runtime: RUNTIMES[runtime].prepare(peer, shape, "fp32", 1, Path(folder))
            for runtime in PEER_RUNTIMES
        }
        made = files(name, model, images[1:], lost, Path(folder))
        ours = {(file.way, file.act): file for file in made}
        for prepared in theirs.values():
            prepared.feed(planes[:1].numpy())
        for file in ours.values():
            file.prepared.feed(images[:1])
        candidates: dict[str | tuple[Way, str], Here] = {
            **{runtime: Here(prepared.call) for runtime, prepared in theirs.items()},
            **{key: Here(file.prepared.call) for key, file in ours.items()},
        }
        timings, failures = interleave(candidates, SECONDS)
    if failures:
        raise EdgewiseError(f"{name}: {failures}")

    def time(key: tuple[Way, str]) -> float:
        return timings[key].latency.median_ms

    def described(key: tuple[Way, str]) -> dict[str, object]:
        return {
            "file": str(key[0]),
            "median_ms": round(time(key), 3),
            "mb": round(ours[key].megabytes, 2),
            "points_lost": loses(lost, name, *key),
        }

    for key in sorted(ours, key=time):
        print(f"    {time(key):.3f} ms {key[0]} {key[1]}", flush=True)
    own = min((key for key in ours if not key[1]), key=time)
    best = min(ours, key=time)
    row: dict[str, object] = {
        "machine": machine_fingerprint(),
        "cpu": machine()["cpu"],
        "model": name,
        "imgsz": size,
        **described(own),
    }
    for runtime in PEER_RUNTIMES:
        times = ratio(timings[runtime].rounds_ms, timings[own].rounds_ms)
        for bound in BOUNDS:
            row[f"{runtime}_{bound}"] = round(getattr(times, bound), 3)
    other = described(best)
    row |= {"activation": best[1]} | {f"activation_{key}": value for key, value in other.items()}
    return row | {"gain": round(time(own) / time(best), 3)}


def geometric_mean(values: list[float]) -> float:
    """The mean of ratios."""
    return exp(sum(map(log, values)) / len(values))


def main() -> None:
    """Measures, writes the file and prints the means."""
    lost, here = points_lost(RESULTS), machine_fingerprint()
    trained = sorted({network for network, *_ in lost})
    parser = ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--networks", nargs="*", default=trained, choices=trained)
    path = RESULTS / "shipped.csv"
    for name in parser.parse_args().networks:
        print(name, flush=True)
        row = measured(name, lost)
        others = [o for o in read_csv(path) if (o["machine"], o["model"]) != (here, name)]
        lines = [row, *(dict[str, object](old) for old in others)]
        lines.sort(key=lambda line: (str(line["machine"]), str(line["model"])))
        write_csv(path, lines, list(row))
        print(row, flush=True)
    print(*table([row for row in read_csv(path) if row["machine"] == here]), sep="\n")


def table(rows: Sequence[Mapping[str, str]]) -> Iterator[str]:
    """The lines of docs/int8.md, in Markdown."""
    yield (
        "| network | shipped | ms | MB | points lost | timm eager | timm compiled | timm's ONNX "
        "| with another activation | ms | points lost |"
    )
    yield "|---" * 11 + "|"
    for row in rows:
        cells = [row["model"], row["file"], row["median_ms"], row["mb"], row["points_lost"]]
        cells += [f"{float(row[f'{runtime}_value']):.1f}" for runtime in PEER_RUNTIMES[:2]]
        cells.append(
            "{:.2f} ({:.2f}-{:.2f})".format(
                *(float(row[f"{PEER_RUNTIMES[2]}_{bound}"]) for bound in BOUNDS)
            )
        )
        other = (
            f"{row['activation']}, {row['activation_file']}",
            row["activation_median_ms"],
            row["activation_points_lost"],
        )
        cells += other if row["activation"] else ("", "", "")
        yield f"| {' | '.join(cells)} |"
    for name, activations in (("geometric mean", False), ("with the activations", True)):
        means = [
            geometric_mean(
                [
                    float(row[f"{runtime}_value"]) * (float(row["gain"]) if activations else 1)
                    for row in rows
                ]
            )
            for runtime in PEER_RUNTIMES
        ]
        bold = " | ".join(f"**{mean:.2f}**" for mean in means)
        yield f"| {name} | | | | | {bold} | | | |"


if __name__ == "__main__":
    try:
        main()
    except EdgewiseError as error:
        sys.exit(f"error: {error}")
