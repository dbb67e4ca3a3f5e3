"""Seconds to build every network of the zoo on the meta device, ours against timm's.

    python benchmarks/zoo.py

Both build the same networks, those that timm has too, in turns in one process; the ratio is of
the medians of three turns.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from edgewise.families import VARIANTS
from edgewise.network import build

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from oracles import import_timm


def seconds(make: Callable[[str], object], names: list[str]) -> float:
    """To build them all once."""
    start = time.perf_counter()
    with torch.device("meta"):
        for name in names:
            make(name)
    return time.perf_counter() - start


def main() -> None:
    """Prints one line a library, and the ratio."""
    timm = import_timm()
    theirs = {v.name: v.timm or v.name.replace("_v2_", "v2_") for v in VARIANTS.values()}
    theirs = {name: other for name, other in theirs.items() if timm.is_model(other)}
    theirs |= {f"efficientnet_v2_b{i}": f"tf_efficientnetv2_b{i}" for i in range(4)}
    makers: dict[str, Callable[[str], object]] = {
        "edgewise": lambda name: build(VARIANTS[name].spec()),
        "timm": lambda name: timm.create_model(theirs[name]),
    }
    turns = [{k: seconds(make, list(theirs)) for k, make in makers.items()} for _ in range(3)]
    medians = {name: statistics.median(turn[name] for turn in turns) for name in makers}
    for name, median in medians.items():
        print(f"{name},{len(theirs)} networks,{median:.2f} s")
    print(f"ratio,{medians['timm'] / medians['edgewise']:.2f}")


if __name__ == "__main__":
    main()
