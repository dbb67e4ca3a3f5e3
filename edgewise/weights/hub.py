"""Files on the model hub: found in our cache, placed there by hand, or downloaded.

    CACHE/weights/NAME.TAG/              a converted model, as a model folder
    CACHE/weights/NAME.TAG.safetensors   a file that a person without a network put there

CACHE is `$EDGEWISE_CACHE`, or `edgewise` in the user's cache folder; for a user without a home
`edgewise-NUMBER` among the temporary ones. The download itself goes into huggingface_hub's own
cache, which timm uses too: what one has fetched, the other finds.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from edgewise.errors import EdgewiseError, missing_package
from edgewise.files import MANIFEST, acquire, sha256_file
from edgewise.shell import command_line

ASKED = "timm/mobilenetv3_small_100.lamb_in1k"  # any repository that we use
PATIENCE = 5.0  # seconds


def cache_folder() -> Path:
    """Where converted weights are kept; it may not exist yet.

    Raises:
        EdgewiseError: the user has no home folder, nor can have one of the temporary ones.
    """
    if chosen := os.environ.get("EDGEWISE_CACHE"):
        return Path(chosen).expanduser()
    if caches := os.environ.get("LOCALAPPDATA" if os.name == "nt" else "XDG_CACHE_HOME"):
        return Path(caches) / "edgewise"
    try:
        return Path.home() / ".cache" / "edgewise"
    except RuntimeError:  # as of a container's user that is only a number
        return _without_home()


def _without_home() -> Path:
    """A temporary folder that no other user can write in; it is made."""
    with suppress(OSError, AttributeError):  # Windows knows no numbers of users
        folder = Path(tempfile.gettempdir(), f"edgewise-{os.getuid()}")
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.lstat().st_uid == os.getuid():
            return folder
    raise EdgewiseError(
        "there is no home folder to keep files in. "
        "Name a folder in the environment variable EDGEWISE_CACHE."
    )


@cache
def hub_answers() -> bool:
    """Whether files can be downloaded now; asked once, and given up on after some seconds."""
    try:
        from huggingface_hub import get_hf_file_metadata, hf_hub_url

        get_hf_file_metadata(hf_hub_url(ASKED, "config.json"), timeout=PATIENCE)
    except Exception:  # not installed, told to stay offline, or any of its libraries' own errors
        return False
    return True


@dataclass(frozen=True)
class HubFile:
    """A file in a repository of the model hub.

    Attributes:
        repo: the repository, as in "timm/mobilenetv2_050.lamb_in1k".
        file: the file in it.
    """

    repo: str
    file: str = "model.safetensors"

    @property
    def name(self) -> str:
        """The repository's own name: timm's name of the network, a dot and the tag."""
        return self.repo.rpartition("/")[2]

    @property
    def folder(self) -> Path:
        """Where the converted model is kept; it may not exist yet."""
        return cache_folder() / "weights" / self.name

    @property
    def placed(self) -> Path:
        """Where a person may put the file."""
        return cache_folder() / "weights" / f"{self.name}.safetensors"

    @property
    def ready(self) -> bool:
        """Whether it can be had without a network: it is in our cache, or in the hub's own."""
        if _is_file(self.folder / MANIFEST) or _is_file(self.placed):
            return True
        try:
            from huggingface_hub import try_to_load_from_cache
        except ImportError:
            return False
        return isinstance(try_to_load_from_cache(self.repo, self.file), str)

    @property
    def how(self) -> str:
        """How to get it, for people."""
        return f"downloaded from the hub when first used ({self.repo})"

    def path(self) -> Path:
        """The file: the one that was placed in our cache, or else downloaded and checked.

        Raises:
            UsageError: huggingface_hub is not installed.
            EdgewiseError: the hub can't be reached, or sends another file than it announced.
        """
        return self.placed if _is_file(self.placed) else self._download()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Held by the one process that fetches and converts, while others wait.

        Raises:
            EdgewiseError: the cache can't be written.
        """
        from filelock import FileLock

        lock = FileLock(self.folder.with_name(f".{self.name}.lock"))
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            acquire(lock)
        except OSError as error:
            raise EdgewiseError(
                f"can't write in {self.folder.parent}: {error.strerror or error}. "
                "Name another folder in the environment variable EDGEWISE_CACHE."
            ) from error
        try:
            yield
        finally:
            lock.release()

    def _download(self) -> Path:
        try:
            from huggingface_hub import (
                get_hf_file_metadata,
                hf_hub_download,
                hf_hub_url,
                try_to_load_from_cache,
            )
        except ImportError:
            raise missing_package("huggingface_hub", "weights") from None

        address = hf_hub_url(self.repo, self.file)
        # What a failure raises depends on huggingface_hub's version: it has changed its HTTP
        # library twice, and lets that library's own errors through.
        try:
            announced = get_hf_file_metadata(address)
        except Exception as error:
            known = try_to_load_from_cache(self.repo, self.file)
            if isinstance(known, str):
                return Path(known)
            raise self._unreachable(address, error) from error
        try:
            # Not by the announced commit: the cache would not say that it is "main", without which
            # neither timm nor `try_to_load_from_cache` finds it while the hub is out of reach.
            path = Path(hf_hub_download(self.repo, self.file))
        except Exception as error:
            raise self._unreachable(address, error) from error
        # A large file's entity tag is its SHA-256. huggingface_hub compares no more than its size;
        # nor would it tell if "main" had moved since.
        if re.fullmatch("[0-9a-f]{64}", announced.etag or "") and (
            sha256_file(path) != announced.etag
        ):
            path.resolve().unlink()  # the file that `path` may be a link to
            path.unlink(missing_ok=True)
            raise EdgewiseError(
                f"{address} sent a file with another SHA-256 than the hub announced. "
                "It was deleted. Try again; if it happens again, something between you and the "
                "hub changes files."
            )
        return path

    def _unreachable(self, address: str, error: Exception) -> EdgewiseError:
        reason = (str(error) or type(error).__name__).strip().splitlines()[0]
        return EdgewiseError(
            f"can't download the weights {self.name} ({type(error).__name__}: {reason}). "
            f"Try again; or fetch {address} on another machine and put it at {self.placed}, where "
            f"the next call finds it; or: "
            f"{command_line('import', self.file, '--model', self.name)}"
        )


def _is_file(path: Path) -> bool:
    """Not if it can't be told: the cache may be in another person's folder."""
    try:
        return path.is_file()
    except OSError:
        return False
