"""The lesson about MobileNetV4's attention."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from edgewise.blocks import MobileMQA
from edgewise.layers import Conv2d
from edgewise.lessons.clock import Clock
from edgewise.lessons.lesson import Lesson, Step
from edgewise.lessons.parts import FLOAT, costs, part
from edgewise.lessons.words import compare, ratio
from edgewise.reporting.numbers import filesize, percent


class MultiHead(nn.Module):
    """What mobile MQA is compared with: each head has its own keys and values, of every pixel."""

    def __init__(self, in_chans: int, heads: int, dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.BatchNorm2d(in_chans)
        self.query, self.key, self.value = (Conv2d(in_chans, heads * dim) for _ in range(3))
        self.project = Conv2d(heads * dim, in_chans)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        n, _, height, width = x.shape
        y = self.norm(x)
        each = (
            part(y).reshape(n, self.heads, -1, height * width).transpose(2, 3).contiguous()
            for part in (self.query, self.key, self.value)
        )
        y = F.scaled_dot_product_attention(*each)
        total: Tensor = x + self.project(y.transpose(2, 3).reshape(n, -1, height, width))
        return total


def mobile_mqa(
    clock: Clock,
    in_chans: int = 160,
    size: int = 16,
    stride: int = 2,
    heads: int = 4,
    dim: int = 64,
) -> Lesson:
    """One head of keys and values for all queries."""
    image, inner, small = (1, in_chans, size, size), heads * dim, -(-size // stride)
    pixels = size**2
    parts = (
        part(clock, "multi-head", lambda: MultiHead(in_chans, heads, dim), image, copied=False),
        part(clock, "multi-query", lambda: MobileMQA(in_chans, heads, dim, 1), image, copied=False),
        part(
            clock,
            f"mobile MQA, stride {stride}",
            lambda: MobileMQA(in_chans, heads, dim, stride),
            image,
            copied=False,
        ),
    )
    own, shared, mobile = parts
    products = 2 * inner * pixels**2
    stored = [FLOAT * 2 * n for n in (inner * pixels, dim * pixels, dim * small**2)]
    return Lesson(
        name="mobile-mqa",
        title="Mobile multi-query attention",
        settings={},
        idea=(
            "In multi-head attention each head has its own queries, keys and values. In "
            "multi-query attention all heads share one set of keys and one of values: less to "
            "compute, and much less to read. Mobile MQA also takes keys and values from a map "
            "that a strided depthwise convolution made smaller; the queries keep every pixel."
        ),
        paper="MobileNetV4, arXiv 2404.10518, section 3.2",
        mistake="12-mobile-mqa-that-is-multi-head-attention",
        code=("multi_query_attention_loops",),
        steps=_steps(in_chans, size, stride, heads, dim),
        parts=parts,
        bars=costs("MACs and time", parts),
        findings=(
            f"Sharing keys and values takes the MACs from {own.macs:,} to {shared.macs:,}, the "
            f"stride to {mobile.macs:,}: {ratio(own.macs / mobile.macs)} times fewer than "
            "multi-head attention. Here mobile MQA took "
            f"{compare(mobile.time.median_ms, own.time.median_ms, 'time')} that.",
            f"Sharing alone saves the weights of {heads - 1} of {heads} heads of keys and values "
            f"({own.params:,} parameters become {shared.params:,}) and took "
            f"{compare(shared.time.median_ms, own.time.median_ms, 'time')} multi-head attention: "
            "the products of queries and keys are as many as before.",
            f"Keys and values take {filesize(stored[0])} with heads of their own, "
            f"{filesize(stored[1])} shared, {filesize(stored[2])} mobile. The products are "
            f"{percent(products / own.macs)} of the MACs of multi-head attention on this map; "
            "they grow with the fourth power of its side, so twice the side makes them "
            f"{percent(16 * products / (4 * (own.macs - products) + 16 * products))}.",
        ),
    )


def _steps(in_chans: int, size: int, stride: int, heads: int, dim: int) -> tuple[Step, ...]:
    small = -(-size // stride)
    pixels, fewer = size**2, small**2
    outer = own = 2 * in_chans * heads * dim * pixels
    shared = 2 * in_chans * dim * fewer
    strided = 2 * 9 * in_chans * fewer if stride > 1 else 0
    products = 2 * heads * dim * pixels**2, 2 * heads * dim * pixels * fewer
    return (
        Step("queries", "size²", f"{size}²", pixels),
        Step("keys and values", "⌈size / stride⌉²", f"⌈{size} / {stride}⌉²", fewer),
        Step(
            "MACs, queries and end",
            "2 · in · heads · dim · size²",
            f"2 · {in_chans} · {heads} · {dim} · {size}²",
            outer,
        ),
        Step(
            "MACs, K and V, own heads",
            "2 · in · heads · dim · size²",
            f"2 · {in_chans} · {heads} · {dim} · {size}²",
            own,
        ),
        Step(
            "MACs, K and V, shared",
            "2 · in · dim · keys",
            f"2 · {in_chans} · {dim} · {fewer}",
            shared,
        ),
        Step(
            "MACs, their depthwise",
            "2 · 9 · in · keys",
            f"2 · 9 · {in_chans} · {fewer}" if stride > 1 else "not at stride 1",
            strided,
        ),
        Step(
            "MACs, products, own",
            "2 · heads · dim · size⁴",
            f"2 · {heads} · {dim} · {size}⁴",
            products[0],
        ),
        Step(
            "MACs, products, mobile",
            "2 · heads · dim · size² · keys",
            f"2 · {heads} · {dim} · {size}² · {fewer}",
            products[1],
        ),
        Step(
            "MACs, mobile MQA",
            "the sum",
            " + ".join(f"{n:,}" for n in (outer, shared, strided, products[1])),
            outer + shared + strided + products[1],
        ),
    )
