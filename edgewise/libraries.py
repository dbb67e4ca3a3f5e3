"""Other libraries: whether they are installed, and two that need help to be imported."""

from __future__ import annotations

from collections.abc import Iterable
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


def first_missing(packages: Iterable[str]) -> str:
    """The first of some distributions that is not installed; "" if all are."""
    for package in packages:
        try:
            metadata.version(package)
        except metadata.PackageNotFoundError:
            return package
    return ""
