"""The rung of a search that narrows a network which is a little too dear, until it fits."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from edgewise.compress.retrain import retrain
from edgewise.files import read_json, sha256_file, write_json
from edgewise.measure.latency import Latency
from edgewise.model import Model
from edgewise.run_folder import Run
from edgewise.search.budget import Budget, Spent
from edgewise.search.costs import Candidate, Cost
from edgewise.search.decisions import Numbers
from edgewise.search.device import Device, TimedFile
from edgewise.search.graphs import write_file
from edgewise.search.latency_table import LatencyTable
from edgewise.search.latency_table_times import CantTime, DeviceTimes
from edgewise.search.netadapt import TooSlow, netadapt, steps_to
from edgewise.search.netadapt_steps import Journal
from edgewise.search.netadapt_tuning import RunTuning
from edgewise.search.ways import ONNX
from edgewise.training.loop import train
from edgewise.training.recipe import Recipe
from edgewise.weights.folder import load_model

MARGIN = 0.97  # of the budget is aimed at: the next measurement may say a little more


@dataclass(frozen=True)
class Clock:
    """What times the network that is narrowed: as an ONNX file.

    Attributes:
        device: where it is timed.
        precision: of its file.
        runtime: that runs it there.
    """

    device: Device
    precision: str
    runtime: str

    def measuring(self, first: Model, budget: Budget, folder: Path) -> Callable[[Model], float]:
        """From a model to the milliseconds of its file, at the percentile of the budget.

        They are what the device took at first: the first model is timed in turns with each other
        one, for a device that slows down meanwhile would hide the 2.5 % of a step. Its file and
        its milliseconds are kept in the folder.

        Raises:
            CantTime: a file can't be run on the device.
            EdgewiseError: a file can't be written, or the device went away.
        """
        beside, known = TimedFile("first", folder / "first.onnx", self.runtime), folder / "ms.json"
        if not known.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            write_file(first, ONNX, self.precision, beside.path)
            latency = self._timed([beside])["first"]
            spent = Spent(latency.median_ms, latency.p90_ms, latency.p99_ms, 0)
            write_json(known, {"ms": budget.latency_of(spent)})
        first_ms = float(read_json(known)["ms"])

        def measure(model: Model) -> float:
            with TemporaryDirectory() as temporary:
                narrower = TimedFile("narrower", Path(temporary, "model.onnx"), self.runtime)
                write_file(model, ONNX, self.precision, narrower.path)
                seen = self._timed([narrower, beside])
            return first_ms * seen["narrower"].median_ms / seen["first"].median_ms

        return measure

    def _timed(self, files: Sequence[TimedFile]) -> dict[str, Latency]:
        timed = {}
        for key, seen in self.device.measure(files).items():
            if seen.timing is None:
                raise CantTime(f"the network to narrow can't be timed: {seen.failure}")
            timed[key] = seen.timing.latency
        return timed


def stand_in(
    candidate: Candidate, found: Sequence[Cost], budget: Budget
) -> tuple[Candidate, float] | None:
    """The ONNX file by which a network is narrowed: the times of rows are those of such files.

    Args:
        candidate: the network's cheapest file.
        found: what was measured.
        budget: says which percentile counts.

    Returns:
        The candidate itself, if it is one; or else the fastest of the same network and size. And
        how many times as long as the candidate it takes. None if there is none.
    """
    if candidate.format == ONNX:
        return candidate, 1.0
    ms = {
        cost.candidate: budget.latency_of(cost.spent)
        for cost in found
        if cost.spent and cost.candidate.network == candidate.network
    }
    onnx = [other for other in ms if other.format == ONNX]
    if not onnx:
        return None
    fastest = min(onnx, key=ms.__getitem__)
    return fastest, ms[fastest] / ms[candidate]


def narrow(original: Run, clock: Clock, budget: Budget, folder: Path, minutes: float) -> Numbers:
    """Narrows a run's model by NetAdapt until it fits, for so many minutes.

    A device that can't time it, or a row of it, is no reason to end a search that has other files.
    Its proposals learn for as many steps as there is time for. What was begun in the folder goes
    on.

    Returns:
        "steps": each with its latency, accuracy and group; "additivity": by which part the sum of
        the rows is above the whole; "tuning": steps that each proposal learned; "model": the
        folder of the last step; "fits": whether that is within the budget. Or "failure".

    Raises:
        EdgewiseError: the device went away, or a file can't be made.
    """
    try:
        return _narrow(original, clock, budget, folder, minutes)
    except (CantTime, TooSlow) as error:
        return _failed(str(error))


def _narrow(original: Run, clock: Clock, budget: Budget, folder: Path, minutes: float) -> Numbers:
    assert budget.latency_ms
    model = load_model(original.model)
    until = time.monotonic() + 60 * minutes
    times = DeviceTimes(clock.device, clock.runtime, clock.precision)
    table = LatencyTable(model.network.spec, model.preprocess.size, times)
    additivity = table.additivity()
    aim = MARGIN * budget.latency_ms
    measure = clock.measuring(model, budget, folder.with_name(f"{folder.name}-first"))
    rounds = steps_to(aim / measure(model))
    if rounds is None:
        return _failed(f"no number of steps comes down to {aim:.3g} ms")
    tuning = RunTuning(original)
    left, proposals = until - time.monotonic(), rounds * len(table.groups)
    tuning.steps = tuning.steps_within(left / max(1, proposals), model)
    if tuning.steps < 1:
        return _failed(f"{minutes:.1f} minutes are too short for {proposals} proposals")
    steps = []
    for step in netadapt(model, aim, table, measure, tuning, folder):
        steps.append(step)
        if time.monotonic() > until:
            break
    last = steps[-1]
    return {
        "steps": [
            {**asdict(replace(step, proposals=())), "tried": len(step.proposals)} for step in steps
        ],
        "additivity": additivity.error,
        "tuning": tuning.steps,
        "model": str(Journal(folder).model(last.number)),
        "fits": last.latency_ms <= budget.latency_ms,
    }


def _failed(why: str) -> Numbers:
    return {"failure": why, "fits": False}


def train_narrowed(model: Path, steps: Sequence[Numbers], original: Run, root: Path) -> Run:
    """The narrowed network after a long training from the original's answers, in the run `root`.

    Args:
        model: folder of the narrowed network.
        steps: of `narrow`.
        original: the run that it was made of.
        root: of the new run; one that is there goes on.

    Raises:
        Stopped, Diverged, EdgewiseError: see `train`.
    """
    if Run.is_run(root):
        return train(Recipe.read(Run(root).recipe), root, resume=True)
    facts = {"model_sha256": sha256_file(original.weights), "netadapt": steps}
    return retrain(load_model(model), original, root, facts)
