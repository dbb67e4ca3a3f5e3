"""ncnn, from a traced module by way of pnnx."""

from __future__ import annotations

import copy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgewise.deploy.onnx import quiet
from edgewise.errors import EdgewiseError
from edgewise.files import write_bytes
from edgewise.timing.runtimes.graph import fingerprint
from edgewise.timing.runtimes.runtime import Prepared, Shape, random_images

if TYPE_CHECKING:
    from torch import nn

INPUT, OUTPUT = "in0", "out0"  # pnnx's names


def prepare(
    network: nn.Module, shape: Shape, precision: str, threads: int, folder: Path
) -> Prepared:
    """The network for one image: ncnn's maps have no batch, so a batch is run image by image."""
    param = folder / f"{fingerprint(network, shape)}.ncnn.param"
    if not param.is_file():
        _convert(network, (1, *shape[1:]), param)
    return PreparedNcnn(param, precision, threads)


def _convert(network: nn.Module, shape: Shape, param: Path) -> None:
    """Writes ncnn's two files: `param` and, beside it, the weights in "….bin"."""
    import pnnx
    import torch

    images = torch.from_numpy(random_images(shape)[0])
    with TemporaryDirectory() as temporary, quiet():
        traced = Path(temporary, "network.pt")
        pnnx.export(copy.deepcopy(network).eval(), str(traced), images, fp16=False)
        made = traced.with_name("network.ncnn.param")
        if not made.is_file():
            raise EdgewiseError("ncnn can't take it: pnnx wrote no file")
        write_bytes(param.with_suffix(".bin"), made.with_suffix(".bin").read_bytes())
        write_bytes(param, made.read_bytes())


class PreparedNcnn(Prepared):
    """A loaded net."""

    def __init__(self, param: Path, precision: str, threads: int) -> None:
        import ncnn

        self.net = ncnn.Net()
        self.net.opt.num_threads = threads
        self.net.opt.use_vulkan_compute = False
        # Half precision is ncnn's default wherever the processor has it.
        for option in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic"):
            setattr(self.net.opt, option, False)
        self.net.opt.use_bf16_storage = precision == "bf16"
        self.net.opt.use_bf16_packed = precision == "bf16"
        if self.net.load_param(str(param)) or self.net.load_model(str(param.with_suffix(".bin"))):
            raise EdgewiseError("ncnn can't take it: it does not know one of the operators")
        self.weight_bytes = param.with_suffix(".bin").stat().st_size

    def feed(self, images: NDArray[np.float32]) -> None:
        self.images = [np.ascontiguousarray(image) for image in images]

    def call(self) -> None:
        import ncnn

        self.answer = []
        for image in self.images:
            extractor = self.net.create_extractor()
            extractor.input(INPUT, ncnn.Mat(image))
            status, logits = extractor.extract(OUTPUT)
            if status:
                raise EdgewiseError(f"ncnn stopped with the status {status}")
            self.answer.append(np.array(logits).reshape(-1))

    def logits(self) -> NDArray[np.float32]:
        return np.stack(self.answer)
