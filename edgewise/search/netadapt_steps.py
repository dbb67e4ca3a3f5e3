"""What NetAdapt did, step by step, in a folder that a killed run goes on from.

netadapt.json    what was begun with, and for what
steps.jsonl      a line a step, with all its proposals
step-000         the model of each step, as a model folder; the first is where it began
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from edgewise.errors import UsageError
from edgewise.files import holds_more_than, read_json, write_json, write_text
from edgewise.model import Model
from edgewise.timing.runtimes.graph import fingerprint
from edgewise.validation import from_plain, record
from edgewise.weights.folder import save_model


@record()
class Proposal:
    """One group of channels made narrower, the others as they were.

    Attributes:
        group: its name.
        before: its channels.
        after: those that are left.
        predicted_ms: of the network, by the table.
        accuracy: after a short fine-tuning.
    """

    group: str
    before: int
    after: int
    predicted_ms: float
    accuracy: float


@record()
class Step:
    """A step that is done; number 0 is the model as it came.

    Attributes:
        number: of the step.
        aim_ms: the latency that its proposals were to have.
        latency_ms: of its model, measured end to end.
        accuracy: of its model.
        group: that was chosen; "" at the beginning.
        proposals: all of them.
    """

    number: int
    aim_ms: float
    latency_ms: float
    accuracy: float
    group: str = ""
    proposals: tuple[Proposal, ...] = ()


@record()
class Begun:
    """What a folder was begun with.

    Attributes:
        model: a fingerprint of the network and its weights.
        size: height and width of the image, in pixels.
        latency_ms: that it is to have at last.
        floor_ms: measured, of the narrowest network that there is.
    """

    model: str
    size: int
    latency_ms: float
    floor_ms: float


class Journal:
    """The folder. A step counts once its line is there; the model was written before."""

    def __init__(self, folder: Path) -> None:
        self.begun, self.lines = folder / "netadapt.json", folder / "steps.jsonl"
        self.folder = folder

    def model(self, step: int) -> Path:
        """The model folder of a step."""
        return self.folder / f"step-{step:03}"

    def resume(self, model: Model, latency_ms: float) -> Begun | None:
        """What was begun here with that model and that goal; None if nothing was.

        Raises:
            UsageError: something else was begun here, or lies here.
        """
        if not self.begun.is_file():
            if holds_more_than(self.folder, (self.begun,)):
                raise UsageError(f"{self.folder} holds something else. Name another folder.")
            return None
        begun = from_plain(Begun, read_json(self.begun), str(self.begun))
        if begun.latency_ms != latency_ms:
            raise UsageError(
                f"{self.folder} was begun for {begun.latency_ms:g} ms, not {latency_ms:g}. "
                "Name another folder."
            )
        if begun != begun_with(model, latency_ms, begun.floor_ms):
            raise UsageError(f"{self.folder} was begun with another model. Name another folder.")
        return begun

    def begin(self, begun: Begun) -> None:
        """Makes the folder."""
        write_json(self.begun, asdict(begun))

    def steps(self) -> list[Step]:
        """All that are done.

        Raises:
            UsageError: a line was damaged; the message names it.
        """
        if not self.lines.is_file():
            return []
        lines = self.lines.read_text(encoding="utf-8").splitlines()
        return [self._step(number, line) for number, line in enumerate(lines, 1)]

    def _step(self, number: int, line: str) -> Step:
        where = f"{self.lines}, line {number}"
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            raise UsageError(f"{where} is not valid JSON: {error}") from error
        return from_plain(Step, value, where)

    def add(self, done: Sequence[Step], step: Step, model: Model) -> None:
        """Keeps a step after those that are done; all of it, or nothing."""
        save_model(model, self.model(step.number))
        every = (json.dumps(asdict(one), ensure_ascii=False) for one in (*done, step))
        write_text(self.lines, "".join(f"{line}\n" for line in every))


def begun_with(model: Model, latency_ms: float, floor_ms: float) -> Begun:
    """What is begun with this model."""
    size = model.preprocess.size
    shape = (1, model.network.spec.in_chans, size, size)
    return Begun(fingerprint(model.network, shape), size, latency_ms, floor_ms)
