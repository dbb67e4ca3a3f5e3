"""From labelled images and a budget to the most accurate file that fits: rung by rung.

1. doctor    is training on this data sound?
2. survey    what every network costs on the device, before any is trained
3. choose    the most promising ones that fit
4. round 1   a short training of each on the data; round 2: a longer one of the best three
5. train     the best one, for as long as there is time; again from a better one's answers
6. files     exported, timed on the device; a smaller image, or training with int8's rounding,
             where that is needed
7. narrow    a better network that is a little too dear, narrowed by NetAdapt until it fits
8. test      the chosen file, timed afresh, on images that no decision has seen

Each rung's numbers are a line in the log of decisions. A search that was stopped goes on with the
first rung that is not in it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from edgewise.compress.other_runs import round_run
from edgewise.data.dataset import Dataset, load_dataset
from edgewise.data.doctor import examine
from edgewise.deploy.artifact import Artifact
from edgewise.errors import EdgewiseError, UsageError
from edgewise.run_folder import Run
from edgewise.search.budget import Budget, Spent
from edgewise.search.choice import Trial, choose_trials
from edgewise.search.decisions import Decisions, Numbers
from edgewise.search.device import Device, DeviceFacts, TimedFile, open_device
from edgewise.search.entrants import SIZES, Entrant, entrants
from edgewise.search.request import Request, SearchFolder
from edgewise.search.shipping import SECONDS, accuracy_on, best_file, costs, ship
from edgewise.search.survey import READERS, Candidate, Cost, Survey, open_store, survey
from edgewise.search.trials import Trainer, outcome, with_test
from edgewise.training.interrupt import Stopped
from edgewise.training.loop import train
from edgewise.training.recipe import Recipe
from edgewise.training.trial import TooLittleTime

SECOND_ROUND = 3  # trials in it
# Parts of the time that is left after the survey.
FIRST_SHARE, SECOND_SHARE, TRAIN_SHARE = 0.12, 0.18, 0.3
DISTIL_SHARE, REPAIR_SHARE, NARROW_SHARE = 0.08, 0.08, 0.12
QAT_EPOCHS = 3
MOST_LOST = 0.01  # of the accuracy, by int8, above which training with its rounding is tried
LOWERED = 3  # sizes of image that are tried below the chosen one, at most
LEAST_MINUTES = 0.1  # of the long training
LEAST_TRIAL = 0.3  # minutes of a short one
TESTED_AGAIN = 2.0  # times as many seconds as other files get


@dataclass(frozen=True)
class Watch:
    """Who is told of a search while it works.

    Attributes:
        tell: called with a sentence.
        decided: called with each decision's step and numbers, old ones first on resume.
    """

    tell: Callable[[str], None] = lambda what: None
    decided: Callable[[str, Numbers], None] = lambda step, numbers: None


class NothingFits(EdgewiseError):
    """No file that could be made is within the budget; the message has the nearest."""

    exit_status = 3


def run(request: Request, root: Path, watch: Watch | None = None) -> SearchFolder:
    """Searches in the folder `root`, or goes on with the search that is there.

    Args:
        request: what for; a search that is there must have been asked for the same.
        root: of the search.
        watch: who is told.

    Returns:
        The folder; the last decision, "test", names the chosen file and says whether it fits.

    Raises:
        UsageError: the request, the data or the folder is no good.
        NothingFits: no network is anywhere near the budget. (That the best file misses it is no
            error, but said in "test".)
        Stopped: a signal came; everything is saved.
        EdgewiseError: training on the data would be unsound, the device went away, the disk is
            full ... What was decided before is kept.
    """
    folder = SearchFolder(root)
    if SearchFolder.is_search(root):
        if Request.read(folder.request) != request:
            raise UsageError(
                f"{root} is a search for something else. Go on with it as it was asked for: "
                f"edgewise run --resume {root}. Or choose another --name."
            )
    elif root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise UsageError(f"{root} holds something else already. Choose another --name.")
    search = _Search(request, folder, watch or Watch())
    try:
        search.climb()
    except Stopped as stop:
        raise Stopped(
            f"stopped; go on with: edgewise run --resume {root}", stop.exit_status - 128
        ) from stop
    return folder


class _Search:
    """One search: the ladder, and what its rungs share."""

    def __init__(self, request: Request, folder: SearchFolder, watch: Watch) -> None:
        self.request, self.folder, self.watch = request, folder, watch
        self.budget = Budget.parse(request.budget)
        self.device: Device = open_device(request.device, request.threads)
        self.facts: DeviceFacts = self.device.facts()
        if not any(name in self.facts.runtimes for name in READERS):
            raise EdgewiseError(
                f"{request.device} has none of the runtimes {', '.join(READERS)}. Install one "
                "there: pip install onnxruntime"
            )
        self.dataset: Dataset = with_test(load_dataset(Path(request.data), workers=1))
        folder.root.mkdir(parents=True, exist_ok=True)
        if not SearchFolder.is_search(folder.root):
            request.write(folder.request)
        self.log = Decisions(folder.decisions)
        settings = () if request.flip else (("flip", False),)
        self.trainer = Trainer(
            self.dataset, request.seed, request.train_device, request.workers, settings
        )

    def climb(self) -> None:
        """All rungs."""
        self._decide("device", lambda: {"device": self.request.device, **asdict(self.facts)})
        self._decide("doctor", self._doctor)
        trials = self._choose(self._survey())
        self.started = self.log.seconds  # what follows shares the time that is left
        kept = self._round(1, trials, FIRST_SHARE, SECOND_ROUND)
        kept = self._round(2, kept, SECOND_SHARE, len(kept))
        final = self._train(kept)
        files = [*self._files(final), *self._narrow(kept, final)]
        self._decide("test", lambda: self._test(files))

    def _decide(self, step: str, work: Callable[[], Numbers]) -> Numbers:
        if step not in self.log.made:
            self.watch.tell(step)
        numbers = self.log.decide(step, work)
        self.watch.decided(step, numbers)
        return numbers

    def _doctor(self) -> Numbers:
        seen = examine(Path(self.request.data))
        errors = [finding.text for finding in seen.findings if finding.severity == "error"]
        if not seen.sound:
            raise EdgewiseError(
                f"training on {self.request.data} would not be sound: {' '.join(errors)} "
                f"Look closer with: edgewise doctor {self.request.data}"
            )
        return {
            "images": seen.usable,
            "classes": list(self.dataset.classes),
            "splits": {split: len(own) for split, own in self.dataset.splits.items()},
            "warnings": [f.text for f in seen.findings if f.severity == "warning"],
        }

    def _survey(self) -> list[Cost]:
        classes = len(self.dataset.classes)
        work = Survey(self.device, self.facts, classes, open_store(), self.watch.tell)
        self.entrants = entrants(self.request.models)

        def measure() -> Numbers:
            found = survey(self.entrants, self.request.precisions, self.budget, work)
            return {
                "entrants": [asdict(entrant) for entrant in self.entrants],
                "costs": [asdict(cost) for cost in found],
            }

        numbers = self._decide("survey", measure)
        self.entrants = tuple(Entrant(**entrant) for entrant in numbers["entrants"])
        return [_cost(cost) for cost in numbers["costs"]]

    def _choose(self, found: Sequence[Cost]) -> list[Trial]:
        images = len(self.dataset.splits["train"])
        trials = choose_trials(self.entrants, found, self.budget, images)
        if not trials:
            raise NothingFits(nothing_fits(found, self.budget))
        self._decide("choose", lambda: {"trials": [_plain(trial) for trial in trials]})
        return trials

    def _round(
        self, number: int, trials: Sequence[Trial], share: float, survivors: int
    ) -> list[Trial]:
        """Trains each trial for its share of the time; returns the best, the best first.

        Where there is little time, only the most promising are tried, or none: a training of a few
        seconds tells nothing.
        """
        fewer = trials[: int(self._share(share) / LEAST_TRIAL)]
        if len(fewer) < 2:
            return list(trials[:survivors])
        minutes = self._share(share) / len(fewer)

        def one(trial: Trial) -> Numbers:
            root = self.folder.trials / f"{number}-{trial.name}"
            try:
                return outcome(self._trained(trial, minutes, root))
            except TooLittleTime as error:
                return {"score": 0.0, "failure": str(error)}

        results = {}
        for trial in fewer:
            step = f"round {number}: {trial.name}"
            results[trial.name] = self._decide(step, partial(one, trial))
        ranked = sorted(
            fewer, key=lambda trial: (-results[trial.name]["score"], -trial.prior, trial.name)
        )
        kept = ranked[:survivors]
        if all(trial.above for trial in kept):  # something must fit without compression
            kept = [*kept[:-1], *[trial for trial in ranked if not trial.above][:1]] or kept
        self._decide(f"round {number}", lambda: {"kept": [trial.name for trial in kept]})
        return kept

    def _trained(self, trial: Trial, minutes: float, root: Path, **settings: object) -> Run:
        pretrained = trial.entrant.pretrained
        return self.trainer.train(
            trial.entrant.model, trial.imgsz, minutes, root, pretrained=pretrained, **settings
        )

    def _share(self, share: float) -> float:
        """Minutes of the time that was left after the survey."""
        left = self.request.minutes - self.started / 60
        if left * TRAIN_SHARE < LEAST_MINUTES:
            least = math.ceil(self.started / 60 + LEAST_MINUTES / TRAIN_SHARE)
            raise UsageError(
                f"{self.request.minutes:g} minutes are too short to train anything: measuring took "
                f"{self.started / 60:.1f} of them. Give at least --time {least}m under another "
                "--name; what was measured is kept, and is not measured again."
            )
        return left * share

    def _train(self, trials: Sequence[Trial]) -> Run:
        """The best that fits, trained for long, and again with a better one as its teacher."""
        best = next((trial for trial in trials if not trial.above), trials[0])
        teacher = next((trial for trial in trials if trial is not best), None)
        root = self.folder.final
        minutes = self._share(TRAIN_SHARE)
        first = self._decide(
            "train",
            lambda: {"trial": best.name, **outcome(self._trained(best, minutes, root))},
        )
        if teacher is None:
            return Run(root)
        known = self.log.made.get(f"round 2: {teacher.name}", {})
        if known.get("score", 0.0) <= first["score"]:
            return Run(root)
        second = self.folder.root / "distilled"

        def distil() -> Numbers:
            minutes = self._share(DISTIL_SHARE)
            made = self._go_on(Run(root), best.imgsz, minutes, second, teacher=known["run"])
            return {"teacher": teacher.name, **made}

        again = self._decide("distil", distil)
        return Run(second if again["score"] > first["score"] else root)

    def _go_on(
        self, made: Run, imgsz: int, minutes: float, root: Path, **settings: object
    ) -> Numbers:
        """Trains a run's model on, all of it from the first epoch."""
        model = str(made.model)
        return outcome(self.trainer.train(model, imgsz, minutes, root, head_epochs=0, **settings))

    def _files(self, final: Run) -> list[Numbers]:
        """The files of the trained network; with smaller images, or int8's rounding, if needed."""
        files = self._ship("files", final)
        run, imgsz = final, _imgsz(final)
        for lowered in reversed([size for size in SIZES if size < imgsz][-LOWERED:]):
            if best_file(files):
                break
            root = self.folder.shrunk / f"{lowered}"
            minutes = self._share(REPAIR_SHARE) / LOWERED
            self._decide(f"lower: {lowered} px", partial(self._go_on, run, lowered, minutes, root))
            run = Run(root)
            files += self._ship(f"files: {lowered} px", run)
        if needs_qat(files):
            root = self.folder.shrunk / "qat"

            def round_it() -> Numbers:
                if not Run.is_run(root):
                    return outcome(round_run(run, root, QAT_EPOCHS))
                return outcome(train(Recipe.read(Run(root).recipe), root, resume=True))

            self._decide("qat", round_it)
            files += self._ship("files: qat", Run(root), ("int8",))
        return files

    def _ship(self, step: str, made: Run, precisions: Sequence[str] | None = None) -> list[Numbers]:
        wanted = precisions or self.request.precisions
        numbers = self._decide(
            step,
            lambda: {
                "files": ship(made, wanted, self.device, list(self.facts.runtimes), self.budget)
            },
        )
        files: list[Numbers] = numbers["files"]
        return files

    def _test(self, files: Sequence[Numbers]) -> Numbers:
        """The chosen file, or else the nearest one, measured afresh and on unseen images."""
        chosen = best_file(files) or nearest(files)
        folder, runtime = Path(chosen["folder"]), chosen["runtime"]
        artifact = Artifact.read(folder)
        timed = TimedFile.of(artifact, "chosen", runtime)
        seen = self.device.measure([timed], TESTED_AGAIN * SECONDS)["chosen"]
        here = runtime if runtime in READERS else ""
        tested = accuracy_on(folder, here, self.dataset.splits["test"], self.request.workers or 0)
        return {
            "folder": str(folder),
            "precision": chosen["precision"],
            "runtime": runtime,
            "selected_by": {name: chosen[name] for name in ("accuracy", "low", "high", "images")},
            **costs(seen, artifact, self.budget),
            **tested,
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


def nothing_fits(found: Sequence[Cost], budget: Budget) -> str:
    """What to say where no network is near the budget: the floor."""
    able = [cost for cost in found if cost.spent]
    if not able:
        reasons = "; ".join(sorted({cost.failure for cost in found}))
        return f"no network runs on the device: {reasons}"
    least = min(able, key=lambda cost: max(budget.parts(_spent(cost)).values()))
    spent = _spent(least)
    return (
        f"nothing fits {budget}: the nearest is {least.candidate}, with a median of "
        f"{spent.median_ms:.3g} ms (90 % of the calls within {spent.p90_ms:.3g} ms) and "
        f"{spent.size_bytes / 1e6:.2f} MB. Give a larger budget, or a faster device."
    )


def _spent(cost: Cost) -> Spent:
    assert cost.spent
    return cost.spent


def _imgsz(made: Run) -> int:
    return Recipe.read(made.recipe).imgsz or SIZES[-1]


def _plain(trial: Trial) -> Numbers:
    return {
        "name": trial.name,
        "model": trial.entrant.model,
        "imgsz": trial.imgsz,
        "pretrained": trial.entrant.pretrained,
        "prior": trial.prior,
        "used": trial.used,
        "above": trial.above,
        "least": asdict(trial.least.candidate),
    }


def _cost(numbers: Numbers) -> Cost:
    spent = numbers["spent"]
    return Cost(
        **{
            **numbers,
            "candidate": Candidate(**numbers["candidate"]),
            "spent": Spent(**spent) if spent else None,
        }
    )
