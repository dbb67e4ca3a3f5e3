"""The networks that a search begins with, and what to expect of each before anything is trained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edgewise.families import VARIANTS, variant
from edgewise.measure.count import count
from edgewise.weights.hub import HubFile, hub_answers
from edgewise.weights.pretrained import PRETRAINED, Checkpoint, choose, preferred, resolve

SIZES = (64, 96, 128, 160, 192, 224)  # pixels: multiples of the networks' whole stride
BASELINES = ("resnet", "vgg")
FROM_SCRATCH = 4  # entrants without weights: for budgets that nothing else fits
# Points of accuracy that a network loses which begins with random weights, by the number of images
# that it learns from. A rule of thumb, which only has to rank it behind the pretrained ones where
# they fit: successive halving has the last word.
MANY, ENOUGH = 100_000, 10_000
LOST = {ENOUGH: 30.0, MANY: 10.0}


@dataclass(frozen=True)
class Entrant:
    """A network that may take part.

    Attributes:
        model: its name, as `edgewise train` takes it.
        top1: published ImageNet accuracy, in percent.
        imgsz: height and width in pixels that the figure is of.
        macs: at 224 pixels.
        pretrained: whether its ImageNet weights can be had here.
    """

    model: str
    top1: float
    imgsz: int
    macs: int
    pretrained: bool

    def prior(self, imgsz: int, images: int) -> float:
        """The accuracy to expect relative to the others', in percent.

        The published one, less what a smaller image costs: fitted to the accuracies of
        MobileNetV2 at 224 to 96 pixels (its authors' table of checkpoints: 71.8, 70.7, 68.8, 65.3,
        60.3), to 0.4 points. A larger one than published gains nothing.

        Args:
            imgsz: height and width that it would be used at.
            images: that it would learn from.
        """
        octaves = max(0.0, math.log2(self.imgsz / imgsz))
        lost = 0.0 if self.pretrained else max((LOST[n] for n in LOST if images < n), default=0.0)
        return self.top1 - 3.9 * octaves - 4.6 * octaves**2 - lost


def entrants(names: Sequence[str] = ()) -> tuple[Entrant, ...]:
    """Those that may take part, the cheapest first.

    All whose pretrained weights can be had: they are installed, or in the cache, or the hub
    answers. And, for budgets below the smallest of these, a few of the others, which no other
    beats at fewer MACs.

    Args:
        names: of networks; those alone take part, with weights or without.

    Raises:
        UsageError: a name is unknown.
    """
    if names:
        chosen = [_entrant(name) for name in dict.fromkeys(names)]
        return tuple(sorted(chosen, key=lambda entrant: entrant.macs))
    every = [_entrant(name) for name in VARIANTS if not name.startswith(BASELINES)]
    every += [
        _entrant(checkpoint.source.name)
        for checkpoints in PRETRAINED.values()
        for checkpoint in checkpoints
        if checkpoint.width != 1 and checkpoint.commercial and checkpoint.classifier
        if isinstance(checkpoint.source, HubFile)
        and checkpoint == preferred(checkpoint.model, checkpoint.width)
    ]
    ready = [entrant for entrant in every if entrant.pretrained]
    least = min((entrant.macs for entrant in ready), default=math.inf)
    rest = sorted(
        (entrant for entrant in every if not entrant.pretrained and entrant.macs < least),
        key=lambda entrant: -entrant.top1,
    )
    front: list[Entrant] = []
    for entrant in rest:  # the most accurate first: each must be cheaper than those before it
        if not front or entrant.macs < front[-1].macs:
            front.append(entrant)
    return tuple(sorted([*ready, *front[-FROM_SCRATCH:]], key=lambda entrant: entrant.macs))


def _entrant(name: str) -> Entrant:
    alias = resolve(name)
    known = variant(alias.name)
    macs = count(known.spec(alias.width), SIZES[-1]).macs
    # The one that training will start from: timm's names say a tag.
    tagged = choose(alias.name, alias.tag, alias.width) if alias.tag else None
    checkpoint = tagged or preferred(alias.name, alias.width)
    if checkpoint is None or not checkpoint.classifier or checkpoint.top1 is None:
        return Entrant(name, known.top1, known.input_size, macs, pretrained=False)
    return Entrant(name, checkpoint.top1, checkpoint.preprocess.size, macs, _ready(checkpoint))


def _ready(checkpoint: Checkpoint) -> bool:
    return checkpoint.source.ready or (isinstance(checkpoint.source, HubFile) and hub_answers())
