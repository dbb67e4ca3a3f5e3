"""What all tests share."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
import tiny

if TYPE_CHECKING:
    from edgewise.model import Model

# No test reaches a real hub or the user's cache; read before huggingface_hub is imported.
os.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"  # the discard port: nobody listens
os.environ["EDGEWISE_CACHE"] = tempfile.mkdtemp(prefix="edgewise-tests-")
atexit.register(shutil.rmtree, os.environ["EDGEWISE_CACHE"], ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def tiny_is_known() -> None:
    """A network that trains in seconds. Not known yet when tests are made from lists of models."""
    tiny.register()


# What times files for so many seconds each.
TIMERS = ("compress.latency", "deploy.fastest", "deploy.verify", "search.latency_table_times")


@pytest.fixture(scope="session", autouse=True)
def short_timings() -> Iterator[None]:
    """A few calls of each file that is timed, and not a second of them: dozens are."""
    with pytest.MonkeyPatch.context() as patch:
        for module in TIMERS:
            patch.setattr(f"edgewise.{module}.SECONDS", 0.01)
        yield


@pytest.fixture(scope="session")
def tracing() -> Callable[[Model], Any]:
    """Makes the ONNX graph of a model each time; see `traced_once`."""
    from edgewise.deploy import onnx

    return onnx._trace


@pytest.fixture(scope="session", autouse=True)
def traced_once(
    tracing: Callable[[Model], Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """A model is traced once for all tests of all workers: it takes seconds, and many share one.

    By the digest of all that its graph is made by; from nothing in each run of pytest.
    """
    from onnx import load_from_string

    from edgewise.deploy import onnx
    from edgewise.files import write_bytes

    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # of all workers
    folder = folder / "traced"
    folder.mkdir(exist_ok=True)

    def graph_of_model(model: Model) -> Any:
        path = folder / onnx._digest(model)
        if not path.exists():
            write_bytes(path, onnx.to_bytes(tracing(model)))
        return load_from_string(path.read_bytes())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx, "_trace", graph_of_model)
        yield
