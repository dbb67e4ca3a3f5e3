"""The last rungs of a search: the files of the trained network, what mends them, and the test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgewise.compress.other_runs import round_run
from edgewise.deploy.artifact import Artifact
from edgewise.errors import EdgewiseError
from edgewise.run_folder import Run
from edgewise.search.adapted import Way, narrow, train_narrowed
from edgewise.search.choice import Trial
from edgewise.search.decisions import Numbers
from edgewise.search.device import TimedFile
from edgewise.search.entrants import SIZES
from edgewise.search.pace import LOWERING, NARROWING
from edgewise.search.shipping import SECONDS, accuracy_on, best_file, costs, ship
from edgewise.search.state import State
from edgewise.search.trials import outcome
from edgewise.training.loop import train
from edgewise.training.recipe import Recipe

QAT_EPOCHS = 3
MOST_LOST = 0.01  # of the accuracy, by int8, above which training with its rounding is tried
LOWERED = 3  # sizes of image that are tried below the chosen one, at most
TESTED_LONGER = 2.0  # times as many seconds as other files get


def files_of(search: State, final: Run) -> list[Numbers]:
    """The files of a run; those with smaller images, or used to int8's rounding, where needed."""
    files = _ship(search, "files", final)
    run = final
    imgsz = Recipe.read(final.recipe).imgsz or SIZES[-1]
    for lower in reversed([size for size in SIZES if size < imgsz][-LOWERED:]):
        if best_file(files):
            break
        run = _lowered(search, run, lower)
        files += _ship(search, f"files: {lower} px", run)
    if needs_qat(files):
        files += _ship(search, "files: qat", _rounded(search, run), ("int8",))
    return files


def _lowered(search: State, run: Run, imgsz: int) -> Run:
    """The run's network, used to smaller images."""
    root = search.folder.shrunk / f"{imgsz}"

    def go_on() -> Numbers:
        return search.go_on(run, imgsz, search.left * LOWERING, root)

    search.decide(f"lower: {imgsz} px", go_on)
    return Run(root)


def _rounded(search: State, run: Run) -> Run:
    """The run's network, used to int8."""
    root = search.folder.shrunk / "qat"

    def round_it() -> Numbers:
        if Run.is_run(root):
            return outcome(train(Recipe.read(Run(root).recipe), root, resume=True))
        return outcome(round_run(run, root, QAT_EPOCHS))

    search.decide("qat", round_it)
    return Run(root)


def narrowed_files(search: State, trials: Sequence[Trial], final: Run) -> list[Numbers]:
    """The files of a network that was too dear, and better than the one that was trained."""
    dearer = next((trial for trial in trials if trial.above), None)
    known = search.log.made.get(f"round 2: {dearer.name}") if dearer else None
    if not dearer or not known or search.budget.latency_ms is None:
        return []
    if known["score"] <= outcome(final)["score"]:
        return []
    original, root = Run(Path(known["run"])), search.folder.shrunk / "narrowed"
    least = dearer.least.candidate
    way = Way(search.device, least.precision, least.runtime)
    folder = search.folder.shrunk / "netadapt"

    def work() -> Numbers:
        return narrow(original, way, search.budget, folder, search.left * NARROWING)

    steps = search.decide("narrow", work)
    if not steps["fits"]:
        return []
    search.decide("narrowed", lambda: outcome(train_narrowed(steps, original, root)))
    return _ship(search, "files: narrowed", Run(root))


def tested(search: State, files: Sequence[Numbers]) -> Numbers:
    """The best file that fits, or else the nearest: timed afresh, and on images not seen before."""
    chosen = best_file(files) or nearest(files)
    folder, runtime = Path(chosen["folder"]), chosen["runtime"]
    artifact = Artifact.read(folder)
    timed = TimedFile.of(artifact, "chosen", runtime)
    seen = search.device.measure([timed], TESTED_LONGER * SECONDS)["chosen"]
    samples = search.dataset.splits["test"]
    return {
        "folder": str(folder),
        "precision": chosen["precision"],
        "runtime": runtime,
        "selected_by": {name: chosen[name] for name in ("accuracy", "low", "high", "images")},
        **costs(seen, artifact, search.budget),
        **accuracy_on(folder, runtime, samples, search.request.workers or 0),
    }


def needs_qat(files: Sequence[Numbers]) -> bool:
    """Whether int8 loses more than a point of the accuracy, and float does not fit."""
    if any(file["fits"] and file["precision"] == "fp32" for file in files):
        return False
    rounded = [file for file in files if file["precision"] == "int8" and not file["failure"]]
    return bool(rounded) and all(
        file["accuracy_model"] - file["accuracy"] > MOST_LOST for file in rounded
    )


def nearest(files: Sequence[Numbers]) -> Numbers:
    """The file that exceeds the budget by least.

    Raises:
        EdgewiseError: not one can be run.
    """
    able = [file for file in files if "spent" in file and not file["failure"]]
    if not able:
        reasons = "; ".join(sorted({str(file["failure"]) for file in files}))
        raise EdgewiseError(f"none of the exported files can be shipped: {reasons}")
    return min(able, key=lambda file: max(file["used"].values()))


def _ship(
    search: State, step: str, made: Run, precisions: Sequence[str] | None = None
) -> list[Numbers]:
    wanted = precisions or search.request.precisions

    def work() -> Numbers:
        return {"files": ship(made, wanted, search.device, search.runtimes, search.budget)}

    files: list[Numbers] = search.decide(step, work)["files"]
    return files
