"""How many times as fast is the file that we would ship, with a gate on its accuracy?

    python benchmarks/bench.py --bf16 && python benchmarks/int8.py trained FOLDER
    python benchmarks/activation.py times && python benchmarks/activation.py learn FOLDER
    python benchmarks/shipped.py            # joins what those measured; takes a second

`bench.py` has timed, in turns and on one thread, each network under a billion MACs in every runtime
and precision, and timm's network of the same weights: eager, compiled, and exported plainly to ONNX
Runtime. Here the fastest of ours is chosen, but an int8 or bf16 file only where the same network,
trained by `int8.py` or `activation.py`, lost no more than a point in the same runtime. Networks
that were not trained are left out.

Then what another activation adds, by the same gate: the time of the fastest file with the network's
own over that of the fastest with another, which `activation.py` has timed in one run.

The table and the geometric means are printed; rows go to `shipped.csv`, in the place of the same
machine's.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from math import exp, log
from pathlib import Path
from statistics import mean

from activation import EPOCHS, NETWORKS
from bench import PEER, PEER_RUNTIMES, RESULTS, read_csv, write_csv

from edgewise.errors import EdgewiseError
from edgewise.measure.choose import Choice, choose
from edgewise.measure.store import Row, Store, machine_fingerprint

GATE = 1.0  # points of accuracy
UNKNOWN = 100.0
IN_FULL = "none"  # `--keep-float`: what `bench.py` times
FLOAT = "float32"
Lost = Mapping[tuple[str, str, str], float]


def points_lost(folder: Path) -> Lost:
    """By network, way ("openvino int8", "float32") and activation ("" is its own), in points.

    What bf16 or another activation lost is the mean over seeds, from the same network in float32
    after as many epochs.
    """
    lost = {
        (row["network"], f"{row['runtime']} int8", ""): float(row["points_lost"])
        for row in read_csv(folder / "int8_trained.csv")
        if row["keep_float"] == IN_FULL
    }
    right: dict[tuple[str, str, str], list[float]] = {}
    for row in read_csv(folder / "activation.csv"):
        if row["epochs"] == str(EPOCHS):
            key = row["network"], row["file"], _other(row["network"], row["activation"])
            right.setdefault(key, []).append(100 * int(row["right"]) / int(row["images"]))
    for (network, way, act), values in right.items():
        before = mean(right[network, FLOAT, ""])
        lost.setdefault((network, way, act), round(before - mean(values), 2))
    return lost


def _other(network: str, act: str) -> str:
    """The activation, or "" if it is the network's own."""
    return "" if act == NETWORKS[network][0] else act


def way_of(runtime: str, precision: str) -> str:
    """How `points_lost` calls it: in float32 all runtimes answer alike."""
    return FLOAT if precision == "fp32" else f"{runtime} {precision}"


def allowed(row: Row, lost: Lost) -> bool:
    """Whether it is a rival, in float32, or a file that was seen to keep its accuracy."""
    way = way_of(row.runtime, row.precision)
    return row.library == PEER or way == FLOAT or lost.get((row.model, way, ""), UNKNOWN) <= GATE


def line(choice: Choice, lost: Lost, times: Sequence[Mapping[str, str]]) -> dict[str, object]:
    """A row of `shipped.csv`."""
    best = choice.best
    made: dict[str, object] = {
        "machine": best.machine,
        "model": best.model,
        "imgsz": best.imgsz,
        "best": f"{best.precision} {best.runtime}",
        "median_ms": round(best.median_ms or 0.0, 3),
        "mb": round((best.weight_bytes or 0) / 1e6, 2),
        "points_lost": lost.get((best.model, way_of(best.runtime, best.precision), ""), 0.0),
    }
    peers = {row.runtime: times for row, times in choice.others if row.library == PEER}
    for runtime in PEER_RUNTIMES:
        for name in ("value", "low", "high"):
            made[f"{runtime}_{name}"] = round(getattr(peers[runtime], name), 3)
    return made | with_activation(best.model, lost, times)


def with_activation(
    network: str, lost: Lost, times: Sequence[Mapping[str, str]]
) -> dict[str, object]:
    """The fastest file with another activation that kept its accuracy, if it is faster."""
    own, best = {}, {}
    for row in times:
        if row["network"] != network:
            continue
        act, way = _other(network, row["activation"]), way_of(row["runtime"], row["precision"])
        loses = lost.get((network, way, act), 0.0 if (way, act) == (FLOAT, "") else UNKNOWN)
        if loses <= GATE:
            name = act, f"{row['precision']} {row['runtime']}", loses
            (best if act else own)[name] = float(row["median_ms"])
    name = min(best, key=best.__getitem__, default=None)
    if name is None or best[name] >= min(own.values()):
        return {"activation": "", "activation_file": "", "activation_lost": "", "gain": 1.0}
    gain = round(min(own.values()) / best[name], 3)
    return dict(
        zip(
            ("activation", "activation_file", "activation_lost", "gain"), (*name, gain), strict=True
        )
    )


def geometric_mean(values: Sequence[float]) -> float:
    """The mean of ratios."""
    return exp(sum(map(log, values)) / len(values))


def main() -> None:
    """Writes the file and prints the means."""
    parser = ArgumentParser(description=__doc__.partition("\n")[0])
    parser.parse_args()
    lost, machine = points_lost(RESULTS), machine_fingerprint()
    rows = [row for row in Store(RESULTS / "bench.sqlite").rows() if allowed(row, lost)]
    times = [r for r in read_csv(RESULTS / "activation_times.csv") if r["machine"] == machine]
    lines = [
        line(choice, lost, times)
        for model in sorted({network for network, *_ in lost})
        for choice in choose(rows, model, machine)
    ]
    path = RESULTS / "shipped.csv"
    others = [row for row in read_csv(path) if row["machine"] != machine]
    write_csv(path, [*others, *lines], list(lines[0]))
    for made in lines:
        print(made)
    for runtime in PEER_RUNTIMES:
        plain = [float(str(made[f"{runtime}_value"])) for made in lines]
        gained = [
            float(str(made["gain"])) * value for made, value in zip(lines, plain, strict=True)
        ]
        means = geometric_mean(plain), geometric_mean(gained)
        print(f"{PEER} {runtime}: {means[0]:.2f} times as long, {means[1]:.2f} with activations")


if __name__ == "__main__":
    try:
        main()
    except EdgewiseError as error:
        sys.exit(f"error: {error}")
