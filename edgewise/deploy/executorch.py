"""ExecuTorch with the XNNPACK kernels, the pair that its mobile builds run on a CPU."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgewise.deploy.converting import converting, layer_of, silent
from edgewise.deploy.engine import described, unreadable
from edgewise.files import write_bytes

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.export import ExportedProgram

    from edgewise.deploy.artifact import Info
    from edgewise.deploy.formats import Job

# Between what XNNPACK takes; reading the bytes of an image is not its business either.
FREE = ("getitem", "executorch_call_delegate", "_to_dim_order_copy")


def write(job: Job) -> None:
    """Writes `Classifier(job.model)` for one image at once.

    The operators that XNNPACK doesn't take, which ExecuTorch's slower kernels run, are noted in
    `job.notes`. In "int8" these and all but convolutions, linear layers, sums and products compute
    in float, as do the normalisation and the softmax.

    Raises:
        EdgewiseError: the network can't be expressed, or the file can't be written.
    """
    import torch

    from edgewise.model import Classifier

    model, images = job.model, None
    if job.calibration is not None:
        from edgewise.deploy.quantize_model import with_int8_weights

        model = with_int8_weights(model, job.calibration)
        images = (torch.from_numpy(image[None]) for image in job.calibration)
    module, size = Classifier(model).eval(), model.preprocess.size
    example = (torch.zeros(1, size, size, 3, dtype=torch.uint8),)
    with converting("executorch", module, example):
        program, outside = lowered(module, example, images)
    if outside:
        job.notes.append(f"outside of the XNNPACK delegate, so slower: {', '.join(outside)}")
    write_bytes(job.path, program)


def lowered(
    module: nn.Module, example: tuple[Tensor], calibration: Iterable[Tensor] | None = None
) -> tuple[bytes, list[str]]:
    """A module as a program's bytes, and the operators that XNNPACK doesn't take.

    Args:
        module: it is left as it was.
        example: an input of the shape that the program is for.
        calibration: inputs; with them convolutions and linear layers compute in int8, a scale for
            each channel of their weights.
    """
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    plain: Any = copy.deepcopy(module).eval()
    plain.to(memory_format=torch.contiguous_format)  # it takes no other
    graph = torch.export.export(plain, example).module()
    _keep_pooled_sides(graph)
    if calibration is not None:
        graph = _quantized(torch.export.export(graph, example).module(), calibration)
    program = torch.export.export(graph, example)
    edge = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    outside = outside_of_delegate(edge.exported_program())  # the next line changes it
    return edge.to_executorch().buffer, outside


def _keep_pooled_sides(graph: Any) -> None:
    """Pools to (N, C, 1, 1) and flattens that: XNNPACK can't pool to (N, C).

    Nor can it give sides of 1 back to what was pooled, if that is in int8; here they are kept.
    """
    import torch

    aten: Any = torch.ops.aten
    for node in list(graph.graph.nodes):
        if node.target is not aten.mean.dim or node.args[1:] != ([2, 3],):
            continue
        node.args = (*node.args, True)
        for user in list(node.users):
            if user.target is aten.unflatten.int:
                user.replace_all_uses_with(node)
                graph.graph.erase_node(user)
            else:
                with graph.graph.inserting_before(user):
                    flat = graph.graph.call_function(aten.flatten.using_ints, (node, 1))
                user.replace_input_with(node, flat)
    graph.recompile()


def _quantized(graph: Any, calibration: Iterable[Tensor]) -> Any:
    """With quantise and dequantise operators."""
    import torch
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    config = get_symmetric_quantization_config(is_per_channel=True)

    class Quantizer(XNNPACKQuantizer):  # type: ignore[misc]
        def annotate(self, model: Any) -> Any:
            annotated = super().annotate(model)
            _bound_before_bytes(annotated, config.output_activation)
            return annotated

    prepared = prepare_pt2e(graph, Quantizer().set_global(config))
    with torch.no_grad():
        for inputs in calibration:
            prepared(inputs)
    return convert_pt2e(prepared)


def _bound_before_bytes(graph: Any, bytes_: Any) -> None:
    """Has no bytes between a layer and its ReLU6, which XNNPACK computes inside of the layer.

    Its quantiser knows that of ReLU alone: with a range for all that comes before the bound, 17 of
    255 steps were left for the bound's six units behind the stem of a trained EfficientNet-Lite0.
    """
    import torch
    from torchao.quantization.pt2e.quantizer import QuantizationAnnotation

    aten: Any = torch.ops.aten
    key = "quantization_annotation"
    for node in graph.graph.nodes:
        if node.target not in (aten.hardtanh.default, aten.hardtanh_.default):
            continue
        layer = node.args[0]
        if layer.target in (aten.conv2d.default, aten.linear.default) and len(layer.users) == 1:
            layer.meta[key].output_qspec = None
            node.meta[key] = QuantizationAnnotation(output_qspec=bytes_, _annotated=True)


def outside_of_delegate(program: ExportedProgram) -> list[str]:
    """The operators on the input's way that no delegate computes, and where the first ones are."""
    import torch

    fed = set(program.graph_signature.user_inputs)
    found: dict[str, list[str]] = {}
    for node in program.graph.nodes:
        if node.op != "call_function" or not fed & {item.name for item in node.all_input_nodes}:
            continue  # what depends on constants alone is little
        fed.add(node.name)
        if getattr(node.meta["val"], "dtype", None) == torch.uint8:
            continue  # the bytes of the image on their way
        *_, name = str(node.target.__name__).removesuffix(".default").split(".", 1)
        if name not in FREE:
            found.setdefault(name, []).append(layer_of(node))
    return [f"{len(layers)} x {name} ({_first(layers)})" for name, layers in found.items()]


def _first(layers: list[str]) -> str:
    different = list(dict.fromkeys(layers))
    return ", ".join(different[:2]) + (" ..." if different[2:] else "")


class ExecuTorchEngine:
    """A program's only method."""

    def __init__(self, path: Path, info: Info | None) -> None:
        self.info = described(path, info)
        try:
            with silent():
                from executorch.runtime import Runtime

                self.method: Any = Runtime.get().load_program(path).load_method("forward")
        except ImportError:  # which is not the file's fault
            raise
        except Exception as error:
            raise unreadable(path, "ExecuTorch", error) from error
        self.runtime = f"executorch {metadata.version('executorch')}"

    def run(self, inputs: NDArray[Any]) -> NDArray[Any]:
        import torch

        (answer,) = self.method.execute((torch.from_numpy(np.ascontiguousarray(inputs)),))
        return np.array(answer.numpy())


def open_engine(path: Path, info: Info | None) -> ExecuTorchEngine:
    """A program in ExecuTorch.

    Raises:
        UsageError: it is none, is cut off, or is not in its artefact's folder.
    """
    return ExecuTorchEngine(path, info)
