"""Images in containers, which other people's libraries wrote, are those that were put in."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset
from closed import close
from photos import picture, write_photos
from sklearn.datasets import load_digits

from edgewise.data.dataset import load_dataset
from edgewise.data.decode import ImageError, decode
from edgewise.data.doctor import examine
from edgewise.data.scan import Scan, scan
from edgewise.errors import EdgewiseError, UsageError

NAMES = ["zebra", "ape", "cat"]  # not in the order of the alphabet: the number must decide


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    picture(seed).save(buffer, "PNG")
    return buffer.getvalue()


def check(found: Scan, splits: dict[str | None, int], names: list[str] = NAMES) -> None:
    """Each split has pictures 0, 1, 2 ... in order, of classes 0, 1, 2, 0 ..."""
    for split, first in splits.items():
        images = [image for image in found.images if image.split == split]
        assert [image.label for image in images] == [names[i % 3] for i in range(9)]
        for i, image in enumerate(images):
            assert (np.asarray(decode(image.path)) == np.asarray(picture(first + i))).all()
    assert len(found.images) == 9 * len(splits)
    assert found.damage == ()


def hugging_face(first: int = 0) -> datasets.Dataset:
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)}
    rows = [{"image": {"bytes": png(first + i), "path": None}, "label": i % 3} for i in range(9)]
    return datasets.Dataset.from_list(rows, features=datasets.Features(features))


def write_shards(root: Path, splits: dict[str, int], **how: object) -> Path:
    root.mkdir(exist_ok=True)
    for split, first in splits.items():
        for shard in range(3):
            with webdataset.TarWriter(str(root / f"{split}-{shard:06d}.tar"), **how) as tar:
                for i in range(3 * shard, 3 * shard + 3):
                    tar.write({"__key__": f"{i:04d}", "png": png(first + i), "cls": i % 3})
    (root / "classes.txt").write_text("\n".join(NAMES) + "\n")
    return root


def test_shards_of_webdataset(tmp_path: Path) -> None:
    root = write_shards(tmp_path / "shards", {"train": 0, "val": 100})
    found = scan(root)
    assert found.classes == tuple(NAMES)
    check(found, {"train": 0, "val": 100})
    assert found.images[0].path == root / "train-000000.tar" / "0000.png"
    assert len(load_dataset(root, 0).splits["val"]) == 9


def test_a_run_beside_shards_is_not_looked_into(tmp_path: Path) -> None:
    root = write_shards(tmp_path / "shards", {"train": 0, "val": 100})
    run = root / "runs/first"
    run.mkdir(parents=True)
    for name in ("recipe.json", "split.csv", "lr_find.png"):
        (run / name).write_bytes(b"x")
    check(scan(root), {"train": 0, "val": 100})
    assert scan(root).warnings == (f"not used: what edgewise made in {root / 'runs'}",)


def test_one_shard_and_splits_in_folders(tmp_path: Path) -> None:
    root = write_shards(tmp_path / "one", {"shard": 0})
    assert {image.split for image in scan(root / "shard-000001.tar").images} == {None}
    (tmp_path / "two").mkdir()
    for split, first in (("train", 0), ("validation", 50)):
        write_shards(tmp_path / "two" / split, {"part": first})
        (tmp_path / "two" / split / "classes.txt").rename(tmp_path / "two/classes.txt")
    check(scan(tmp_path / "two"), {"train": 0, "val": 50})


def test_json_labels_and_names_with_odd_forms(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        for i, key in enumerate(["./1", "/etc/2", "x" * 150 + "/3", "é/4", ".hidden"]):
            for ending, data in (("png", png(i)), ("json", json.dumps({"label": NAMES[i % 3]}))):
                info = tarfile.TarInfo(f"{key}.{ending}")
                content = data if isinstance(data, bytes) else data.encode()
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    images = scan(tmp_path / "a.tar").images
    assert len(images) == 4
    assert all(image.path.is_relative_to(tmp_path / "a.tar") for image in images)
    seen = {np.asarray(decode(image.path)).tobytes() for image in images}
    assert seen == {np.asarray(picture(i)).tobytes() for i in range(4)}


def test_parquet_of_hugging_face(tmp_path: Path) -> None:
    for split, first in (("train", 0), ("test", 30)):
        hugging_face(first).to_parquet(tmp_path / f"{split}-00000-of-00001.parquet", batch_size=2)
    check(scan(tmp_path), {"train": 0, "test": 30})
    hugging_face().to_parquet(tmp_path / "one.parquet")
    with pytest.raises(UsageError, match=r"one.parquet has no split, but others have"):
        scan(tmp_path)


def test_parquet_with_bytes_names_and_splits(tmp_path: Path) -> None:
    rows = {
        "image": [png(i) for i in range(18)],
        "label": [NAMES[i % 3] for i in range(18)],
        "split": ["train"] * 9 + ["val"] * 9,
    }
    pq.write_table(pa.table(rows), tmp_path / "p.parquet", row_group_size=4)
    check(scan(tmp_path / "p.parquet"), {"train": 0, "val": 9})


def test_an_empty_column_of_splits_leaves_the_files_own(tmp_path: Path) -> None:
    for split, first in (("train", 0), ("test", 20)):
        rows = {
            "image": [png(first + i) for i in range(9)],
            "label": [NAMES[i % 3] for i in range(9)],
            "split": pa.nulls(9, pa.string()),
        }
        pq.write_table(pa.table(rows), tmp_path / f"{split}.parquet")
    check(scan(tmp_path), {"train": 0, "test": 20})


@pytest.mark.parametrize("nothing", [None, ""])
def test_a_row_without_a_split_among_others_is_named(tmp_path: Path, nothing: str | None) -> None:
    rows = {
        "image": [png(i) for i in range(18)],
        "label": [NAMES[i % 3] for i in range(18)],
        "split": ["train"] * 9 + ["test"] * 8 + [nothing],
    }
    pq.write_table(pa.table(rows), tmp_path / "p.parquet")
    with pytest.raises(UsageError, match=r"p.parquet, row 17: no split; give one to every row"):
        scan(tmp_path / "p.parquet")
    rows["split"] = [nothing] * 18
    pq.write_table(pa.table(rows), tmp_path / "train.parquet")
    (tmp_path / "p.parquet").unlink()
    assert {image.split for image in scan(tmp_path).images} == {"train"}


def test_parquet_manifest(tmp_path: Path) -> None:
    for i in range(9):
        (tmp_path / f"{i}.png").write_bytes(png(i))
    rows = {"path": [f"{i}.png" for i in range(9)], "label": [NAMES[i % 3] for i in range(9)]}
    pq.write_table(pa.table(rows), tmp_path / "p.parquet")
    check(scan(tmp_path / "p.parquet"), {None: 0})


@pytest.mark.parametrize("several", [False, True])
def test_what_save_to_disk_leaves(tmp_path: Path, several: bool) -> None:
    if several:
        splits = datasets.DatasetDict({"train": hugging_face(), "validation": hugging_face(20)})
        splits.save_to_disk(tmp_path / "saved", num_shards={"train": 2, "validation": 1})
        check(scan(tmp_path / "saved"), {"train": 0, "val": 20})
    else:
        hugging_face().save_to_disk(tmp_path / "saved")
        check(scan(tmp_path / "saved"), {None: 0})


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("channels", [(), (1,), (3,)])
def test_numpy(tmp_path: Path, save: Callable[..., None], channels: tuple[int, ...]) -> None:
    digits, labels = load_digits(return_X_y=True)
    pixels = (digits * 15).astype(np.uint8).reshape(-1, 8, 8)
    if channels:
        pixels = np.repeat(pixels[..., None], channels[0], 3)
    save(
        tmp_path / "d.npz",
        x_train=pixels[:1000], y_train=labels[:1000], x_test=pixels[1000:], y_test=labels[1000:],
    )  # fmt: skip
    found = scan(tmp_path / "d.npz")
    for split, first, count in (("train", 0, 1000), ("test", 1000, 797)):
        images = [image for image in found.images if image.split == split]
        assert len(images) == count
        for i in (0, 5, count - 1):
            assert images[i].label == str(labels[first + i])
            expected = np.broadcast_to(pixels[first + i].reshape(8, 8, -1), (8, 8, 3))
            assert (np.asarray(decode(images[i].path)) == expected).all()


def test_splits_of_numpy_files(tmp_path: Path) -> None:
    def write(file: Path, first: int) -> None:
        file.parent.mkdir(exist_ok=True)
        pixels = np.stack([np.asarray(picture(first + i)) for i in range(9)])
        np.savez(file, x=pixels, y=np.array([NAMES[i % 3] for i in range(9)]))

    for one, two in (("train.npz", "test.npz"), ("train/a.npz", "test/b.npz")):
        root = tmp_path / one.replace("/", "-")
        root.mkdir()
        write(root / one, 0)
        write(root / two, 20)
        check(scan(root), {"train": 0, "test": 20})


def test_names_that_numpy_holds_as_bytes(tmp_path: Path) -> None:
    names = np.array(["chat", "bébé"])
    pixels = np.arange(4 * 64, dtype=np.uint8).reshape(4, 8, 8)
    as_bytes = np.char.encode(names, "utf-8")
    np.savez(tmp_path / "n.npz", x=pixels, y=np.array([0, 1, 0, 1]), classes=as_bytes)
    np.savez(tmp_path / "l.npz", x=pixels, y=as_bytes[[0, 1, 0, 1]])
    for file in ("n.npz", "l.npz"):
        assert [image.label for image in scan(tmp_path / file).images] == ["chat", "bébé"] * 2


def test_every_cut_of_a_shard_is_noticed(tmp_path: Path) -> None:
    """Wherever it ends, no sample is lost without a word and none is read that isn't whole."""
    for name in ("train-whole", "train-cut"):
        with webdataset.TarWriter(str(tmp_path / f"{name}.tar")) as tar:
            for i in range(4):
                tar.write({"__key__": f"{i}", "cls": i % 2, "png": png(i)})
    path = tmp_path / "train-cut.tar"
    whole = path.read_bytes()
    with tarfile.open(path) as tar:
        ends = [m.offset_data + m.size for m in tar if m.name.endswith("png")]
    last = -(-ends[-1] // 512) * 512 + 511  # of two zero blocks at the end one is enough
    around = {length for end in ends for length in (end - 1, end, -(-end // 512) * 512)}
    for length in sorted({*range(0, last, 397), *around, last}):
        path.write_bytes(whole[:length])
        good = sum(end <= length for end in ends)
        told = f"the last whole one is {good - 1}" if good else "none is whole"
        try:
            found = scan(tmp_path)
        except UsageError as error:
            assert good == 0 and "train-cut.tar is" in str(error)
            continue
        assert f"train-cut.tar is cut off after {length:,} bytes" in found.damage[0]
        assert found.damage[0].endswith(told)
        readable = 0
        for image in found.images[:-4]:
            assert image.path.parent == path
            try:
                decode(image.path)
                readable += 1
            except ImageError as error:
                assert str(error).endswith(told)
        assert readable == good
    path.write_bytes(whole[: last + 1])
    assert scan(tmp_path).damage == ()


def cut_last_image(shard: Path) -> None:
    with tarfile.open(shard) as tar:
        size = tar.getmembers()[-1].offset_data + 100
    shard.write_bytes(shard.read_bytes()[:size])


def test_training_and_doctor_name_the_shard(tmp_path: Path) -> None:
    root = write_shards(tmp_path / "shards", {"train": 0, "val": 100})
    shard = root / "train-000002.tar"
    cut_last_image(shard)  # its label comes first
    data = load_dataset(root, 0)
    assert len(data.splits["train"]) == 8
    assert f"{shard} is cut off" in data.warnings[0]
    assert data.warnings[0].endswith("the last whole one is 0007")
    assert [bad.path for bad in data.quarantined] == [shard / "0008.png"]
    assert data.quarantined[0].reason == data.warnings[0]
    seen = examine(root)
    assert not seen.sound
    assert seen.findings[0].kind == "cut off"


def damaged(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def test_other_containers_that_are_cut_off(tmp_path: Path) -> None:
    hugging_face().save_to_disk(tmp_path / "saved")
    hugging_face().to_parquet(tmp_path / "p.parquet")
    np.savez(tmp_path / "n.npz", x=np.zeros((9, 8, 8), np.uint8), y=np.arange(9) % 3)
    arrow = next((tmp_path / "saved").glob("*.arrow"))
    for file, path, message in (
        (arrow, tmp_path / "saved", "Arrow stream, or is cut off after row 9"),
        (tmp_path / "p.parquet", tmp_path / "p.parquet", "not a Parquet file, or is cut off"),
        (tmp_path / "n.npz", tmp_path / "n.npz", "not a NumPy archive, or is cut off"),
    ):
        damaged(file, lambda data: data[:-8])
        with pytest.raises(UsageError, match=message):
            scan(path)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros((2, 8, 8)), "y": [0, 1]}, "'x' is float64 of shape .2, 8, 8.; images are"),
        ({"x": np.zeros((2, 3, 8, 8), np.uint8), "y": [0, 1]}, "images are uint8"),
        ({"x": np.zeros((2, 8, 8), np.uint8), "y": [0, 1, 2]}, "one whole number or name for each"),
        ({"x": np.zeros((2, 8, 8), np.uint8), "y": [0.5, 1]}, "one whole number or name for each"),
        ({"x": np.zeros((2, 8, 8), np.uint8), "y": np.array([{}, 1])}, "can't read the array 'y'"),
        (
            {"x": np.zeros((2, 8, 8), np.uint8), "y": np.array([b"caf\xe9", b"tea"])},
            r"'y' has a name that is not UTF-8: b'caf",
        ),
        (
            {"x": np.zeros((2, 8, 8), np.uint8), "y": [0, 1], "classes": [b"caf\xe9", b"tea"]},
            r"'classes' has a name that is not UTF-8: b'caf",
        ),
        ({"a": np.zeros(2)}, "has the arrays a: call them images and labels"),
    ],
)
def test_numpy_arrays_that_are_no_images(
    tmp_path: Path, arrays: dict[str, object], message: str
) -> None:
    np.savez(tmp_path / "n.npz", **arrays)
    with pytest.raises(UsageError, match=message):
        scan(tmp_path / "n.npz")


def test_labels_that_are_not_in_the_label_file(tmp_path: Path) -> None:
    root = write_shards(tmp_path / "shards", {"train": 0})
    (root / "classes.txt").write_text("zebra\nape\n")
    with pytest.raises(UsageError, match=r"train-000000.tar has the label 2, but there are 2"):
        scan(root)
    for label in ("daisy", "rosse"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        (tmp_path / "photos" / label / "1.png").write_bytes(png(1))
    (tmp_path / "photos/classes.txt").write_text("tulip\nrose\ndaisy\n")
    with pytest.raises(UsageError, match=r"classes.txt .*unknown label 'rosse'. Nearest: rose,"):
        scan(tmp_path / "photos")
    (tmp_path / "photos/rosse").rename(tmp_path / "photos/rose")
    found = scan(tmp_path / "photos")
    assert found.classes == ("rose", "daisy")
    assert "tulip, of which there is no image" in found.warnings[0]


def test_tables_without_what_is_needed(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    pq.write_table(pa.table({"text": ["a"], "label": [1]}), path)
    with pytest.raises(UsageError, match=r"has the columns text, label: training needs"):
        scan(path)
    pq.write_table(pa.table({"image": [png(0), png(1), None], "label": [0, 1, -1]}), path)
    found = scan(path)
    assert len(found.images) == 2
    assert found.warnings[0].startswith("not used: 1 rows")


def test_samples_without_a_label(tmp_path: Path) -> None:
    with webdataset.TarWriter(str(tmp_path / "t.tar")) as tar:
        tar.write({"__key__": "1", "png": png(1), "cls": 1})
        tar.write({"__key__": "2", "png": png(2)})
    with pytest.raises(UsageError, match=r"t.tar, sample 2 has no label"):
        scan(tmp_path / "t.tar")


def test_a_container_that_is_gone_or_replaced(tmp_path: Path) -> None:
    root = write_shards(tmp_path / "shards", {"train": 0})
    image = scan(root).images[0].path
    decode(image)
    with pytest.MonkeyPatch.context() as patch:
        close(root, patch)
        with pytest.raises(ImageError, match=r"can't read .*train-000000.tar: Permission denied"):
            decode(image)
    (root / "train-000000.tar").unlink()
    with pytest.raises(ImageError, match=r"can't read .*train-000000.tar: No such file"):
        decode(image)
    with tarfile.open(root / "train-000000.tar", "w"):
        pass
    with pytest.raises(ImageError, match="no such member"):
        decode(image)


@pytest.mark.parametrize(
    ("above", "stray"),
    [(("",), "photos.tar"), (("train", "val"), "photos.tar"), (("train",), "train/features.npz")],
)
def test_a_stray_container_beside_class_folders(
    tmp_path: Path, above: tuple[str, ...], stray: str
) -> None:
    for split in above:
        write_photos(tmp_path / split, {"a": 2, "b": 2})
    (tmp_path / stray).write_bytes(b"of something else")
    found = scan(tmp_path)
    assert found.classes == ("a", "b") and len(found.images) == 4 * len(above)
    (warning,) = found.warnings
    assert warning.startswith(f"not used: {Path(stray).name} in {(tmp_path / stray).parent}, ")


def test_a_stray_list_beside_class_folders_is_named_and_other_tables_are_not(
    tmp_path: Path,
) -> None:
    write_photos(tmp_path, {"a": 2, "b": 2})
    (tmp_path / "photos.csv").write_text("path,label,split\na/0.png,a,test\n", encoding="utf-8-sig")
    (tmp_path / "sizes.csv").write_text("name,width\na/0.png,40\n")
    (warning,) = scan(tmp_path).warnings
    assert warning.startswith("not used: photos.csv in ") and "give the file itself" in warning


def test_folders_without_images_beside_shards(tmp_path: Path) -> None:
    write_shards(tmp_path, {"part": 0})
    (tmp_path / "train").mkdir()
    for shard in tmp_path.glob("*.tar"):
        shard.rename(tmp_path / "train" / shard.name)
    (tmp_path / "train/logs").mkdir()
    (tmp_path / "train/logs/packed.txt").write_text("today")
    (tmp_path / "__MACOSX").mkdir()
    check(scan(tmp_path), {"train": 0})


def test_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    hugging_face().to_parquet(tmp_path / "p.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "edgewise.data.tables", raising=False)
    with pytest.raises(EdgewiseError, match=r"pip install 'edgewise\[data\]'"):
        scan(tmp_path / "p.parquet")
