"""What the rungs of a search share: the request, the device, the data, the log of decisions."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgewise.data.dataset import Dataset, load_dataset
from edgewise.errors import EdgewiseError, UsageError
from edgewise.run_folder import Run
from edgewise.search.budget import Budget
from edgewise.search.costs import Cost
from edgewise.search.decisions import Decisions, Numbers
from edgewise.search.device import Device, DeviceFacts
from edgewise.search.entrants import Entrant
from edgewise.search.pace import LEAST_LONG, LONG_TRAINING, long_share, rounds_in, seconds_of
from edgewise.search.request import Request, SearchFolder
from edgewise.search.trials import Trainer, follow_move, outcome, with_test
from edgewise.search.ways import ways_to
from edgewise.training.device import pick_device
from edgewise.weights.pretrained import resolve


class Settled(EdgewiseError):
    """A search has come to nothing: to go on with it would come to the same."""


@dataclass(frozen=True)
class Watch:
    """Who is told of a search while it works.

    Attributes:
        tell: called with a few words on what is at work.
        decided: called with each decision's step and numbers, old ones first on resume.
        measured: called with all networks that take part and what one of them costs, as soon as
            that is measured.
    """

    tell: Callable[[str], None] = lambda what: None
    decided: Callable[[str, Numbers], None] = lambda step, numbers: None
    measured: Callable[[Sequence[Entrant], Sequence[Cost]], None] = lambda entrants, costs: None


class State:
    """Asks the device what it is, and reads the data; writes nothing before `begin`.

    So what is wrong with the request is said while it can still be asked for otherwise.

    Attributes:
        request: what is searched for.
        folder: of the search.
        watch: who is told.
        budget: as numbers.
        device: where files are timed.
        facts: of it.
        ways: to ship a network.
        left_out: why there are no more of those that were asked for.
        workers: that read the images before anything is trained: threads or processes.
        dataset: with images to train on, to select by and to test on.
        read_seconds: that it took to read them first.
        log: of the decisions, once it has begun.
        trainer: on that data.
        started: seconds that the decisions up to the choice took.
        files: seconds that are set aside for writing and checking the files.
    """

    def __init__(
        self, request: Request, folder: SearchFolder, device: Device, watch: Watch
    ) -> None:
        self.request, self.folder, self.device, self.watch = request, folder, device, watch
        self.budget = Budget.parse(request.budget)
        for model in request.models:
            resolve(model)
        pick_device(request.train_device, "--train-device")
        self.facts: DeviceFacts = device.facts()
        self.ways, self.left_out = ways_to(
            request.formats, request.precisions, self.facts.runtimes, device.name
        )
        if not self.ways:
            why = "".join(f"\n  {reason}" for reason in self.left_out)
            raise UsageError(f"no file can be shipped to {device.name}:{why}")
        self.workers = os.cpu_count() or 1 if request.workers is None else request.workers
        began = time.monotonic()
        self.dataset: Dataset = with_test(load_dataset(Path(request.data), self.workers))
        self.read_seconds = round(time.monotonic() - began, 2)
        settings = () if request.flip else (("flip", False),)
        self.trainer = Trainer(
            self.dataset, request.seed, request.train_device, request.workers, settings
        )
        self.started = self.files = 0.0

    def begin(self) -> None:
        """Writes what was asked for, or else reads what was decided: the folder is ours by now."""
        if SearchFolder.is_search(self.folder.root):
            follow_move(self.folder)
        else:
            self.request.write(self.folder.request)
        self.log = Decisions(self.folder.decisions)

    def decide(self, step: str, work: Callable[[], Numbers]) -> Numbers:
        """See `Decisions.decide`; whoever watches is told."""
        if step not in self.log.made:
            self.watch.tell(step)
        numbers = self.log.decide(step, work)
        self.watch.decided(step, numbers)
        return numbers

    @property
    def left(self) -> float:
        """Minutes that were left for training after measuring, without those of the files.

        Raises:
            UsageError: there is too little of it to train anything.
        """
        gone = (self.started + self.files) / 60
        left = self.request.minutes - gone
        if left * long_share(rounds_in(left)) < LEAST_LONG:
            least = math.ceil(gone + LEAST_LONG / LONG_TRAINING)
            raise UsageError(
                f"{self.request.minutes:g} minutes are too short to train anything: reading the "
                f"images and measuring took {self.started / 60:.1f} of them, and writing and "
                f"checking the files takes about {self.files / 60:.1f}. Give at least --time "
                f"{least}m under another --name; what was measured is kept, and is not measured "
                "again."
            )
        return left

    @property
    def spare(self) -> float:
        """Minutes of the whole time that are still there by the log.

        Below 0 where it took longer than was planned.
        """
        return self.request.minutes - seconds_of(self.log.made.values()) / 60

    @property
    def unspent(self) -> float:
        """`spare`, without the minutes of more files."""
        return self.spare - self.files / 60

    def outcome(self, made: Run) -> Numbers:
        """What a run reached, see `edgewise.search.trials.outcome`; and where it is."""
        return {"run": self.folder.place(made.root), **outcome(made)}

    def go_on(
        self, made: Run, imgsz: int, minutes: float, root: Path, **settings: object
    ) -> Numbers:
        """Trains a run's model on in the run `root`, all of it from the first epoch."""
        model = str(made.model)
        on = self.trainer.train(model, imgsz, minutes, root, head_epochs=0, **settings)
        return self.outcome(on)
