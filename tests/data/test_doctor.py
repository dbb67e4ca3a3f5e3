"""The doctor names what was put wrong on purpose, and nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from photos import picture, write_photos
from PIL import Image, ImageEnhance

from edgewise.data.dataset import load_dataset
from edgewise.data.doctor import Examination, examine
from edgewise.data.facts import facts_of, gather
from edgewise.data.findings import Finding
from edgewise.errors import UsageError


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two splits of three classes, with nothing wrong but that all are small."""
    counts = {"cat": 12, "dog": 12, "bird": 12}
    write_photos(tmp_path / "photos/train", counts)
    write_photos(tmp_path / "photos/val", counts, first=500)
    return tmp_path / "photos"


def found(seen: Examination) -> dict[str, Finding]:
    assert len({finding.kind for finding in seen.findings}) == len(seen.findings)
    return {finding.kind: finding for finding in seen.findings}


def test_nothing_wrong(photos: Path) -> None:
    seen = examine(str(photos))
    assert [finding.kind for finding in seen.findings] == ["tiny"]  # 40 x 30 pixels, all of them
    assert (seen.findings[0].severity, seen.findings[0].groups) == ("note", ())
    assert seen.sound and (seen.images, seen.usable, seen.sizes) == (72, 72, (40, 30))
    assert seen.classes == {name: {"train": 12, "val": 12} for name in ("bird", "cat", "dog")}


def copy(source: str, to: str) -> Callable[[Path], None]:
    return lambda root: shutil.copy(root / source, root / to) and None


def save(image: Image.Image, name: str, **options: object) -> Callable[[Path], None]:
    return lambda root: image.save(root / name, **options)


def both(*changes: Callable[[Path], None]) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        for one in changes:
            one(root)

    return change


CAT, CUP = Image.fromarray(skimage.data.chelsea()), Image.fromarray(skimage.data.coffee())


@pytest.mark.parametrize(
    ("change", "kind", "severity", "group"),
    [
        (
            copy("train/cat/1.png", "val/cat/again.png"),
            *("copies in two splits", "error", ("train/cat/1.png", "val/cat/again.png")),
        ),
        (
            copy("train/cat/1.png", "train/dog/again.png"),
            *("copies with two labels", "error", ("train/cat/1.png", "train/dog/again.png")),
        ),
        (
            copy("train/cat/1.png", "train/cat/again.png"),
            *("copies", "note", ("train/cat/1.png", "train/cat/again.png")),
        ),
        (
            both(
                save(CAT, "train/cat/c.png"),
                save(CAT.resize((300, 200)), "val/cat/c.jpg", quality=60),
            ),
            *("near copies in two splits", "error", ("train/cat/c.png", "val/cat/c.jpg")),
        ),
        (
            both(
                save(CUP, "train/cat/c.png"),
                save(ImageEnhance.Brightness(CUP).enhance(1.1), "train/dog/c.jpg"),
            ),
            *("near copies with two labels", "warning", ("train/cat/c.png", "train/dog/c.jpg")),
        ),
        (
            both(save(CUP, "train/cat/c.png"), save(CUP.crop((4, 3, 596, 398)), "train/cat/d.png")),
            *("near copies", "note", ("train/cat/c.png", "train/cat/d.png")),
        ),
        (
            lambda root: (root / "train/dog/bad.jpg").write_bytes(b"hello") and None,
            *("unreadable", "warning", ("train/dog/bad.jpg",)),
        ),
        (
            save(Image.new("RGB", (64, 64), "teal"), "train/bird/blank.png"),
            *("blank", "warning", ("train/bird/blank.png",)),
        ),
        (
            save(CUP.resize((600, 100)), "train/bird/long.png"),
            *("long", "warning", ("train/bird/long.png",)),
        ),
        (
            save(picture(900_000), "train/bird/1.PNG"),
            *("names", "warning", ("train/bird/1.PNG", "train/bird/1.png")),
        ),
    ],
)
def test_what_was_put_wrong_is_named(
    photos: Path,
    change: Callable[[Path], None],
    kind: str,
    severity: str,
    group: tuple[str, ...],
) -> None:
    change(photos)
    seen = examine(photos)
    named = found(seen)
    assert set(named) == {"tiny", kind}
    assert (named[kind].severity, named[kind].groups) == (severity, (group,))
    assert seen.sound == (severity != "error")


def test_classes_that_are_missing_few_or_unbalanced(photos: Path) -> None:
    shutil.rmtree(photos / "val/bird")
    for number in range(8):
        (photos / f"train/bird/{number}.png").unlink()
    named = found(examine(photos))
    assert set(named) == {"tiny", "missing class", "few images", "imbalance"}
    assert named["missing class"].text == "no usable image in val of: bird."
    assert "bird (4)" in named["few images"].text
    assert "6 to 1" in named["imbalance"].text


def test_of_many_classes_only_the_first_are_named(tmp_path: Path) -> None:
    """Of each kind of finding that names classes: 20 more than are said."""
    root = tmp_path / "many"
    write_photos(root / "train", {f"small{i:02}": 2 for i in range(25)})
    write_photos(root / "train", {f"alone{i:02}": 1 for i in range(25)})
    write_photos(root / "val", {"small00": 1})
    named = found(examine(root))
    for kind, more in (("missing class", 44), ("too few images", 20), ("few images", 20)):
        assert f"; and {more} more. " in named[kind].text + " "
        assert len(named[kind].text) < 300


def refused(photos: Path) -> Examination:
    """What the doctor sees in images that `edgewise train` doesn't take."""
    with pytest.raises(UsageError):
        load_dataset(photos, 1)
    seen = examine(photos)
    assert not seen.sound
    return seen


def test_a_class_that_has_not_two_images_that_differ(photos: Path) -> None:
    cat = (photos / "train/cat/1.png").read_bytes()
    for path in (photos / "train/cat").iterdir():
        path.write_bytes(cat)
    for number in range(1, 12):
        (photos / f"train/dog/{number}.png").unlink()
    for path in (photos / "train/bird").iterdir():
        path.write_bytes(b"")
    named = found(refused(photos / "train"))
    assert named["too few images"].severity == "error"
    assert "differ of: bird (0); cat (1); dog (1). " in named["too few images"].text
    assert "few images" not in named


def test_splits_without_an_image_to_check_with(photos: Path) -> None:
    for path in (photos / "val").rglob("*.png"):
        path.write_bytes(b"")
    named = found(refused(photos))
    assert named["no validation"].severity == "error"
    (photos / "val").rename(photos / "test")
    assert found(examine(photos))["no validation"].severity == "note"
    for name in ("cat", "dog", "bird"):
        for number in range(1, 12):
            (photos / f"train/{name}/{number}.png").unlink()
    shutil.rmtree(photos / "test")
    write_photos(photos / "test", {"cat": 12, "dog": 12, "bird": 12}, first=500)
    named = found(refused(photos))
    assert set(named) == {"tiny", "no validation"}
    assert "no class has two images that differ" in named["no validation"].text


def test_a_class_without_an_image_to_learn_from_and_too_many_bad_files(photos: Path) -> None:
    for path in (photos / "train/bird").iterdir():
        path.write_bytes(b"")
    named = found(examine(photos))
    assert named["unreadable"].severity == named["missing class"].severity == "error"
    assert "empty file" in named["unreadable"].text


def test_a_class_written_in_two_ways(tmp_path: Path) -> None:
    write_photos(tmp_path, {"Cat": 12, "cat": 12})
    named = found(examine(tmp_path))
    assert named["class names"].severity == "error"


def test_processes_see_what_this_one_sees(photos: Path) -> None:
    paths = sorted(map(str, photos.rglob("*.png")))
    assert list(gather(paths, 2)) == list(gather(paths, 0))
    assert examine(photos, workers=2) == examine(photos)


def test_facts_by_hand(tmp_path: Path) -> None:
    """Grey rises to the right: no place is darker than its neighbour but all are."""
    ramp = np.tile(np.linspace(0, 255, 90, dtype=np.uint8), (80, 1))
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    Image.fromarray(ramp[:, ::-1]).save(tmp_path / "fall.png")
    rise, fall = (facts_of(str(tmp_path / f"{name}.png")) for name in ("ramp", "fall"))
    assert (rise.hash, fall.hash) == (2**64 - 1, 0)
    assert (rise.width, rise.height, rise.mode) == (90, 80, "L")
    assert rise.spread == pytest.approx(ramp.std(), rel=0.02)


def test_blank_images_of_other_colours_are_no_copies(photos: Path) -> None:
    Image.new("RGB", (64, 64), "teal").save(photos / "train/bird/teal.png")
    Image.new("RGB", (64, 64), "red").save(photos / "val/cat/red.png")
    assert set(found(examine(photos))) == {"tiny", "blank"}


def test_one_near_copy_among_very_many_is_no_error(photos: Path) -> None:
    """It moves the accuracy on 200 images by half a percent at most."""
    write_photos(photos / "val", {"cat": 70, "dog": 70, "bird": 60}, first=2000)
    CUP.save(photos / "train/cat/c.png")
    CUP.resize((300, 200)).save(photos / "val/cat/c.jpg")
    seen = examine(photos)
    assert found(seen)["near copies in two splits"].severity == "warning" and seen.sound


def test_near_copies_that_training_would_part(tmp_path: Path) -> None:
    """Without splits, training takes validation and test by the bytes, which a copy has not."""
    photos = write_photos(tmp_path / "photos", {"cat": 30, "dog": 30, "bird": 30})
    for path in sorted(photos.rglob("*.png")):
        if int(path.stem) < 15:
            Image.open(path).save(path.with_suffix(".jpg"), quality=97)
    splits = load_dataset(photos, 1).splits
    place = {sample.path: split for split, samples in splits.items() for sample in samples}
    pairs = [(path, path.with_suffix(".png")) for path in sorted(photos.rglob("*.jpg"))]
    apart = {
        tuple(path.relative_to(photos).as_posix() for path in pair)
        for pair in pairs
        if place[pair[0]] != place[pair[1]]
    }
    seen = examine(photos)
    named = found(seen)
    assert set(named) == {"tiny", "near copies in two splits", "near copies"}
    parted = named["near copies in two splits"]
    assert 10 < len(apart) < 30 and set(parted.groups) == apart
    assert parted.severity == "warning" and seen.sound
    assert parted.text.startswith("pictures that training would put into more than one split")
    assert f": {len(apart)}. " in parted.text and "folders train, val and test" in parted.text
    assert len(named["near copies"].groups) == len(pairs) - len(apart)


def test_each_file_comes_with_what_is_special_about_it(photos: Path) -> None:
    (photos / "train/dog/a.jpg").write_bytes(b"")
    (photos / "train/dog/b.jpg").write_bytes((photos / "train/dog/1.png").read_bytes()[:200])
    CUP.convert("CMYK").save(photos / "train/cat/c.jpg")
    CUP.resize((600, 100)).save(photos / "train/bird/long.png")
    named = found(examine(photos))
    bad = dict(zip(named["unreadable"].groups, named["unreadable"].details, strict=True))
    assert bad[("train/dog/a.jpg",)] == "empty file (0 bytes)"
    assert bad[("train/dog/b.jpg",)].startswith("damaged")
    assert named["modes"].groups == (("train/cat/c.jpg",),)
    assert named["modes"].details == ("CMYK",)
    assert named["long"].details == ("600 x 100",)


def test_a_near_copy_with_another_label_in_another_split_leaks_too(photos: Path) -> None:
    CUP.save(photos / "train/cat/c.png")
    CUP.resize((300, 200)).save(photos / "val/dog/c.jpg")
    named = found(examine(photos))
    assert set(named) == {"tiny", "near copies with two labels", "near copies in two splits"}
    assert named["near copies with two labels"].details == ("cat or dog",)
    assert named["near copies in two splits"].severity == "error"
