"""What the doctor saw, as one HTML file that opens offline, with the pictures in question."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path

from edgewise import __version__
from edgewise.data.doctor import Examination
from edgewise.files import write_text
from edgewise.reporting.pictures import thumbnails
from edgewise.reporting.templates import render

TEMPLATE = "doctor.html.j2"
MOST_GROUPS, MOST_PICTURES = 12, 6  # shown of a finding; of a group


def write_page(seen: Examination, path: Path) -> None:
    """Writes the page.

    Raises:
        UsageError: jinja2 is not installed.
        EdgewiseError: the file can't be written.
    """
    shown = [
        [
            (group[:MOST_PICTURES], detail)
            for group, detail in zip_longest(
                finding.groups[:MOST_GROUPS], finding.details[:MOST_GROUPS]
            )
        ]
        for finding in seen.findings
    ]
    names = {name for groups in shown for group, _ in groups for name in group}
    pictures = thumbnails(Path(seen.root, name) for name in sorted(names))
    values = {
        "seen": seen,
        "findings": list(zip(seen.findings, shown, strict=True)),
        "pictures": {name: pictures[Path(seen.root, name)] for name in names},
        "splits": list(dict.fromkeys(s for counts in seen.classes.values() for s in counts)),
        "largest": max((sum(c.values()) for c in seen.classes.values()), default=0) or 1,
        "version": __version__,
    }
    write_text(path, render(TEMPLATE, values))
