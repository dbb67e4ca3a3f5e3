"""Where a network halves its map: fewer halvings for small images, or dilation in their place.

Both keep every shape of the weights, so they go with pretrained ones. Nothing here needs torch.
"""

from __future__ import annotations

from dataclasses import replace

from edgewise.errors import UsageError
from edgewise.spec import AnyBlock, ConvNeXt, Residual, Spec

OUTPUT_STRIDES = (8, 16, 32)


def small_stem(spec: Spec) -> Spec:
    """The network for images of 28 to 64 px: its first two halvings are left out.

    All rows stay; the last map of a 32 px image is 4 x 4 instead of a single pixel.
    """
    left = 4 // spec.stem.stride
    stages = []
    for stage in spec.stages:
        if stage and stage[0].stride > 1 and left > 1:
            left //= stage[0].stride
            stage = (replace(stage[0], stride=1), *stage[1:])
        stages.append(stage)
    return replace(spec, stem=replace(spec.stem, stride=1), stages=tuple(stages))


def dilate(spec: Spec, output_stride: int) -> Spec:
    """The network whose last map is 1 / `output_stride` of the image: dilation in place of strides.

    At the positions that a stride would have kept, every convolution still sees the values that it
    saw: one that loses its stride is dilated as those before it, those after it twice as much
    (arXiv 1606.00915, section 3.1). What looks at the whole map, such as squeeze-excite and
    attention, now sees more of it and gives slightly other values. A network whose last map is as
    large already stays as it is, with the dilation that it has.

    Raises:
        UsageError: `output_stride` is not 8, 16 or 32.
    """
    if output_stride not in OUTPUT_STRIDES:
        raise UsageError(f"output_stride must be 8, 16 or 32, not {output_stride}")
    stride, dilation, stages = spec.stem.stride, 1, []
    for stage in spec.stages:
        blocks: list[AnyBlock] = []
        for block in stage:
            before = dilation
            if stride * block.stride > output_stride:
                dilation *= block.stride
                block = replace(block, stride=1)
            stride *= block.stride
            blocks.append(_dilated(block, before, dilation))
        stages.append(tuple(blocks))
    return replace(spec, stages=tuple(stages))


def _dilated(block: AnyBlock, before: int, after: int) -> AnyBlock:
    """`before` times what has the stride or comes before it, `after` times what comes after it."""
    if isinstance(block, ConvNeXt | Residual):
        first = block.first_dilation * before
        return replace(block, first_dilation=first, dilation=block.dilation * after)
    return replace(block, dilation=block.dilation * before)
