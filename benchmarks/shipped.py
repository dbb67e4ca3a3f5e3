"""How many times as fast is the file that we would ship, with a gate on its accuracy?

    python benchmarks/bench.py && python benchmarks/int8.py trained FOLDER
    python benchmarks/shipped.py            # joins what those two measured; takes a second

`bench.py` has timed, in turns and on one thread, each network under a billion MACs in every runtime
and precision, and timm's network of the same weights: eager, compiled, and exported plainly to ONNX
Runtime. Here the fastest of ours is chosen, but an int8 file only where the same network, trained
by `int8.py`, lost no more than a point in the same runtime. Networks that were not trained are left
out. The table and the geometric means are printed; rows go to `shipped.csv`.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from math import exp, log
from pathlib import Path

from bench import PEER, PEER_RUNTIMES, RESULTS, read_csv, write_csv

from edgewise.errors import EdgewiseError
from edgewise.measure.choose import Choice, choose
from edgewise.measure.store import Row, Store, machine_fingerprint

GATE = 1.0  # points of accuracy
IN_FULL = "none"  # `--keep-float`: what `bench.py` times


def points_lost(path: Path) -> dict[tuple[str, str], float]:
    """By network and runtime, what full int8 lost, in points."""
    return {
        (row["network"], row["runtime"]): float(row["points_lost"])
        for row in read_csv(path)
        if row["keep_float"] == IN_FULL
    }


def allowed(row: Row, lost: dict[tuple[str, str], float]) -> bool:
    """Whether it is a rival, in float, or an int8 file that was seen to keep its accuracy."""
    if row.library == PEER or row.precision != "int8":
        return True
    return lost.get((row.model, row.runtime), 100.0) <= GATE


def line(choice: Choice, lost: dict[tuple[str, str], float]) -> dict[str, object]:
    """A row of `shipped.csv`."""
    best = choice.best
    made: dict[str, object] = {
        "model": best.model,
        "imgsz": best.imgsz,
        "best": f"{best.precision} {best.runtime}",
        "median_ms": round(best.median_ms or 0.0, 3),
        "mb": round((best.weight_bytes or 0) / 1e6, 2),
        "points_lost": lost[best.model, best.runtime] if best.precision == "int8" else 0.0,
    }
    peers = {row.runtime: times for row, times in choice.others if row.library == PEER}
    for runtime in PEER_RUNTIMES:
        for name in ("value", "low", "high"):
            made[f"{runtime}_{name}"] = round(getattr(peers[runtime], name), 3)
    return made


def geometric_mean(values: Sequence[float]) -> float:
    """The mean of ratios."""
    return exp(sum(map(log, values)) / len(values))


def main() -> None:
    """Writes the file and prints the means."""
    parser = ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--results", type=Path, default=RESULTS)
    results: Path = parser.parse_args().results
    lost = points_lost(results / "int8_trained.csv")
    rows = [row for row in Store(results / "bench.sqlite").rows() if allowed(row, lost)]
    lines = [
        line(choice, lost)
        for model in sorted({network for network, _ in lost})
        for choice in choose(rows, model, machine_fingerprint())
    ]
    write_csv(results / "shipped.csv", lines, list(lines[0]))
    for made in lines:
        print(made)
    for runtime in PEER_RUNTIMES:
        values = [float(str(made[f"{runtime}_value"])) for made in lines]
        print(f"{PEER} {runtime}: {geometric_mean(values):.2f} times as long")


if __name__ == "__main__":
    try:
        main()
    except EdgewiseError as error:
        sys.exit(f"error: {error}")
