"""LiteRT (TensorFlow Lite): a model as one file by litert-torch, and such a file in LiteRT."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from edgewise.deploy.converting import converting, silent
from edgewise.deploy.engine import described, unreadable
from edgewise.files import write_bytes

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgewise.deploy.artifact import Info
    from edgewise.deploy.formats import Job

# Not in int8, each a pattern of names of results with an operator: what goes in and out, what
# `Classifier` does before and after the network, which would lose the last bits of pixels and
# probabilities, and h-swish, for which XNNPACK has no int8 kernel.
IN_FLOAT = (
    (".*", "INPUT"),
    (".*", "OUTPUT"),
    (r"^edgewise\.model\.Classifier;", "*"),
    ("^serving_default_output", "SOFTMAX"),
    (".*", "HARD_SWISH"),
)


def write(job: Job) -> None:
    """Writes `Classifier(job.model)` for one image at once.

    In "fp16" the weights are stored in half the bytes and the sums are float32. In "int8" all
    computes in int8 but the normalisation, h-swish and the softmax, with the weights of
    `with_int8_weights`; LiteRT's quantiser measures the ranges.

    Raises:
        EdgewiseError: the network can't be expressed, or the file can't be written.
    """
    import torch

    from edgewise.model import Classifier

    model = job.model
    if job.calibration is not None:
        from edgewise.deploy.quantize_model import with_int8_weights

        model = with_int8_weights(model, job.calibration)
    module, size = Classifier(model).eval(), model.preprocess.size
    example = (torch.zeros(1, size, size, 3, dtype=torch.uint8),)
    with TemporaryDirectory() as folder:
        plain, short = Path(folder, "plain.tflite"), Path(folder, "short.tflite")
        with converting("litert", module, example):
            write_float(module, example, plain)
            if job.precision == "fp16":
                _write_half(plain, short)
            elif job.calibration is not None:
                write_int8(plain, (pixels[None] for pixels in job.calibration), short)
        made = plain if job.precision == "fp32" else short
        write_bytes(job.path, made.read_bytes())


def write_float(module: nn.Module, example: tuple[Tensor], path: Path) -> None:
    """A module, which is left as it was, as a float32 file for inputs of that shape."""
    import litert_torch

    litert_torch.convert(copy.deepcopy(module).eval(), example).export(str(path))


def _write_half(plain: Path, path: Path) -> None:
    from ai_edge_quantizer import quantizer
    from ai_edge_quantizer.qtyping import TFLOperationName

    job = quantizer.Quantizer(str(plain))
    job.add_weight_only_config(
        ".*", TFLOperationName.ALL_SUPPORTED, num_bits=16, algorithm_key="float_casting"
    )
    job.quantize().export_model(str(path))


def write_int8(plain: Path, calibration: Iterable[NDArray[Any]], path: Path) -> None:
    """A float32 file in int8: static, a scale for each channel of the weights.

    Not with PyTorch's own quantiser: its ReLU6 networks came out with unlike answers.

    Args:
        plain: what `write_float` wrote.
        calibration: inputs of it.
        path: of the new file.
    """
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import quantizer
    from ai_edge_quantizer.qtyping import TFLOperationName

    job = quantizer.Quantizer(str(plain))
    job.add_static_config(
        ".*", TFLOperationName.ALL_SUPPORTED, activation_num_bits=8, weight_num_bits=8
    )
    for names, operator in IN_FLOAT:
        job.update_quantization_recipe(
            names, TFLOperationName(operator), algorithm_key="no_quantize"
        )
    ((signature, names),) = Interpreter(str(plain)).get_signature_list().items()
    seen = job.calibrate({signature: [{names["inputs"][0]: inputs} for inputs in calibration]})
    job.quantize(seen).export_model(str(path))


class LiteRtEngine:
    """An interpreter with the XNNPACK kernels on all cores; needs no PyTorch."""

    def __init__(self, path: Path, info: Info | None) -> None:
        self.info = described(path, info)
        try:
            with silent():
                from ai_edge_litert.interpreter import Interpreter

                self.interpreter: Any = Interpreter(str(path), num_threads=os.cpu_count())
                self.interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise unreadable(path, "LiteRT", error) from error
        (self.input,), (self.output,) = (
            [item["index"] for item in details]
            for details in (
                self.interpreter.get_input_details(),
                self.interpreter.get_output_details(),
            )
        )
        self.runtime = f"litert {metadata.version('ai-edge-litert')}"

    def run(self, inputs: NDArray[Any]) -> NDArray[Any]:
        self.interpreter.set_tensor(self.input, inputs)
        self.interpreter.invoke()
        answer: NDArray[Any] = self.interpreter.get_tensor(self.output)  # a copy
        return answer


def open_engine(path: Path, info: Info | None) -> LiteRtEngine:
    """A LiteRT file in its interpreter.

    Raises:
        UsageError: it is none, is cut off, or is not in its artefact's folder.
    """
    return LiteRtEngine(path, info)
