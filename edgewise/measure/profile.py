"""What a network costs, counted exactly: any module, any name, any ONNX file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgewise.errors import UsageError
from edgewise.files import read_json
from edgewise.measure.count import LARGEST_TRIED
from edgewise.measure.ops_rules import MAC_KINDS
from edgewise.measure.profile_result import Profile, Trace, profile_of
from edgewise.run_folder import Run
from edgewise.spec import Spec

if TYPE_CHECKING:
    from torch import Tensor, nn


def profile(
    model: str | Path | Spec | nn.Module,
    input_size: int | tuple[int, int] | None = None,
    batch: int = 1,
    in_chans: int | None = None,
    inputs: tuple[Tensor, ...] | None = None,
) -> Profile:
    """Parameters, MACs, memory and more of a network, for its layers, stages and kinds.

    MACs are multiply-accumulates of convolutions, linear layers and products of matrices; all
    other arithmetic is counted apart. A module is run once without computing or allocating
    anything (on the meta device), so that its size doesn't matter, and nothing of it changes: a
    copy is run, in evaluation mode. A module that needs the values of its input, or has an
    operator that the meta device lacks, is run on its own device instead. An ONNX file is read.

    Args:
        model: a name, ours or timm's; a `Spec`; a run or model folder; any module; the path of an
            `.onnx` file.
        input_size: (height, width) of the images in pixels, or one number for both; by default
            the published one of a name, 224 of all else, and of a file its own.
        batch: how many images.
        in_chans: channels of the images; by default those of the network, and 3 of a module that
            is not ours.
        inputs: instead of all these, example arguments of a module that doesn't take images.

    Raises:
        UsageError: an unknown name; an input that the network can't take; if that is because it is
            too small, the message has the smallest; inputs for what takes images; onnx is not
            installed.
    """
    if batch < 1:
        raise UsageError(f"batch must be 1 or more, not {batch}")
    if inputs and isinstance(model, (str, Path, Spec)):
        raise UsageError("inputs are for a module that takes no images: give input_size instead.")
    if isinstance(model, (str, Path)) and Path(model).suffix == ".onnx":
        from edgewise.measure.onnx_profile import profile_onnx

        return profile_onnx(Path(model), _sides(input_size), batch, in_chans)
    if isinstance(model, (str, Path)):
        model, size = spec_of(model)
    else:
        size = 224
    sides = _sides(input_size) or (size, size)
    if isinstance(model, Spec):
        return _profile_spec(model, sides, batch, in_chans)
    return _profile_module(model, sides, batch, in_chans, inputs)


def _sides(input_size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    return (input_size, input_size) if isinstance(input_size, int) else input_size


def spec_of(source: str | Path) -> tuple[Spec, int]:
    """The spec of a name, or of a run or model folder, and its published or own input size.

    Raises:
        UsageError: an unknown name, or no such folder; for a search the message has its run.
    """
    from edgewise.families import variant
    from edgewise.weights.folder import PREPROCESS, SPEC
    from edgewise.weights.pretrained import resolve

    folder = Path(source)
    if folder.is_dir():
        if Run.is_run(folder) or Run.is_run(folder / "final"):  # a search: the error names its run
            folder = Run.open(folder).trained().model
        if not (folder / SPEC).is_file():
            raise UsageError(f"{folder} is not a model folder: it has no {SPEC}.")
        return Spec.from_json(read_json(folder / SPEC)), read_json(folder / PREPROCESS)["size"]
    if folder.is_file() or folder.name != str(source):
        raise UsageError(
            f"{source} is no model. Give a model name, a run or model folder, or an .onnx file."
        )
    alias = resolve(str(source))
    return alias.spec(), variant(alias.name).input_size


def _profile_spec(spec: Spec, sides: tuple[int, int], batch: int, in_chans: int | None) -> Profile:
    import torch

    from edgewise.measure.profile_trace import trace
    from edgewise.network import build

    spec = replace(spec, in_chans=in_chans or spec.in_chans)
    with torch.device("meta"):
        network = build(spec).eval()

    def run(sides: tuple[int, int]) -> Trace:
        return trace(network, (torch.empty(batch, spec.in_chans, *sides, device="meta"),))

    return profile_of(spec.name, _run_at(run, run, sides))


def _profile_module(
    module: nn.Module,
    sides: tuple[int, int],
    batch: int,
    in_chans: int | None,
    inputs: tuple[Tensor, ...] | None,
) -> Profile:
    import torch

    from edgewise.measure.profile_trace import trace, twin
    from edgewise.network import Network

    module = getattr(module, "_orig_mod", module)  # of `torch.compile`
    name = type(module).__name__
    if isinstance(module, Network):
        name, in_chans = module.spec.name, in_chans or module.spec.in_chans
    of_weights = next((p for p in module.parameters() if p.is_floating_point()), torch.empty(0))

    def on_meta(sides: tuple[int, int]) -> Trace:
        images = torch.empty(batch, in_chans or 3, *sides, dtype=of_weights.dtype, device="meta")
        return trace(twin(module, meta=True), inputs or (images,))

    def run(sides: tuple[int, int]) -> Trace:
        try:
            return on_meta(sides)
        except (NotImplementedError, RuntimeError, TypeError):  # TypeError: of `numpy()`
            if of_weights.is_meta:
                raise
            images = of_weights.new_zeros(batch, in_chans or 3, *sides)
            return trace(twin(module, meta=False), inputs or (images,), meta=False)

    return profile_of(name, run(sides) if inputs else _run_at(run, on_meta, sides))


def _run_at(
    run: Callable[[tuple[int, int]], Trace],
    on_meta: Callable[[tuple[int, int]], Trace],
    sides: tuple[int, int],
) -> Trace:
    """`run(sides)`, or an error that says why not and, if they are too small, how large to be.

    Other sizes are tried with `on_meta`, which takes no time or memory.
    """
    seen, reason = _attempt(run, sides)
    if seen:
        return seen
    for smaller in _rounder(min(sides)):
        if _attempt(on_meta, (smaller, smaller))[0]:
            raise UsageError(
                f"the network can't take an image of {_times(sides)} px, though it takes one of "
                f"{smaller}: {reason}"
            )
    small, large = min(sides), max(2 * min(sides), 32)
    while large <= LARGEST_TRIED and not _attempt(on_meta, (large, large))[0]:
        large *= 2
    if large > LARGEST_TRIED:
        raise UsageError(f"the network can't take an image of {_times(sides)} px: {reason}")
    while large - small > 1:
        middle = (small + large) // 2
        small, large = (
            (small, middle) if _attempt(on_meta, (middle, middle))[0] else (middle, large)
        )
    raise UsageError(
        f"the input size {_times(sides)} is too small for the network. The smallest is {large}."
    )


def _rounder(side: int) -> list[int]:
    """Smaller sides, the largest first, for a network whose maps must be halved without a rest."""
    return sorted({(side - 1) // step * step for step in (8, 16, 32, 64)}, reverse=True)


def _attempt(
    run: Callable[[tuple[int, int]], Trace], sides: tuple[int, int]
) -> tuple[Trace | None, str]:
    """What was seen, or why nothing was."""
    if min(sides) < 1:
        return None, "a side needs a pixel at least"
    try:
        seen = run(sides)
    except (AssertionError, IndexError, RuntimeError, TypeError, ValueError) as error:
        return None, str(error).partition("\n")[0]
    # Other tensors may be empty: a network that concatenates one has its pixels still.
    maps = (layer for layer in seen.layers if layer.kind in (*MAC_KINDS, "pool"))
    if any(0 in shape[2:] for layer in maps for shape in (*layer.inputs, layer.output)):
        return None, "no pixel is left"
    return seen, ""


def _times(sides: tuple[int, int]) -> str:
    return str(sides[0]) if sides[0] == sides[1] else f"{sides[0]} x {sides[1]}"
