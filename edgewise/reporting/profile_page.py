"""A profile as one HTML file that opens offline, and as a picture: a bar for each layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgewise import __version__
from edgewise.errors import UsageError, missing_package
from edgewise.files import write_atomic, write_text
from edgewise.measure.profile_result import Layer, Profile
from edgewise.reporting.numbers import NBSP, filesize, scaled
from edgewise.reporting.templates import render

TEMPLATE = "profile.html.j2"
PICTURE_FORMATS = (".png", ".svg", ".pdf")
COLOURS = {  # of Okabe and Ito, which people with any colour vision tell apart
    "standard": "#0072b2",
    "depthwise": "#e69f00",
    "pointwise": "#009e73",
    "grouped": "#cc79a7",
    "transposed": "#56b4e9",
    "linear": "#d55e00",
    "attention": "#f0e442",
}


@dataclass(frozen=True)
class Column:
    """What the bars of one column show: its heading and a layer's number."""

    title: str
    value: Callable[[Layer], int]


COLUMNS = (
    Column("MACs", lambda layer: layer.macs),
    Column("Parameters", lambda layer: layer.params),
    Column("Activations", lambda layer: layer.activations),
)


def write_page(profile: Profile, path: Path) -> None:
    """Writes the page.

    Raises:
        UsageError: jinja2 is not installed.
        EdgewiseError: the file can't be written.
    """
    layers = [layer for layer in profile.layers if layer.macs]
    values = {
        "profile": profile,
        "shapes": ", ".join(_shape(shape) for shape in profile.inputs),
        "layers": layers,
        "shape": _shape,
        "columns": COLUMNS,
        "largest": [max((column.value(x) for x in layers), default=0) or 1 for column in COLUMNS],
        "colours": {k.name: COLOURS[k.name] for k in profile.kinds if k.name in COLOURS},
        "version": __version__,
    }
    write_text(path, render(TEMPLATE, values))


def write_picture(profile: Profile, path: Path) -> None:
    """Writes the same bars as a PNG (or SVG or PDF, by the suffix of `path`).

    Raises:
        UsageError: matplotlib is not installed, or another suffix.
        EdgewiseError: the file can't be written.
    """
    if path.suffix.lower() not in PICTURE_FORMATS:
        raise UsageError(f"a picture's name ends in {', '.join(PICTURE_FORMATS)}, not {path}")
    try:
        from matplotlib.figure import Figure
        from matplotlib.patches import Patch
    except ImportError as error:
        raise missing_package("matplotlib", "bench") from error
    layers = [layer for layer in profile.layers if layer.macs]
    figure = Figure(figsize=(11, 2.2 + 0.16 * len(layers)), layout="constrained", dpi=100)
    axes = figure.subplots(1, len(COLUMNS), sharey=True, squeeze=False)[0]
    for ax, column in zip(axes, COLUMNS, strict=True):
        ax.barh(
            range(len(layers)),
            [column.value(layer) for layer in layers],
            color=[COLOURS[layer.kind] for layer in layers],
        )
        ax.set_title(column.title, fontsize=10)
        ax.xaxis.set_major_formatter(lambda value, _: scaled(value))
        ax.tick_params(labelsize=7)
        ax.spines[["top", "right"]].set_visible(False)
        ax.margins(y=0.005)
    axes[0].set_yticks(range(len(layers)), [layer.name for layer in layers], fontsize=6)
    axes[0].invert_yaxis()
    kinds = [kind.name for kind in profile.kinds if kind.name in COLOURS]
    figure.legend(
        handles=[Patch(color=COLOURS[kind], label=kind) for kind in kinds],
        loc="outside lower center",
        ncols=len(kinds) or 1,
        fontsize=8,
        frameon=False,
    )
    title = (
        f"{profile.name}, input {', '.join(map(_shape, profile.inputs))}: "
        f"{scaled(profile.params)} parameters, {scaled(profile.macs)} MACs, "
        f"{filesize(profile.peak_memory)} at the peak"
    )
    figure.suptitle(title.replace(NBSP, " "), fontsize=11)
    kind = path.suffix.lower().removeprefix(".")
    write_atomic(path, lambda file: figure.savefig(file, format=kind))


def _shape(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))
