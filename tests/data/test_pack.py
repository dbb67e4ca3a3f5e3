"""Shards that we write, as the package webdataset reads them; and packs that go wrong."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import webdataset
from commandline import edgewise
from photos import picture, write_photos
from PIL import Image

from edgewise.data.dataset import load_dataset
from edgewise.data.decode import decode
from edgewise.data.pack import pack
from edgewise.data.scan import scan
from edgewise.errors import EdgewiseError

MB = 10**6


def read(shards: Path, split: str) -> list[tuple[bytes, str]]:
    """(bytes of the image, name of its class) of each sample, by the package webdataset."""
    files = [str(path) for path in sorted(shards.glob(f"{split}-*.tar"))]
    samples = webdataset.WebDataset(files, shardshuffle=False)
    names = (shards / "classes.txt").read_text().splitlines()
    return [
        (next(sample[kind] for kind in ("png", "jpg") if kind in sample),
         names[int(sample["cls"])])
        for sample in samples
    ]  # fmt: skip


def test_webdataset_reads_what_was_packed(tmp_path: Path) -> None:
    for split, first, count in (("train", 0, 20), ("val", 100, 5), ("test", 200, 4)):
        write_photos(tmp_path / "photos" / split, {"b": count, "a é": count}, first)
    packed = pack(tmp_path / "photos", tmp_path / "shards", size=20_000)
    assert packed.images == {"train": 40, "val": 10, "test": 8}
    for split, count in packed.images.items():
        samples = read(tmp_path / "shards", split)
        files = (tmp_path / "photos" / split).glob("*/*.png")
        assert sorted(samples) == sorted((file.read_bytes(), file.parent.name) for file in files)
        assert len({name for _, name in samples[: count // 2]}) == 2  # shuffled
    shards = list((tmp_path / "shards").glob("*.tar"))
    assert packed.shards == len(shards) > 6
    assert all(shard.stat().st_size <= 20_000 for shard in shards)


def test_shards_reach_the_disk_on_a_system_that_syncs_only_what_may_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Windows: its fsync calls a file that was opened to be read a bad descriptor."""
    fcntl, sync = pytest.importorskip("fcntl"), os.fsync

    def as_there(file: int) -> None:
        if fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        sync(file)

    monkeypatch.setattr(os, "fsync", as_there)
    photos = write_photos(tmp_path / "photos", {"b": 2, "a": 2})
    assert pack(photos, tmp_path / "shards", MB).shards == 1


def test_training_sees_the_same_data(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", {"b": 12, "a": 12})
    pack(tmp_path / "photos", tmp_path / "shards", MB)
    one, two = (load_dataset(tmp_path / name, 0) for name in ("photos", "shards"))
    assert one.fingerprint == two.fingerprint
    assert one.counts() == two.counts()
    pack(tmp_path / "shards", tmp_path / "again", MB)
    assert scan(tmp_path / "again").classes == one.classes


def test_the_same_call_gives_the_same_bytes(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", {"b": 5, "a": 5})
    for out in ("one", "two"):
        pack(tmp_path / "photos", tmp_path / out, MB)
    one, two = ((tmp_path / out / "data-000000.tar").read_bytes() for out in ("one", "two"))
    assert one == two


def test_resize(tmp_path: Path) -> None:
    for label, photo in (("cat", skimage.data.chelsea()), ("cup", skimage.data.coffee())):
        (tmp_path / "photos" / label).mkdir(parents=True)
        Image.fromarray(photo).save(tmp_path / "photos" / label / "large.jpg", quality=95)
        picture(len(label)).save(tmp_path / "photos" / label / "small.png")  # 40 x 30
    pack(tmp_path / "photos", tmp_path / "shards", MB, side=120)
    images = {
        (image.label, image.path.suffix): decode(image.path)
        for image in scan(tmp_path / "shards").images
    }
    assert images["cat", ".jpg"].size == (180, 120)  # of 451 x 300
    assert images["cup", ".jpg"].size == (180, 120)  # of 600 x 400
    assert images["cat", ".png"].tobytes() == picture(3).tobytes()
    expected = Image.fromarray(skimage.data.chelsea()).resize((180, 120), Image.Resampling.LANCZOS)
    difference = np.asarray(images["cat", ".jpg"]).astype(int) - np.asarray(expected)
    assert np.abs(difference).mean() < 3


def test_a_jpeg_of_several_pictures_stays_a_jpeg(tmp_path: Path) -> None:
    """As many phones write them: the photo, and a smaller one or a map of its depth behind it."""
    for label, photo in (("cat", skimage.data.chelsea()), ("cup", skimage.data.coffee())):
        (tmp_path / "photos" / label).mkdir(parents=True)
        image, file = Image.fromarray(photo), tmp_path / "photos" / label / "1.jpg"
        image.save(file, "MPO", save_all=True, append_images=[image.reduce(8)])
    pack(tmp_path / "photos", tmp_path / "shards", MB)
    files = (tmp_path / "photos").glob("*/1.jpg")
    assert sorted(read(tmp_path / "shards", "data")) == sorted(
        (file.read_bytes(), file.parent.name) for file in files
    )
    pack(tmp_path / "photos", tmp_path / "small", MB, side=120)
    assert {image.path.suffix for image in scan(tmp_path / "small").images} == {".jpg"}


def test_arrays_are_packed_without_loss(tmp_path: Path) -> None:
    pixels = np.stack([np.asarray(picture(seed)) for seed in range(6)])
    np.savez(tmp_path / "n.npz", x=pixels, y=np.arange(6) % 2, classes=np.array(["no", "yes"]))
    pack(tmp_path / "n.npz", tmp_path / "shards", MB)
    found = scan(tmp_path / "shards")
    assert {np.asarray(decode(image.path)).tobytes() for image in found.images} == {
        image.tobytes() for image in pixels
    }
    assert found.classes == ("no", "yes")


def in_splits(data: Path) -> dict[str, set[bytes]]:
    """The pixels of each split."""
    return {
        split: {decode(sample.path).tobytes() for sample in samples}
        for split, samples in load_dataset(data, 1).splits.items()
    }


def test_arrays_keep_the_split_that_training_takes_of_them(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (120, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "n.npz", x=pixels, y=np.arange(120) % 2)
    packed = pack(tmp_path / "n.npz", tmp_path / "shards", MB)
    before = in_splits(tmp_path / "n.npz")
    assert in_splits(tmp_path / "shards") == before
    assert packed.images == {split: len(images) for split, images in before.items()}
    assert min(packed.images.values()) > 5


def test_smaller_images_keep_the_split_that_training_takes(tmp_path: Path) -> None:
    """Of train, where there is a test only; a copy of a test image is left out of it as ever."""
    photos = tmp_path / "photos"
    write_photos(photos / "train", {"a": 30, "b": 30})  # 40 x 30
    write_photos(photos / "test", {"a": 3, "b": 3}, first=500)
    shutil.copy(photos / "test/a/500.png", photos / "train/a/500.png")
    small = {
        split: {
            decode(sample.path).resize((21, 16), Image.Resampling.LANCZOS).tobytes()
            for sample in samples
        }
        for split, samples in load_dataset(photos, 1).splits.items()
    }
    pack(photos, tmp_path / "shards", MB, side=16)
    assert in_splits(tmp_path / "shards") == small
    assert len(small["val"]) > 3


def test_the_verb(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", {"a": 5, "b": 5})
    (photos / "a/0.png").write_bytes(b"no image")
    said = edgewise("data", "pack", photos, tmp_path / "shards", "--size", "1MB")
    assert said.status == 0, said.errors
    assert said.output.startswith("9 images (9 data) in 1 shard of ")
    assert said.output.rstrip().endswith("1 left out")
    assert "a/0.png: not an image" in said.errors
    again = edgewise("data", "pack", photos, tmp_path / "shards")
    assert again.status == 2 and "is there already" in again.errors
    wrong = edgewise("data", "pack", photos, tmp_path / "other", "--size", "many")
    assert wrong.status == 2 and "'many' is not a size such as 256MB" in wrong.errors
    assert not (tmp_path / "other").exists()


def test_the_current_folder_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = write_photos(tmp_path / "photos", {"a": 5, "b": 5})
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    said = edgewise("data", "pack", photos, ".")
    assert said.status == 2 and ". is there already. Name another folder" in said.errors
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "photos"]


def test_a_source_that_is_cut_off_or_unusable(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", {"a": 2, "b": 2})
    pack(photos, tmp_path / "shards", MB)
    shard = tmp_path / "shards/data-000000.tar"
    shard.write_bytes(shard.read_bytes()[:-10_000])
    with pytest.raises(EdgewiseError, match=r"data-000000.tar is cut off"):
        pack(tmp_path / "shards", tmp_path / "out", MB)
    for file in photos.glob("*/*"):
        file.write_bytes(b"")
    with pytest.raises(EdgewiseError, match=r"no image can be used; .*empty file"):
        pack(photos, tmp_path / "out", MB)
    assert {child.name for child in tmp_path.iterdir()} == {"photos", "shards"}


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tarfile

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    write_photos(tmp_path / "photos", {"a": 2, "b": 2})
    monkeypatch.setattr(tarfile.TarFile, "addfile", full)
    with pytest.raises(EdgewiseError, match=r"can't write .*out: No space left"):
        pack(tmp_path / "photos", tmp_path / "out", MB)
    assert {child.name for child in tmp_path.iterdir()} == {"photos"}


def test_a_kill_leaves_no_shard(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", {"a": 150, "b": 150})
    process = subprocess.Popen(
        [sys.executable, "-m", "edgewise", "data", "pack", "photos", "out", "--size", "4KB"],
        cwd=tmp_path,
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    while not list(tmp_path.glob(".out.partial/*-000002.tar")):  # the third of many
        assert process.poll() is None
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out").exists()
    pack(tmp_path / "photos", tmp_path / "out", MB)
    assert len(scan(tmp_path / "out").images) == 300
    assert {child.name for child in tmp_path.iterdir()} == {"photos", "out"}


def test_a_link_to_an_empty_folder_is_where_it_leads(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", {"a": 2, "b": 2})
    (tmp_path / "disk").mkdir()
    (tmp_path / "shards").symlink_to(tmp_path / "disk", target_is_directory=True)
    pack(photos, tmp_path / "shards", MB)
    assert len(scan(tmp_path / "disk").images) == 4
    assert {child.name for child in tmp_path.iterdir()} == {"photos", "disk", "shards"}


def test_an_empty_folder_that_can_not_be_replaced_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mounted disk: the system refuses when all is packed, too."""

    def refuse(path: Path) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy", str(path))

    photos = write_photos(tmp_path / "photos", {"a": 2, "b": 2})
    (tmp_path / "disk").mkdir()
    monkeypatch.setattr(os, "rmdir", refuse)
    monkeypatch.setattr("edgewise.data.pack.decode_bytes", lambda data: pytest.fail("decoded"))
    said = edgewise("data", "pack", photos, tmp_path / "disk")
    assert said.status == 2
    assert "disk: Device or resource busy. Name a new one, such as" in said.errors
