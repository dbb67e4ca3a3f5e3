"""All that was ever measured on this machine: one SQLite file, to which rows are only added.

A row is keyed by fingerprints of the machine and of the graph and by the runtime's version, so that
an old time is never taken for one of another machine, runtime or network. SQLite, since two
measurements at once, a kill or a full disk must not leave half a row.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edgewise.errors import EdgewiseError, UsageError
from edgewise.measure.latency import machine
from edgewise.measure.rounds import Timing
from edgewise.weights.hub import cache_folder

VERSION = 1  # of the columns
TABLE = "measurements"
FILE = "bench.sqlite"
OK, WRONG, FAILED = "ok", "wrong", "failed"
OURS = "edgewise"  # the library of our own networks
MEND = (
    "Name another folder in the environment variable EDGEWISE_CACHE; `edgewise bench` also takes "
    "another file, with --store."
)


@dataclass(frozen=True)
class Row:
    """One candidate in one session. What was not measured is None.

    Attributes:
        session: when it began, in UTC, as ISO 8601. Rows of one session, network, shape and number
            of threads were timed in turns; those of others weren't.
        machine: the fingerprint of `machine()`.
        cpu: the processor's name.
        cores: that could be used.
        load: the machine's load average over a minute, when the session began.
        model: the name or folder that was asked for.
        graph: the fingerprint of the network and its input's shape, without the weights.
        imgsz: height and width of the input, in pixels; 0 if it isn't a square image.
        batch: images in one call.
        threads: that a call could use.
        library: whose network.
        runtime: what ran it.
        version: of the runtime.
        precision: "fp32", "bf16" or "int8".
        status: "ok"; "wrong" if its answers are not PyTorch's; "failed" if it did not run.
        reason: why, if it is not ok.
        median_ms: of a call.
        low_ms: of the median's 95 % interval.
        high_ms: of the median's 95 % interval.
        p90_ms: of a call.
        p99_ms: of a call.
        runs: timed calls.
        rounds_ms: the median of each round.
        first_ms: the first inference.
        peak_bytes: most memory of its whole process while it ran.
        weight_bytes: of the weights, as the runtime has them.
        largest_error: of a logit, in standard deviations of PyTorch's logits.
        correlation: of its logits with PyTorch's.
        agreement: the part of the images with PyTorch's top class.
    """

    session: str
    machine: str
    cpu: str
    cores: int
    load: float | None
    model: str
    graph: str
    imgsz: int
    batch: int
    threads: int
    library: str = ""
    runtime: str = ""
    version: str = ""
    precision: str = ""
    status: str = OK
    reason: str = ""
    median_ms: float | None = None
    low_ms: float | None = None
    high_ms: float | None = None
    p90_ms: float | None = None
    p99_ms: float | None = None
    runs: int | None = None
    rounds_ms: tuple[float, ...] = ()
    first_ms: float | None = None
    peak_bytes: int | None = None
    weight_bytes: int | None = None
    largest_error: float | None = None
    correlation: float | None = None
    agreement: float | None = None

    def timed(self, timing: Timing) -> Row:
        """The same with the times."""
        latency = timing.latency
        return replace(
            self,
            median_ms=latency.median_ms,
            low_ms=timing.low_ms,
            high_ms=timing.high_ms,
            p90_ms=latency.p90_ms,
            p99_ms=latency.p99_ms,
            runs=latency.runs,
            rounds_ms=timing.rounds_ms,
        )

    @property
    def key(self) -> tuple[str | int, ...]:
        """What was measured, and where: the same for the same thing measured again."""
        return (
            *(self.machine, self.model, self.graph, self.threads),
            *(self.library, self.runtime, self.version, self.precision),
        )

    @property
    def group(self) -> tuple[str | int, ...]:
        """Rows that have this in common were timed in turns."""
        return (self.session, self.machine, self.model, self.graph, self.threads)


def new_row(
    session: str, load: float | None, model: str, graph: str, imgsz: int, batch: int, threads: int
) -> Row:
    """A row of this machine that has no candidate's facts yet."""
    here = machine()
    return Row(
        *(session, machine_fingerprint(), str(here["cpu"]), int(here["cores"]), load),
        *(model, graph, imgsz, batch, threads),
    )


def now() -> str:
    """A new session's name."""
    return datetime.now(timezone.utc).isoformat(timespec="microseconds")


COLUMNS = tuple(column.name for column in fields(Row))


class Store:
    """The rows in one file, which is made when the first row is added.

    Raises:
        UsageError: `path` is something else, or of another version of edgewise.
        EdgewiseError: it can't be told whether there is one: a folder above it can't be read.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or cache_folder() / FILE
        if self._is_there():
            with self._open() as database:
                # In this order: another process may write its first rows just now.
                empty = not _tables(database)
                version = database.execute("PRAGMA user_version").fetchone()[0]
            if version != VERSION and not empty:  # as it is when the first rows had no place
                raise UsageError(
                    f"{self.path} is not a store of this version of edgewise. {self._other}"
                )

    def add(self, rows: Sequence[Row]) -> None:
        """Appends all of them, or none. Without rows it only makes sure that they can be.

        Raises:
            EdgewiseError: they can't be written.
        """
        marks = ", ".join("?" * len(COLUMNS))
        values = [
            [json.dumps(v) if isinstance(v, tuple) else v for v in asdict(row).values()]
            for row in rows
        ]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EdgewiseError(
                f"can't make {self.path.parent}: {error.strerror}. {MEND}"
            ) from error
        with self._open() as database, database:
            database.execute("BEGIN IMMEDIATE")  # or a kill would leave a table of no version
            database.execute(f"CREATE TABLE IF NOT EXISTS {TABLE} ({', '.join(COLUMNS)})")
            database.execute(f"PRAGMA user_version = {VERSION}")
            database.executemany(f"INSERT INTO {TABLE} VALUES ({marks})", values)

    def rows(self) -> list[Row]:
        """All of them, the oldest first."""
        if not self._is_there():
            return []
        with self._open() as database:
            if TABLE not in _tables(database):
                return []
            found = database.execute(f"SELECT {', '.join(COLUMNS)} FROM {TABLE} ORDER BY rowid")
            return [_row(dict(zip(COLUMNS, values, strict=True))) for values in found]

    def latest(self, models: Sequence[str] = ()) -> list[Row]:
        """The last row of each key, of these models or of all; those of a session side by side."""
        last: dict[tuple[str | int, ...], Row] = {}
        for row in self.rows():
            if not models or row.model in models:
                last.pop(row.key, None)  # else it would stand where the older one did
                last[row.key] = row
        return list(last.values())

    def _is_there(self) -> bool:
        try:
            self.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:  # another person's folder, as a container's $HOME may be
            raise EdgewiseError(f"can't read {self.path}: {error.strerror}. {MEND}") from error
        return True

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self.path, timeout=30)) as database:
                yield database
        except sqlite3.OperationalError as error:  # a full disk, no permission, locked for long
            raise EdgewiseError(f"can't use {self.path}: {error}. {MEND}") from error
        except sqlite3.DatabaseError as error:
            raise UsageError(
                f"{self.path} is not a store of measurements ({error}). {self._other}"
            ) from error

    @property
    def _other(self) -> str:
        """What to do with a file that is none: only `edgewise bench` has an option for it."""
        of_search = self.path.parent == cache_folder() and self.path.name != FILE
        return f"Move it away{'' if of_search else ', or name another file with --store'}."


def _tables(database: sqlite3.Connection) -> set[str]:
    return {name for (name,) in database.execute("SELECT name FROM sqlite_master")}


def machine_fingerprint() -> str:
    """That of the processor, its usable cores and the operating system."""
    return fingerprint(machine())


def fingerprint(*values: Any) -> str:
    """12 hex digits that stand for plain JSON values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def _row(values: dict[str, Any]) -> Row:
    return Row(**values | {"rounds_ms": tuple(json.loads(values["rounds_ms"]))})
