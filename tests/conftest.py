"""What all tests share."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator

import pytest
import tiny

# No test reaches a real hub or the user's cache; read before huggingface_hub is imported.
os.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"  # the discard port: nobody listens
os.environ["EDGEWISE_CACHE"] = tempfile.mkdtemp(prefix="edgewise-tests-")
atexit.register(shutil.rmtree, os.environ["EDGEWISE_CACHE"], ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def tiny_is_known() -> None:
    """A network that trains in seconds. Not known yet when tests are made from lists of models."""
    tiny.register()


@pytest.fixture(scope="session", autouse=True)
def short_timings() -> Iterator[None]:
    """Ten calls of each file that is verified, and not a second of them: dozens are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgewise.deploy.verify.SECONDS", 0.05)
        yield
