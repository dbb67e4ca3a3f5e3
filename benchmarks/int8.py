"""How much of a network's answers int8 keeps, in each runtime.

    python benchmarks/int8.py trained FOLDER [--networks mobilenet_v2 ...] [--formats litert ...]
    python benchmarks/int8.py photos FOLDER [--networks efficientnet_lite0 ...] [--seed 1]
    python benchmarks/int8.py table

`trained`: networks that learn handwritten digits (2,000 to learn from, 300 to choose by; from fresh
weights where ImageNet's are not at hand; a few minutes each; runs in FOLDER are taken) are exported
in int8 and answer 1,000 digits that neither they nor the calibration saw. Writes
`int8_trained.csv`: accuracy in float32 and in int8, and which layers stayed in float.

`photos`: networks with real weights, on the photos below FOLDER. Half of the photos are calibrated
on (`SEEN` crops of each, the whole photo among them), the other half is compared (`HELD` crops of
each), and then the other way round: no photo is on both sides. Writes `int8_photos.csv`: the share
of crops with the same top class as in float32, with its interval.

Rows that are measured again take the place of the old ones. `table` prints those of docs/int8.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from bench import RESULTS, read_csv, write_csv
from numpy.typing import NDArray
from pictures import TASKS, mnist, write_task
from PIL import Image

import edgewise
from edgewise.data.folders import images_below
from edgewise.deploy.artifact import Info
from edgewise.deploy.calibration import calibration_pixels, some_pixels
from edgewise.deploy.engine import EnginePredictor
from edgewise.deploy.formats import FORMATS, Job
from edgewise.deploy.predictor import Predictor
from edgewise.deploy.pytorch import TorchPredictor
from edgewise.errors import EdgewiseError
from edgewise.model import Model
from edgewise.run_folder import Run
from edgewise.training.metrics import wilson
from edgewise.weights.folder import load_model
from edgewise.weights.pretrained import load_pretrained

LEARNERS = (
    "mobilenet_v1",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "mobilenet_v3_small",
    "mobilenet_v4_conv_medium",
    "mobilenet_v4_conv_small",
    "efficientnet_b0",
    "efficientnet_lite0",
    "convnext_atto",
    "convnext_v2_atto",
)
PRETRAINED = ("efficientnet_lite0", "mobilenet_v2")
FORMATS_TRIED = ("onnx", "openvino", "litert", "executorch")
# `--keep-float`, and the format alone that it is tried in: one that computes the rest in bfloat16.
KEPT: dict[str, tuple[str, ...] | None] = {"none": (), "auto": None, "stages": ("stages",)}
HALF, IN_HALF = "stages", "openvino"
OF_PHOTOS = ("onnx", "openvino")
LEARNED, CHOSEN_BY, SIZE = 200, 30, 48  # digits of each class; pixels
SEEN, HELD, LEAST = 4, 12, 0.35  # crops of a photo; the smallest one's part of its area
BATCH = 16
CLEAR = 0.02  # a top class that leads by less is a tie
Row = dict[str, Any]


def digits(data: Path, seed: int = 0) -> Path:
    """What is learned and tested, in `data`; the seed draws what is learned."""
    if not data.exists():
        write_task(replace(TASKS["mnist"], train=LEARNED, val=CHOSEN_BY), mnist(), data, seed)
    return data


def tested(data: Path, model: Model) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pixels (N, size, size, 3) and labels of the digits to test on."""
    paths = sorted((data / "test").rglob("*.png"))
    pixels = np.stack([model.preprocess.pixels(Image.open(path).convert("RGB")) for path in paths])
    return pixels, np.array([model.labels.index(path.parent.name) for path in paths])


def trained(name: str, data: Path, root: Path, seed: int = 0) -> Run:
    """The run in `root`, trained if it isn't there."""
    if (root / "model").exists():
        return Run(root)
    own = name in PRETRAINED
    recipe = edgewise.Recipe(
        data=str(data),
        model=name,
        imgsz=SIZE,
        epochs=6 if own else 12,
        lr=1e-3 if own else 3e-3,
        pretrained=own,
        policy="none",
        crop_scale=0.9,
        flip=False,
        seed=seed,
        workers=0,
    )
    return edgewise.train(recipe, root)


def trained_rows(name: str, folder: Path, formats: Sequence[str]) -> Iterator[Row]:
    """A row for each format and way of keeping layers in float."""
    data = digits(folder / "digits")
    run = trained(name, data, folder / name)
    model = load_model(run.model)
    pixels, labels = tested(data, model)
    seen = calibration_pixels(run.root, None, model.preprocess, model.labels)
    checked = some_pixels(sorted((data / "val").rglob("*.png")), model.preprocess)
    exact = answers(TorchPredictor(model), pixels).argmax(1)
    right = int((exact == labels).sum())
    for format in formats:
        for name_kept, keep in KEPT.items():
            if keep != () and not FORMATS[format].keeps_float:
                continue
            if name_kept == HALF and format != IN_HALF:
                continue
            try:
                made = in_int8(model, format, seen, keep, pixels, checked)
            except EdgewiseError as error:  # the format can't express the network
                print(name, error, file=sys.stderr)
                continue
            found = made.answers.argmax(1)
            now = int((found == labels).sum())
            yield {
                "network": name,
                "runtime": made.runtime,
                "keep_float": name_kept,
                "images": len(labels),
                "right_float": right,
                "right_int8": now,
                "points_lost": round(100 * (right - now) / len(labels), 2),
                "changed": int((found != exact).sum()),
                "float_layers": " ".join(made.kept),
                "mb": round(made.megabytes, 2),
            }


def crops(model: Model, photos: Sequence[Path], each: int, seed: int) -> NDArray[np.uint8]:
    """uint8 (photos * each, size, size, 3): each photo whole, and parts of it."""
    random = np.random.default_rng(seed)
    found = []
    for path in photos:
        photo = Image.open(path).convert("RGB")
        found.append(model.preprocess.pixels(photo))
        for _ in range(each - 1):
            part, aspect = random.uniform(LEAST, 1), random.uniform(3 / 4, 4 / 3)
            width = min(photo.width, round(photo.width * (part * aspect) ** 0.5))
            height = min(photo.height, round(photo.height * (part / aspect) ** 0.5))
            left = int(random.integers(photo.width - width + 1))
            top = int(random.integers(photo.height - height + 1))
            found.append(
                model.preprocess.pixels(photo.crop((left, top, left + width, top + height)))
            )
    return np.stack(found)


def photo_rows(name: str, photos: Sequence[Path], seed: int) -> Iterator[Row]:
    """A row for each runtime and way of keeping layers in float, of both halves together."""
    model = load_pretrained(name)
    if seed:
        photos = [photos[i] for i in np.random.default_rng(seed).permutation(len(photos))]
    halves = photos[::2], photos[1::2]
    for keep in ((), None):
        exact = []
        made: dict[str, list[Made]] = {format: [] for format in OF_PHOTOS}
        for seen, held in (halves, halves[::-1]):
            pixels = crops(model, held, HELD, 2 * seed + 2)
            exact.append(answers(TorchPredictor(model), pixels))
            some = crops(model, seen, SEEN, 2 * seed + 1)
            for format, files in made.items():
                files.append(in_int8(model, format, some, keep, pixels))
        whole = np.concatenate(exact)
        ends = np.sort(whole, 1)
        clear = ends[:, -1] - ends[:, -2] > CLEAR
        for files in made.values():
            found = np.concatenate([item.answers for item in files])
            same = whole.argmax(1) == found.argmax(1)
            low, high = wilson(int(same.sum()), len(same))
            yield {
                "network": name,
                "runtime": files[0].runtime,
                "keep_float": "none" if keep == () else "auto",
                "seed": seed,
                "photos": len(photos),
                "crops": len(same),
                "same": int(same.sum()),
                "low": round(low, 4),
                "high": round(high, 4),
                "clear": int(clear.sum()),
                "clear_same": int((same & clear).sum()),
                "whole_same": int(same[::HELD].sum()),
                "float_layers": " | ".join(" ".join(item.kept) for item in files),
                "mb": round(max(item.megabytes for item in files), 2),
            }


@dataclass(frozen=True)
class Made:
    """An exported file.

    Attributes:
        runtime: that it is for.
        answers: probabilities (N, classes), that it gave.
        megabytes: of the file.
        kept: its layers in float, of an int8 file.
    """

    runtime: str
    answers: NDArray[np.float32]
    megabytes: float
    kept: tuple[str, ...]


def in_int8(
    model: Model,
    format: str,
    seen: NDArray[np.uint8],
    keep: tuple[str, ...] | None,
    pixels: NDArray[np.uint8],
    checked: NDArray[np.uint8] | None = None,
) -> Made:
    """A file that is calibrated on `seen`, and its answers to `pixels`; see `Job`."""
    with TemporaryDirectory() as folder:
        path = Path(folder, FORMATS[format].file)
        return exported(Job(model, "int8", path, seen, keep, checked), format, pixels)


def exported(job: Job, format: str, pixels: NDArray[np.uint8]) -> Made:
    """A file in a folder of its own, and its answers to `pixels`."""
    chosen, model = FORMATS[format], job.model
    kept = chosen.write(job)
    info = Info(
        chosen.file,
        format,
        job.precision,
        model.labels,
        model.preprocess,
        batch=chosen.batch,
        float_layers=kept,
    )
    reader = chosen.readers[0]
    found = answers(EnginePredictor(reader.open(job.path, info)), pixels)
    size = sum(file.stat().st_size for file in job.path.parent.iterdir()) / 1e6
    return Made(reader.name, found, size, kept)


def answers(predictor: Predictor, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Probabilities (N, classes)."""
    parts = (pixels[at : at + BATCH] for at in range(0, len(pixels), BATCH))
    return np.concatenate([predictor.probabilities(part) for part in parts])


def record(path: Path, rows: Iterator[Row]) -> None:
    """Puts the rows of a network into a file, in the place of its old ones, as they come."""
    for row in rows:
        same = [key for key in ("network", "runtime", "keep_float", "seed") if key in row]
        others = [old for old in read_csv(path) if any(old[key] != str(row[key]) for key in same)]
        lines = sorted([*others, row], key=lambda line: [str(line[key]) for key in same])
        write_csv(path, lines, list(row))
        print(*row.values(), flush=True)


def tables() -> Iterator[str]:
    """The lines of both tables, in Markdown."""
    rows = read_csv(RESULTS / "int8_trained.csv")
    ways = sorted({(row["runtime"], row["keep_float"]) for row in rows})
    found = {(row["network"], row["runtime"], row["keep_float"]): row for row in rows}
    yield f"| network | float32 | {' | '.join(f'{runtime}, {keep}' for runtime, keep in ways)} |"
    yield "|---" * (2 + len(ways)) + "|"
    for name in sorted({row["network"] for row in rows}):
        own = [found.get((name, *way)) for way in ways]
        first = next(row for row in own if row)
        exact = f"{int(first['right_float']) / int(first['images']):.1%}"
        yield f"| {name} | {exact} | {' | '.join(_cell(row) for row in own)} |"
    yield ""
    yield "| network | runtime | keep float | same top class | of clear ones | layers in float |"
    yield "|---|---|---|---|---|---|"
    for row in read_csv(RESULTS / "int8_photos.csv"):
        same, crops, clear = (int(row[key]) for key in ("same", "crops", "clear"))
        halves = " and ".join(str(len(half.split())) for half in row["float_layers"].split("|"))
        yield (
            f"| {row['network']} | {row['runtime']} | {row['keep_float']} "
            f"| {same} of {crops}: {same / crops:.1%} "
            f"({float(row['low']):.1%} to {float(row['high']):.1%}) "
            f"| {int(row['clear_same']) / clear:.1%} | {halves} |"
        )


def _cell(row: dict[str, str] | None) -> str:
    if row is None:
        return ""
    kept = len(row["float_layers"].split())
    return f"{float(row['points_lost']):+.1f} ({row['changed']})" + (f", {kept} float" * (kept > 0))


def main() -> None:
    """Measures what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("trained", "photos", "table"))
    parser.add_argument(
        "folder", type=Path, nargs="?", help="of photos; or for the runs that are trained"
    )
    parser.add_argument("--networks", nargs="+")
    parser.add_argument("--formats", nargs="+", default=FORMATS_TRIED, choices=FORMATS_TRIED)
    parser.add_argument("--seed", type=int, default=0, help="of the halves and crops of photos")
    given = parser.parse_args()
    if given.what == "table":
        print(*tables(), sep="\n")
        return
    if given.folder is None:
        parser.error(f"{given.what} needs a FOLDER")
    if given.what == "trained":
        for name in given.networks or LEARNERS:
            record(RESULTS / "int8_trained.csv", trained_rows(name, given.folder, given.formats))
        return
    photos = sorted(images_below(given.folder))
    for name in given.networks or PRETRAINED:
        record(RESULTS / "int8_photos.csv", photo_rows(name, photos, given.seed))


if __name__ == "__main__":
    main()
