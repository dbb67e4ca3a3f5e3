"""How far a training gets in the time that there is, and what too short a one costs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgewise.search.entrants import SIZES, Entrant

# Measured with pretrained weights, 128 px and 300 pictures, 10 to 160 steps; docs/run.md has the
# table.
ENOUGH_STEPS = 100
LOST_PER_HALVING = 12.0  # points of accuracy
# Of exporting, calibrating, verifying and timing the files of a run, beside what goes with images.
FILES_SECONDS = 30.0
FILES_IMAGES = 700  # as many as could be trained on in the rest of that time
AS_LONG = 4  # times an image that is only looked at could be trained on in its time


@dataclass(frozen=True)
class Pace:
    """The speed of training, by that of one network.

    Attributes:
        epoch_seconds: of one epoch of it, validation included.
        macs: of one image in it.
        steps: of the optimiser in an epoch.
        minutes: that the longest training may take.
    """

    epoch_seconds: float
    macs: float
    steps: int
    minutes: float

    def points_lost(self, entrant: Entrant, imgsz: int) -> float:
        """Points of accuracy that a network loses because its training ends too early.

        A step is taken to last as long as its multiplications say. For eight networks on a CPU
        that is right within a factor of 1.5, or 8 points; it has to tell a few steps from many.

        Args:
            entrant: the network.
            imgsz: height and width of its input.
        """
        steps = self.steps_of(entrant, imgsz)
        return LOST_PER_HALVING * max(0.0, math.log2(ENOUGH_STEPS / steps))

    def steps_of(self, entrant: Entrant, imgsz: int) -> float:
        """Of the optimiser, in the longest training."""
        seconds = self.epoch_seconds * macs_at(entrant, imgsz) / self.macs
        return self.steps * 60 * self.minutes / seconds


def files_seconds(epoch_seconds: float, trained: int, tested: int) -> float:
    """About how long it takes to write, check and time a network's files.

    Measured for two networks at 64 to 192 px on two cores: 33 to 53 s.

    Args:
        epoch_seconds: of training it.
        trained: images in an epoch.
        tested: images that its files are tested on.
    """
    return FILES_SECONDS + (FILES_IMAGES + tested / AS_LONG) * epoch_seconds / trained


def macs_at(entrant: Entrant, imgsz: int) -> float:
    """Of one image; they grow with its area."""
    return entrant.macs * (imgsz / SIZES[-1]) ** 2
