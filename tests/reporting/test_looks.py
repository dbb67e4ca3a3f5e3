"""The class activation maps on the page: of the right pictures, classes and places."""

from __future__ import annotations

import base64
import io
from dataclasses import replace

import numpy as np
import pytest
from html_page import Page
from made_run import NAMES, Made
from PIL import Image

from edgewise.data.decode import decode
from edgewise.gradcam import grad_cam
from edgewise.reporting.looks import Look, looks
from edgewise.reporting.pictures import ORANGE, STRENGTH, heated
from edgewise.reporting.record import Record, read_record
from edgewise.reporting.write import report
from edgewise.training.rounding import as_learned
from edgewise.weights.folder import load_model, save_model


def pixels_of(uri: str) -> np.ndarray:
    file = io.BytesIO(base64.b64decode(uri.partition(",")[2]))
    return np.asarray(Image.open(file), dtype=float)


def test_no_heat_is_grey_and_full_heat_is_orange() -> None:
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    grey = np.asarray(photo.convert("L"), dtype=float)
    cold = np.asarray(heated(photo, np.zeros((3, 3), np.float32)))
    assert (cold == grey[..., None]).all()
    corner = np.zeros((2, 2), np.float32)
    corner[0, 1] = 1
    hot = np.asarray(heated(photo, corner), dtype=float)
    assert (hot[30:, :10] == grey[30:, :10, None]).all()
    mixed = (1 - STRENGTH) * grey[:10, 30:, None] + STRENGTH * np.array(ORANGE)
    assert hot[:10, 30:] == pytest.approx(mixed, abs=2)


def check(record: Record, look: Look) -> None:
    """In each corner of a drawn map, orange is as strong as Grad-CAM says of that class there."""
    model = as_learned(load_model(record.run.model))
    shown = model.preprocess.pixels(decode(record.picture(look.path)))
    assert look.picture and pixels_of(look.picture) == pytest.approx(shown, abs=40)
    for label, uri in zip(look.classes, look.maps, strict=True):
        (heat,) = grad_cam(model, shown[None], [NAMES.index(label)])
        drawn = pixels_of(uri)
        tint = drawn[..., 0] - drawn[..., 2]  # grey has none
        corners = tint[[[4, 4], [-5, -5]], [[4, -5], [4, -5]]] / ORANGE[0]
        assert corners == pytest.approx(STRENGTH * heat, abs=0.1)


def test_maps_are_of_their_pictures_and_classes(made: Made) -> None:
    record = read_record(made.run)
    seen = looks(record)
    assert seen.cells == (2, 2)
    assert len(seen.mistakes) == len(seen.right) == 6
    heats = set()
    for look in seen.mistakes:
        number = int(look.path[-8:-4])
        assert look.classes == (NAMES[made.answers[number]], NAMES[made.truth[number]])
        check(record, look)
        heats |= set(look.maps)
    assert len(heats) > 6  # not one map for all
    for look in seen.right:
        number = int(look.path[-8:-4])
        (label,) = look.classes
        assert NAMES[made.truth[number]] == NAMES[made.answers[number]] == label
        of_class = (made.truth == made.truth[number]) & (made.answers == made.truth)
        assert made.probabilities[number].max() == made.probabilities[of_class].max()
        check(record, look)


def test_maps_of_a_network_that_learned_int8_are_of_its_answers_in_int8(made: Made) -> None:
    record = read_record(made.run)
    in_float = looks(record).mistakes[0]
    ranges = {"stem.conv": (0.0, 0.05)}  # so narrow that most of a picture is cut off
    save_model(replace(load_model(made.run.model), int8_ranges=ranges), made.run.model)
    in_int8 = looks(record).mistakes[0]
    assert in_int8.maps != in_float.maps
    check(record, in_int8)


def test_a_picture_that_vanished_leaves_a_place(made: Made) -> None:
    record = read_record(made.run)
    gone, *others = looks(record).mistakes
    # The photos belong to all tests: the record points to a path that isn't there.
    rows = made.run.evaluation / "test.csv"
    rows.write_text(rows.read_text().replace(gone.path, "class 0/gone.png"))
    seen = looks(read_record(made.run))
    assert seen.mistakes == (Look("class 0/gone.png", gone.classes, None, ()), *others)
    page = Page(report(made.run).read_text(encoding="utf-8"))
    assert "notreadable class 0/gone.png" in page.text.replace("readableclass", "readable class")


def test_a_map_of_one_cell_is_not_drawn(made: Made) -> None:
    model = load_model(made.run.model)
    smaller = replace(model.preprocess, size=32)
    save_model(replace(model, preprocess=smaller), made.run.model)
    page = Page(report(made.run).read_text(encoding="utf-8"))
    assert "the network's last map is a single cell" in page.words
    assert not any("what speaks for" in str(attrs["alt"]) for attrs in page.named("img"))
