"""The rungs of a search as tables: every candidate and where it went out; what the rungs took."""

from __future__ import annotations

from dataclasses import dataclass

from edgewise.reporting.numbers import plural
from edgewise.reporting.search_record import SearchRecord, times
from edgewise.search.decisions import Numbers
from edgewise.search.entrants import Entrant
from edgewise.search.pace import Pace, seconds_of
from edgewise.search.survey import ROOM

ROUNDS = (1, 2)
# Of the rows' order: those that came furthest are first.
TRAINED, HELPED, TRIED_LONGER, TRIED, NOT_TRIED, NOT_CHOSEN, TOO_DEAR, FAILED = range(8)
RUNGS = {
    "device": "device",
    "doctor": "doctor",
    "survey": "measuring before training",
    "drift": "measuring some of it again",
    "pace": "timing some training",
    "sizes": "measuring smaller images",
    "round 1": "round 1: short trainings",
    "round 2": "round 2: longer ones",
    "train": "the long training",
    "distil": "once more, from a better network's answers",
    "files": "exporting, verifying, timing",
    "lower": "smaller images",
    "qat": "training with int8's rounding",
    "narrow": "narrowing a better network",
    "narrowed": "training the narrowed network",
    "again": "once more, from all images but the test's",
    "rows": "timing the rows of the chosen network",
    "test": "the test",
}


@dataclass(frozen=True)
class CandidateRow:
    """A network at a size of image, and how far it came.

    Attributes:
        model: the network's name.
        imgsz: height and width of its input, in pixels.
        pretrained: whether it begins with ImageNet weights.
        least: its cheapest file, see `edgewise.search.survey.Cost`; without "spent" where none
            could be run.
        used: the largest part of the budget that this file takes; None where none could be run.
        prior: the accuracy to expect, in percent, comparable between candidates only.
        rounds: what the short trainings of it reached; None where there was none.
        final: what it reached at last, if it was trained for long.
        rank: the smaller, the further it came.
        fate: where it went out and why.
    """

    model: str
    imgsz: int
    pretrained: bool
    least: Numbers
    used: float | None
    prior: float
    rounds: tuple[Numbers | None, ...]
    final: Numbers | None
    rank: int
    fate: str

    @property
    def out(self) -> bool:
        """Whether nothing more was done with it."""
        return self.rank > HELPED and self.fate != STILL_IN

    @property
    def name(self) -> str:
        """As trials are called."""
        return f"{self.model}-{self.imgsz}"


@dataclass(frozen=True)
class RungTime:
    """How long a rung took, and which part of the whole."""

    name: str
    seconds: float
    share: float


@dataclass(frozen=True)
class RowCost:
    """What a row of the chosen network takes of its time, and of its multiplications.

    Attributes:
        place: of it in the network, as "stages.0.1".
        words: what it is.
        ms: milliseconds of one image.
        time_share: of the sum of all rows.
        macs_share: of the network's multiplications.
    """

    place: str
    words: str
    ms: float
    time_share: float
    macs_share: float


STILL_IN = "still in"


def candidate_rows(record: SearchRecord) -> list[CandidateRow]:
    """Every network at every size that was measured, those that came furthest first."""
    survey = record.made.get("survey")
    if not survey:
        return []
    images = record.made["doctor"]["splits"]["train"]
    known = {entrant["model"]: Entrant(**entrant) for entrant in survey["entrants"]}
    cheapest: dict[tuple[str, int], tuple[float | None, Numbers]] = {}
    for cost in record.costs:
        key = cost["candidate"]["model"], cost["candidate"]["imgsz"]
        parts = record.used(cost["spent"]).values() if cost["spent"] else ()
        used = max(parts, default=None)
        before = cheapest.get(key, (None, cost))[0]
        if key not in cheapest or (used is not None and (before is None or used < before)):
            cheapest[key] = used, cost
    rows = []
    pace = Pace.read(record.made, record.request.minutes) if "pace" in record.made else None
    for (model, imgsz), (used, cost) in cheapest.items():
        name, entrant = f"{model}-{imgsz}", known[model]
        lost = pace.points_lost(entrant, imgsz) if pace else 0.0
        rank, fate = _fate(record, name, cost, used, entrant)
        rows.append(
            CandidateRow(
                *(model, imgsz, entrant.pretrained, cost, used),
                prior=entrant.prior(imgsz, images) - lost,
                rounds=tuple(record.made.get(f"round {number}: {name}") for number in ROUNDS),
                final=_final(record, name),
                rank=rank,
                fate=fate,
            )
        )
    return sorted(rows, key=_order)


def rung_times(record: SearchRecord) -> list[RungTime]:
    """How long each rung took, in their order."""
    seconds: dict[str, float] = {}
    for step, numbers in record.made.items():
        kind = step.partition(":")[0]
        seconds[kind] = seconds.get(kind, 0.0) + seconds_of([numbers])
    total = sum(seconds.values()) or 1.0
    return [RungTime(RUNGS[k], took, took / total) for k, took in seconds.items() if k in RUNGS]


def costs_by_row(record: SearchRecord) -> list[RowCost]:
    """The rows of the network that was tested, in its order; none where they were not timed.

    What was likely to be tested when they were may have taken longer by then, and another have
    been tested.
    """
    seen = record.made.get("rows", {})
    tested = record.chosen is not None and seen.get("run") == record.folder.place(record.run)
    rows = seen.get("rows", ()) if tested else ()
    ms = sum(row["ms"] for row in rows) or 1.0
    macs = sum(row["macs"] for row in rows) or 1
    return [
        RowCost(row["place"], row["words"], row["ms"], row["ms"] / ms, row["macs"] / macs)
        for row in rows
    ]


def failures(record: SearchRecord) -> list[str]:
    """Why trainings after the long one changed nothing; what was narrowed says it in its row."""
    return [
        f"{RUNGS[kind]}{f', {what}' if what else ''}: {numbers['failure']}"
        for step, numbers in record.made.items()
        for kind, _, what in [step.partition(": ")]
        if kind in ("distil", "lower", "qat", "again") and "failure" in numbers
    ]


def _order(row: CandidateRow) -> tuple[float, ...]:
    if row.rank == TOO_DEAR and row.used:
        return (row.rank, row.used)
    scores = [own["score"] for own in reversed(row.rounds) if own]
    return (row.rank, -scores[0] if scores else 0.0, -row.prior)


def _final(record: SearchRecord, name: str) -> Numbers | None:
    made = record.made
    if name in record.trials and record.trials[name]["above"] and "narrowed" in made:
        return made["narrowed"]
    if made.get("train", {}).get("trial") != name:
        return None
    steps = [made[step] for step in ("train", "distil") if step in made]
    return max(steps, key=lambda numbers: float(numbers["score"]))


def _fate(
    record: SearchRecord, name: str, cost: Numbers, used: float | None, entrant: Entrant
) -> tuple[int, str]:
    """How far it came, as a rank, and why no further."""
    if used is None:
        return FAILED, f"can't be run: {cost['failure'] or 'its memory was not measured'}"
    trial = record.trials.get(name)
    if trial:
        return _trial_fate(record, trial)
    if used > 1:
        parts = record.used(cost["spent"])
        why = f"too dear: {times(used)} times the {max(parts, key=parts.__getitem__)}"
        near = record.trials and used <= ROOM
        return TOO_DEAR, f"{why}; less promising than what is tried" if near else why
    if not record.trials:
        return NOT_CHOSEN, STILL_IN
    for other in record.trials.values():
        if other["model"] == entrant.model and not other["above"]:
            return NOT_CHOSEN, f"less promising than with {other['imgsz']} px"
    return NOT_CHOSEN, "less promising" if entrant.pretrained else "from scratch: less promising"


def _trial_fate(record: SearchRecord, trial: Numbers) -> tuple[int, str]:
    made, name = record.made, trial["name"]
    if made.get("train", {}).get("trial") == name:
        return TRAINED, "trained for long"
    helped = _helped(made, trial)
    own = [made.get(f"round {number}: {name}") for number in ROUNDS]
    rank = TRIED_LONGER if own[1] else TRIED if own[0] else NOT_TRIED
    if helped:
        return HELPED, helped
    failures = [numbers["failure"] for numbers in own if numbers and "failure" in numbers]
    if failures:
        return rank, f"could not be tried: {failures[0]}"
    kept = made.get("round 1", {}).get("kept")
    if kept is not None and name not in kept:
        return rank, _outdone(made, name, own[0]) if own[0] else "there was no time to try it"
    if "train" not in made:
        return rank, STILL_IN
    if trial["above"]:
        return rank, f"too dear as it is: {times(trial['used'])} times what there is"
    if own[1]:
        best = made.get(f"round 2: {made['train']['trial']}", own[1])
        if own[1]["score"] > best["score"]:
            return rank, "more right in round 2, which may be luck: it promised less"
        return rank, "fewer right in round 2"
    return rank, "less promising, and there was no time to try it" + (" longer" if own[0] else "")


def _outdone(made: dict[str, Numbers], name: str, own: Numbers) -> str:
    kept, promise = made["round 1"]["kept"], made["round 1"].get("promise", {})
    scores = [made[step]["score"] for other in kept if (step := f"round 1: {other}") in made]
    if scores and min(scores) >= own["score"]:
        return "fewer right in round 1"
    if promise and all(promise[name] <= promise[other] for other in kept):
        return "more right in round 1, which may be luck: it promised less"
    return "too dear, and one at least must fit as it is"


def _helped(made: dict[str, Numbers], trial: Numbers) -> str:
    """What a trial did that is not shipped as it is, or was narrowed."""
    if "narrow" in made and trial["above"]:
        if "failure" in made["narrow"]:
            return f"too dear: {made['narrow']['failure']}"
        steps = plural(len(made["narrow"]["steps"]) - 1, "step")
        if made["narrow"]["fits"]:
            failure = made.get("narrowed", {}).get("failure")
            return f"too dear, and narrowed in {steps} until it fits" + (
                f"; then failed: {failure}" if failure else ""
            )
        return f"too dear; narrowed in {steps}, and then there was no time to go on until it fits"
    distil = made.get("distil", {})
    if distil.get("teacher") == trial["name"] and "failure" not in distil:
        dear = ", but too dear as it is" if trial["above"] else ""
        return f"more right in round 2{dear}: it taught the one that was trained"
    return ""
