"""Other libraries: whether they are installed, and three that need help."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib import import_module, metadata
from types import ModuleType
from typing import Any

from edgewise.errors import missing_package


def import_library(library: str) -> ModuleType:
    """timm or torchvision.

    Raises:
        UsageError: it is not installed.
    """
    import torch

    try:
        try:
            torchvision = import_module("torchvision")
        except RuntimeError:
            # Its compiled operators are of another build of torch. No network here calls one, but
            # to be imported it wants two of them declared.
            declared: Any = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
            declared.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            declared.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            torchvision = import_module("torchvision")
            vars(torchvision)["_edgewise_library"] = declared  # undone when it is collected
        return torchvision if library == "torchvision" else import_module(library)
    except ImportError as error:
        raise missing_package(error.name or library, "bench") from error


@cache
def openvino_core() -> Any:
    """The one `openvino.Core` of this process.

    A core's first model on the CPU makes a stack for signal handlers that takes the place of
    Python's. When one of several cores goes, the stack may be that of a core which went before:
    the next signal (a child's end, Ctrl-C) then ends the process without a word. This core stays.
    """
    import openvino

    return openvino.Core()


def first_missing(packages: Iterable[str]) -> str:
    """The first of some distributions that is not installed; "" if all are."""
    for package in packages:
        try:
            metadata.version(package)
        except metadata.PackageNotFoundError:
            return package
    return ""
