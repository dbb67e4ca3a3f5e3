"""Times of rows between those that were measured, and their sum."""

from __future__ import annotations

import random

import pytest
import torch
from all_kinds import FAMILIES, SIZE, images, small_network
from row_formula import SHARE, Formula, network_ms, row_ms, small_spec
from row_formula import SIZE as SMALL

from edgewise.compress.groups import channel_groups, resized
from edgewise.errors import UsageError
from edgewise.families import variant
from edgewise.network import build
from edgewise.search.latency_table import Additivity, LatencyTable
from edgewise.search.latency_table_parts import RowAlone, rows_of


@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_alone_is_the_networks_own(family: str) -> None:
    network = small_network(family)
    seen: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for place in rows_of(network.spec, SIZE):

        def note(
            module: object, given: tuple[torch.Tensor], out: torch.Tensor, at: str = place
        ) -> None:
            seen[at] = given[0].clone(), out.clone()

        network.get_submodule(place).register_forward_hook(note)
    with torch.no_grad():
        network(images(1))
        for place, row in rows_of(network.spec, SIZE).items():
            given, right = seen[place]
            assert tuple(given.shape) == row.shape
            alone = row.module()
            alone.load_state_dict(network.get_submodule(place).state_dict())
            for module, own in zip(
                alone.modules(), network.get_submodule(place).modules(), strict=True
            ):
                if hasattr(own, "eps"):  # of the weights, not of the shapes: no time depends on it
                    module.eps = own.eps
            torch.testing.assert_close(alone(given.clone()), right, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_axes_of_a_row_are_the_groups_that_change_it(family: str) -> None:
    spec = small_network(family).spec
    table = LatencyTable(spec, SIZE, Formula())
    whole = rows_of(spec, SIZE)
    for places, group in table.groups.items():
        narrow = rows_of(resized(spec, {places: group.size - 1}), SIZE)
        changed = {row for row in whole if narrow[row] != whole[row]}
        assert {row for row, axes in table.axes.items() if places in axes} == changed


def test_what_a_time_depends_on_and_what_not() -> None:
    row = rows_of(variant("mobilenet_v3_small").spec(), 64)["stages.1.0"]
    assert row == rows_of(variant("mobilenet_v3_small").spec(classes=3), 64)["stages.1.0"]
    assert row.graph != rows_of(variant("mobilenet_v3_small").spec(), 96)["stages.1.0"].graph
    heads = [rows_of(variant("mobilenet_v3_small").spec(classes=n), 64)["head"] for n in (3, 4)]
    assert heads[0].graph != heads[1].graph


def test_the_widths_that_are_measured() -> None:
    table = LatencyTable(variant("mobilenet_v2").spec(), 64, Formula())
    by_size = {table.full[places]: widths for places, widths in table.widths.items()}
    assert by_size[32] == (8, 16, 24, 32)
    assert by_size[16] == (8, 16)
    assert by_size[192] == (8, 48, 96, 144, 192)
    assert by_size[1280] == (8, 320, 640, 960, 1280)
    assert all(width % 8 == 0 for widths in by_size.values() for width in widths)


def test_in_between_the_time_is_exact_where_it_is_a_sum_of_products() -> None:
    spec, times = small_spec(), Formula()
    table, draw = LatencyTable(spec, SMALL, times), random.Random(0)
    for _ in range(20):
        sizes = {p: draw.choice([n, *table.narrower(p, n)]) for p, n in table.full.items()}
        right = {place: row_ms(r) for place, r in rows_of(resized(spec, sizes), SMALL).items()}
        assert table.rows_ms(sizes) == pytest.approx(right, rel=1e-9)
        assert table.sum_ms(sizes) == pytest.approx(sum(right.values()), rel=1e-9)
    widths = {width for widths in table.widths.values() for width in widths} | {spec.in_chans}
    assert {row.in_chans for row in times.asked if isinstance(row, RowAlone)} <= widths


def test_where_it_is_not_the_measured_widths_still_are() -> None:
    class Square(Formula):
        def ms(self, part: object) -> float:
            assert isinstance(part, RowAlone)
            return float(part.in_chans**2)

    spec = small_network("resnet18").spec
    table = LatencyTable(spec, SIZE, Square())
    for index in (0, -1):
        sizes = {places: widths[index] for places, widths in table.widths.items()}
        right = {
            place: float(r.in_chans**2) for place, r in rows_of(resized(spec, sizes), SIZE).items()
        }
        assert table.rows_ms(sizes) == right


def test_only_what_is_needed_is_measured_and_once() -> None:
    spec, times = small_spec(), Formula()
    table = LatencyTable(spec, SMALL, times)
    table.sum_ms(table.full)
    assert set(times.asked) == set(rows_of(spec, SMALL).values())
    count = len(times.asked)
    table.sum_ms(table.full)
    assert len(times.asked) == count
    (places,) = (p for p in table.full if table.groups[p].name == "stages.3.0.expand")
    width = table.widths[places][-2]
    table.sum_ms(table.full | {places: width})
    (row,) = times.asked[count:]
    assert row == rows_of(resized(spec, {places: width}), SMALL)["stages.3.0"]


def test_the_rows_against_the_whole() -> None:
    spec = small_spec()
    table = LatencyTable(spec, SMALL, Formula())
    found = table.additivity()
    assert found.whole_ms == network_ms(spec)
    assert found.error == pytest.approx(1 / SHARE - 1)
    assert found.factor == pytest.approx(SHARE)
    assert table.whole_ms(spec) == found.whole_ms


def test_it_is_printed() -> None:
    text = str(Additivity({"stem": 1.0, "stages.0.0": 2.0}, 4.0))
    assert text.splitlines() == [
        "stem           1.000 ms",
        "stages.0.0     2.000 ms",
        "all rows       3.000 ms",
        "end to end     4.000 ms",
        "the sum of the rows is off by -25.0 %",
    ]


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3_small"])
def test_another_network_is_refused(name: str) -> None:
    table = LatencyTable(variant("mobilenet_v3_small").spec(0.5), SIZE, Formula())
    with pytest.raises(UsageError, match=f"{name}.*(rows of|channels; the table)"):
        table.sizes(variant(name).spec())


def test_a_narrower_one_is_read() -> None:
    spec = variant("mobilenet_v3_small").spec()
    table = LatencyTable(spec, SIZE, Formula())
    assert table.sizes(spec) == table.full
    group = channel_groups(spec)[2]
    (size, *_) = table.narrower(group.places, group.size)
    assert table.sizes(resized(spec, {group.places: size}))[group.places] == size


def test_too_small_an_image_is_refused() -> None:
    with pytest.raises(UsageError, match="too small"):
        LatencyTable(variant("vgg16").spec(), 8, Formula())


def test_heads_of_attention_go_one_by_one() -> None:
    spec = small_network("mobilenet_v4_hybrid_medium").spec
    table = LatencyTable(spec, SIZE, Formula())
    group = next(group for group in table.groups.values() if group.name.endswith(".heads"))
    assert list(table.narrower(group.places, group.size)) == list(range(group.size - 1, 0, -1))
    assert build(resized(spec, {group.places: 1}))
