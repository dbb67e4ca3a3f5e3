"""Atomic writes and manifests."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import pytest

from edgewise.errors import CantWrite, EdgewiseError, UsageError
from edgewise.files import (
    MANIFEST,
    changed_files,
    claimed,
    claimed_name,
    read_json,
    unlisted_files,
    whole_folder,
    write_atomic,
    write_json,
    write_manifest,
    write_text,
)
from edgewise.weights.hub import HubFile


def test_a_full_disk_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "precious.txt"
    write_text(path, "old")

    def half(file: BinaryIO) -> None:
        file.write(b"ne")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(CantWrite, match=r"precious\.txt: No space left on device"):
        write_atomic(path, half)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]  # no temporary file is left


def test_an_interrupt_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "precious.txt"
    write_text(path, "old")

    def stop(file: BinaryIO) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, stop)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_in_the_way_is_named(tmp_path: Path) -> None:
    with pytest.raises(EdgewiseError, match=tmp_path.name):
        write_text(tmp_path, "text")


def test_a_folder_is_there_once_it_is_whole(tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "model"
    with whole_folder(folder) as staging:
        (staging / "model.xml").write_text("layers")
        assert not folder.exists()
        (staging / "model.bin").write_bytes(b"weights")
        assert not folder.exists()
    assert sorted(path.name for path in folder.iterdir()) == ["model.bin", "model.xml"]
    with whole_folder(folder) as slower:  # than another process, whose folder stays
        (slower / "model.xml").write_text("other layers")
    assert (folder / "model.xml").read_text() == "layers"
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_a_folder_that_fails_is_not_there(tmp_path: Path) -> None:
    for error, raised in (
        (ValueError("no"), ValueError),
        (OSError(28, "no space"), CantWrite),
        (OSError("no library libfast.so"), EdgewiseError),  # which is no fault of a disk
    ):
        raising = pytest.raises(raised, match="no")
        with raising as caught, whole_folder(tmp_path / "model") as staging:
            (staging / "model.xml").write_text("<half")
            raise error
        assert caught.type is raised
        assert list(tmp_path.iterdir()) == []


def test_json_keeps_every_script(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"薔薇": ["é", 1.5, None]})
    assert read_json(tmp_path / "x.json") == {"薔薇": ["é", 1.5, None]}
    assert "薔薇" in (tmp_path / "x.json").read_text(encoding="utf-8")


def test_json_that_is_none_names_the_file_and_the_line(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{\n"a": 1,\n}')
    with pytest.raises(UsageError, match=r"x\.json is not valid JSON.*line"):
        read_json(tmp_path / "x.json")
    with pytest.raises(UsageError, match=r"no such file.*y\.json"):
        read_json(tmp_path / "y.json")


def test_the_manifest_is_sha256sums(tmp_path: Path) -> None:
    for name in ("a.bin", "ü b.bin"):
        (tmp_path / name).write_bytes(name.encode() * 1000)
    write_manifest(tmp_path, ["ü b.bin", "a.bin"])
    subprocess.run(["sha256sum", "--check", "--strict", MANIFEST], cwd=tmp_path, check=True)
    assert changed_files(tmp_path) == []


def test_changed_and_missing_files_are_named(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text(name)
    write_manifest(tmp_path, ["a", "b", "c"])
    (tmp_path / "a").write_text("A")
    (tmp_path / "b").unlink()
    changed, missing = changed_files(tmp_path)
    assert changed == f"{tmp_path / 'a'} was changed after it was written"
    assert missing == f"{tmp_path / 'b'} is missing"
    with pytest.raises(UsageError, match=MANIFEST):
        changed_files(tmp_path / "nothing")


def test_a_manifest_that_was_cut_off_is_told(tmp_path: Path) -> None:
    for name in ("a", "b", "sub/c", ".hidden", "sub/.DS_Store", "__pycache__/a.cpython-312.pyc"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    write_manifest(tmp_path, ["a", "b", "sub/c"])
    assert changed_files(tmp_path) == unlisted_files(tmp_path) == []
    manifest = tmp_path / MANIFEST
    first, second, _ = manifest.read_bytes().splitlines(keepends=True)
    for cut, told, unlisted in (
        (b"", [f"{manifest} is empty"], ["a", "b", "sub/c"]),
        (first, [], ["b", "sub/c"]),
        (first + second[:9], [f"{manifest} is damaged in line 2"], ["b", "sub/c"]),
        (first + second[:-2] + b"\xff", [f"{tmp_path / chr(0xFFFD)} is missing"], ["b", "sub/c"]),
    ):
        manifest.write_bytes(cut)
        assert changed_files(tmp_path) == told
        assert unlisted_files(tmp_path) == unlisted


HOLDS = """
import sys, time
from pathlib import Path
from edgewise.files import claimed
with claimed(Path(sys.argv[1])):
    print("mine", flush=True)
    time.sleep(60)
"""


def test_a_folder_is_claimed_by_one_process_until_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgewise.files.PATIENCE", 0.2)
    with subprocess.Popen([sys.executable, "-c", HOLDS, tmp_path], stdout=subprocess.PIPE) as other:
        assert other.stdout and other.stdout.readline() == b"mine\n"
        with pytest.raises(UsageError, match="another process is at work in"), claimed(tmp_path):
            pass
        other.kill()
    for _ in range(2):
        with claimed(tmp_path):
            pass


def test_a_claimed_name_leaves_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgewise.files.PATIENCE", 0.2)
    path = tmp_path / "new" / "name"
    for _ in range(2):
        with claimed_name(path):
            with pytest.raises(UsageError, match=r"at work in .*name"), claimed_name(path):
                pass
            with claimed_name(path.with_name("other")):
                pass
        assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_will_do(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As some network file systems are; an error of another kind is still one."""
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with claimed(tmp_path / "run"), claimed_name(tmp_path / "name"):
        pass
    with HubFile("timm/a.b").lock():
        pass
    code = errno.EIO
    for claim in (claimed(tmp_path / "run"), HubFile("timm/a.b").lock()):
        with pytest.raises(EdgewiseError, match=r"can't write in .*Input/output error"), claim:
            pass


def test_a_folder_that_cannot_be_written_cannot_be_claimed(tmp_path: Path) -> None:
    no_folder = tmp_path / "a file"
    no_folder.write_text("")
    with pytest.raises(EdgewiseError, match=r"can't write in .*a file"), claimed(no_folder):
        pass


@pytest.mark.parametrize("path", [".", "/"])
def test_a_folder_without_a_name_is_no_file(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="it is a folder"):
        write_text(Path(path), "text")
    assert not any(tmp_path.iterdir())
