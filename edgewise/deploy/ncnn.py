"""ncnn: its two files, made from a traced network by pnnx, and such files in its runtime."""

from __future__ import annotations

import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgewise.deploy.artifact import Info
from edgewise.deploy.engine import described
from edgewise.deploy.traced import traced
from edgewise.errors import EdgewiseError, UsageError
from edgewise.files import write_bytes

if TYPE_CHECKING:
    from torch import nn

    from edgewise.deploy.formats import Job

INPUT, OUTPUT = "in0", "out0"  # pnnx's names
BIN = ".bin"  # instead of .param, of the file with the weights


def write(job: Job) -> None:
    """Writes `model.ncnn.param`, the layers, and `model.ncnn.bin`, their weights.

    In "fp16" the weights are stored in half the bytes, and the runtime may compute in float16 where
    the processor does. "bf16" asks it for bfloat16 maps; ncnn stores no such weights.

    Raises:
        EdgewiseError: ncnn lacks an operator of the network (the message names it), or a file can't
            be written.
    """
    from torch import nn

    size = job.model.preprocess.size
    network = nn.Sequential(job.model.network, nn.Softmax(1))
    layers, weights = to_ncnn(network, (1, 3, size, size), half=job.precision == "fp16")
    write_bytes(job.path.with_suffix(BIN), weights)
    write_bytes(job.path, layers)


def to_ncnn(network: nn.Module, shape: tuple[int, ...], half: bool = False) -> tuple[bytes, bytes]:
    """What ncnn's two files hold, layers and weights.

    Args:
        network: of one input and one output; not changed.
        shape: of the input, (1, C, H, W): ncnn's maps have no batch.
        half: whether the weights are stored in float16.

    Raises:
        EdgewiseError: ncnn lacks an operator of the network; the message names it.
    """
    import pnnx

    with TemporaryDirectory() as temporary:
        source = Path(temporary, "network.pt")
        traced(network, shape).save(source)
        sides = ",".join(str(side) for side in shape)
        command = [pnnx.EXEC_PATH, source, f"inputshape=[{sides}]f32", f"fp16={int(half)}"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=temporary, check=False)
        layers = source.with_suffix(".ncnn.param")
        if done.returncode or not layers.is_file():
            said = done.stderr.strip().rpartition("\n")[2]
            raise EdgewiseError(f"ncnn can't take it: pnnx ended with {done.returncode} ({said})")
        _check_layers(layers.read_text(encoding="utf-8"))
        return layers.read_bytes(), layers.with_suffix(BIN).read_bytes()


def _check_layers(text: str) -> None:
    """Whether all layers are ncnn's own: pnnx leaves what it can't translate, and says nothing."""
    for line in text.splitlines()[2:]:  # after the magic number and the counts
        kind, name = line.split()[:2]
        if not kind.isalnum():  # as in "torch.norm" and "aten::linalg_eigvals"
            raise EdgewiseError(f"ncnn can't take it: it has no operator {kind} (layer {name})")


def load_ncnn(path: Path, precision: str, threads: int = 0) -> Any:
    """An `ncnn.Net` of a .param file and the .bin file beside it.

    Args:
        path: of the .param file.
        precision: "fp32", "fp16" or "bf16".
        threads: that compute one answer; 0 for ncnn's own choice.

    Raises:
        UsageError: a file is missing or cut off, or this ncnn doesn't know an operator of it.
    """
    import ncnn

    net = ncnn.Net()
    net.opt.use_vulkan_compute = False
    # Half precision is ncnn's default wherever the processor has it.
    for option in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic"):
        setattr(net.opt, option, precision == "fp16")
    for option in ("use_bf16_packed", "use_bf16_storage"):
        setattr(net.opt, option, precision == "bf16")
    if threads:
        net.opt.num_threads = threads
    weights = path.with_suffix(BIN)
    if net.load_param(str(path)) or net.load_model(str(weights)):
        raise UsageError(
            f"{path} can't be read by ncnn: it or {weights.name} is missing, is cut off, or is of "
            f"a version that ncnn {ncnn.__version__} doesn't know. Export it again with edgewise."
        )
    return net


def ncnn_answer(net: Any, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """(C, H, W), contiguous -> (classes,).

    Raises:
        EdgewiseError: ncnn could not compute it.
    """
    import ncnn

    extractor = net.create_extractor()
    extractor.input(INPUT, ncnn.Mat(image))
    status, answer = extractor.extract(OUTPUT)
    if status:
        raise EdgewiseError(f"ncnn stopped with the status {status}")
    return np.array(answer, np.float32).reshape(-1)


class NcnnEngine:
    """ncnn on the CPU; needs no PyTorch."""

    def __init__(self, path: Path, info: Info | None) -> None:
        import ncnn

        self.info = described(path, info)
        self.net = load_ncnn(path, self.info.precision)
        self.runtime = f"ncnn {ncnn.__version__}"

    def run(self, inputs: NDArray[Any]) -> NDArray[Any]:
        return np.stack([ncnn_answer(self.net, np.ascontiguousarray(image)) for image in inputs])


def open_engine(path: Path, info: Info | None) -> NcnnEngine:
    """A .param file, with the .bin file beside it, in ncnn.

    Raises:
        UsageError: a file is missing, cut off, or not in the folder of an artefact.
    """
    return NcnnEngine(path, info)
