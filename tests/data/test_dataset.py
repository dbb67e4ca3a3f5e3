"""From a folder to a split and back, with every kind of file that a folder may hold."""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from collections import Counter
from pathlib import Path

import pytest
from closed import close
from photos import picture, png_bomb, write_photos

from edgewise.data.dataset import (
    Dataset,
    ImagesGoneError,
    Sample,
    describe,
    load_dataset,
    read_dataset,
    write_dataset,
)
from edgewise.errors import MOST_NAMED, UsageError
from edgewise.run_folder import Run


def snapshot(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def names(dataset: Dataset, split: str) -> set[str]:
    return {dataset.relative(sample.path) for sample in dataset.splits[split]}


def sides(dataset: Dataset) -> dict[str, str]:
    return {name: split for split in dataset.splits for name in names(dataset, split)}


def test_folder(tmp_path: Path) -> None:
    root = write_photos(tmp_path / "photos", {"rose": 40, "زنبق": 30})
    dataset = load_dataset(root, workers=2)
    assert dataset.classes == ("rose", "زنبق")
    assert dataset.quarantined == dataset.warnings == ()
    samples = [sample for split in dataset.splits.values() for sample in split]
    assert len(samples) == len({sample.path for sample in samples}) == 70
    for sample in samples:
        assert sample.sha256 == hashlib.sha256(sample.path.read_bytes()).hexdigest()
        assert dataset.classes[sample.label] == sample.path.parent.name
    assert set(dataset.splits) == {"train", "val", "test"}
    totals = {label: sum(part[label] for part in dataset.counts().values()) for label in ("rose",)}
    assert totals == {"rose": 40}


def test_adding_renaming_and_moving_photos_does_not_reshuffle(tmp_path: Path) -> None:
    root = write_photos(tmp_path / "photos", {"a": 60, "b": 60})
    before = sides(load_dataset(root, 2))
    write_photos(root, {"a": 30, "b": 5, "c": 10}, first=100)
    shutil.move(root / "a/0.png", root / "a/renamed.png")
    moved = shutil.move(root, tmp_path / "elsewhere")
    after = sides(load_dataset(Path(moved), 2))
    assert after.pop("a/renamed.png") == before.pop("a/0.png")
    assert before == {name: after[name] for name in before}


def test_copies_stay_together(tmp_path: Path) -> None:
    root = write_photos(tmp_path / "photos", {"a": 50, "b": 5})
    for number in range(50):
        shutil.copy(root / f"a/{number}.png", root / f"a/copy of {number}.png")
    side = sides(load_dataset(root, 2))
    assert all(side[f"a/{n}.png"] == side[f"a/copy of {n}.png"] for n in range(50))
    assert Counter(side.values())["val"] >= 4


def spoil(folder: Path) -> dict[str, str]:
    """Writes one of each bad file; name -> part of the reason."""
    picture(1, 300, 200).save(folder / "cut.jpg")
    (folder / "cut.jpg").write_bytes((folder / "cut.jpg").read_bytes()[:2000])
    (folder / "text.jpg").write_text("not a photo")
    (folder / "empty.png").write_bytes(b"")
    (folder / "bomb.png").write_bytes(png_bomb(30_000, 30_000))
    (folder / "gone.jpg").symlink_to(folder / "nothing.jpg")
    return {
        "cut.jpg": "truncated",
        "text.jpg": "not an image",
        "empty.png": "empty file",
        "bomb.png": "over the limit",
        "gone.jpg": "no such file",
    }


def test_bad_files_are_listed_and_left_alone(tmp_path: Path) -> None:
    root = write_photos(tmp_path / "photos", {"a": 10, "b": 10})
    bad = spoil(root / "b")
    before = snapshot(root)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = load_dataset(root, 2)
    assert snapshot(root) == before
    assert {item.path.name: True for item in dataset.quarantined} == dict.fromkeys(bad, True)
    for item in dataset.quarantined:
        assert bad[item.path.name] in item.reason
        assert dataset.classes[item.label] == "b"
        assert item.split in dataset.splits  # so that an evaluation can count it
    assert sum(map(len, dataset.splits.values())) == 20
    assert "5 files left out: b/bomb.png (over the limit" in describe(dataset)


def test_bad_files_keep_a_given_split(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    for first, split in enumerate(("train", "val", "test")):
        write_photos(root / split, {"a": 5, "b": 5}, first=10 * first)
        (root / split / "a/bad.jpg").write_text("not a photo")
    dataset = load_dataset(root, 1)
    assert {(item.path.parent.parent.name, item.split) for item in dataset.quarantined} == {
        (split, split) for split in ("train", "val", "test")
    }
    assert all(name.startswith(split) for name, split in sides(dataset).items())


def test_train_and_val_without_test(tmp_path: Path) -> None:
    write_photos(tmp_path / "train", {"a": 40, "b": 40})
    write_photos(tmp_path / "valid", {"a": 5}, first=50)
    dataset = load_dataset(tmp_path, 1)
    assert {split: len(part) for split, part in dataset.splits.items()} == {
        "train": 80,
        "val": 5,
        "test": 0,
    }
    assert dataset.warnings == ("these classes have no image in val: b",)


def test_train_and_test_without_val(tmp_path: Path) -> None:
    write_photos(tmp_path / "train", {"a": 40, "b": 40})
    write_photos(tmp_path / "test", {"a": 5, "b": 5}, first=50)
    dataset = load_dataset(tmp_path, 1)
    assert {len(dataset.splits["test"]), len(dataset.splits["val"]) > 4} == {10, True}
    assert {name.split("/")[0] for name in names(dataset, "val")} == {"train"}


def test_copies_across_given_splits(tmp_path: Path) -> None:
    write_photos(tmp_path / "train", {"a": 5, "b": 5})
    write_photos(tmp_path / "val", {"a": 2, "b": 2}, first=50)
    shutil.copy(tmp_path / "val/a/50.png", tmp_path / "train/a/leak.png")
    dataset = load_dataset(tmp_path, 1)
    (leak,) = dataset.quarantined
    assert (leak.path.name, leak.split) == ("leak.png", "train")
    assert "50.png" in leak.reason
    assert "val" in leak.reason
    assert "val/a/50.png" in names(dataset, "val")
    assert any("in two splits" in w and "leak.png" in w for w in dataset.warnings)


def test_one_picture_under_two_labels(tmp_path: Path) -> None:
    write_photos(tmp_path, {"a": 5, "b": 5})
    shutil.copy(tmp_path / "a/0.png", tmp_path / "b/same.png")
    dataset = load_dataset(tmp_path, 1)
    (warning,) = dataset.warnings
    assert str(tmp_path / "a/0.png") in warning
    assert str(tmp_path / "b/same.png") in warning
    assert f"warning: {warning}" in describe(dataset)
    assert sides(dataset)["a/0.png"] == sides(dataset)["b/same.png"]


def test_csv_with_a_row_for_no_file(tmp_path: Path) -> None:
    write_photos(tmp_path, {"a": 5, "b": 5})
    rows = [f"{label}/{number}.png,{label}" for label in "ab" for number in range(5)]
    outside = tmp_path.parent / f"{tmp_path.name} outside.png"
    picture(77).save(outside)
    rows += ["a/gone.png,a", f"{outside},b", "../nowhere.png,b"]
    (tmp_path / "photos.csv").write_text("path,label\n" + "\n".join(rows), encoding="utf-8")
    dataset = load_dataset(tmp_path / "photos.csv", 1)
    assert sum(map(len, dataset.splits.values())) == 11
    reasons = {item.path.name: item.reason for item in dataset.quarantined}
    assert reasons == {"gone.png": "no such file", "nowhere.png": "no such file"}
    run = Run(tmp_path / "run")
    write_dataset(dataset, run)
    assert read_dataset(run) == dataset


def test_class_with_too_few(tmp_path: Path) -> None:
    write_photos(tmp_path, {"cat": 5, "owl": 1, "rat": 2})
    with pytest.raises(UsageError, match=r"class 'owl' has only the usable image .*owl/0.png"):
        load_dataset(tmp_path, 1)
    shutil.copy(tmp_path / "owl/0.png", tmp_path / "owl/copy.png")
    (tmp_path / "owl/bad.jpg").write_text("x")
    with pytest.raises(UsageError, match=r"'owl' .* that differ.*bad.jpg \(not an image"):
        load_dataset(tmp_path, 1)
    (tmp_path / "owl/0.png").unlink()
    (tmp_path / "owl/copy.png").unlink()
    with pytest.raises(UsageError, match=r"'owl' has no usable image"):
        load_dataset(tmp_path, 1)


def test_given_split_with_nothing_left(tmp_path: Path) -> None:
    write_photos(tmp_path / "train", {"a": 3, "b": 1})
    write_photos(tmp_path / "val", {"a": 2, "b": 3}, first=50)
    shutil.copy(tmp_path / "train/b/0.png", tmp_path / "val/b/leak.png")
    with pytest.raises(UsageError, match=r"'b' of .* no usable image left in train"):
        load_dataset(tmp_path, 1)
    shutil.rmtree(tmp_path / "val")
    write_photos(tmp_path / "train", {"b": 3}, first=10)
    (tmp_path / "val/a").mkdir(parents=True)
    (tmp_path / "val/a/bad.jpg").write_text("x")
    with pytest.raises(UsageError, match="no image in the split val"):
        load_dataset(tmp_path, 1)


def test_files_of_a_run(tmp_path: Path) -> None:
    root = write_photos(tmp_path / "photos", {"a, b": 20, "c": 20})
    spoil(root / "c")
    dataset, run = load_dataset(root, 2), Run(tmp_path / "run")
    write_dataset(dataset, run)
    assert read_dataset(run) == dataset

    value = json.loads(run.data.read_text(encoding="utf-8"))
    assert value["root"] == str(root)
    assert value["classes"] == ["a, b", "c"]
    assert value["quarantined"] == 5
    assert sum(value["counts"]["train"].values()) == len(dataset.splits["train"])
    header, first, *rest = run.split.read_text(encoding="utf-8").splitlines()
    assert header == "path,label,split,sha256"
    assert first.startswith('"a, b/')
    assert len(rest) == 39
    quarantine = run.quarantine.read_text(encoding="utf-8").splitlines()
    assert quarantine[0] == "path,label,split,reason"
    assert quarantine[3].startswith("c/empty.png,c,")
    assert quarantine[3].endswith(",empty file (0 bytes)")


def test_fingerprint_is_of_contents_and_labels(tmp_path: Path) -> None:
    root = write_photos(tmp_path / "one", {"a": 6, "b": 6})
    other = tmp_path / "two"
    shutil.copytree(root, other)
    (other / "a/0.png").rename(other / "a/zero.png")
    first = load_dataset(root, 1).fingerprint
    pairs = sorted(
        f"{hashlib.sha256(path.read_bytes()).hexdigest()} {path.parent.name}\n"
        for path in root.rglob("*.png")
    )
    assert first == hashlib.sha256("".join(pairs).encode()).hexdigest()
    assert load_dataset(other, 1).fingerprint == first
    shutil.move(other / "a/1.png", other / "b/from a.png")
    assert load_dataset(other, 1).fingerprint != first


def test_reading_what_is_gone_or_edited(tmp_path: Path) -> None:
    root = write_photos(tmp_path / "photos", {"a": 4, "b": 4})
    run = Run(tmp_path / "run")
    with pytest.raises(UsageError, match=r"no such file: .*data.json"):
        read_dataset(run)
    write_dataset(load_dataset(root, 1), run)
    good = run.split.read_text(encoding="utf-8")
    run.split.write_text(good.replace(",train,", ",trian,", 1), encoding="utf-8")
    with pytest.raises(UsageError, match=r"split.csv, line \d+, was edited"):
        read_dataset(run)
    run.split.unlink()
    with pytest.raises(UsageError, match=r"can't read .*split.csv"):
        read_dataset(run)
    run.split.write_text(good, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        close(tmp_path, patch)
        with pytest.raises(ImagesGoneError, match=r"can't read the images .*photos: Permission"):
            read_dataset(run)
    shutil.move(root, tmp_path / "moved")
    with pytest.raises(UsageError, match=r"images of this run are gone: .*photos"):
        read_dataset(run)
    run.data.write_text("{}")
    with pytest.raises(UsageError, match=r"data.json was edited: it lacks 'root'"):
        read_dataset(run)


def test_long_lists_are_cut(tmp_path: Path) -> None:
    write_photos(tmp_path, {"a": 9, "b": 9})
    for number in range(9):
        (tmp_path / f"a/bad{number}.jpg").write_text("x")
    text = describe(load_dataset(tmp_path, 1))
    assert text.count("bad") == MOST_NAMED
    assert "and 4 more" in text


def test_describe(tmp_path: Path) -> None:
    samples = tuple(Sample(tmp_path / f"{n}.jpg", 0, "0" * 64) for n in range(1500))
    dataset = Dataset(tmp_path, ("a", "b"), {"train": samples, "val": samples[:3], "test": ()}, ())
    assert describe(dataset) == (
        f"1,503 images of 2 classes (1,500 train, 3 val, 0 test) in {tmp_path}"
    )
