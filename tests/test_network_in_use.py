"""What people do with a network: odd sizes, other layouts and types, compiling, exporting."""

from __future__ import annotations

import pytest
import torch
from small import first_of_each_kind

from edgewise.families import variant
from edgewise.network import Network, build
from edgewise.spec import Spec
from edgewise.strides import dilate, small_stem

# One of each kind of block, stem and head.
KINDS = [
    "mobilenet_v1",
    "mobilenet_v3_small",
    "mobilenet_v4_conv_small",
    "mobilenet_v4_hybrid_medium",
    "efficientnet_lite0",
    "efficientnet_v2_b0",
    "convnext_atto",
    "convnext_v2_atto",
    "resnet18",
    "resnet50",
]


def small_spec(name: str) -> Spec:
    return variant(name).spec(width=0.25, classes=5)


def as_trained(spec: Spec) -> Network:
    torch.manual_seed(0)
    made = build(spec)
    for name, parameter in made.named_parameters():
        if "layer_scale" in name or "grn" in name:  # all but 0 in a fresh network
            torch.nn.init.uniform_(parameter, 0.1, 0.5)
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():  # batch statistics that fit, and logits of about 1
        made(torch.randn(32, 3, 64, 64))
        made.eval().head.classifier.weight.div_(made(torch.randn(4, 3, 64, 64)).std())
    return made


@pytest.fixture(params=KINDS)
def network(request: pytest.FixtureRequest) -> Network:
    return as_trained(small_spec(request.param))


@pytest.mark.parametrize("size", [(33, 47), (64, 32), (95, 101)])
def test_odd_sizes_and_oblong_images(network: Network, size: tuple[int, int]) -> None:
    images = torch.randn(2, 3, *size)
    with torch.inference_mode():
        assert network(images).shape == (2, 5)
        maps = network.features(images)
    # Convolutions round sides up; ConvNeXt's patches are whole ones only.
    for known, found in zip(network.spec.features(), maps, strict=True):
        whole = all(
            f in (s // known.stride, -(-s // known.stride))
            for f, s in zip(found.shape[2:], size, strict=True)
        )
        assert whole and found.shape[1] == known.channels


def test_channels_last_gives_the_same(network: Network) -> None:
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        plain = network(images)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        last = network(images.to(memory_format=torch.channels_last))
    torch.testing.assert_close(last, plain, rtol=1e-4, atol=1e-4)


def test_bfloat16_autocast_learns(network: Network) -> None:
    images = torch.randn(4, 3, 64, 64)
    with torch.inference_mode():
        exact = network(images)
        with torch.autocast("cpu", torch.bfloat16):
            rough = network(images)
    # bfloat16 has 8 bits, and errors add up over tens of layers of fresh weights.
    assert torch.corrcoef(torch.stack([rough.flatten().float(), exact.flatten()]))[0, 1] > 0.9
    network.train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = torch.nn.functional.cross_entropy(network(images), torch.tensor([0, 1, 2, 3]))
    loss.backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "change"),
    [
        *((name, "plain") for name in KINDS),
        ("efficientnet_lite0", "small stem"),
        ("mobilenet_v4_hybrid_medium", "dilated"),
        ("convnext_atto", "dilated"),
    ],
)
def test_compiles_as_one_graph_and_exports(name: str, change: str) -> None:
    """Without copies of blocks, which are traced as the first is. The graph is run as it was found:
    what is made of it, the export shows, and the test of all blocks.
    """
    spec = first_of_each_kind(small_spec(name), lambda block: block)
    network = as_trained(spec)
    if change != "plain":
        changed = build(small_stem(spec) if change == "small stem" else dilate(spec, 8)).eval()
        changed.load_state_dict(network.state_dict())
        network = changed
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        wanted = network(images)
        torch.compiler.reset()
        compiled = torch.compile(network, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(images), wanted)
        program = torch.export.export(
            network, (images,), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=64)},)
        )
        torch.testing.assert_close(program.module()(images), wanted)
        more = torch.randn(7, 3, 64, 64)
        torch.testing.assert_close(program.module()(more), network(more))
