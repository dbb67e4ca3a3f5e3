"""The templates, and how numbers look in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgewise.errors import missing_package
from edgewise.reporting import card, numbers

FILTERS = {
    "percent": numbers.percent,
    "whole": numbers.whole,
    "plural": numbers.plural,
    "scaled": numbers.scaled,
    "filesize": numbers.filesize,
    "milliseconds": numbers.milliseconds,
    "duration": numbers.duration,
    "place": lambda position: f"{position:.2f}".rstrip("0").rstrip("."),
    "md": card.markdown,
    "yaml": card.yaml,
}


def render(template: str, values: dict[str, Any], folders: Sequence[Path] = ()) -> str:
    """A template of this folder, or of `folders`, filled in; HTML is escaped.

    Raises:
        UsageError: jinja2 is not installed.
    """
    try:
        import jinja2
    except ImportError as error:
        raise missing_package("jinja2", "report") from error
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([*folders, Path(__file__).parent]),
        autoescape=".html" in template,  # labels, paths and names are anybody's text
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(FILTERS)
    return environment.get_template(template).render(values)
