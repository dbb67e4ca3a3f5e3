"""Seconds and memory of counting a network, ours against fvcore, ptflops, torchinfo and PyTorch.

    python benchmarks/count.py            # the time table, then what each tool counts
    python benchmarks/count.py --json     # the same for a program

Every tool counts in a process of its own, one thread, on a network that is already built, three
times in turn with the others; the ratio is of the medians. Ours is given twice: of a module with
weights, and of a name, which it builds itself. Memory is the largest resident size of the process
less that before counting.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

NETWORKS = {"convnext_large": 224, "efficientnet_b7": 600}
TURNS = 3
HERE = Path(__file__).resolve()


def ours(name: str, module: Any, size: int) -> int:
    """Of a module with weights."""
    import edgewise

    return edgewise.profile(module, size).macs


def ours_by_name(name: str, module: Any, size: int) -> int:
    """Of a name: the network is built too."""
    import edgewise

    return edgewise.profile(name, size).macs


def fvcore(name: str, module: Any, size: int) -> int:
    """Its grand total, as `FlopCountAnalysis(...).total()` gives it."""
    import logging

    import torch
    from fvcore.nn import FlopCountAnalysis

    logging.getLogger("fvcore").setLevel(logging.ERROR)
    with torch.no_grad():
        return int(FlopCountAnalysis(module, torch.zeros(1, 3, size, size)).total())


def ptflops(name: str, module: Any, size: int) -> int:
    """With its default backend."""
    sys.path.insert(0, str(HERE.parent.parent / "tests"))
    from oracles import import_torchvision

    import_torchvision()  # which it imports
    from ptflops import get_model_complexity_info

    macs, _ = get_model_complexity_info(
        module, (3, size, size), as_strings=False, print_per_layer_stat=False, verbose=False
    )
    return int(macs)


def torchinfo(name: str, module: Any, size: int) -> int:
    """What it calls "mult-adds"."""
    from torchinfo import summary

    return int(summary(module, (1, 3, size, size), verbose=0).total_mult_adds)


def flop_counter(name: str, module: Any, size: int) -> int:
    """PyTorch's own, halved; as fast as it can be used, on the meta device."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module.to("meta")(torch.empty(1, 3, size, size, device="meta"))
    return int(counter.get_total_flops()) // 2


TOOLS: dict[str, Callable[[str, Any, int], int]] = {
    "edgewise": ours,
    "edgewise, by name": ours_by_name,
    "fvcore": fvcore,
    "ptflops": ptflops,
    "torchinfo": torchinfo,
    "torch FlopCounterMode, meta": flop_counter,
}


def count(tool: str, name: str) -> dict[str, float]:
    """Runs in a process of its own."""
    import torch

    import edgewise

    torch.set_num_threads(1)
    size = NETWORKS[name]
    module = edgewise.create_model(name).eval()
    if tool != "edgewise, by name":
        TOOLS[tool]("", edgewise.create_model("mobilenet_v2").eval(), 64)  # its imports
    else:
        TOOLS[tool]("mobilenet_v2", None, 64)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    macs = TOOLS[tool](name, module, size)
    seconds = time.perf_counter() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {"macs": macs, "seconds": seconds, "megabytes": memory / 1e3}


def run(tool: str, name: str) -> dict[str, float]:
    """`count` in a new process."""
    command = [sys.executable, str(HERE), "--one", tool, name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    answer: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return answer


def main() -> None:
    """One line a network and tool, with its time over ours."""
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(count(*sys.argv[2:4])))
        return
    table = []
    for name in NETWORKS:
        turns = [{tool: run(tool, name) for tool in TOOLS} for _ in range(TURNS)]
        medians = {t: statistics.median(turn[t]["seconds"] for turn in turns) for t in TOOLS}
        for tool in TOOLS:
            table.append(
                {
                    "network": name,
                    "size": NETWORKS[name],
                    "tool": tool,
                    "seconds": medians[tool],
                    "ratio": medians[tool] / medians["edgewise"],
                    "megabytes": max(turn[tool]["megabytes"] for turn in turns),
                    "macs": int(turns[0][tool]["macs"]),
                    "difference": int(turns[0][tool]["macs"] - turns[0]["edgewise"]["macs"]),
                }
            )
    if "--json" in sys.argv:
        print(json.dumps(table, indent=2))
        return
    print("network,size,tool,seconds,ratio,megabytes,macs,difference")
    for row in table:
        print(
            f"{row['network']},{row['size']},{row['tool']},{row['seconds']:.3f},"
            f"{row['ratio']:.1f},{row['megabytes']:.0f},{row['macs']},{row['difference']:+}"
        )


if __name__ == "__main__":
    main()
