"""Writing files so that a kill or a full disk never leaves half of one, and checking them later."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from edgewise.errors import CantWrite, EdgewiseError, UsageError

MANIFEST = "MANIFEST.sha256"
LINE = re.compile(r"([0-9a-f]{64})  (.+)")  # of it
LOCK = ".lock"
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
OF_DISK = (  # what any file there would meet
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO),
)
PATIENCE = 10.0  # seconds, in which the workers of a process that was killed are gone too


def write_atomic(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Calls `write` on a temporary file beside `path`, syncs it, then renames it over `path`.

    Whatever goes wrong, `path` holds either its old content or the whole new one.

    Raises:
        UsageError: `path` is a folder.
        CantWrite: the file can't be written (a full disk, no permission).
    """
    if not path.name:  # "." or "/"
        raise UsageError(f"can't write {path}: it is a folder. Name a file.")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise CantWrite(
            f"can't write {path}: {error.strerror or error}. "
            "Free some space or choose another folder; what was there before is unchanged."
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder to write files into, which is called `folder` once all of them are on the disk.

    Whatever goes wrong, `folder` is whole or not there. Where another process was faster, its
    folder stays.

    Raises:
        CantWrite: the folder can't be written (a full disk, no permission).
        EdgewiseError: another error of the system, of whatever writes into it.
    """
    staging = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        yield staging
        for path in staging.rglob("*"):
            if path.is_file():
                with path.open("rb+") as file:
                    os.fsync(file.fileno())
        with suppress(OSError):
            staging.rename(folder)
        if not folder.is_dir():
            raise OSError(f"{staging} can't be renamed")
    except OSError as error:
        raise unwritten(folder, error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def unwritten(folder: Path, error: OSError) -> EdgewiseError:
    """What to say where `folder` was not made: `CantWrite`, if that is for want of a disk."""
    kind = CantWrite if of_disk(error) else EdgewiseError
    return kind(
        f"can't write {folder}: {error.strerror or error}. Free some space or choose another "
        "folder; no half of it was left there."
    )


def of_disk(error: Exception) -> bool:
    """Whether nothing can be written, whatever it is: the disk is full, or may not be written."""
    return isinstance(error, CantWrite) or (isinstance(error, OSError) and error.errno in OF_DISK)


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Makes `folder` if need be, and keeps other processes that claim it out of it meanwhile.

    Whatever ends the process, its claim ends with it; the file `folder/.lock` stays.

    Raises:
        UsageError: another process has claimed it.
        CantWrite: the folder can't be written.
    """
    with _locked(folder / LOCK, folder, PATIENCE):
        yield


@contextmanager
def claimed_name(path: Path) -> Iterator[None]:
    """Keeps other processes that claim `path`, which needn't be there, away from it meanwhile.

    The lock stands beside it, so that `path` can be replaced, and goes at the end.

    Raises:
        UsageError: another process has claimed it.
        CantWrite: the folder that it is to be in can't be written.
    """
    lock = _lock_beside(path)
    with _locked(lock, path, PATIENCE):
        try:
            yield
        finally:
            with suppress(OSError):  # Windows removes it when it is let go
                lock.unlink()


@contextmanager
def in_turn(path: Path) -> Iterator[None]:
    """Lets processes that read `path` and write it anew do so one after the other; each waits.

    The lock stands beside it, and stays: those who wait for one that is removed hold another than
    those who come later.

    Raises:
        CantWrite: the folder that it is in can't be written.
    """
    with _locked(_lock_beside(path), path, patience=-1):
        yield


def _lock_beside(path: Path) -> Path:
    return path.with_name(f".{path.name}{LOCK}")


@contextmanager
def _locked(file: Path, claim: Path, patience: float) -> Iterator[None]:
    lock = FileLock(file)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        acquire(lock, patience)
    except Timeout as error:
        raise UsageError(
            f"another process is at work in {claim}. Wait until it is done, or stop it."
        ) from error
    except OSError as error:
        raise CantWrite(
            f"can't write in {file.parent}: {error.strerror or error}. Make it writable."
        ) from error
    try:
        yield
    finally:
        lock.release()


def acquire(lock: FileLock, timeout: float = -1) -> None:
    """Takes a lock; or none, on a file system without locks: then there is no telling.

    Args:
        lock: releasing it is harmless if it was not taken.
        timeout: seconds to wait for another process that holds it; -1 waits until it lets go.

    Raises:
        Timeout: another process still holds it.
        OSError: its file can't be written.
    """
    try:
        lock.acquire(timeout=timeout)
    except NotImplementedError:  # filelock's word for some of them
        return
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise


def is_folder(path: Path) -> bool:
    """Whether it is one; not if it lies in another that this user may not enter."""
    try:
        return path.is_dir()
    except OSError:
        return False


def halves(path: Path) -> list[Path]:
    """What is left of writing `path` in processes that were killed, or is being written now."""
    return list(path.parent.glob(f".{path.name}.*.tmp"))


def holds_more_than(folder: Path, files: Collection[Path]) -> bool:
    """Whether `folder` is a file, or holds more than these, halves of them and a claim."""
    if not folder.is_dir():
        return folder.exists()
    left = {folder / LOCK, *files, *(half for path in files for half in halves(path))}
    return not left.issuperset(folder.iterdir())


def remove_halves(path: Path) -> None:
    """Removes what is left of writing `path` in processes that were killed.

    Only for a file that no other process writes at the same time.
    """
    for half in halves(path):
        with suppress(OSError):
            half.unlink()


def write_bytes(path: Path, data: bytes) -> None:
    """Atomically writes `data` to `path`."""
    write_atomic(path, lambda file: file.write(data))


def write_text(path: Path, text: str) -> None:
    """Atomically writes `text` to `path` as UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: object) -> None:
    """Atomically writes `value` to `path` as indented UTF-8 JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        UsageError: no such file, or it is not JSON (the message names the file and the line).
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"no such file: {path}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid JSON: {error}") from error


def read_labels(path: Path) -> tuple[str, ...]:
    """The lines of a label file.

    Raises:
        UsageError: there is none, or it is not UTF-8.
    """
    return _lines(_read_text(path))


def read_typed_labels(path: Path) -> tuple[str, ...]:
    """The lines of a person's label file, in which an editor of Windows leaves a mark and CRs.

    Raises:
        UsageError: it is not UTF-8.
    """
    text = _read_text(path).removeprefix("\ufeff")
    return _lines(text.replace("\r\n", "\n").replace("\r", "\n"))


def _lines(text: str) -> tuple[str, ...]:
    # Not str.splitlines, which also splits at characters that a label may hold (U+2028 and more).
    lines = text.split("\n")
    return tuple(lines[:-1] if lines[-1] == "" else lines)


def _read_text(path: Path) -> str:
    """The characters of a file as they are, ends of lines too."""
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise UsageError(f"no such file: {path}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8: {error}. Save it as UTF-8.") from error


def write_labels(path: Path, labels: Iterable[str]) -> None:
    """Atomically writes a label file, one label a line."""
    write_text(path, "".join(f"{label}\n" for label in labels))


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file's bytes, as 64 hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):  # hashlib.file_digest needs Python 3.11
            digest.update(chunk)
    return digest.hexdigest()


def write_manifest(folder: Path, names: Iterable[str]) -> None:
    """Writes `folder/MANIFEST.sha256` over the named files, in the format of `sha256sum`."""
    lines = [f"{sha256_file(folder / name)}  {name}\n" for name in sorted(names)]
    write_text(folder / MANIFEST, "".join(lines))


def changed_files(folder: Path) -> list[str]:
    """One line for each file of the folder's manifest that is missing or was changed since.

    One too for each line of the manifest that is damaged, or if it has none.

    Raises:
        UsageError: the folder has no manifest.
    """
    lines = _manifest(folder)
    problems = [] if lines else [f"{folder / MANIFEST} is empty"]
    for number, line in enumerate(lines, 1):
        found = LINE.fullmatch(line)
        if not found:
            problems.append(f"{folder / MANIFEST} is damaged in line {number}")
            continue
        digest, name = found.groups()
        if not (folder / name).is_file():
            problems.append(f"{folder / name} is missing")
        elif sha256_file(folder / name) != digest:
            problems.append(f"{folder / name} was changed after it was written")
    return problems


def unlisted_files(folder: Path) -> list[str]:
    """The files below `folder` that its manifest doesn't name, but for hidden ones.

    Raises:
        UsageError: the folder has no manifest.
    """
    listed = {found[2] for line in _manifest(folder) if (found := LINE.fullmatch(line))}
    return [name for name in files_below(folder) if name not in listed | {MANIFEST}]


def files_below(folder: Path) -> dict[str, Path]:
    """The files below `folder` by their names in it, in order; hidden ones are left out.

    So is what Python compiled of a script that was imported.
    """
    paths = {path.relative_to(folder): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {
        name.as_posix(): path
        for name, path in paths.items()
        if not any(part.startswith(".") or part == "__pycache__" for part in name.parts)
    }


def _manifest(folder: Path) -> list[str]:
    """The lines of the manifest; what isn't UTF-8 in them fits no name."""
    manifest = folder / MANIFEST
    if not manifest.is_file():
        raise UsageError(f"{folder} has no {MANIFEST}: it is not a finished edgewise folder")
    return manifest.read_text(encoding="utf-8", errors="replace").splitlines()
