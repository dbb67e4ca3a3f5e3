"""The runtimes that `edgewise bench` measures: one small file each, and this table of them."""

from __future__ import annotations

from edgewise.timing.runtimes import executorch, litert, ncnn, onnx_runtime, openvino, pytorch
from edgewise.timing.runtimes.runtime import Prepared, Runtime, Shape, random_images

__all__ = ["CUDA", "RUNTIMES", "Prepared", "Runtime", "Shape", "random_images"]

# What a runtime lacks: ONNX Runtime, LiteRT and ExecuTorch have no bfloat16 kernels on a CPU; int8
# in PyTorch is a compiler pass of torchao, and ncnn's needs tools that its package doesn't have.
ONNX = ("onnxruntime", "onnx", "onnxscript")  # and what writes the graph
CUDA = "torch-cuda"  # the one that runs on no processor

RUNTIMES: dict[str, Runtime] = {
    runtime.name: runtime
    for runtime in (
        Runtime("torch", "", ("torch",), ("fp32", "bf16"), pytorch.eager),
        Runtime("torch-channels-last", "", ("torch",), ("fp32", "bf16"), pytorch.channels_last),
        Runtime("torch-compile", "", ("torch",), ("fp32", "bf16"), pytorch.compiled),
        Runtime(
            CUDA,
            "",
            ("torch",),
            ("fp32", "bf16"),
            pytorch.cuda,
            usable=pytorch.has_cuda,
        ),
        Runtime(
            "onnxruntime", "onnx", ONNX, ("fp32", "int8"), onnx_runtime.prepare, onnx_runtime.read
        ),
        Runtime(
            "openvino",
            "openvino",
            ("openvino", *ONNX),
            ("fp32", "bf16", "int8"),
            openvino.prepare,
            openvino.read,
        ),
        Runtime(
            "litert",
            "litert",
            ("ai-edge-litert", "ai-edge-quantizer", "litert-torch"),
            ("fp32", "int8"),
            litert.prepare,
        ),
        Runtime(
            "executorch",
            "executorch",
            ("executorch", "torchao"),
            ("fp32", "int8"),
            executorch.prepare,
        ),
        Runtime("ncnn", "ncnn", ("ncnn", "pnnx"), ("fp32", "bf16"), ncnn.prepare),
    )
}
