"""Every small network in every runtime that is installed here, ours against timm's three ways.

    python benchmarks/bench.py --quick      # three networks, a quarter of a minute each way
    make bench                              # all under 1 GMAC: hours; goes on where it was stopped

Writes into benchmarks/results/: `machine.json`, the card of the machine; `bench.csv`, a row for
each network x library x runtime x precision; `ratios.csv`, how many times as fast our best of each
precision is as timm in eager mode, through torch.compile, and as its plain export in ONNX Runtime,
with 95 % intervals; `pareto.png` and `pareto.html`; and the README's part that shows them. Rows
are kept in `bench.sqlite` there: a network that is in it with the versions of today is not measured
again.
"""

from __future__ import annotations

import csv
import json
import os
import platform
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import asdict, fields
from importlib import metadata
from io import StringIO
from pathlib import Path

import readme

from edgewise.errors import EdgewiseError
from edgewise.families import VARIANTS
from edgewise.files import write_json, write_text
from edgewise.measure.choose import Choice, choose
from edgewise.measure.count import count
from edgewise.measure.latency import machine
from edgewise.measure.store import Row, Store, machine_fingerprint
from edgewise.progress import bar
from edgewise.reporting.pareto import write_charts
from edgewise.timing.plan import Group, make_plan
from edgewise.timing.run import Watch, bench, steps
from edgewise.timing.runtimes import RUNTIMES
from edgewise.training.interrupt import stop_on_signals

RESULTS = Path(__file__).resolve().parent / "results"
QUICK = ("mobilenet_v2", "mobilenet_v3_small", "mobilenet_v4_conv_small")
MOST_MACS = 1e9
PRECISIONS = "fp32", "int8"
BF16 = "bf16"  # few processors have it
PEER = "timm"
PEER_RUNTIMES = ("torch", "torch-compile", "onnxruntime")
# timm has these with TensorFlow's padding only; by timm's name, ours gets it too.
NAMES = {f"efficientnet_v2_b{i}": f"tf_efficientnetv2_b{i}" for i in range(4)} | {
    f"mobilenet_v3_{size}_minimalistic": f"tf_mobilenetv3_{size}_minimal_100"
    for size in ("small", "large")
}


def networks() -> list[str]:
    """All under a billion MACs at their own size, the cheapest first."""
    macs = {v.name: count(v.spec(), v.input_size).macs for v in VARIANTS.values()}
    return [NAMES.get(n, n) for n in sorted(macs, key=macs.__getitem__) if macs[n] < MOST_MACS]


def card() -> dict[str, object]:
    """What the times depend on."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    versions = {name: version for name, r in RUNTIMES.items() if (version := r.version())}
    peer = {PEER: metadata.version(PEER)}
    return {
        **machine(),
        "fingerprint": machine_fingerprint(),
        "memory_bytes": memory,
        "python": platform.python_version(),
        "versions": versions | peer,
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY", "not set"),
    }


def is_done(group: Group, rows: Sequence[Row]) -> bool:
    """Whether all of its candidates were tried here, in turns, with today's versions."""
    wanted = {
        (c.library, c.runtime, RUNTIMES[c.runtime].version(), c.precision) for c in group.candidates
    }
    sessions: dict[str, set[tuple[str, str, str | None, str]]] = {}
    for row in rows:
        shape = (row.model, row.imgsz, row.batch, row.threads)
        if row.machine == machine_fingerprint() and shape == (
            *(group.model, group.imgsz, group.batch, group.threads),
        ):
            found = (row.library, row.runtime, row.version, row.precision)
            sessions.setdefault(row.session, set()).add(found)
    return any(wanted <= found for found in sessions.values())


def ratios(choice: Choice) -> dict[str, object]:
    """A line of `ratios.csv`: our best of one precision against the peer's networks."""
    best = choice.best
    line: dict[str, object] = {
        "model": best.model,
        "imgsz": best.imgsz,
        "threads": best.threads,
        "precision": best.precision,
        "best": best.runtime,
        "median_ms": best.median_ms,
    }
    peers = {row.runtime: times for row, times in choice.others if row.library == PEER}
    for runtime in PEER_RUNTIMES:
        times = peers.get(runtime)
        for name in ("value", "low", "high"):
            line[f"{PEER}_{runtime}_{name}"] = getattr(times, name, None)
    return line


def write_csv(path: Path, lines: Sequence[dict[str, object]], columns: Sequence[str]) -> None:
    """Writes all of it at once."""
    text = StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    write_text(path, text.getvalue())


def read_csv(path: Path) -> list[dict[str, str]]:
    """The lines of a file that `write_csv` wrote; none if it isn't there."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write_results(folder: Path, rows: Sequence[Row], every: Sequence[Row]) -> None:
    """Everything that is made from the store."""
    columns = [column.name for column in fields(Row) if column.name != "rounds_ms"]
    lines = [{name: asdict(row)[name] for name in columns} for row in rows]
    write_csv(folder / "bench.csv", lines, columns)
    compared = []
    for precision in (*PRECISIONS, BF16):
        if not any(row.precision == precision for row in rows):
            continue
        known = [row for row in every if row.precision == precision or row.library == PEER]
        for model in dict.fromkeys(row.model for row in rows):
            try:
                choices = choose(known, model, machine_fingerprint())
            except EdgewiseError as error:
                print(f"{precision}: {error}", file=sys.stderr)
            else:
                compared += [ratios(choice) for choice in choices]
    if compared:
        write_csv(folder / "ratios.csv", compared, list(compared[0]))
        write_charts(rows, folder)
    print(json.dumps(compared, indent=2))


def main() -> None:
    """Measures what is missing, then writes the files from all that is there."""
    parser = ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="three networks, fp32, short times")
    parser.add_argument("--models", nargs="+", help="these instead of all")
    parser.add_argument("--bf16", action="store_true", help="in bf16 too; not every processor can")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    folder: Path = arguments.results / "quick" if arguments.quick else arguments.results
    precisions = PRECISIONS[:1] if arguments.quick else PRECISIONS
    plan = make_plan(
        arguments.models or (QUICK if arguments.quick else networks()),
        RUNTIMES,
        precisions=(*precisions, BF16) if arguments.bf16 else precisions,
        against=(PEER,),
    )
    store = Store(folder / "bench.sqlite")
    done = store.rows()
    missing = [group for group in plan if not is_done(group, done)]
    write_json(folder / "machine.json", card())
    with stop_on_signals() as request, bar("bench", steps(missing)) as progress:
        watch = Watch(
            stopped=lambda: request.number is not None,
            on_step=lambda what, steps: progress.advance(steps, what),
        )
        for rows in bench(missing, RUNTIMES, 0.5 if arguments.quick else 2.0, watch):
            store.add(rows)
    planned = {(group.model, c.runtime, c.precision) for group in plan for c in group.candidates}
    here = [
        row
        for row in store.latest()
        if row.machine == machine_fingerprint()
        and (row.model, row.runtime, row.precision) in planned
    ]
    write_results(folder, here, store.rows())
    if arguments.results == RESULTS and not arguments.quick:
        readme.main()
    wrong = [row for row in here if row.status == "wrong"]
    for row in wrong:
        print(f"wrong: {row.model} {row.runtime} {row.precision}: {row.reason}", file=sys.stderr)
    if request.number:
        sys.exit(128 + request.number)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
