"""`python -m edgewise.lessons FOLDER`: writes the pages of `docs/lessons`."""

from __future__ import annotations

from pathlib import Path

import click

from edgewise.lessons.pages import TIMES, measure, write_pages


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--recorded", is_flag=True, help=f"Use the times in FOLDER/{TIMES}.")
def command(folder: Path, recorded: bool) -> None:
    """Time every lesson and write its page, and the index, into FOLDER."""
    if not recorded:
        measure(folder)
    write_pages(folder)


if __name__ == "__main__":
    command()
