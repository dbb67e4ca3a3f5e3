"""Packages that are not there, as far as anybody asks."""

from __future__ import annotations

from importlib import metadata

import pytest

READS_ONNX = ("onnxruntime", "openvino")


def not_installed(patch: pytest.MonkeyPatch, *packages: str) -> None:
    """Until `patch` is undone."""
    real = metadata.version

    def version(package: str) -> str:
        if package in packages:
            raise metadata.PackageNotFoundError(package)
        return real(package)

    patch.setattr(metadata, "version", version)
