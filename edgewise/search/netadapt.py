"""NetAdapt: a network made narrower step by step, by what the device says (arXiv 1804.03230).

Each step is to bring the latency down by a part that falls from step to step (algorithm 1). For
every group of channels there is a proposal: this group alone, narrowed until a table says that the
step's aim is met. Each is fine-tuned a little; the one that loses the least accuracy for the time
that it saves is kept, and measured end to end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from edgewise.compress.groups import channel_groups
from edgewise.compress.importance import importance
from edgewise.compress.prune import check_prunable, with_channels
from edgewise.compress.widths import Sizes
from edgewise.errors import EdgewiseError, UsageError
from edgewise.model import Model
from edgewise.search.latency_table import LatencyTable, Places
from edgewise.search.netadapt_steps import Journal, Proposal, Step, begun_with
from edgewise.weights.folder import load_model

FIRST_STEP = 0.025  # of the initial latency is to be saved, ...
DECAY = 0.96  # ... and by this factor less in each further step
SUFFIX = "_netadapt"  # of the network's name: it is no longer the published one
LEAST_STEP = 1e-4  # of the initial latency: smaller steps come to nothing
LEAST_GAIN = 1e-9  # of the time: what saves nothing is the last choice


class TooSlow(EdgewiseError):
    """The narrowest network that there is takes longer; the message has its latency."""


class Tuning(Protocol):
    """How a proposal learns, and how good it is then. The same call has the same result."""

    def tune(self, model: Model, seed: int) -> Model:
        """The model with new statistics of batch norm, and after a few steps of learning.

        The one that it gets may be changed by it.
        """

    def accuracy(self, model: Model) -> float:
        """On images that it does not learn from, and that are not the final test's."""


def netadapt(
    model: Model,
    latency_ms: float,
    table: LatencyTable,
    measure: Callable[[Model], float],
    tuning: Tuning,
    folder: Path,
) -> Iterator[Step]:
    """Narrows a model until it takes no longer than that on the device.

    The steps are yielded as they are done; `folder/step-NNN` are their models, none of which was
    trained for long. What was begun in the folder goes on at the step that it was in; the steps
    that were done come first.

    Args:
        model: trained; it is not changed.
        latency_ms: to come down to, as `measure` has it.
        table: of the model's rows.
        measure: milliseconds of a model end to end, as the file that is shipped.
        tuning: for the proposals.
        folder: for the steps.

    Raises:
        UsageError: the table is another network's or of another image size, its convolutions were
            taken apart, or the folder holds something else.
        TooSlow: the narrowest network takes longer.
        EdgewiseError: whatever measuring and learning raise.
    """
    check_prunable(model.network.spec)
    table.sizes(model.network.spec)
    if table.size != model.preprocess.size:
        raise UsageError(
            f"the table is of {table.size} px, and the model takes {model.preprocess.size}. Make "
            "one of the model's size."
        )
    journal = Journal(folder)
    begun = journal.resume(model, latency_ms)
    if not begun:
        floor_ms = measure(_narrowed(model, table, _narrowest(table)))
        if floor_ms > latency_ms:
            raise _too_slow(model, table, latency_ms, floor_ms)
        begun = begun_with(model, latency_ms, floor_ms)
        journal.begin(begun)
    done = journal.steps()
    if not done:
        now_ms = measure(model)
        done.append(Step(0, now_ms, now_ms, tuning.accuracy(model)))
        journal.add([], done[0], model)
    yield from done
    while done[-1].latency_ms > latency_ms:
        # Read back, so that a resumed run starts from the very same numbers.
        current = load_model(journal.model(len(done) - 1))
        made = _step(current, done, latency_ms, table, tuning)
        if not made:
            raise _too_slow(model, table, latency_ms, done[-1].latency_ms)
        step, smaller = made
        step = replace(step, latency_ms=measure(smaller))
        journal.add(done, step, smaller)
        done.append(step)
        yield step


def steps_to(part: float) -> int | None:
    """How many steps bring the latency down to this part of it, if each meets its aim.

    None if no number does: all steps together save at most 62.5 %.
    """
    left, steps = 1.0, 0
    while left > part:
        saved = FIRST_STEP * DECAY**steps
        if saved < LEAST_STEP:
            return None
        left, steps = left - saved, steps + 1
    return steps


def narrowings(table: LatencyTable, sizes: Sizes, part: float) -> dict[Places, int]:
    """For each group its widest width with which the network takes `part` of its time by the table.

    A group with which that can't be met is left out. If it can be with none, each that can be
    narrowed has its narrowest.

    Raises:
        CantTime: a row can't be timed.
    """
    goal_ms = part * table.sum_ms(sizes)
    met: dict[Places, int] = {}
    narrowest: dict[Places, int] = {}
    waiting = {places: iter(table.narrower(places, size)) for places, size in sizes.items()}
    while waiting:
        trials = {places: next(left, 0) for places, left in waiting.items()}
        trials = {places: size for places, size in trials.items() if size}
        table.measure(sizes | {places: size} for places, size in trials.items())
        for places, size in trials.items():
            narrowest[places] = size
            if table.sum_ms(sizes | {places: size}) <= goal_ms:
                met[places] = size
        waiting = {places: waiting[places] for places in trials if places not in met}
    return met or narrowest


def best_of(proposals: Sequence[Proposal], now: Step) -> int:
    """The index of the proposal that loses the least accuracy for the milliseconds that it saves.

    Where several lose none, the most accurate one.
    """

    def price(index: int) -> tuple[float, float]:
        proposal = proposals[index]
        lost = max(now.accuracy - proposal.accuracy, 0.0)
        saved_ms = max(now.latency_ms - proposal.predicted_ms, LEAST_GAIN * now.latency_ms)
        return lost / saved_ms, -proposal.accuracy

    return min(range(len(proposals)), key=price)


def _step(
    current: Model, done: Sequence[Step], latency_ms: float, table: LatencyTable, tuning: Tuning
) -> tuple[Step, Model] | None:
    """The next step, not measured yet, and its model; None if nothing can be narrowed."""
    number, now = len(done), done[-1]
    aim_ms = now.latency_ms - FIRST_STEP * done[0].latency_ms * DECAY ** (number - 1)
    aim_ms = max(aim_ms, latency_ms)
    sizes = table.sizes(current.network.spec)
    # The table's sum is not the whole's time: only its ratios count, from what was measured.
    factor = now.latency_ms / table.sum_ms(sizes)
    best: Model | None = None
    proposals: list[Proposal] = []
    for places, size in narrowings(table, sizes, aim_ms / now.latency_ms).items():
        smaller = tuning.tune(_narrowed(current, table, {places: size}), number)
        predicted_ms = factor * table.sum_ms(sizes | {places: size})
        accuracy = tuning.accuracy(smaller)
        name = table.groups[places].name
        proposals.append(Proposal(name, sizes[places], size, predicted_ms, accuracy))
        if best_of(proposals, now) == len(proposals) - 1:
            best = smaller
    if not best:
        return None
    chosen = proposals[best_of(proposals, now)]
    step = Step(number, aim_ms, 0.0, chosen.accuracy, chosen.group, tuple(proposals))
    return step, best


def _narrowest(table: LatencyTable) -> Sizes:
    return {places: widths[0] for places, widths in table.widths.items()}


def _narrowed(model: Model, table: LatencyTable, sizes: Mapping[Places, int]) -> Model:
    """The model with the channels of the largest L2 norm in these groups, and all in the others."""
    network = model.network
    scores = importance(network, "l2")
    kept = {
        group.name: scores[group.name].topk(sizes[group.places]).indices
        for group in channel_groups(network.spec)
        if group.places in sizes
    }
    smaller = with_channels(network, kept)
    name = network.spec.name.removesuffix(SUFFIX) + SUFFIX
    smaller.spec = replace(smaller.spec, name=name)
    return Model(smaller, model.preprocess, model.labels)


def _too_slow(model: Model, table: LatencyTable, latency_ms: float, floor_ms: float) -> TooSlow:
    return TooSlow(
        f"{model.network.spec.name} at {table.size} px can't be narrowed to {latency_ms:.3g} ms: "
        f"with no more than {table.multiple} channels in each group it takes {floor_ms:.3g} ms. "
        "Take a smaller image, int8 or another network, or allow more."
    )
