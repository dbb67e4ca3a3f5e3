"""How the time of a search is shared, how far a training gets in its part, and what too short a
one costs.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from edgewise.search.decisions import Numbers
from edgewise.search.entrants import SIZES, Entrant
from edgewise.search.ways import Way

# Parts of the time that is left after measuring and without the files', for each rung.
FIRST_ROUND, SECOND_ROUND, LONG_TRAINING = 0.12, 0.18, 0.3
DISTILLING, LOWERING, NARROWING = 0.08, 0.12, 0.12
LEAST_TRIAL = 0.3  # minutes of a short training, however fast it is
SURVIVORS = 3  # of the first round; so many or fewer need none, and a single one no second
LEAST_LONG = 0.1  # of the long one
TIGHT = 0.9  # of the budget: a network that takes more may need a smaller image in the end
BEFORE_TRAINING = ("device", "doctor", "survey", "drift", "pace", "sizes")
TIMED = (64, 128)  # pixels: two sizes at which steps of a network are timed

# Points of accuracy that a halving of the steps costs, and up to how many steps. Measured with
# pretrained weights, 128 px and 300 pictures; docs/run.md has the table.
FEW_STEPS, LOST_PER_HALVING = 100, 12.0
ENOUGH_STEPS, LOST_PER_LATE_HALVING = 200, 3.0
STEP = 32  # pictures in each of these

# Of each of two long trainings, if there is time for two. The images that the second has more of
# bring 1.4 points (docs/run.md, the mean of three tasks), and 150 steps cost as much.
LEAST_EPOCHS, LEAST_STEPS = 10, 150

# Of exporting, calibrating, verifying and timing the files of a run; measured for two, fp32 and
# int8; each more is taken to need half as much again. Tracing and writing them goes with what an
# epoch takes whatever its network multiplies: both are the operators' calls, on a fast machine or a
# slow one.
FILES = 2
ONE_FILE = 2 / 3  # of the time of two: 14 and 16 s where two took 21 and 24
FILES_SECONDS = 8.0  # that are always needed
FILES_CALLS = 600  # images of an epoch, without the multiplications
FILES_IMAGES = 500  # as many as could be trained on in the rest of that time
AS_LONG = 8  # times an image that is only looked at could be trained on in its time


@dataclass(frozen=True)
class Pace:
    """The speed of training, by that of one network at two sizes.

    An epoch takes what is the same for all, and what its network's multiplications take. For five
    networks on a CPU that is right within a factor of 1.6, or 8 points of accuracy; it has to tell
    a few steps from many.

    Attributes:
        fixed: seconds of an epoch, validation included, that are the same for all networks.
        seconds_per_mac: of an epoch beyond these, for each multiplication of one image.
        steps: of the optimiser in an epoch; see `steps_in`.
        trained: images in an epoch.
        tested: images that the files are tested on.
        minutes: that are left for training and files.
        files: that are made of a trained network, where nothing is amiss: one of each precision.
        trials: that there are for the rounds before the long training.
    """

    fixed: float
    seconds_per_mac: float
    steps: float
    trained: int
    tested: int
    minutes: float
    files: int = FILES
    trials: int = SURVIVORS + 1

    @classmethod
    def read(cls, made: Mapping[str, Numbers], minutes: float) -> Pace:
        """As the decisions up to "pace" tell it.

        Args:
            made: the decisions by their step.
            minutes: for the whole search.
        """
        seen, images = made["pace"], made["doctor"]["splits"]
        model = next(e for e in made["survey"]["entrants"] if e["model"] == seen["model"])
        times = dict(zip(TIMED, seen["epoch_seconds"], strict=True))
        return cls(
            *per_epoch(Entrant(**model), times),
            seen["steps"],
            images["train"],
            images["val"] + images["test"],
            minutes - seconds_before(made) / 60,
            len({Way.of(cost["candidate"]).precision for cost in made["survey"]["costs"]}),
            seen.get("trials", cls.trials),  # an older log has none
        )

    def points_lost(self, entrant: Entrant, imgsz: int) -> float:
        """Points of accuracy that a network loses because its training ends too early.

        Args:
            entrant: the network.
            imgsz: height and width of its input.
        """
        steps = max(1.0, self.steps_of(entrant, imgsz))
        early = max(0.0, math.log2(FEW_STEPS / steps))
        late = max(0.0, math.log2(ENOUGH_STEPS / max(steps, FEW_STEPS)))
        return LOST_PER_HALVING * early + LOST_PER_LATE_HALVING * late

    def steps_of(self, entrant: Entrant, imgsz: int) -> float:
        """Of the optimiser, in the long training; 0 if the files leave no time for it."""
        minutes = max(0.0, self.minutes - self.files_minutes(entrant, imgsz))
        share = self._share(minutes, entrant, imgsz)
        return self.steps * 60 * minutes * share / self._epoch(entrant, imgsz)

    def least_trial(self, entrant: Entrant, imgsz: int) -> float:
        """Minutes of a short training that tells something of the network.

        Where each halving of the steps costs a dozen points, the ones that were lucky with a step
        or an epoch more are ahead.
        """
        return max(LEAST_TRIAL, FEW_STEPS / self.steps * self._epoch(entrant, imgsz) / 60)

    def each_of_two(self, entrant: Entrant, imgsz: int, minutes: float) -> float:
        """Minutes for each of two long trainings, where the second makes a file anew.

        0 where two so short ones are no better than a single one.

        Args:
            entrant: the network.
            imgsz: height and width of its input.
            minutes: for both, and the file.
        """
        each = (minutes - ONE_FILE * self._two_files(entrant, imgsz) / 60) / 2
        epochs = 60 * each / self._epoch(entrant, imgsz)
        return each if epochs >= max(LEAST_STEPS / self.steps, LEAST_EPOCHS) else 0.0

    def minutes_for(self, entrant: Entrant, imgsz: int) -> float:
        """That training and files would need for a network to learn all that it can."""
        long = ENOUGH_STEPS / self.steps * self._epoch(entrant, imgsz) / 60
        most = long / LONG_TRAINING  # in less time no more rounds have their share
        return long / self._share(most, entrant, imgsz) + self.files_minutes(entrant, imgsz)

    def files_minutes(self, entrant: Entrant, imgsz: int) -> float:
        """About how long it takes to write, check and time a network's files.

        Measured for two networks at 64 to 192 px on two cores: 17 to 39 s.
        """
        return max(1.0, self.files / FILES) * self._two_files(entrant, imgsz) / 60

    def _two_files(self, entrant: Entrant, imgsz: int) -> float:
        """Seconds that two of them take."""
        images = FILES_IMAGES + self.tested / AS_LONG
        with_images = FILES_CALLS * self.fixed + images * self._epoch(entrant, imgsz)
        return FILES_SECONDS + with_images / self.trained

    def _share(self, minutes: float, entrant: Entrant, imgsz: int) -> float:
        """The long training's, if all is needed that may be after it."""
        return long_share(rounds_in(minutes, self.least_trial(entrant, imgsz), self.trials))

    def _epoch(self, entrant: Entrant, imgsz: int) -> float:
        return self.fixed + self.seconds_per_mac * macs_at(entrant, imgsz)


def steps_in(images: int, batch: int) -> float:
    """How many steps of `STEP` pictures teach as much as an epoch in such batches.

    Half the batch is twice as many steps of 0.7 times the worth: by the usual rule for Adam, whose
    rate goes with the root of the batch. Measured: docs/run.md.

    Args:
        images: in an epoch.
        batch: in a step.
    """
    return math.ceil(images / batch) * math.sqrt(batch / STEP)


def per_epoch(entrant: Entrant, seconds: Mapping[int, float]) -> tuple[float, float]:
    """`Pace`'s fixed and seconds_per_mac, from the epochs of a network at two sizes.

    Args:
        entrant: the network.
        seconds: of an epoch, by height and width of the input.
    """
    (small, least), (large, most) = sorted(seconds.items())
    macs = macs_at(entrant, small), macs_at(entrant, large)
    slope = max(0.0, most - least) / (macs[1] - macs[0])
    return max(0.0, least - slope * macs[0]), slope


def seconds_before(made: Mapping[str, Numbers]) -> float:
    """That went by before training began."""
    return seconds_of(made[step] for step in BEFORE_TRAINING if step in made)


def seconds_of(decisions: Iterable[Numbers]) -> float:
    """That the work for them took, with the first reading of the images."""
    return sum(float(own["seconds"]) + float(own.get("read_seconds", 0.0)) for own in decisions)


def macs_at(entrant: Entrant, imgsz: int) -> float:
    """Of one image; they grow with its area."""
    return entrant.macs * (imgsz / SIZES[-1]) ** 2


def trials_in(minutes: float, share: float, least: float = LEAST_TRIAL, above: int = 1) -> int:
    """How many short trainings a part of the time is for; none if they are not more than `above`.

    A single one tells nothing, and a first round that nobody leaves decides nothing.

    Args:
        minutes: that are left for training.
        share: the part of them.
        least: minutes that each needs.
        above: see above.
    """
    number = int(minutes * share / least)
    return number if number > above else 0


def rounds_in(minutes: float, least: float = LEAST_TRIAL, trials: int = SURVIVORS + 1) -> set[int]:
    """The rounds of so many short trainings, 1 and 2, that there is time for; see `trials_in`."""
    shares = {1: (FIRST_ROUND, SURVIVORS), 2: (SECOND_ROUND, 1)}
    return {
        number
        for number, (share, above) in shares.items()
        if trials > above and trials_in(minutes, share, least, above)
    }


def long_share(rounds: Collection[int], better: bool = True, tight: bool = True) -> float:
    """The long training's part of the time, with those of what there is no time or need for.

    Args:
        rounds: of short trainings that there are: 1, 2.
        better: whether a network that does not fit did better, to learn from or to be narrowed.
        tight: whether it may turn out that a smaller image is needed.
    """
    share = LONG_TRAINING
    if 1 not in rounds:
        share += FIRST_ROUND
    if 2 not in rounds:
        share += SECOND_ROUND
    if not better or 2 not in rounds:  # no other is known to learn from, or to be narrowed
        share += DISTILLING + NARROWING
    return share if tight else share + LOWERING
