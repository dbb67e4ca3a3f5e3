"""The table that a search shows on a terminal while it works: who is still in, and how far."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from edgewise.progress import terminal
from edgewise.reporting.numbers import milliseconds, percent, plural
from edgewise.reporting.search_record import SearchRecord, taken
from edgewise.reporting.search_rows import CandidateRow, candidate_rows

if TYPE_CHECKING:
    from rich.table import Table

    from edgewise.search.costs import Cost
    from edgewise.search.decisions import Numbers
    from edgewise.search.entrants import Entrant
    from edgewise.search.request import Request, SearchFolder

MOST_ROWS = 12
SCRATCH = "*"  # after a name: 80 columns have no room for words


class LiveTable:
    """Fills while networks are measured, thins out as they are tried; gone when the block ends.

    Under it progress bars come and go, above it lines are printed. It is shown on a terminal only.
    """

    def __init__(self, request: Request, folder: SearchFolder) -> None:
        from rich.live import Live

        from edgewise.search.budget import Budget

        self._record = SearchRecord(folder, request, Budget.parse(request.budget), {})
        self._costs: list[Numbers] = []
        self._live = Live(
            console=terminal(),
            get_renderable=self.table,
            transient=True,
            auto_refresh=False,  # a thread's lock could be held when workers are forked
            # What is printed goes through the terminal's console, unless it goes to a file.
            redirect_stdout=sys.stdout.isatty(),
        )

    def __enter__(self) -> LiveTable:
        if sys.stderr.isatty():
            self._live.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._live.stop()

    def measured(self, entrants: Sequence[Entrant], costs: Sequence[Cost]) -> None:
        """More networks have been measured, before the survey as a whole is decided."""
        self._costs += [asdict(cost) for cost in costs]
        known = [asdict(entrant) for entrant in entrants]
        self.decided("survey", {"entrants": known, "costs": self._costs})

    def decided(self, step: str, numbers: Numbers) -> None:
        """A decision was made, or a part of the survey's."""
        self._record = replace(self._record, made={**self._record.made, step: numbers})
        if self._live.is_started:
            self._live.refresh()

    def table(self) -> Table | str:
        """As it is now; "" before anything was measured."""
        from rich.table import Table

        rows = candidate_rows(self._record)
        if not rows:
            return ""
        inside = [row for row in rows if not row.out]
        more = len(inside) - MOST_ROWS
        words = [f"and {more} more"] if more > 0 else []
        words += [f"{plural(len(rows) - len(inside), 'candidate')} out"]
        shown = inside[:MOST_ROWS]
        words += [f"{SCRATCH} from scratch"] if not all(row.pretrained for row in shown) else []
        table = Table(box=None, pad_edge=False, caption=", ".join(words), caption_justify="left")
        table.add_column("STILL IN", overflow="ellipsis")  # the one that gives way
        for name in ("MEDIAN", "BUDGET", "ROUND 1", "ROUND 2", "FINAL"):
            table.add_column(name, justify="right", no_wrap=True)
        for row in shown:
            table.add_row(*_cells(row))
        return table


def _cells(row: CandidateRow) -> tuple[str, ...]:
    spent = row.least["spent"]
    return (
        row.name + ("" if row.pretrained else SCRATCH),
        milliseconds(spent["median_ms"]) if spent else "-",
        taken(row.used) if row.used is not None else "-",
        *(_accuracy(numbers) for numbers in (*row.rounds, row.final)),
    )


def _accuracy(numbers: Numbers | None) -> str:
    return percent(numbers["accuracy"]) if numbers and "accuracy" in numbers else ""
