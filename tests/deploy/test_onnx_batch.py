"""Graphs that are traced for one number of images and take any, with PyTorch's answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgewise.deploy import onnx as onnx_module
from edgewise.deploy.onnx import to_bytes, to_onnx
from edgewise.deploy.onnx_batch import TRACED


class Attention(nn.Module):
    """Its maps are given their shapes, with the number of images in them."""

    def forward(self, x: Tensor) -> Tensor:
        heads = x.view(x.shape[0], 2, 4, x.shape[2]).transpose(2, 3)
        mixed = F.scaled_dot_product_attention(heads, heads, heads)
        return mixed.transpose(2, 3).reshape(x.shape)


class Joined(nn.Module):
    """All channels of all images are one dimension for a while."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(0, 1).softmax(1).view(x.shape[0], -1, x.shape[2])


class Own(nn.Module):
    """A constant for each image."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.arange(x.shape[0], device=x.device).view(-1, 1, 1)


class Wide(nn.Module):
    """As many channels as images are traced."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv1d(x, torch.ones(TRACED, 8, 1)).amax(1, keepdim=True)


@pytest.mark.parametrize(
    ("module", "traces"), [(Attention(), 1), (Joined(), 2), (Own(), 2), (Wide(), 2)]
)
def test_any_number_of_images(
    module: nn.Module, traces: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, exported = [], onnx_module._exported

    def counted(*given: Any, **more: Any) -> Any:
        calls.append(given)
        return exported(*given, **more)

    monkeypatch.setattr(onnx_module, "_exported", counted)
    proto = to_onnx(module.eval(), (torch.zeros(1, 8, 16),), "x", "y", any_batch=True)
    assert len(calls) == traces
    for values in (proto.graph.input[0], proto.graph.output[0]):
        assert values.type.tensor_type.shape.dim[0].dim_param == "N"
    session = onnxruntime.InferenceSession(to_bytes(proto), providers=["CPUExecutionProvider"])
    for count in (1, 2, 5):
        x = torch.randn(count, 8, 16, generator=torch.Generator().manual_seed(count))
        (found,) = session.run(None, {"x": x.numpy()})
        with torch.inference_mode():
            np.testing.assert_allclose(found, module(x).numpy(), atol=1e-5)
