"""The matrix network x format x precision: what can be expressed, how exactly, how fast.

    python benchmarks/formats.py --format litert,executorch --network mobilenet_v2 --output OUT.csv
    python benchmarks/formats.py --docs

A small network of each family (width 0.25, one block of each kind and stage, 64 pixels, weights
that make unlike answers) is exported to every format and precision that is installed, and run in
the format's own runtime on 32 pictures, each cell in a process of its own. Rows of the CSV that
are made again replace the old ones. `--docs` writes the matrix of all formats_*.csv in
benchmarks/results into docs/formats.md, between its markers.

Such networks show what a format can express and how exactly it computes; how much accuracy a
trained network loses is what `edgewise verify` says. Milliseconds are of one 64-pixel image.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from dataclasses import asdict, dataclass, fields, replace
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from edgewise.deploy.artifact import Info
from edgewise.deploy.engine import EnginePredictor
from edgewise.deploy.formats import FORMATS, PRECISIONS, Format, Job
from edgewise.deploy.isolated import isolated
from edgewise.deploy.pytorch import TorchPredictor
from edgewise.errors import EdgewiseError
from edgewise.files import write_text
from edgewise.reporting.numbers import filesize

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
NETWORKS = (
    "mobilenet_v1",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "mobilenet_v4_conv_small",
    "mobilenet_v4_hybrid_medium",
    "efficientnet_b0",
    "efficientnet_lite0",
    "efficientnet_v2_b0",
    "convnext_atto",
    "convnext_v2_atto",
    "resnet18",
    "vgg16",
)
SIZE, CALIBRATION, PICTURES = 64, 32, 32
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "formats.md"
BEGIN, END = "<!-- begin: benchmarks/formats.py -->", "<!-- end: benchmarks/formats.py -->"


@dataclass(frozen=True)
class Cell:
    """One network in one format and precision.

    Attributes:
        network: its name.
        format: see `edgewise.deploy.formats`.
        precision: likewise.
        status: "works", "not run" (converted, but nothing here runs it) or why not.
        difference: the largest of a probability from PyTorch's, over all pictures.
        agreement: the part of the pictures with PyTorch's top class, 0 to 1.
        median_ms: of one picture, from pixels to probabilities.
        bytes: of all that the runtime loads.
        seconds: to write the file.
        notes: what the format says of the file.
        versions: of what wrote and ran it.
    """

    network: str
    format: str
    precision: str
    status: str
    difference: str = ""
    agreement: str = ""
    median_ms: str = ""
    bytes: str = ""
    seconds: str = ""
    notes: str = ""
    versions: str = ""


def measure(network: str, format: str, precision: str) -> Cell:
    """Exports and runs one."""
    from photos import picture
    from small import small_model

    chosen = FORMATS[format]
    packages = dict.fromkeys(["torch", *chosen.packages, *(r.package for r in chosen.readers[:1])])
    versions = "; ".join(f"{name} {metadata.version(name)}" for name in packages)
    model = small_model(network, tuple("abcdefghij"), SIZE)
    pictures = [picture(seed) for seed in range(CALIBRATION + PICTURES)]
    pixels = np.stack([model.preprocess.pixels(image) for image in pictures])
    calibration, pixels = pixels[:CALIBRATION], pixels[CALIBRATION:]
    with TemporaryDirectory() as folder:
        path = Path(folder, chosen.file)
        job = Job(model, precision, path, calibration if precision == "int8" else None)
        start = time.perf_counter()
        chosen.write(job)
        files = [file for file in Path(folder).rglob("*") if file.is_file()]
        cell = Cell(
            network,
            format,
            precision,
            "not run",
            seconds=f"{time.perf_counter() - start:.0f}",
            bytes=str(sum(file.stat().st_size for file in files)),
            notes="; ".join(job.notes),
            versions=versions,
        )
        if not chosen.readers or not chosen.readers[0].version():
            return cell
        answers, milliseconds = _answers(chosen, job, pixels)
    expected = TorchPredictor(model).probabilities(pixels)  # it changes the order of the memory
    return replace(
        cell,
        status="works",
        difference=f"{np.abs(answers - expected).max():.1e}",
        agreement=f"{(answers.argmax(1) == expected.argmax(1)).mean():.3f}",
        median_ms=f"{milliseconds:.2f}",
    )


def _answers(chosen: Format, job: Job, pixels: Any) -> tuple[Any, float]:
    from edgewise.measure.latency import benchmark

    info = Info(
        chosen.file,
        chosen.name,
        job.precision,
        job.model.labels,
        job.model.preprocess,
        chosen.input,
        chosen.output,
        chosen.batch,
    )
    predictor = EnginePredictor(chosen.readers[0].open(job.path, info))
    latency = benchmark(lambda: predictor.probabilities(pixels[:1]), 0.5)
    return predictor.probabilities(pixels), latency.median_ms


def safely(network: str, format: str, precision: str) -> Cell:
    """`measure` in a process of its own; what goes wrong is the cell's status."""
    try:
        return isolated(measure, network, format, precision)
    except EdgewiseError as error:
        return Cell(network, format, precision, str(error))


def read(path: Path) -> dict[tuple[str, str, str], Cell]:
    """The cells of a CSV file; none if it is not there."""
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        cells = [Cell(**row) for row in csv.DictReader(file)]
    return {(cell.network, cell.format, cell.precision): cell for cell in cells}


def write(cells: dict[tuple[str, str, str], Cell], path: Path) -> None:
    """The CSV file, in the order of the tables."""
    order = {name: at for at, name in enumerate([*NETWORKS, *FORMATS, *PRECISIONS])}
    keys = sorted(cells, key=lambda key: [order.get(name, -1) for name in key])
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Cell)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(cells[key]) for key in keys)


def table(cells: dict[tuple[str, str, str], Cell]) -> str:
    """The matrix as Markdown: a line a network, a column a format and precision."""
    columns = [
        (name, precision)
        for name, format in FORMATS.items()
        for precision in format.precisions
        if any(key[1:] == (name, precision) for key in cells)
    ]
    lines = ["| network | " + " | ".join(" ".join(column) for column in columns) + " |"]
    lines.append("|---" * (len(columns) + 1) + "|")
    why: dict[str, int] = {}
    for network in NETWORKS:
        row = [_word(cells.get((network, *column)), why) for column in columns]
        if any(row):
            lines.append(f"| {network} | " + " | ".join(row) + " |")
    lines += ["", *(f"{number}. {reason}" for reason, number in why.items())]
    versions = dict.fromkeys(part for cell in cells.values() for part in cell.versions.split("; "))
    lines += ["", f"Tried with {', '.join(sorted(filter(None, versions)))}.", ""]
    return "\n".join(lines)


def _word(cell: Cell | None, why: dict[str, int]) -> str:
    """A cell as it stands in the table; what it says at more length is numbered below it."""
    if cell is None:
        return ""
    long = cell.notes if cell.status in ("works", "not run") else cell.status
    mark = f" ({why.setdefault(long, len(why) + 1)})" if long else ""
    if cell.status == "not run":
        return f"converted, not run{mark}"
    if cell.status != "works":
        return f"no{mark}"
    exact = cell.precision == "fp32"
    said = cell.difference if exact else f"{100 * float(cell.agreement):.0f} %"
    return f"{said}, {filesize(int(cell.bytes))}{mark}"


def write_docs() -> None:
    """Puts the matrix between the markers of the page."""
    cells: dict[tuple[str, str, str], Cell] = {}
    for path in sorted(RESULTS.glob("formats_*.csv")):
        cells |= read(path)
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    write_text(PAGE, f"{before}{BEGIN}\n{table(cells)}{END}{after}")


def main() -> None:
    """Makes the cells that are asked for, one after the other, and writes each as it is there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--format", default=",".join(FORMATS), help="one or more, with commas")
    parser.add_argument("--network", default=",".join(NETWORKS), help="one or more, with commas")
    parser.add_argument("--output", type=Path, default=RESULTS / "formats_all.csv")
    parser.add_argument("--docs", action="store_true", help="only write docs/formats.md")
    options = parser.parse_args()
    if options.docs:
        write_docs()
        return
    for network in options.network.split(","):
        for format in options.format.split(","):
            for precision in FORMATS[format].precisions:
                cell = safely(network, format, precision)
                write(read(options.output) | {(network, format, precision): cell}, options.output)
                print(network, format, precision, cell.status, cell.difference, flush=True)


if __name__ == "__main__":
    main()
