"""The README's chart and table of ratios, from the CSV files that `make bench` wrote.

python benchmarks/readme.py
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
README = ROOT / "README.md"
BEGIN, END = "<!-- made by benchmarks/readme.py -->\n", "<!-- end -->"
PEERS = ("timm_torch", "timm_torch-compile", "timm_onnxruntime")  # as columns


def section(results: Path = RESULTS) -> str:
    """What stands between the marks."""
    with (results / "ratios.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    card = json.loads((results / "machine.json").read_text(encoding="utf-8"))
    versions = ", ".join(f"{name} {version}" for name, version in card["versions"].items())
    fp32 = [line for line in lines if line["precision"] == "fp32"]
    int8 = {line["model"]: line for line in lines if line["precision"] == "int8"}
    rows = [
        "| network | px | best in float32 | timm | timm compiled | timm in ONNX Runtime "
        "| best in int8 |",
        "|---|---|---|---|---|---|---|",
        *(_row(line, int8.get(line["model"])) for line in fp32),
    ]
    return (
        "![Accuracy against latency, each network in each runtime that was measured]"
        "(benchmarks/results/pareto.png)\n\n" + "\n".join(rows) + "\n\n"
        f"One image on one thread of an {card['cpu']}. Columns 4 to 6 say how many times as long "
        "timm's network of the same weights takes as our best one: eager, through torch.compile, "
        "and exported to ONNX Runtime; a tie is one whose 95 % interval holds 1. int8 has random "
        "weights here: what accuracy it costs is yours to check. "
        f"({versions}; `make bench`; benchmarks/results has every row, with intervals.)\n"
    )


def _row(line: Mapping[str, str], int8: Mapping[str, str] | None) -> str:
    cells = [line["model"], line["imgsz"], _best(line)]
    cells += [_times(line, peer) for peer in PEERS]
    cells.append(_best(int8) if int8 else "-")
    return f"| {' | '.join(cells)} |"


def _best(line: Mapping[str, str]) -> str:
    return f"{line['best']}, {float(line['median_ms']):.3g} ms"


def _times(line: Mapping[str, str], peer: str) -> str:
    if not line[f"{peer}_value"]:
        return "-"
    value, low, high = (float(line[f"{peer}_{name}"]) for name in ("value", "low", "high"))
    return f"{value:.2f} (tie)" if low <= 1 <= high else f"{value:.2f}"


def main() -> None:
    """Puts the section into the README."""
    before, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    README.write_text(before + BEGIN + section() + END + after, encoding="utf-8")


if __name__ == "__main__":
    main()
