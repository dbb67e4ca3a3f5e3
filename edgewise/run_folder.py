"""The run folder: all that a stranger needs to trust and repeat a training run, and its names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from edgewise.errors import UsageError
from edgewise.shell import command_line


@contextmanager
def new_root(name: str | None, model: str, parent: Path) -> Iterator[Path]:
    """`parent/NAME`; without a name the first of `parent/MODEL-1`, ... that is not there.

    That one is made at once, so that what is begun meanwhile gets the next number. If it is still
    empty in the end, it goes again.

    Raises:
        UsageError: it can't be made.
    """
    if name:
        yield parent / name
        return
    ours = not parent.exists()
    try:
        parent.mkdir(parents=True, exist_ok=True)
        root = _made_first(parent, model)
    except OSError as error:
        raise UsageError(
            f"can't write in {parent.absolute()}: {error.strerror or error}. "
            "Make it writable, or work in another folder."
        ) from error
    try:
        yield root
    finally:
        with suppress(OSError):  # it holds something
            root.rmdir()
            if ours:
                parent.rmdir()


def _made_first(parent: Path, model: str) -> Path:
    number = 1
    while True:
        root = parent / f"{model}-{number}"
        try:
            root.mkdir()
        except FileExistsError:
            number += 1
        else:
            return root


@dataclass(frozen=True, init=False)
class Run:
    """Paths in one run folder. Each file has one writer, named here."""

    root: Path

    def __init__(self, root: str | Path) -> None:
        object.__setattr__(self, "root", Path(root))

    @property
    def recipe(self) -> Path:
        """What was asked for, every default resolved (train)."""
        return self.root / "recipe.json"

    @property
    def environment(self) -> Path:
        """The versions, the machine, and the licence of the first weights (train)."""
        return self.root / "environment.json"

    @property
    def data(self) -> Path:
        """Root, fingerprint, classes and counts of the data (data)."""
        return self.root / "data.json"

    @property
    def split(self) -> Path:
        """One line per usable image: path, label, split, sha256 (data)."""
        return self.root / "split.csv"

    @property
    def quarantine(self) -> Path:
        """One line per image that can't be used: path, label, split, reason (data)."""
        return self.root / "quarantine.csv"

    @property
    def metrics(self) -> Path:
        """One line per epoch (train)."""
        return self.root / "metrics.csv"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard's event files, if they were asked for (train)."""
        return self.root / "tensorboard"

    @property
    def checkpoints(self) -> Path:
        """`last` and `previous`, and `kept` to go back to, each `.safetensors` (train)."""
        return self.root / "checkpoints"

    @property
    def start(self) -> Path:
        """The model folder that training began with, if it was made of another run's (compress)."""
        return self.root / "start"

    @property
    def compression(self) -> Path:
        """What was done to the other run's model, and what it cost before and after (compress)."""
        return self.root / "compress.json"

    @property
    def model(self) -> Path:
        """The best weights so far, as a model folder (train)."""
        return self.root / "model"

    @property
    def weights(self) -> Path:
        """The weights in `model`. What was measured on others before is out of date (train)."""
        return self.model / "model.safetensors"

    @property
    def evaluation(self) -> Path:
        """`SPLIT.json` and `SPLIT.csv` for each evaluated split (eval)."""
        return self.root / "eval"

    @property
    def exports(self) -> Path:
        """The exported artefacts, the golden inputs and their manifest (export)."""
        return self.root / "export"

    @property
    def verification(self) -> Path:
        """What `verify` saw (verify)."""
        return self.root / "verify.json"

    @property
    def cost(self) -> Path:
        """Parameters, MACs, bytes and measured latency (report)."""
        return self.root / "cost.json"

    @property
    def report(self) -> Path:
        """The report (report)."""
        return self.root / "report.html"

    @property
    def model_card(self) -> Path:
        """The model card (report)."""
        return self.root / "MODEL_CARD.md"

    @staticmethod
    def is_run(path: str | Path) -> bool:
        """Whether `path` is a run folder: one with a recipe."""
        return Path(path, "recipe.json").is_file()

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """The run at `path`.

        Raises:
            UsageError: no such folder, or not a run.
        """
        path = Path(path)
        if not path.is_dir():
            raise UsageError(f"no such run: {path}. `edgewise train` makes one under runs/.")
        if not cls.is_run(path):
            if cls.is_run(path / "final"):
                raise UsageError(f"{path} is a search. The run that it made is {path / 'final'}.")
            raise UsageError(f"{path} is not a run folder: it has no recipe.json.")
        return cls(path)

    def trained(self) -> Run:
        """This run, once it is known to hold a model.

        Raises:
            UsageError: training has not yet finished its first epoch.
        """
        if not (self.model / "spec.json").is_file():
            raise UsageError(
                f"{self.root} has no trained model yet. "
                f"Go on with: {command_line('train', '--resume', self.root)}"
            )
        return self
