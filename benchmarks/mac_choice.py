"""How often would counting MACs choose wrong on this device, where a search measures?

    python benchmarks/mac_choice.py            # times every network at every size: some minutes
    python benchmarks/mac_choice.py --count 1000

Every network that a search would begin with is timed at every size of image, in fp32 and int8 and
in each runtime that reads ONNX, as `edgewise run` does before it trains; what it has measured
before is taken from the cache. Then budgets are drawn, log-uniform between the fastest and the
slowest. Each is met by the network and size of the highest prior (published accuracy, less what a
smaller image costs) that fits

- as measured: by the time of its fastest file;
- by MACs: by as many as the device does in that time, at the median rate of all that were timed. It
  ships the fastest file too, so that nothing but the choice is compared.

The second is wrong where what it takes is over the budget, or less accurate than what would have
fitted. The networks are written to `mac_choice.csv`, the counts are printed.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from bench import RESULTS, write_csv

from edgewise.families import variant
from edgewise.measure.count import count
from edgewise.search.costs import Candidate, Cost
from edgewise.search.device import open_device
from edgewise.search.entrants import SIZES, Entrant, entrants
from edgewise.search.request import FORMATS, PRECISIONS
from edgewise.search.survey import Survey, open_store
from edgewise.search.ways import Way, ways_to
from edgewise.weights.pretrained import resolve

IMAGES, CLASSES = 300, 10  # that a network would learn from


@dataclass(frozen=True)
class Option:
    """A network at a size of image.

    Attributes:
        model: its name.
        imgsz: height and width, in pixels.
        pretrained: whether its weights can be had here.
        prior: the accuracy to expect, in percent.
        macs: of one image.
        ms: of the fastest file, at the median.
        file: which that is.
    """

    model: str
    imgsz: int
    pretrained: bool
    prior: float
    macs: int
    ms: float
    file: str


def options(some: Sequence[Entrant], ways: Sequence[Way], work: Survey) -> list[Option]:
    """All networks at all sizes; those that run in no way are left out."""
    found = []
    for entrant in some:
        alias = resolve(entrant.model)
        spec = variant(alias.name).spec(alias.width, classes=CLASSES)
        for imgsz in SIZES:
            costs = work.costs(
                Candidate(entrant.model, imgsz, way.precision, way.runtime, way.format)
                for way in ways
            )
            able = [cost for cost in costs if cost.spent]
            if able:
                best = min(able, key=_ms)
                found.append(
                    Option(
                        entrant.model,
                        imgsz,
                        entrant.pretrained,
                        round(entrant.prior(imgsz, IMAGES), 2),
                        count(spec, imgsz).macs,
                        round(_ms(best), 4),
                        str(best.candidate.way),
                    )
                )
    return found


def _ms(cost: Cost) -> float:
    assert cost.spent
    return cost.spent.median_ms


def main() -> None:
    """Measures, draws, counts."""
    parser = ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=1000, help="of budgets")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    device = open_device("local", 1)
    facts = device.facts()
    ways, _ = ways_to(FORMATS, PRECISIONS, facts.runtimes, device.name)
    found = options(entrants(), ways, Survey(device, facts, CLASSES, open_store()))
    rows = [asdict(option) for option in found]
    write_csv(arguments.results / "mac_choice.csv", rows, list(rows[0]))
    ms = np.array([option.ms for option in found])
    macs = np.array([option.macs for option in found])
    prior = np.array([option.prior for option in found])
    rate = np.median(macs / ms)
    wrong = {"over the budget": 0, "less accurate than possible": 0, "right": 0}
    over, lost = [], []
    drawn = np.random.default_rng(0).uniform(*np.log([ms.min(), ms.max()]), arguments.count)
    for budget in np.exp(drawn):
        best = np.where(ms <= budget, prior, -np.inf).max()
        guessed = int(np.where(macs <= rate * budget, prior, -np.inf).argmax())
        if macs[guessed] > rate * budget or ms[guessed] > budget:
            wrong["over the budget"] += 1
            over.append(ms[guessed] / budget)
        elif prior[guessed] < best:
            wrong["less accurate than possible"] += 1
            lost.append(best - prior[guessed])
        else:
            wrong["right"] += 1
    print(f"{len(found)} networks and sizes, {rate / 1e6:.1f} million MACs a millisecond")
    least, most = (macs / ms).min() / 1e6, (macs / ms).max() / 1e6
    print(f"from {least:.1f} to {most:.1f} million MACs a millisecond")
    for what, times in wrong.items():
        print(f"the choice by MACs is {what}: {times / arguments.count:.0%} of the budgets")
    print(
        f"over the budget by {np.median(over) - 1:.0%} at the median, {max(over) - 1:.0%} at most"
    )
    print(f"less accurate by {np.median(lost):.1f} points at the median, {max(lost):.1f} at most")


if __name__ == "__main__":
    main()
