"""Images a second and memory of `edgewise doctor`, at three sizes of data.

    python benchmarks/doctor.py                        # 1,000, 10,000 and 100,000 images
    python benchmarks/doctor.py --sizes 1000 10000 --workers 1

The images are crops of 96 x 96 pixels of scikit-image's photos, each at another place or turned, as
JPEG files in a temporary folder: distinct contents, ten classes, two splits. Memory is the largest
sum over all processes that was seen, every tenth of a second: `rss_mb` of the resident sizes, in
which pages that processes share count once for each, and `parent_mb` of the process that keeps what
is known of each image. `cpu_seconds` is of all processes: on a busy machine it says more than the
clock. The label probe is left out: it looks at 5,000 images however many there
are. Rows are appended to benchmarks/results/doctor.csv.
"""

from __future__ import annotations

import argparse
import csv
import resource
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import psutil
import skimage.data
from PIL import Image

from edgewise.measure.latency import machine

RESULTS = Path(__file__).resolve().parent / "results" / "doctor.csv"
SIZES = (1_000, 10_000, 100_000)
PHOTOS = ("astronaut", "chelsea", "coffee", "rocket")
SIDE, CLASSES = 96, 10
SECONDS_BETWEEN_LOOKS = 0.1


def write_images(root: Path, count: int) -> None:
    """Crops at random places, with a little noise so that no two are copies."""
    random = np.random.default_rng(0)
    photos = [np.asarray(getattr(skimage.data, name)()) for name in PHOTOS]
    for number in range(count):
        photo = photos[random.integers(len(photos))]
        top, left = (random.integers(0, side - SIDE) for side in photo.shape[:2])
        crop = np.rot90(photo[top : top + SIDE, left : left + SIDE], random.integers(4))
        mixed = 0.6 * crop + 0.4 * random.permutation(photos[0][:SIDE:12, :SIDE:12]).repeat(
            12, axis=0
        ).repeat(12, axis=1)
        folder = (
            root / ("val" if number // CLASSES % 5 == 0 else "train") / f"class{number % CLASSES}"
        )
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mixed.astype(np.uint8)).save(folder / f"{number}.jpg", quality=90)


def look(root: Path, workers: int) -> dict[str, float]:
    """One run of the command: seconds, and the largest memory seen, in MB of 10^6 bytes."""
    command = [sys.executable, "-m", "edgewise", "doctor", str(root), "--no-probe", "--json"]
    start, before = time.perf_counter(), _cpu_seconds()
    with subprocess.Popen(
        [*command, "--workers", str(workers)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        own, most, parent = psutil.Process(process.pid), 0, 0
        while process.poll() is None:
            here, total = _resident(own)
            parent, most = max(parent, here), max(most, total)
            time.sleep(SECONDS_BETWEEN_LOOKS)
    if process.returncode not in (0, 1):  # 1: the data is not sound
        raise SystemExit(f"edgewise doctor ended with {process.returncode}")
    return {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": _cpu_seconds() - before,
        "rss_mb": most / 1e6,
        "parent_mb": parent / 1e6,
    }


def _cpu_seconds() -> float:
    """Of all processes that this one has started and that have ended, with those below them."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _resident(process: psutil.Process) -> tuple[int, int]:
    """Bytes of the process, and of it and all below it; 0 for what has just ended."""
    total, own = 0, 0
    for one in (process, *_below(process)):
        try:
            resident = one.memory_info().rss
        except psutil.NoSuchProcess:
            continue
        total += resident
        own = own or resident
    return own, total


def _below(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def main() -> None:
    """One row a size."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--workers", type=int, default=1)
    asked = parser.parse_args()
    for count in asked.sizes:
        with tempfile.TemporaryDirectory() as folder:
            write_images(Path(folder), count)
            seen = look(Path(folder), asked.workers)
        row = {
            "images": count,
            "workers": asked.workers,
            "seconds": round(seen["seconds"], 2),
            "images_per_second": round(count / seen["seconds"], 1),
            "cpu_seconds": round(seen["cpu_seconds"], 2),
            "images_per_cpu_second": round(count / seen["cpu_seconds"], 1),
            "rss_mb": round(seen["rss_mb"], 1),
            "parent_mb": round(seen["parent_mb"], 1),
            "when": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "cpu": machine()["cpu"],
        }
        print(row, flush=True)
        new = not RESULTS.exists()
        with RESULTS.open("a", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, row, lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerow(row)


if __name__ == "__main__":
    main()
