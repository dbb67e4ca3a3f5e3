"""The last rungs of a search: the files of the trained network, what mends them, and the test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from edgewise.compress.other_runs import round_run
from edgewise.deploy.artifact import Artifact
from edgewise.deploy.export import TRUSTED
from edgewise.deploy.isolated import isolated
from edgewise.errors import EdgewiseError
from edgewise.run_folder import Run
from edgewise.search.adapted import Clock, narrow, stand_in, train_narrowed
from edgewise.search.choice import Trial
from edgewise.search.costs import UNDRIFTED, Cost, as_of_now
from edgewise.search.decisions import Numbers
from edgewise.search.device import TimedFile
from edgewise.search.entrants import SIZES
from edgewise.search.pace import LEAST_TRIAL, LOWERING, NARROWING, TIGHT
from edgewise.search.shipping import SECONDS, accuracy_on, best_file, best_first, costs, ship
from edgewise.search.state import State
from edgewise.search.trials import outcome, tried
from edgewise.search.ways import THROUGHOUT, Way
from edgewise.training.loop import train
from edgewise.training.recipe import Recipe

FIRST_FILES = "files"  # the step without which there is nothing to ship
QAT_EPOCHS = 3
MOST_LOST = 0.01  # of the accuracy, by int8, above which training with its rounding is tried
BY_CHANCE = 4  # images: as many may be lost where int8 loses nothing (two standard errors of it)
LOWERED = 3  # sizes of image that are tried below the chosen one, at most
TESTED_LONGER = 2.0  # times as many seconds as other files get


def files_of(search: State, final: Run) -> list[Numbers]:
    """The files of a run; those with smaller images, or used to int8's rounding, where needed.

    A training for these that fails leaves the files that there are.

    Raises:
        EdgewiseError: not one file can be made of the run.
    """
    promised = [Way(**way) for way in _chosen(search).get("ways", ())]  # an older log has none
    run, last = final, _shipped(search, FIRST_FILES, final, promised)
    files = list(last)
    imgsz = Recipe.read(final.recipe).imgsz or SIZES[-1]
    smaller = reversed([size for size in SIZES if size < imgsz][-LOWERED:])
    for number, size in enumerate(smaller):
        if best_file(files) or too_large(last):
            break
        if lowered := _lowered(search, run, size, number == 0 and tight(search)):
            run, last = lowered, _shipped(search, f"files: {size} px", lowered, promised)
            files += last
    # By the last network alone: what int8 loses in one that does not fit says nothing of it.
    if needs_qat(last) and (used_to_it := _rounded(search, run)):
        rounded = [way for way in search.ways if way.precision == "int8"]
        work = partial(made_files, search, used_to_it, rounded)
        files += _decided(search, "files: qat", used_to_it, work)
    return files


def tight(search: State) -> bool:
    """Whether time is set aside for smaller images: for one training of the network."""
    return float(_chosen(search)["used"]) > TIGHT


def _chosen(search: State) -> Numbers:
    """The trial whose network was trained, as "choose" has it."""
    chosen = search.log.made["train"]["trial"]
    trials: list[Numbers] = search.log.made["choose"]["trials"]
    return next(trial for trial in trials if trial["name"] == chosen)


def _lowered(search: State, run: Run, imgsz: int, set_aside: bool) -> Run | None:
    """The run's network, used to smaller images; None where that training fails."""
    root = search.folder.shrunk / f"{imgsz}"

    def go_on() -> Numbers:
        minutes = search.left * LOWERING
        if not set_aside:
            minutes = min(minutes, max(search.unspent, LEAST_TRIAL))
        return search.go_on(run, imgsz, minutes, root)

    made = search.decide(f"lower: {imgsz} px", partial(tried, go_on))
    return None if "failure" in made else Run(root)


def _rounded(search: State, run: Run) -> Run | None:
    """The run's network, used to int8; None where that training fails."""
    root = search.folder.shrunk / "qat"

    def round_it() -> Numbers:
        if Run.is_run(root):
            return search.outcome(train(Recipe.read(Run(root).recipe), root, resume=True))
        return search.outcome(round_run(run, root, QAT_EPOCHS))

    made = search.decide("qat", partial(tried, round_it))
    return None if "failure" in made else Run(root)


def narrowed_files(search: State, trials: Sequence[Trial], final: Run) -> list[Numbers]:
    """The files of a network that was too dear, and better than the one that was trained."""
    dearer = next((trial for trial in trials if trial.above), None)
    known = search.log.made.get(f"round 2: {dearer.name}") if dearer else None
    if not dearer or not known or not dearer.least.spent:
        return []
    used = search.budget.parts(dearer.least.spent)
    # NetAdapt stops where the time fits, whatever size and memory are by then: where these exceed
    # too, the long training after it would most often be for nothing.
    if [part for part, taken in used.items() if taken > 1] != ["latency"]:
        return []
    if known["score"] <= outcome(final)["score"]:
        return []
    original, root = Run(search.folder.at(known["run"])), search.folder.shrunk / "narrowed"

    def work() -> Numbers:
        return {"fits": False, **tried(lambda: _narrowed(search, dearer, original))}

    steps = search.decide("narrow", work)
    if not steps["fits"]:
        return []

    def train_on() -> Numbers:
        model = search.folder.at(steps["model"])
        return search.outcome(train_narrowed(model, steps["steps"], original, root))

    if "failure" in search.decide("narrowed", partial(tried, train_on)):
        return []
    return _shipped(search, "files: narrowed", Run(root), dearer.ways)


def _narrowed(search: State, dearer: Trial, original: Run) -> Numbers:
    """What `narrow` says. Where an ONNX file stands in, it has to become as much faster."""
    least = dearer.least.candidate
    made = search.log.made
    surveyed = [Cost.read(cost) for cost in made["survey"]["costs"]]
    found = as_of_now(surveyed, (), made.get("drift", UNDRIFTED))
    stands_in = stand_in(least, found, search.budget)
    if not stands_in:
        failure = f"narrowing goes by the times of ONNX files, and none of {dearer.name} was timed"
        return {"failure": failure, "fits": False}
    timed, factor = stands_in
    clock = Clock(search.device, timed.precision, timed.runtime)
    budget = replace(search.budget, latency_ms=factor * (search.budget.latency_ms or 0.0))
    folder = search.folder.shrunk / "netadapt"
    numbers = narrow(original, clock, budget, folder, search.left * NARROWING)
    if "model" in numbers:
        numbers["model"] = search.folder.place(Path(numbers["model"]))
    if timed != least:
        numbers["timed_as"], numbers["instead_of"] = str(timed.way), str(least.way)
    return numbers


def tested(search: State, files: Sequence[Numbers]) -> Numbers:
    """The best file that fits when it is timed afresh, or else the nearest: on images not seen yet.

    Returns:
        What it is, costs now and gets right; "over": other files that were to be tested, and did
        not fit any more.

    Raises:
        EdgewiseError: no file can be run any more.
    """
    *over, (chosen, now) = _timed_afresh(search, files)
    folder, way = search.folder.at(chosen["folder"]), Way.of(chosen)
    samples, workers = search.dataset.splits["test"], search.request.workers or 0
    answer = partial(accuracy_on, folder, way.runtime, samples, workers)
    return {
        "folder": chosen["folder"],
        **asdict(way),
        "selected_by": chosen.get("selected_by") or selected_by(chosen),
        "over": [{**file, **now} for file, now in over if file["fits"]],
        **now,
        **(answer() if way.format in TRUSTED else isolated(answer)),
    }


def selected_by(file: Numbers) -> Numbers:
    """What a file was chosen for."""
    return {name: file[name] for name in ("accuracy", "low", "high", "images")}


def _timed_afresh(search: State, files: Sequence[Numbers]) -> list[tuple[Numbers, Numbers]]:
    """Files with what they cost now: the best first, until one fits; or at last the nearest.

    A device that is slower now is so for all: a time of now is only held against others of now.
    """
    tried: list[tuple[Numbers, Numbers]] = []
    for file in best_first(files):
        tried.append((file, _costs_now(search, file)))
        if tried[-1][1]["fits"]:
            return tried
    never = [file for file in files if not file["fits"]]
    while True:
        as_now = [{**file, **now} for file, now in tried]
        file = nearest([*as_now, *never])
        if file in as_now:
            tried.append(tried.pop(as_now.index(file)))
            return tried
        never.remove(file)
        tried.append((file, _costs_now(search, file)))


def _costs_now(search: State, file: Numbers) -> Numbers:
    """See `costs`."""
    artifact = Artifact.read(search.folder.at(file["folder"]))
    timed = TimedFile.of(artifact, "chosen", Way.of(file).runtime)
    seen = search.device.measure([timed], TESTED_LONGER * SECONDS)["chosen"]
    return costs(seen, artifact, search.budget)


def too_large(files: Sequence[Numbers]) -> bool:
    """Whether each file is over the budget's size, which smaller images leave as it is."""
    used = [file["used"] for file in files if not file["failure"]]
    return bool(used) and all(parts.get("size", 0.0) > 1 for parts in used)


def needs_qat(files: Sequence[Numbers]) -> bool:
    """Whether int8 loses more than a point of the accuracy, and not by chance, and no float fits.

    One of 60 images is more than a point.
    """
    if any(file["fits"] and file["precision"] != "int8" for file in files):
        return False
    rounded = [file for file in files if file["precision"] == "int8" and not file["failure"]]
    return bool(rounded) and all(
        (file["accuracy_model"] - file["accuracy"]) * file["images"]
        > max(MOST_LOST * file["images"], BY_CHANCE)
        for file in rounded
    )


def likeliest(files: Sequence[Numbers]) -> Numbers:
    """The file that will be tested, unless it takes longer by then.

    Raises:
        EdgewiseError: not one can be run.
    """
    return best_file(files) or nearest(files)


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


def made_files(
    search: State,
    made: Run,
    ways: Sequence[Way],
    keep_float: tuple[str, ...] | None = None,
) -> list[Numbers]:
    """See `ship`; their folders are as the log keeps them."""
    files = ship(made, ways, search.device, search.budget, keep_float)
    for file in files:
        if file["folder"]:
            file["folder"] = search.folder.place(Path(file["folder"]))
    return files


def _shipped(search: State, step: str, made: Run, promised: Sequence[Way]) -> list[Numbers]:
    """The files of a run; in int8 throughout, if none fits and layers were left in float.

    These may be why. What it costs to round them too is weighed as everything else.
    """
    files = _decided(search, step, made, lambda: _enough_files(search, made, promised))
    heavy = [file for file in files if file["float_layers"] and not file["failure"]]
    if best_file(files) or not heavy:
        return files
    step += f"{', ' if ':' in step else ': '}{THROUGHOUT}"
    ways = [Way.of(file) for file in heavy]
    again = _decided(search, step, made, lambda: made_files(search, made, ways, keep_float=()))
    replaced = {(file["folder"], file["runtime"]) for file in again}
    return [file for file in files if (file["folder"], file["runtime"]) not in replaced] + again


def _enough_files(search: State, made: Run, promised: Sequence[Way]) -> list[Numbers]:
    """Of each precision the file that promised to be fastest; all, where these are not enough.

    Files of one precision differ in their time, which the survey knows. Each that is not made
    leaves more of a short time for training.
    """
    first = [way for way in search.ways if way in promised] or search.ways
    files = made_files(search, made, first)
    others = [way for way in search.ways if way not in first]
    if others and (not best_file(files) or needs_qat(files)):
        files += made_files(search, made, others)
    return files


def _decided(
    search: State, step: str, made: Run, make: Callable[[], list[Numbers]]
) -> list[Numbers]:
    """Files of a run, as a decision."""

    def work() -> Numbers:
        files = make()
        if step == FIRST_FILES and not any(file["folder"] for file in files):
            # There is nothing else that could be shipped.
            failures = dict.fromkeys(str(file["failure"]) for file in files)
            raise EdgewiseError(f"no file could be made of {made.root}: {'; '.join(failures)}")
        return {"files": files}

    files: list[Numbers] = search.decide(step, work)["files"]
    return files
