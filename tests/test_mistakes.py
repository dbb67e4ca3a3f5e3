"""What the lesson page, `docs/mistakes.md`, says is so.

Each test runs the page's own code and works the figures of one section out again. The judges are
PyTorch's, torchvision's and timm's modules.
"""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
import skimage.data
import torch
from lesson import DOCS, NAMED, PAGE, SECTIONS, Lesson, lesson_of
from oracles import import_timm, import_torchvision, randomise
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import edgewise
from edgewise import blocks, layers
from edgewise.network import build
from edgewise.weights.pretrained import choose, load_pretrained


@pytest.fixture
def lesson(request: pytest.FixtureRequest) -> Lesson:
    return lesson_of(request.function.__name__)


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def flops(module: nn.Module, *shape: int) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module.eval().to("meta")(torch.empty(shape, device="meta"))
    return counter.get_total_flops()


def convs(module: nn.Module) -> list[nn.Conv2d]:
    return [m for m in module.modules() if type(m) is nn.Conv2d]


def test_each_section_names_a_test_of_its_own() -> None:
    tests = [
        name
        for name, value in globals().items()
        if name.startswith("test_") and "lesson" in value.__code__.co_varnames[:1]
    ]
    assert [NAMED.findall(section) for section in SECTIONS] == [[name] for name in tests]


def test_links_lead_somewhere() -> None:
    headings = re.findall(r"^## (.*)$", PAGE, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
    links = re.findall(r"\]\(([^)]+)\)", PAGE)
    assert {link[1:] for link in links if link.startswith("#")} == anchors
    assert all((DOCS / link).is_file() for link in links if not link.startswith("#"))


def test_macs_are_half_of_pytorchs_flops(lesson: Lesson) -> None:
    models = import_torchvision().models
    names = ("mobilenet_v2", "mobilenet_v3_large", "resnet50")
    for name, row in zip(names, lesson.tables[0], strict=True):
        with torch.device("meta"):
            theirs, ours = models.get_model(name), edgewise.create_model(name)
        published = models.get_model_weights(name).DEFAULT.meta["_ops"]
        counted = flops(theirs, 1, 3, 224, 224)
        macs = lesson.code.macs(theirs, 1, 3, 224, 224)
        assert row[1:] == [f"{published:.3f}", f"{counted:,}", f"{macs:,}"]
        assert lesson.code.macs(ours, 1, 3, 224, 224) == macs


def test_efficientnet_b0_has_ten_times_39_million(lesson: Lesson) -> None:
    timm = import_timm()
    b0 = timm.create_model("efficientnet_b0")
    stem = b0.conv_stem
    rows = [b0, import_torchvision().models.mobilenet_v3_small(), stem]
    for module, row in zip(rows, lesson.tables[0], strict=True):
        macs = lesson.code.macs(module, 1, 3, 224, 224)
        assert row[1:] == [f"{parameters(module):,}", f"{macs:,}"]
    ours = edgewise.create_model("efficientnet_b0")
    assert (parameters(ours), lesson.code.macs(ours, 1, 3, 224, 224)) == (5_288_548, 385_814_752)
    share = lesson.code.macs(stem, 1, 3, 224, 224) / 39e6
    lesson.says(f"{share:.0%}", "0.39 Billion")


def test_one_convolution_costs_what_pytorch_counts(lesson: Lesson) -> None:
    def separable(stride: int = 1) -> nn.Sequential:
        depthwise = nn.Conv2d(3, 3, 3, stride, 1, groups=3, bias=False)
        return nn.Sequential(depthwise, nn.Conv2d(3, 64, 1, bias=False))

    layers = [
        nn.Conv2d(3, 64, 3, padding=1, bias=False),
        separable()[0],
        separable()[1],
        separable(),
        nn.Conv2d(3, 64, 3, 2, 1, bias=False),
        separable(2),
        nn.Conv2d(3, 64, 3, bias=False),
    ]
    counted = []
    for layer, row in zip(layers, lesson.tables[0], strict=True):
        side = layer(torch.zeros(1, 3, 224, 224)).shape[2]
        weights = parameters(layer)
        counted.append(lesson.code.macs(layer, 1, 3, 224, 224))
        assert row[1:] == [f"{side} x {side}", f"{weights:,}", f"{counted[-1]:,}"]
    formulas = [
        lesson.code.standard_macs(224, 3, 3, 64),
        lesson.code.separable_macs(224, 3, 3, 64),
        lesson.code.standard_macs(112, 3, 3, 64),
        lesson.code.separable_macs(112, 3, 3, 64),
    ]
    assert formulas == [counted[0], counted[3], counted[4], counted[5]]
    lesson.says(f"{counted[0] / counted[3]:.2f} times", f"{lesson.code.wrong_standard:,}")


def test_the_saving_is_the_measured_one(lesson: Lesson) -> None:
    assert len(lesson.tables[0]) == 5
    for row in lesson.tables[0]:
        out = int(row[0])
        standard = lesson.code.macs(nn.Conv2d(32, out, 3, padding=1), 1, 32, 8, 8)
        ours = blocks.DepthwiseSeparable(32, out)
        ratio = lesson.code.macs(ours, 1, 32, 8, 8) / standard
        assert ratio == pytest.approx(lesson.code.ratio(3, out))
        wrong = lesson.code.wrong_ratio(3, out)
        assert row[1:] == [f"{wrong:.3f}", f"{ratio:.4f}", f"{1 / ratio:.1f}"]
    lesson.says(f"{1 / wrong:.2f} times")


def test_hard_swish_has_no_sigmoid(lesson: Lesson) -> None:
    x = torch.linspace(-8, 8, 1601, dtype=torch.float64)
    right, wrong = lesson.code.hard_swish(x), lesson.code.wrong_hard_swish(x)
    assert torch.allclose(right, F.hardswish(x))
    assert torch.allclose(right, layers.ACTIVATION["hard_swish"]()(x.clone()))
    functions = (F.silu, F.hardswish, lesson.code.wrong_hard_swish)
    for row in lesson.tables[0]:
        at = torch.tensor(float(row[0]))
        assert row[1:] == [f"{float(f(at)) + 0.0:.4f}" for f in functions]
    svg = (DOCS / "hard_swish.svg").read_text(encoding="utf-8")
    drawn = dict(re.findall(r'<polyline id="([\w-]+)" points="([^"]*)"', svg))
    for name, function in zip(("swish", "hard-swish", "wrong"), functions, strict=True):
        points = torch.tensor([[float(n) for n in p.split(",")] for p in drawn[name].split()])
        assert torch.allclose(function(points[:, 0]), points[:, 1], atol=1e-4)
    gap, error = (right - F.silu(x)).abs().max(), (right - wrong).abs().max()
    assert 0.142 < gap < 0.143
    lesson.says("0.143", f"{error:.3f} off at x = 8")


def test_squeeze_excite_has_two_activations(lesson: Lesson) -> None:
    right, wrong = lesson.code.SqueezeExcite(2, 2), lesson.code.WrongSqueezeExcite(2, 2)
    ours = blocks.SqueezeExcite(2, 2, act="relu", gate="hard_sigmoid")
    theirs = import_torchvision().ops.SqueezeExcitation(2, 2, scale_activation=nn.Hardsigmoid)
    values = [torch.tensor([[1.0, 2.0], [1.0, -1.0]]), torch.tensor([-1.0, 0.0])]
    values += [torch.tensor([[1 / 4, 1 / 4], [-1 / 2, 1 / 4]]), torch.zeros(2)]
    x = torch.tensor([1.0, 3.0]).view(1, 2, 1, 1)
    factors = []
    for module in (right, wrong, ours, theirs):
        for parameter, value in zip(module.parameters(), values, strict=True):
            parameter.data = value.view_as(parameter)
        factors.append((module(x) / x).flatten().tolist())
    assert factors[0] == factors[2] == factors[3]
    assert [row[1:] for row in lesson.tables[0]] == [
        [str(a), str(b)] for a, b in zip(*factors[:2], strict=True)
    ]
    b0 = import_timm().create_model("efficientnet_b0")
    squeezes = [m for m in b0.modules() if type(m).__name__ == "SqueezeExcite"]
    costs = [0, 0]
    for module in squeezes:
        wide, squeezed = module.conv_reduce.in_channels, module.conv_reduce.out_channels
        for i, width in enumerate((squeezed, wide // 4)):
            costs[i] += 2 * wide * width + width + wide
    rest = parameters(b0) - sum(parameters(m) for m in squeezes)
    assert [row[1:] for row in lesson.tables[1]] == [[f"{n:,}", f"{rest + n:,}"] for n in costs]


def test_batch_norm_takes_a_bias_away(lesson: Lesson) -> None:
    right, wrong = lesson.code.mobilenet_v1(), lesson.code.wrong_mobilenet_v1
    assert parameters(right) == parameters(import_timm().create_model("mobilenetv1_100"))
    assert parameters(right) == parameters(edgewise.create_model("mobilenet_v1"))
    counts = [parameters(right), parameters(wrong)]
    rows = [*counts, counts[1] - counts[0]]
    assert [row[1] for row in lesson.tables[0]] == [f"{n:,}" for n in rows]
    lesson.says(f"{counts[1] / 1e6:.2f} million")

    torch.manual_seed(0)
    x = torch.randn(4, 8, 6, 6, dtype=torch.float64)
    layer = lesson.code.conv_norm(8, 16, 3, bias=True).double()
    answers = []
    for bias in (0.0, 5.0):
        nn.init.constant_(layer[0].bias, bias)
        answers.append(layer(x))
    assert torch.allclose(*answers, atol=1e-12)
    answers[1].square().sum().backward()
    assert layer[0].bias.grad.abs().max() < 1e-10 * layer[0].weight.grad.abs().max()


def test_mobilenet_v1_ends_at_seven_by_seven(lesson: Lesson) -> None:
    def on_pointwise() -> nn.Module:
        network = lesson.code.mobilenet_v1()
        for depthwise, pointwise in zip(network[1:27:2], network[2:27:2], strict=True):
            pointwise[0].stride, depthwise[0].stride = depthwise[0].stride, (1, 1)
        return network

    made = lesson.code.mobilenet_v1
    for network, row in zip(
        [made(), made(lesson.code.PRINTED), on_pointwise()], lesson.tables[0], strict=True
    ):
        assert (len(convs(network)), len(network)) == (27, 30)
        side = network[:27].to("meta")(torch.empty(1, 3, 224, 224, device="meta")).shape[2]
        macs = lesson.code.macs(network, 1, 3, 224, 224)
        assert row[1:] == [f"{side} x {side}", f"{macs:,}"]
    right = lesson.code.macs(made(), 1, 3, 224, 224)
    lesson.says(f"{right / 1e6:.0f} million")
    for other in (
        import_timm().create_model("mobilenetv1_100"),
        edgewise.create_model("mobilenet_v1"),
    ):
        assert lesson.code.macs(other, 1, 3, 224, 224) == right


def test_inverted_residual_has_norms_and_a_linear_end(lesson: Lesson) -> None:
    models = import_torchvision().models
    torch.manual_seed(0)
    network = models.mobilenet_v2()
    bare = models.MobileNetV2(norm_layer=lambda channels: nn.Identity())
    count, clipped = len(convs(network)), sum(isinstance(m, nn.ReLU6) for m in network.modules())
    sizes = parameters(network), parameters(bare)
    figures = (count, clipped, count - clipped, *sizes)
    assert [row[1] for row in lesson.tables[0]] == [f"{n:,}" for n in figures]
    with torch.no_grad():
        x = torch.randn(4, 3, 128, 128)
        normed, shrunk = (float(m.train().features(x).std()) for m in (network, bare))
    assert f"{normed:.1f}" == "0.6" and shrunk < 1e-8
    lesson.says("0.6", "0.00000001")

    x = torch.tensor([1.0, -2.0]).view(1, 1, 1, 2)
    middle = [0.0, 0, 0, 0, 2, 0, 0, 0, 0]
    kernels = [torch.tensor(k) for k in ([7.0, -1.0], middle * 2, [-1.0, -1.0])]
    theirs = import_torchvision().models.mobilenetv2.InvertedResidual(1, 1, 1, 2)
    answers = []
    for block in (
        lesson.code.InvertedResidual(1, 1, 2),
        lesson.code.WrongInvertedResidual(1, 2),
        theirs,
    ):
        for conv, kernel in zip(convs(block.eval()), kernels, strict=True):
            conv.weight.data = kernel.view_as(conv.weight)
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)
        for norm in (m for m in block.modules() if isinstance(m, nn.BatchNorm2d)):
            norm.eps = 0.0
        answers.append(block(x).flatten().tolist())
    assert answers[0] == answers[2]
    written = [[float(cell) for cell in row[1:]] for row in lesson.tables[1]]
    assert written == [x.flatten().tolist(), answers[0], answers[1]]


def test_mobilenet_v3_pools_before_its_widest_layer(lesson: Lesson) -> None:
    network = import_torchvision().models.mobilenet_v3_large()
    right, wrong = lesson.code.tail, lesson.code.wrong_tail
    theirs = nn.Sequential(network.features[-1], network.avgpool, nn.Flatten(), network.classifier)
    macs = lesson.code.macs
    assert parameters(right) == parameters(wrong) == parameters(theirs)
    ends = [macs(tail, 1, 160, 7, 7) for tail in (right, wrong, theirs)]
    assert ends[0] == ends[2]
    narrow, last = macs(right[0], 1, 160, 7, 7), macs(right[-1], 1, 1280)
    rows = [[narrow] * 2, [end - narrow - last for end in ends[:2]], [last] * 2]
    whole = macs(import_torchvision().models.mobilenet_v3_large(), 1, 3, 224, 224)
    rows.append([whole, whole - ends[0] + ends[1]])
    assert [row[1:] for row in lesson.tables[0]] == [[f"{n:,}" for n in row] for row in rows]
    lesson.says(f"{parameters(import_torchvision().models.mobilenet_v3_large()):,}")
    expanded = [convs(block)[0].out_channels for block in network.features[-4:-1]]
    lesson.says(", ".join(map(str, expanded)))


def test_uib_is_one_path(lesson: Lesson) -> None:
    import_timm()
    from timm.models._efficientnet_blocks import UniversalInvertedResidual

    forms = ((0, 0), (3, 0), (0, 3), (3, 3))
    x = torch.randn(2, 96, 14, 14)
    for (start, middle), row in zip(forms, lesson.tables[0], strict=False):
        theirs = UniversalInvertedResidual(
            96, 96, start, middle, exp_ratio=2.0, layer_scale_init_value=None
        ).eval()
        randomise(theirs)
        page = lesson.code.UIB(96, 2, start, middle)
        ours = blocks.UIB(96, 96, start, middle, expand=2.0)
        for block in (page, ours):
            state = list(theirs.state_dict().values())
            block.load_state_dict(dict(zip(block.state_dict(), state, strict=True)))
            assert torch.allclose(block.eval()(x), theirs(x), atol=1e-5)
        weights = sum(conv.weight.numel() for conv in convs(theirs))
        side = ["3x3" if kernel else "-" for kernel in (start, middle)]
        assert row[1:] == [*side, f"{weights:,}", f"{lesson.code.macs(theirs, 1, 96, 14, 14):,}"]
    wrong = lesson.code.WrongUIB(96, 2)
    weights = sum(conv.weight.numel() for conv in convs(wrong))
    assert lesson.tables[0][4][3:] == [
        f"{weights:,}",
        f"{lesson.code.macs(wrong, 1, 96, 14, 14):,}",
    ]


def test_mobile_mqa_shares_and_strides_its_keys_and_values(lesson: Lesson) -> None:
    import_timm()
    from timm.layers import MultiQueryAttention2d

    def products(module: nn.Module, *inputs: Tensor) -> int:
        """MACs of the matrix products whose two sides both depend on the image."""
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            module.to("meta")(*inputs)
        kinds = counter.get_flop_counts()["Global"].items()
        return sum(n for kind, n in kinds if "bmm" in str(kind) or "attention" in str(kind)) // 2

    assert len(lesson.tables[0]) == 4
    for row in lesson.tables[0]:
        channels, side, stride = int(row[0]), int(row[2].split(" x ")[0]), int(row[3])
        heads, dim = map(int, row[1].split(" x "))
        theirs = MultiQueryAttention2d(
            channels, num_heads=heads, key_dim=dim, value_dim=dim, kv_stride=stride
        )
        ours = blocks.MobileMQA(channels, heads, dim, stride)
        wrong = nn.MultiheadAttention(channels, heads, batch_first=True)
        shared = parameters(ours) - parameters(ours.norm)
        assert shared == parameters(theirs)
        x = torch.empty(1, channels, side, side, device="meta")
        flat = torch.empty(1, side * side, channels, device="meta")
        macs = products(ours, x), products(wrong, flat, flat, flat)
        assert macs[0] == products(theirs, x)
        expected = [shared, macs[0], parameters(wrong), macs[1]]
        assert row[2:] == [f"{side} x {side}", str(stride), *(f"{n:,}" for n in expected)]
    assert parameters(lesson.code.attention) == 105_920 + 2 * 160
    assert parameters(lesson.code.wrong_attention) == 103_040


def test_grn_divides_by_the_mean_and_starts_as_the_identity(lesson: Lesson) -> None:
    import_timm()
    from timm.layers.grn import GlobalResponseNorm

    x = torch.tensor([[3.0, 4.0], [0.0, 15.0]]).view(1, 2, 1, 2)
    one, zero = torch.ones(1, 2, 1, 1), torch.zeros(1, 2, 1, 1)
    torch.manual_seed(0)
    theirs, ours = GlobalResponseNorm(2, channels_last=False), blocks.GRN(2)
    for oracle in (theirs, ours):
        oracle.weight.data, oracle.bias.data = torch.tensor([2.0, -3.0]), torch.tensor([0.5, 1.0])
        answer = lesson.code.grn(x, oracle.weight.view(1, 2, 1, 1), oracle.bias.view(1, 2, 1, 1))
        assert torch.allclose(oracle(x), answer)

    def weights(answer: Tensor, of: Tensor) -> str:
        first, second = (answer / of)[0, :, 0, 1].tolist()
        return f"{first:.1f} and {second:.1f}"

    for row, many in zip(lesson.tables[0], (x, 10 * x), strict=True):
        right = lesson.code.grn(many, one, zero) - many
        wrong = lesson.code.wrong_grn(many, one, zero)
        assert row[1:] == [weights(right, many), weights(wrong, many)]
    fresh = lesson.code.grn(x, zero, zero), lesson.code.wrong_grn(x, zero, zero)
    pairs = [[tuple(map(int, channel)) for channel in y.view(2, 2).tolist()] for y in fresh]
    assert lesson.tables[1][0][1:] == [f"{a}, {b}" for a, b in pairs]


def test_tensorflows_weights_need_its_padding_and_epsilon(lesson: Lesson) -> None:
    import_timm()
    from timm.layers import Conv2dSame

    conv = Conv2dSame(1, 1, 3, 2, bias=False)
    conv.weight.data = lesson.code.ones
    assert torch.equal(conv(lesson.code.numbers), lesson.code.right_windows)
    for row, sums in zip(
        lesson.tables[0], (lesson.code.right_windows, lesson.code.wrong_windows), strict=True
    ):
        assert row[1] == ", ".join(str(int(n)) for n in sums.flatten())

    checkpoint = choose("efficientnet_lite0")
    if not checkpoint.source.ready:
        pytest.skip(checkpoint.source.how)
    model = load_pretrained("efficientnet_lite0")
    assert (model.network.spec.padding, model.network.spec.norm_eps) == ("same", 1e-3)
    for row in lesson.tables[1]:
        image = Image.fromarray(getattr(skimage.data, row[0])())
        pixels = torch.from_numpy(model.preprocess.pixels(image))[None]
        logits = []
        for change in ({}, {"padding": "symmetric"}, {"norm_eps": 1e-5}):
            network = build(replace(model.network.spec, **change)).eval()
            network.load_state_dict(model.network.state_dict())
            with torch.inference_mode():
                logits.append(network(model.preprocess.normalise(pixels))[0])
        right = logits[0]
        assert {int(answer.argmax()) for answer in logits} == {int(right.argmax())}
        moved = [float((wrong - right).norm() / right.norm()) for wrong in logits[1:]]
        assert row[1:] == [f"{distance:.0%}" for distance in moved]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_dynamic_quantization_leaves_convolutions_alone(lesson: Lesson) -> None:
    def size(network: nn.Module) -> int:
        file = io.BytesIO()
        torch.save(network.state_dict(), file)
        return file.tell()

    models = import_torchvision().models
    names = ("mobilenet_v2", "mobilenet_v3_large", "efficientnet_b0", "resnet50")
    for name, row in zip(names, lesson.tables[0], strict=True):
        network = models.get_model(name).eval()
        small = lesson.code.wrong_quantize(network)
        linear = [m for m in small.modules() if isinstance(m, torch.ao.nn.quantized.dynamic.Linear)]
        counts = len(convs(network)), len(convs(small)), len(linear)
        assert row[1:] == [*map(str, counts), f"x {size(small) / size(network):.2f}"]
        assert all(conv.weight.dtype == torch.float32 for conv in convs(small))
