"""Samples are decoded once for all who look at them."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgewise.data.dataset import Sample
from edgewise.deploy import decoded
from edgewise.deploy.decoded import decode_batches, decoded_once
from edgewise.deploy.verify import verify
from edgewise.preprocess import Preprocess
from edgewise.run_folder import Run

RULE = Preprocess(8, 0.9, "bicubic", (127.0,) * 3, (64.0,) * 3)


def written(folder: Path, number: int) -> Sample:
    path = folder / f"{number}.png"
    pixels = np.random.default_rng(number).integers(0, 256, (10, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return Sample(path, 0, hashlib.sha256(path.read_bytes()).hexdigest())


def pixels_of(samples: list[Sample], preprocess: Preprocess = RULE) -> list[bytes | None]:
    found = [item for batch in decode_batches(samples, preprocess, 2) for item in batch]
    assert [item.path for item in found] == [sample.path for sample in samples]
    return [None if item.pixels is None else item.pixels.tobytes() for item in found]


def test_what_was_decoded_is_not_read_again(tmp_path: Path) -> None:
    samples = [written(tmp_path, number) for number in range(5)]
    with decoded_once():
        first = pixels_of(samples)
        for sample in samples[:3]:
            sample.path.unlink()
        with decoded_once():  # which is the same
            assert pixels_of(samples[::-1]) == first[::-1]
        assert pixels_of(samples, replace(RULE, size=6)).count(None) == 3
        unknown = [replace(sample, sha256="") for sample in samples]
        assert pixels_of(unknown).count(None) == 3  # nobody knows what it held
    assert pixels_of(samples).count(None) == 3
    assert None not in first and len(set(first)) == 5


def test_no_more_is_kept_than_there_is_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoded, "KEPT_BYTES", 2 * 8 * 8 * 3)
    samples = [written(tmp_path, number) for number in range(3)]
    with decoded_once():
        first = pixels_of(samples)
        for sample in samples:
            sample.path.unlink()
        assert pixels_of(samples) == [*first[:2], None]


def test_verify_decodes_an_image_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the model and for each file."""
    seen: list[Path] = []
    decode = decoded._decode

    def counted(image: Path | Sample, preprocess: Preprocess) -> decoded.Decoded:
        seen.append(image if isinstance(image, Path) else image.path)
        return decode(image, preprocess)

    monkeypatch.setattr(decoded, "_decode", counted)
    (found,) = verify(run).artifacts
    assert found.images == len(seen) == len(set(seen)) > 0
