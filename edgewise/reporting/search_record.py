"""A search as its folder tells it: what was asked for, and what has been decided so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from edgewise.errors import UsageError
from edgewise.reporting.numbers import filesize, milliseconds
from edgewise.search.budget import MEDIAN, Budget, Spent
from edgewise.search.costs import UNDRIFTED, Candidate, Cost, as_of_now
from edgewise.search.decisions import Decisions, Numbers
from edgewise.search.request import Request, SearchFolder
from edgewise.search.survey import ROOM
from edgewise.search.ways import THROUGHOUT, Way

# How a search stands: its file fits; the best file does not; no network is near; it is at work.
FITS, OVER, NOTHING, UNFINISHED = "fits", "over", "nothing", "unfinished"
WIDE = 0.05  # an interval of more than that is said to be wide
NEAREST, NEAREST_FILES = 5, 3  # points that are shown where nothing fits; files among them


@dataclass(frozen=True)
class MadeFile:
    """An exported file in one runtime, and what it was made of.

    Attributes:
        model: the network's name.
        imgsz: height and width of its input, in pixels.
        how: what was done to it beyond the long training; "" for nothing.
        numbers: of it, see `edgewise.search.shipping.ship`.
    """

    model: str
    imgsz: int
    how: str
    numbers: Numbers

    @property
    def learned_all(self) -> bool:
        """Whether it has learned from the images that the search selects by, too."""
        return "selected_by" in self.numbers

    @property
    def selected_by(self) -> Numbers:
        """Accuracy, low and high on what it was chosen by, before it learned from that."""
        before: Numbers = self.numbers["selected_by"] if self.learned_all else self.numbers
        return before

    @property
    def able(self) -> bool:
        """Whether it can be shipped."""
        return "spent" in self.numbers and not self.numbers["failure"]


@dataclass(frozen=True)
class PartUsed:
    """One part of the budget, and how much of it a file takes.

    Attributes:
        name: "latency", "size" or "memory".
        value: what it takes, as text; "not measured" if the device can't tell.
        most: what there is, as text.
        used: 1 is all of it; None if it was not measured.
        low: the same at the lower end of the 95 % interval, where there is one.
        high: the same at its upper end.
    """

    name: str
    value: str
    most: str
    used: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class NearPoint:
    """A file near the budget, and the least budget that it would be within.

    Attributes:
        name: of it.
        used: of each part of the budget.
        accuracy: on the images that the search selects by; None if it was never trained.
        needs: the budget, as `--budget` takes it; "" where the one that was asked for will do.
    """

    name: str
    used: dict[str, float]
    accuracy: float | None
    needs: str


@dataclass(frozen=True)
class SearchRecord:
    """What `search.json` and `decisions.jsonl` say.

    Attributes:
        folder: of the search.
        request: what was asked for.
        budget: of the request.
        made: the decisions by their step, in their order.
    """

    folder: SearchFolder
    request: Request
    budget: Budget
    made: dict[str, Numbers]

    @classmethod
    def read(cls, folder: SearchFolder) -> SearchRecord:
        """Of a search, finished or not; it may be at work just now.

        Raises:
            UsageError: there is no search, or one of its files is damaged.
        """
        if not SearchFolder.is_search(folder.root):
            raise UsageError(
                f"{folder.root} is not a search: `edgewise run DATA --budget ...` makes one."
            )
        request = Request.read(folder.request)
        return cls(folder, request, Budget.parse(request.budget), Decisions(folder.decisions).made)

    @property
    def state(self) -> str:
        """How it stands."""
        if test := self.made.get("test"):
            return FITS if test["fits"] else OVER
        if "survey" in self.made and "choose" not in self.made:
            parts = [self.used(cost["spent"]) for cost in self.costs if cost["spent"]]
            if not any(parts and max(parts.values()) <= ROOM for parts in parts):
                return NOTHING
        return UNFINISHED

    @cached_property
    def costs(self) -> list[Numbers]:
        """What each candidate costs, as the choice saw it: at the device's speed of today."""
        surveyed, later = (
            [Cost.read(cost) for cost in self.made.get(step, {}).get("costs", ())]
            for step in ("survey", "sizes")
        )
        drift = self.made.get("drift", UNDRIFTED)
        return [asdict(cost) for cost in as_of_now(surveyed, later, drift)]

    @property
    def measured(self) -> int:
        """How many networks were: where the smallest is far too dear, the others are not."""
        return len({cost["candidate"]["model"] for cost in self.costs})

    @property
    def trials(self) -> dict[str, Numbers]:
        """The networks that were chosen to be tried, by name, the most promising first."""
        return {trial["name"]: trial for trial in self.made.get("choose", {}).get("trials", [])}

    @property
    def with_time(self) -> Numbers | None:
        """The candidate that there was too little time for, and the minutes that it would take."""
        more: Numbers | None = self.made.get("choose", {}).get("with_time")
        return more

    @property
    def rounds(self) -> tuple[int, ...]:
        """Of short trainings: those that there were."""
        steps = {step.partition(":")[0] for step in self.made}
        return tuple(number for number in (1, 2) if f"round {number}" in steps)

    @cached_property
    def files(self) -> tuple[MadeFile, ...]:
        """All files that were exported, in each runtime, in the order in which they were made."""
        return tuple(self._files())

    @property
    def chosen(self) -> MadeFile | None:
        """The one that was tested."""
        test = self.made.get("test", {})
        return next((file for file in self.files if _same(file.numbers, test)), None)

    @property
    def run(self) -> Path:
        """The run that the tested file is in; before the test that of the long training."""
        if test := self.made.get("test"):
            return self.folder.at(test["folder"]).parents[1]  # of RUN/export/NAME
        return self.folder.final

    def again(self, file: MadeFile) -> Numbers | None:
        """What a file cost when it was timed once more before the test; None if it was not."""
        test = self.made.get("test", {})
        timed = [*test.get("over", ()), test]
        return next((numbers for numbers in timed if _same(file.numbers, numbers)), None)

    @property
    def percentile(self) -> str:
        """Of the calls' times, in words."""
        if self.budget.percentile == MEDIAN:
            return MEDIAN
        return f"{self.budget.percentile.removeprefix('p')}% within"

    @property
    def few(self) -> bool:
        """Whether there are so few test images that their interval is wide."""
        test = self.made["test"]
        return bool(test["high"] - test["low"] > WIDE)

    @staticmethod
    def scale(parts: Sequence[PartUsed]) -> float:
        """What the bars of `parts` are drawn in: their ends are at most at 1."""
        ends = [end for part in parts for end in (part.used, part.high) if end]
        return max(1.0, *ends, 1.0)

    def latency(self, spent: Numbers) -> float:
        """The milliseconds that the budget speaks of, or would."""
        return self.budget.latency_of(Spent(**spent))

    def used(self, spent: Numbers) -> dict[str, float]:
        """How much of each part of the budget; 1 is all of it."""
        return self.budget.parts(Spent(**spent))

    def parts(self, numbers: Numbers) -> list[PartUsed]:
        """The parts of the budget that a file takes, in the order in which they were asked for.

        Args:
            numbers: with "spent", and "low_ms" and "high_ms" of its median.
        """
        budget, spent = self.budget, numbers["spent"]
        used = self.used(spent)
        found = []
        if most := budget.latency_ms:
            value = milliseconds(budget.latency_of(Spent(**spent)))
            low = high = None
            if budget.percentile == MEDIAN:
                low, high = numbers["low_ms"] / most, numbers["high_ms"] / most
            name = f"latency, {self.percentile}"
            found.append(PartUsed(name, value, milliseconds(most), used["latency"], low, high))
        for name, bytes_ in (("size", budget.size_bytes), ("memory", budget.memory_bytes)):
            if bytes_:
                taken = spent[f"{name}_bytes"]
                value = "not measured" if taken is None else filesize(taken)
                found.append(PartUsed(name, value, filesize(bytes_), used.get(name)))
        return found

    def nearest(self) -> list[NearPoint]:
        """What exceeds the budget by least: first of the files, then of what was only measured.

        The very first is the one that was tested. Files count by what they cost last.
        """
        tested: list[NearPoint] = []
        others: list[NearPoint] = []
        for file in self.files:
            again = self.again(file) or file.numbers
            if file.able and "spent" in again:
                name = f"{file.model} at {file.imgsz} px, {Way.of(file.numbers)}"
                name = f"{name}, {file.how}" if file.how else name
                accuracy = file.selected_by["accuracy"]
                point = self._near(name, {"accuracy": accuracy, "spent": again["spent"]})
                (tested if file == self.chosen else others).append(point)
        others.sort(key=lambda point: max(point.used.values()))
        files = [*tested, *others][:NEAREST_FILES]
        names = {point.name for point in files}
        measured = [
            self._near(str(Candidate(**cost["candidate"])), cost)
            for cost in self.costs
            if cost["spent"] and self.used(cost["spent"])
        ]
        measured.sort(key=lambda point: max(point.used.values()))
        rest = [point for point in measured if point.name not in names]
        return [*files, *rest][:NEAREST]

    def _near(self, name: str, numbers: Numbers) -> NearPoint:
        spent = Spent(**numbers["spent"])
        used = self.budget.parts(spent)
        enough = self.budget.widened(spent)
        needs = "" if enough == self.budget else str(enough)
        return NearPoint(name, used, numbers.get("accuracy"), needs)

    def _files(self) -> list[MadeFile]:
        """Those that are there: what was made again took the place of what was there before."""
        made, found = self.made, dict[tuple[str, object], MadeFile]()
        if "train" not in made:
            return []
        trial = self.trials[made["train"]["trial"]]
        taught = made.get("distil", {"score": 0.0})["score"] > made["train"]["score"]
        how = f"taught by {made['distil']['teacher']}" if taught else ""
        model, imgsz = first = trial["model"], trial["imgsz"]
        for step, numbers in made.items():
            kind, _, what = step.partition(": ")
            if kind != "files":
                continue
            if what.endswith(THROUGHOUT):
                pass  # of the same run as the step before it
            elif what == "narrowed":
                dearer = next(trial for trial in self.trials.values() if trial["above"])
                model, imgsz, how = dearer["model"], dearer["imgsz"], "narrowed"
            elif what == "again":
                (model, imgsz), how = first, "learned from all images but the test's"
            elif what == "qat":
                how = "trained with int8's rounding"
            elif what:
                imgsz, how = int(what.removesuffix(" px")), "used to smaller images"
            for place, file in enumerate(numbers["files"]):
                key = (file["folder"], Way.of(file)) if file["folder"] else (step, place)
                found[key] = MadeFile(model, imgsz, how, file)
        return list(found.values())


def taken(used: float) -> str:
    """A part of the budget: 0.55 -> "55%"; 12.3 -> "12.3 ×"."""
    return f"{100 * used:.0f}%" if used < 10 else f"{times(used)} ×"


def times(used: float) -> str:
    """1.2345 -> "1.23"; 1234.5 -> "1,234"."""
    return f"{used:.3g}" if used < 100 else f"{used:,.0f}"


def _same(file: Numbers, test: Numbers) -> bool:
    return all(file[name] == test.get(name) for name in ("folder", "runtime"))
