"""How far the times of a network's rows are from adding up to the whole's.

    python benchmarks/additivity.py            # fourteen networks at 224 px: about half an hour
    python benchmarks/additivity.py --quick    # four small ones at 96 px: a few minutes

Each row (stem, block, head) is an ONNX file of its own, timed in turns with the whole network on
this machine, one image on one thread in ONNX Runtime; what an empty call costs is taken off. Rows
are written to `additivity.csv` one by one. A network that is in it is not measured again.
"""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path

from bench import RESULTS, read_csv, write_csv

import edgewise
from edgewise.search.device import open_device
from edgewise.search.latency_table import LatencyTable
from edgewise.search.latency_table_times import DeviceTimes

NETWORKS = (
    "mobilenet_v1",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "mobilenet_v3_large",
    "mobilenet_v4_conv_small",
    "mobilenet_v4_conv_medium",
    "mobilenet_v4_hybrid_medium",
    "efficientnet_lite0",
    "efficientnet_b0",
    "efficientnet_v2_b0",
    "convnext_atto",
    "convnext_v2_atto",
    "resnet18",
    "resnet50",
)
QUICK = ("mobilenet_v2", "mobilenet_v3_small", "mobilenet_v4_conv_small", "efficientnet_lite0")
COLUMNS = ["model", "imgsz", "precision", "rows", "sum_ms", "whole_ms", "error"]


def main() -> None:
    """Measures what is missing, and prints each network's rows."""
    parser = ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="four small networks at 96 px")
    parser.add_argument("--precision", choices=("fp32", "int8"), default="fp32")
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    path = args.output / "additivity.csv"
    rows = read_csv(path)
    done = {(row["model"], row["imgsz"], row["precision"]) for row in rows}
    imgsz = 96 if args.quick else 224
    times = DeviceTimes(open_device("local"), precision=args.precision)
    for model in QUICK if args.quick else NETWORKS:
        if (model, str(imgsz), args.precision) in done:
            continue
        spec = edgewise.create_model(model).spec
        found = LatencyTable(spec, imgsz, times).additivity()
        print(f"{model} at {imgsz} px, {args.precision}\n{found}\n", flush=True)
        rows.append({
            "model": model, "imgsz": str(imgsz), "precision": args.precision,
            "rows": str(len(found.rows_ms)), "sum_ms": f"{found.sum_ms:.4f}",
            "whole_ms": f"{found.whole_ms:.4f}", "error": f"{found.error:.4f}",
        })  # fmt: skip
        write_csv(path, rows, COLUMNS)


if __name__ == "__main__":
    main()
