"""What a run folder holds, read once; a part that isn't there yet is None or empty."""

from __future__ import annotations

import csv
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewise.deploy.artifact import MOST_CHANGED, Artifact
from edgewise.deploy.formats import FORMATS
from edgewise.deploy.verification import is_as_it_was
from edgewise.errors import UsageError
from edgewise.files import read_json, sha256_file
from edgewise.run_folder import Run
from edgewise.shell import command_line
from edgewise.training.history import EpochMetrics, read_history
from edgewise.training.recipe import Recipe
from edgewise.weights.folder import learned_int8

Json = dict[str, Any]
Rows = tuple[dict[str, str], ...]

COLUMNS = "path label split sha256"  # of split.csv
SPLITS = ("test", "val")  # the one to report on first: no choice was ever made on the test split
AGAIN = "Delete it and run the verb that writes it again."


@dataclass(frozen=True)
class Record:
    """The content of the files that the rooms before this one wrote.

    Attributes:
        run: the run folder.
        recipe: recipe.json.
        environment: environment.json, or empty.
        data: data.json, or None before the data was read.
        images: the rows of split.csv.
        quarantine: the rows of quarantine.csv.
        epochs: metrics.csv; empty before the first epoch's end.
        evaluation: eval/test.json, else eval/val.json unless val was learned from, if it is of the
            run's present weights, else None.
        predictions: the rows of the CSV beside it.
        verification: verify.json, or None.
        verification_outdated: whether the exported file or the weights are other ones by now.
        learned_int8: whether the network learned to compute in int8.
        learned_val: whether it learned from val's images, too, as in the last training of a search.
        preprocess: model/preprocess.json, or None before the first epoch's end.
        spec: model/spec.json, or None before the first epoch's end.
    """

    run: Run
    recipe: Recipe
    environment: Json
    data: Json | None
    images: Rows
    quarantine: Rows
    epochs: tuple[EpochMetrics, ...]
    evaluation: Json | None
    predictions: Rows
    verification: Json | None
    verification_outdated: bool
    learned_int8: bool
    learned_val: bool
    preprocess: Json | None
    spec: Json | None

    @property
    def folder(self) -> str:
        """The run folder, quoted for a shell."""
        return shlex.quote(str(self.run.root))

    @property
    def network(self) -> str:
        """What it is called, by its recipe or by the folder that it started from."""
        folder = self.recipe.folder
        return self.spec["name"] if folder and self.spec else self.recipe.model

    @property
    def origin(self) -> str:
        """Where its first weights are from."""
        if self.recipe.pretrained:
            return "fine-tuned from ImageNet weights"
        return "trained on from another model" if self.recipe.folder else "trained from scratch"

    def command(self, verb: str, *options: str) -> str:
        """The command line that runs `verb` on this run."""
        return command_line(*verb.split(), self.run.root, *options)

    def exports(self) -> list[str]:
        """The command lines that make the verified files again, or else the usual one."""
        seen = self.verification["artifacts"] if self.verification else ()
        made = {item["name"]: item for item in seen}
        formats: dict[tuple[str, ...], list[str]] = {}  # by the options that they were made with
        for name, format in FORMATS.items():
            if own := [p for p in format.precisions if f"{name}-{p}" in made]:
                precisions = ("--precision", ",".join(own)) if own != ["fp32"] else ()
                options = (*precisions, *self._int8_options(made.get(f"{name}-int8")))
                formats.setdefault(options, []).append(name)
        return [
            self.command(
                "export",
                *(("--format", ",".join(names)) if names != ["onnx"] else ()),
                *options,
            )
            for options, names in formats.items()
        ] or [self.command("export", *(("--precision", "int8") if self.learned_int8 else ()))]

    def _int8_options(self, item: Json | None) -> tuple[str, ...]:
        """What an int8 file was asked for, as it says itself; nothing if it is gone or damaged."""
        try:
            info = Artifact.read(self.run.root / item["folder"]).info if item else None
        except UsageError:
            info = None
        if info is None:
            return ()
        kept = info.keep_float
        auto = "" if info.most_changed == MOST_CHANGED else f"auto:{100 * info.most_changed:g}%"
        asked = auto if kept is None else ",".join(kept) or "none"
        return (
            *(("--keep-float", asked) if asked else ()),
            *(("--calibrate", info.calibrate) if info.calibrate else ()),
        )

    def picture(self, path: str) -> Path:
        """Where the image is that split.csv calls `path`."""
        return Path(self.data["root"] if self.data else "") / path

    def counts(self) -> dict[str, dict[str, int]]:
        """The number of images by split and class, each image once: val's not if train has them."""
        counts: dict[str, dict[str, int]] = self.data["counts"] if self.data else {}
        return counts | {"val": {}} if self.learned_val else counts


def read_record(run: Run) -> Record:
    """Reads a run folder.

    Raises:
        UsageError: a file is not what its writer wrote (the message names the file).
    """
    weights = sha256_file(run.weights) if run.weights.is_file() else ""
    images = _rows(run.split, COLUMNS)
    val_too = _learned_val(images)
    evaluation, predictions = _evaluation(run, weights, SPLITS[:1] if val_too else SPLITS)
    verification = _json(
        run.verification, "model_sha256 split skipped tolerance most_lost artifacts passed"
    )
    return Record(
        run=run,
        recipe=Recipe.read(run.recipe),
        environment=_json(run.environment, "edgewise") or {},
        data=_json(run.data, "root fingerprint classes counts quarantined"),
        images=images,
        quarantine=_rows(run.quarantine, "path label split reason"),
        epochs=tuple(read_history(run)) if run.metrics.is_file() else (),
        evaluation=evaluation,
        predictions=predictions,
        verification=verification,
        verification_outdated=verification is not None
        and (verification["model_sha256"] != weights or _changed(run, verification)),
        learned_int8=learned_int8(run.model),
        learned_val=val_too,
        preprocess=_json(run.model / "preprocess.json", "size crop interpolation mean std"),
        spec=_json(run.model / "spec.json", "name"),
    )


def learned_val(run: Run) -> bool:
    """Whether a run learned from val's images, too; see `Record`."""
    return _learned_val(_rows(run.split, COLUMNS))


def _learned_val(images: Rows) -> bool:
    """Whether every image of val is in train as well."""
    train, val = ({row["sha256"] for row in images if row["split"] == s} for s in ("train", "val"))
    return bool(val) and val <= train


def _evaluation(run: Run, weights: str, splits: Sequence[str]) -> tuple[Json | None, Rows]:
    """The first evaluation of these splits that is of the weights with this digest; its answers."""
    for split in splits:
        evaluation = _json(
            run.evaluation / f"{split}.json",
            "split model_sha256 images skipped top1 top5 ece classes confusion per_class "
            "calibration",
        )
        if evaluation and evaluation["model_sha256"] == weights:
            return evaluation, _rows(
                run.evaluation / f"{split}.csv",
                "path label predicted probability probability_label",
            )
    return None, ()


def _changed(run: Run, verification: Json) -> bool:
    """Whether a file that was verified is gone or is another one now."""
    return any(
        not is_as_it_was(run.root, item["folder"], item["file"], item["sha256"])
        for item in verification["artifacts"]
    )


def _json(path: Path, keys: str) -> Json | None:
    if not path.is_file():
        return None
    value = read_json(path)
    _check(path, keys.split(), value if isinstance(value, dict) else ())
    return dict(value)


def _rows(path: Path, columns: str) -> Rows:
    if not path.is_file():
        return ()
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            rows = tuple(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"can't read {path} ({error}). {AGAIN}") from None
    needed = columns.split()
    _check(path, needed, reader.fieldnames or ())
    for line, row in enumerate(rows, start=2):
        if None in (row[name] for name in needed):
            expected = ",".join(needed)
            raise UsageError(f"{path}, line {line}, was edited: expected {expected}. {AGAIN}")
    return rows


def _check(path: Path, needed: list[str], found: Any) -> None:
    missing = [name for name in needed if name not in found]
    if missing:
        raise UsageError(
            f"{path} has no {', '.join(missing)}: it was changed after edgewise wrote it. {AGAIN}"
        )
