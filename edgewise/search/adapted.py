"""The rung of a search that narrows a network which is a little too dear, until it fits."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from edgewise.compress.retrain import retrain
from edgewise.errors import EdgewiseError
from edgewise.files import sha256_file
from edgewise.model import Model
from edgewise.run_folder import Run
from edgewise.search.budget import Budget, Spent
from edgewise.search.decisions import Numbers
from edgewise.search.device import Device, TimedFile
from edgewise.search.graphs import write_graph
from edgewise.search.latency_table import LatencyTable
from edgewise.search.latency_table_times import DeviceTimes
from edgewise.search.netadapt import netadapt
from edgewise.search.netadapt_steps import Journal
from edgewise.search.netadapt_tuning import RunTuning
from edgewise.training.loop import train
from edgewise.training.recipe import Recipe
from edgewise.weights.folder import load_model

MARGIN = 0.97  # of the budget is aimed at: the next measurement may say a little more


@dataclass(frozen=True)
class Way:
    """How the narrowed network is to be shipped.

    Attributes:
        device: where it is timed.
        precision: of its file.
        runtime: that runs it there.
    """

    device: Device
    precision: str
    runtime: str

    def latency(self, model: Model, budget: Budget) -> float:
        """Milliseconds of a model's file at the percentile of the budget.

        Raises:
            EdgewiseError: it can't be written, or not run on the device.
        """
        with TemporaryDirectory() as folder:
            path = Path(folder, "model.onnx")
            write_graph(model, self.precision, path)
            size = path.stat().st_size
            seen = self.device.measure([TimedFile("narrowed", path, self.runtime)])["narrowed"]
        if seen.timing is None:
            raise EdgewiseError(f"the narrowed network can't be timed: {seen.failure}")
        latency = seen.timing.latency
        return budget.latency_of(Spent(latency.median_ms, latency.p90_ms, latency.p99_ms, size))


def narrow(original: Run, way: Way, budget: Budget, folder: Path, minutes: float) -> Numbers:
    """Narrows a run's model by NetAdapt until it fits, for so many minutes.

    What was begun in the folder goes on.

    Returns:
        "steps": each with its latency, accuracy and group; "additivity": by which part the sum of
        the rows is above the whole; "model": the folder of the last step; "fits": whether that is
        within the budget; or "failure".

    Raises:
        EdgewiseError: the device went away, or a file can't be made.
    """
    assert budget.latency_ms
    model = load_model(original.model)
    times = DeviceTimes(way.device, way.runtime, way.precision)
    table = LatencyTable(model.network.spec, model.preprocess.size, times)
    additivity = table.additivity()
    aim = MARGIN * budget.latency_ms
    until = time.monotonic() + 60 * minutes
    steps = []
    for step in netadapt(
        model,
        aim,
        table,
        lambda narrower: way.latency(narrower, budget),
        RunTuning(original),
        folder,
    ):
        steps.append(step)
        if time.monotonic() > until:
            break
    last = steps[-1]
    return {
        "steps": [
            {**asdict(replace(step, proposals=())), "tried": len(step.proposals)} for step in steps
        ],
        "additivity": additivity.error,
        "model": str(Journal(folder).model(last.number)),
        "fits": last.latency_ms <= budget.latency_ms,
    }


def train_narrowed(numbers: Numbers, original: Run, root: Path) -> Run:
    """The narrowed network after a long training from the original's answers, in the run `root`.

    Args:
        numbers: of `narrow`.
        original: the run that it was made of.
        root: of the new run; one that is there goes on.

    Raises:
        Stopped, Diverged, EdgewiseError: see `train`.
    """
    if Run.is_run(root):
        return train(Recipe.read(Run(root).recipe), root, resume=True)
    facts = {"model_sha256": sha256_file(original.weights), "netadapt": numbers["steps"]}
    return retrain(load_model(Path(numbers["model"])), original, root, facts)
