from __future__ import annotations

import pytest

from edgewise.reporting.numbers import (
    duration,
    filesize,
    milliseconds,
    percent,
    plural,
    scaled,
)


@pytest.mark.parametrize(
    ("share", "text"),
    [(1, "100%"), (0, "0%"), (0.9721, "97.2%"), (0.9996, "99.96%"), (0.0004, "0.04%")],
)
def test_percent_says_100_only_when_it_is(share: float, text: str) -> None:
    assert percent(share) == text


def test_units_have_three_digits() -> None:
    written = [
        *(scaled(3_412_345), scaled(999), filesize(13_600_000), filesize(12)),
        *(milliseconds(0.1234), milliseconds(1234.5)),
        *(duration(75), duration(8), duration(7300), duration(0.42), duration(0), duration(9.96)),
    ]
    assert [text.replace("\N{NO-BREAK SPACE}", " ") for text in written] == [
        *("3.41 M", "999", "13.6 MB", "12 bytes"),
        *("0.123 ms", "1,234 ms"),
        *("1 min 15 s", "8 s", "2 h 1 min", "0.4 s", "0 s", "10 s"),
    ]


def test_plural() -> None:
    assert [plural(1, "class"), plural(2, "class"), plural(1200, "image")] == [
        "1 class", "2 classes", "1,200 images",
    ]  # fmt: skip
