"""Layouts that people have, and the ones that they think they have."""

from __future__ import annotations

import errno
import os
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from closed import close
from matplotlib.figure import Figure

from edgewise.data.scan import scan
from edgewise.errors import UsageError


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def found(path: Path) -> list[tuple[str, str, str | None]]:
    result = scan(path)
    return [
        (i.path.relative_to(result.root).as_posix(), i.label, i.split) for i in result.images
    ]  # fmt: skip


def test_folder_per_class(tmp_path: Path) -> None:
    touch(tmp_path, "rose/b.JPG", "rose/deep/er/a.png", "زنبق/1.webp", "🐈/x.HEIC")
    assert found(tmp_path) == [
        ("rose/b.JPG", "rose", None),
        ("rose/deep/er/a.png", "rose", None),
        ("زنبق/1.webp", "زنبق", None),
        ("🐈/x.HEIC", "🐈", None),  # not read, so it must turn up as refused
    ]


def test_other_files_are_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/1.jpg", "readme.txt", "a/Thumbs.db", "a/.DS_Store", "a/._1.jpg")
    touch(tmp_path, ".git/1.jpg", "__MACOSX/a/1.jpg", "a/notes.txt", "a/.cache/1.jpg")
    assert [name for name, _, _ in found(tmp_path)] == ["a/1.jpg", "b/1.jpg"]
    assert scan(tmp_path).warnings == ()


def test_classes_in_natural_order(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{name}/1.jpg" for name in ["img10", "Img2", "img1", "10", "9", "Zoo", "b"]))
    assert scan(tmp_path).classes == ("9", "10", "b", "img1", "Img2", "img10", "Zoo")


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("train", "val", "test"),
        ("Train", "valid", "Test"),
        ("Training", "validation", "Testing"),
        ("training", "Val", "testing"),
    ],
)
def test_splits_above(tmp_path: Path, train: str, val: str, test: str) -> None:
    touch(tmp_path, f"{train}/a/1.jpg", f"{train}/b/1.jpg", f"{val}/a/2.jpg", f"{test}/b/3.jpg")
    splits = {name: split for name, _, split in found(tmp_path)}
    assert splits == {
        f"{train}/a/1.jpg": "train",
        f"{train}/b/1.jpg": "train",
        f"{val}/a/2.jpg": "val",
        f"{test}/b/3.jpg": "test",
    }


def test_splits_in_each_class(tmp_path: Path) -> None:
    """Drawn anew, the images that somebody kept apart would be learned from."""
    touch(
        tmp_path, "a/train/1.jpg", "a/Test/2.jpg", "b/train/x/1.jpg", "b/val/2.jpg", "c/train/1.jpg"
    )
    assert {(name, label, split) for name, label, split in found(tmp_path)} == {
        ("a/train/1.jpg", "a", "train"),
        ("a/Test/2.jpg", "a", "test"),
        ("b/train/x/1.jpg", "b", "train"),
        ("b/val/2.jpg", "b", "val"),
        ("c/train/1.jpg", "c", "train"),
    }
    touch(tmp_path, "c/1.jpg")
    with pytest.raises(UsageError, match=r"c/1.jpg is in none"):
        scan(tmp_path)


def test_a_folder_called_test_alone_is_no_split(tmp_path: Path) -> None:
    touch(tmp_path, "a/test/1.jpg", "a/field/2.jpg", "b/test/1.jpg")
    assert {split for _, _, split in found(tmp_path)} == {None}


def test_classes_may_be_called_train_and_test(tmp_path: Path) -> None:
    touch(tmp_path, "train/1.jpg", "bus/1.jpg", "test/1.jpg")
    assert scan(tmp_path).classes == ("bus", "test", "train")


def test_one_spelling_of_an_accent(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    touch(tmp_path, f"train/{composed}/1.jpg", f"val/{decomposed}/1.jpg", "train/b/1.jpg")
    assert scan(tmp_path).classes == ("b", composed)


def test_links(tmp_path: Path) -> None:
    touch(tmp_path, "store/1.jpg", "store/2.jpg", "photos/a/0.jpg")
    photos = tmp_path / "photos"
    (photos / "b").symlink_to(tmp_path / "store")
    (photos / "a/more").symlink_to(tmp_path / "store")
    (photos / "a/loop").symlink_to(photos / "a")
    (photos / "a/link.jpg").symlink_to(tmp_path / "store/1.jpg")
    (photos / "a/dangling.jpg").symlink_to(tmp_path / "gone.jpg")
    assert [name for name, _, _ in found(photos)] == [
        "a/0.jpg",
        "a/dangling.jpg",
        "a/link.jpg",
        "a/more/1.jpg",
        "a/more/2.jpg",
        "b/1.jpg",
        "b/2.jpg",
    ]


RUN = ("recipe.json", "split.csv", "lr_find.png")
SEARCH = ("search.json", "decisions.jsonl", "trials/one/lr_find.png")


def with_results(root: Path) -> Path:
    """A run, a search and a plot of `edgewise compare --png`, as a call from inside makes them."""
    touch(root, *(f"runs/first/{name}" for name in RUN), *(f"runs/best/{name}" for name in SEARCH))
    Figure().savefig(root / "runs/compared.png", format="png")
    return root


def test_runs_and_searches_below_the_data_are_no_class(tmp_path: Path) -> None:
    touch(tmp_path / "plain", "a/1.jpg", "b/1.jpg")
    touch(tmp_path / "split", "train/a/1.jpg", "train/b/1.jpg", "val/a/2.jpg")
    touch(tmp_path / "inside", "train/a/1.jpg", "train/b/1.jpg")
    for root, place in (("plain", "."), ("split", "."), ("inside", "train"), ("plain", "a/deep")):
        before = found(tmp_path / root)
        data = tmp_path / root / place
        data.mkdir(exist_ok=True)
        with_results(data)
        assert found(tmp_path / root) == before
        assert sum("what edgewise made" in w for w in scan(tmp_path / root).warnings) >= 1
        assert not any("not a class" in warning for warning in scan(tmp_path / root).warnings)


def test_photos_in_a_class_called_runs_stay_though_there_are_runs_in_it(tmp_path: Path) -> None:
    with_results(touch(tmp_path, "walks/1.png", "runs/1.png", "runs/deep/2.jpg"))
    assert [name for name, _, _ in found(tmp_path)] == [
        "runs/1.png",
        "runs/deep/2.jpg",
        "walks/1.png",
    ]
    assert scan(tmp_path).warnings == (f"not used: what edgewise made in {tmp_path / 'runs'}",)


def test_photos_beside_a_file_called_recipe_stay(tmp_path: Path) -> None:
    touch(tmp_path, "soup/1.jpg", "soup/recipe.json", "cake/1.jpg", "cake/recipe.json")
    assert len(found(tmp_path)) == 2


def test_warns_about_what_it_leaves_out(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/1.jpg", "stray.png", "empty/notes.txt")
    stray, empty = scan(tmp_path).warnings
    assert "1 images directly in" in stray
    assert "stray.png" in stray
    assert f"not a class: {tmp_path / 'empty'} has no images" in empty


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "no images in .*Expected"),
        (["notes.txt"], "no images in .*Expected"),
        (["a/notes.txt", "b/x.xml"], "no images in .*Expected"),
        (["1.jpg", "2.jpg"], "such as 1.jpg.*are in no class folder.*folder per class"),
        (["train/1.jpg", "val/1.jpg"], "train .*are in no class folder"),
        (["cat/1.jpg", "cat/2.jpg"], "only one class, 'cat'"),
        (["train/a/1.jpg", "train/b/1.jpg", "val/c/7.jpg"], "'c' is in val but not in train .*7"),
        (["val/a/1.jpg", "test/b/1.jpg"], "no images to train on"),
        (["train/a/1.jpg", "val/a/1.jpg", "extra/1.jpg"], r"both splits .*\(extra/\)"),
        (["a\nb/1.jpg", "c/1.jpg"], "line break"),
    ],
)
def test_folders_that_cannot_be_used(tmp_path: Path, files: list[str], message: str) -> None:
    touch(tmp_path, *files)
    with pytest.raises(UsageError, match=f"(?s){message}"):
        scan(tmp_path)


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no such folder or file: .*photos"):
        scan(tmp_path / "photos")


def test_a_name_that_is_not_unicode(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/1.jpg")
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/a/caf\xe9.jpg")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes only Unicode")
    with pytest.raises(UsageError, match=r"caf\\xe9.jpg.*Rename it"):
        scan(tmp_path)


def write_csv(tmp_path: Path, text: str, encoding: str = "utf-8") -> Path:
    path = tmp_path / "photos.csv"
    path.write_bytes(text.encode(encoding))
    return path


def test_csv(tmp_path: Path) -> None:
    path = write_csv(tmp_path, 'path,label\na/1.jpg,cat\n"b, c/2.jpg", 犬 \n\ngone.jpg,cat\n')
    assert found(path) == [
        ("a/1.jpg", "cat", None),
        ("b, c/2.jpg", "犬", None),
        ("gone.jpg", "cat", None),
    ]


def test_csv_as_excel_writes_it(tmp_path: Path) -> None:
    rows = "id,Label ,Path,Split", "1,a,1.jpg,Train", "2,b,2.jpg,training", "3,b,3.jpg,Validation"
    path = write_csv(tmp_path, "\r\n".join((*rows, "")), "utf-8-sig")
    assert found(path) == [
        ("1.jpg", "a", "train"),
        ("2.jpg", "b", "train"),
        ("3.jpg", "b", "val"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column 'path'"),
        ("path;label\na;b\n", "no column 'path'.*not path;label"),
        ("path,class\na,b\n", "no column 'label'"),
        ("path,label\n", "lists no images"),
        ("path,label\na.jpg,\n", "line 2: the label is empty"),
        ("path,label\na.jpg\n", "line 2: the label is empty"),
        ("path,label\n,cat\n", "line 2: the path is empty"),
        ("path,label,split\na.jpg,cat,tset\n", "line 2: unknown split 'tset'; use train"),
        ("path,label,split\na.jpg,cat,train\nb.jpg,dog,\n", "line 3: no split"),
        ("path,label\na.jpg,cat\nb.jpg,dog\na.jpg,dog\n", "line 4: a.jpg is there .* line 2"),
        ("path,label\na.jpg,cat\n", "only one class, 'cat'"),
        ("path,label,split\na.jpg,cat,train\nb.jpg,dog,test\n", "'dog' is in test but not in"),
        ("path,label,split\na.jpg,cat,val\nb.jpg,dog,test\n", "no images to train on"),
    ],
)
def test_csv_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    path = write_csv(tmp_path, text)
    with pytest.raises(UsageError, match=message) as caught:
        scan(path)
    assert "photos.csv" in str(caught.value)


def test_numbers_in_a_csv_stand_for_the_lines_of_the_label_file(tmp_path: Path) -> None:
    path = write_csv(tmp_path, "path,label\n1.jpg,1\n2.jpg,00\n3.jpg,rose\n")
    (tmp_path / "classes.txt").write_text("rose\ndaisy\n")
    assert scan(path).classes == ("rose", "daisy")
    assert [label for _, label, _ in found(path)] == ["daisy", "rose", "rose"]
    path.write_text("path,label\n1.jpg,1\n2.jpg,2\n")
    with pytest.raises(UsageError, match=r"photos.csv has the label 2, but there are 2 class nam"):
        scan(path)
    (tmp_path / "classes.txt").write_text("2\n1\n")  # where numbers are names, they are no others
    assert [label for _, label, _ in found(path)] == ["1", "2"]


@pytest.mark.parametrize("data", [b"\xff\xd8\xff\xe0 a photo", "path,label\né,b".encode("cp1252")])
def test_a_file_that_is_no_csv(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "photos.csv"
    path.write_bytes(data)
    with pytest.raises(UsageError, match=r"photos.csv is not a CSV file in UTF-8"):
        scan(path)


@pytest.mark.parametrize("beside", [True, False])
def test_a_csv_that_may_not_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beside: bool
) -> None:
    """Whether it is the data, or lies beside folders with a class each."""
    touch(tmp_path, "a/1.jpg", "b/1.jpg", "photos.csv")

    def refuse(path: Path, *arguments: Any, **options: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UsageError, match=r"can't read .*photos.csv: Permission denied. Make it"):
        scan(tmp_path if beside else tmp_path / "photos.csv")


@pytest.mark.parametrize("closed", ["home", "home/photos", "home/photos/a"])
def test_what_is_in_a_folder_that_may_not_be_entered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed: str
) -> None:
    """Another user's home, the data, or one class of it."""
    touch(tmp_path, "home/photos/a/1.jpg", "home/photos/b/1.jpg")
    close(tmp_path / closed, monkeypatch)
    with pytest.raises(UsageError, match=rf"can't read .*{closed}/[\w.]+: Permission denied. Make"):
        scan(tmp_path / "home" / "photos")
