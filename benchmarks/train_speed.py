"""Images/s of training: ours, timm's script in both memory layouts, and a plain loop of PyTorch.

    python benchmarks/train_speed.py              # five networks, about ten minutes on two cores
    python benchmarks/train_speed.py --ceiling    # what the slowest gradients cost
    python benchmarks/train_speed.py --photo 4000x3000 --models efficientnet_lite0   # a phone's
    python benchmarks/train_speed.py --quick      # one network, a minute

Every way trains the same network from the same weights on the same JPEG photos: random crop and
flip, float32, AdamW, label smoothing, one decoding process a core. Ours and timm's keep a moving
average of the weights; the plain loop, which has our network, doesn't. "step" learns from one batch
in memory again and again; "data" is whole passes over photos on the disk, with all that an epoch
begins and ends with. The ways take turns; a ratio has its 95 % interval over the rounds.

`--ceiling` compares our step with one that leaves out the gradient of the 5x5 and 7x7 depthwise
weights: what the best of gradients could bring.

Rows are added to `train_speed.csv` network by network. What is in it is not measured again.
"""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from importlib import metadata
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `edgewise train` does; for all alike

import numpy as np
import torch
import torch.nn.functional as F
from bench import RESULTS, read_csv, write_csv
from pictures import PHOTO_SIZE, write_photos
from timm_train import SMOOTHING, Trainer, loader
from torch import Tensor, nn
from torch.utils.data import DataLoader

from edgewise.data.augment import Augment
from edgewise.data.dataset import Sample
from edgewise.data.loader import View, training_batches
from edgewise.errors import EdgewiseError
from edgewise.libraries import import_library
from edgewise.measure.latency import time_ms
from edgewise.measure.rounds import Here, interleave, ratio
from edgewise.measure.store import machine_fingerprint
from edgewise.timing.peers import twin
from edgewise.training.learner import Learner
from edgewise.training.recipe import Recipe
from edgewise.training.start import preprocess_of

NETWORKS = (
    "mobilenet_v3_large",
    "mobilenet_v4_conv_small",
    "efficientnet_b0",
    "efficientnet_lite0",
    "convnext_atto",
)
BATCH, CLASSES, LR = 16, 8, 1e-3
EPOCHS = 100  # of which a few are run
SCALE = (0.08, 1.0)
OURS, FROZEN = "edgewise", "edgewise without 5x5 and 7x7 gradients"
Batches = Iterable[tuple[Tensor, Tensor]]
Rows = list[dict[str, object]]


@dataclass(frozen=True)
class Effort:
    """How large and how long.

    Attributes:
        imgsz: height and width of the input.
        photo: width and height of a photo on the disk.
        steps: seconds of timed steps of each way.
        step_rounds: in which they are.
        data: seconds of epochs of all ways together.
        data_rounds: in which they are.
    """

    imgsz: int = 128
    photo: tuple[int, int] = PHOTO_SIZE
    steps: float = 4.0
    step_rounds: int = 8
    data: float = 80.0
    data_rounds: int = 5


@dataclass(frozen=True)
class Way:
    """A way to train: what is done with a batch, and a folder's batches, epoch by epoch."""

    learn: Callable[[Tensor, Tensor], object]
    load: Callable[[Path], Callable[[int], Batches]]


def make_learner(name: str, imgsz: int, device: torch.device) -> Learner:
    """Ours, all of it learning."""
    recipe = Recipe(
        data="",
        model=name,
        pretrained=False,
        epochs=100,
        head_epochs=0,
        imgsz=imgsz,
        batch=BATCH,
        lr=LR,
        label_smoothing=SMOOTHING,
        dropout=0.0,
        drop_path=0.0,
        device=str(device),
    )
    learner = Learner(recipe, preprocess_of(recipe), [1] * CLASSES, steps_per_epoch=1000)
    learner.begin_epoch(0)
    return learner


def our_way(learner: Learner, workers: int) -> Way:
    """What `edgewise train` does."""
    view = View(learner.preprocess, Augment(flip=True, policy="none", scale=SCALE))

    def load(folder: Path) -> Callable[[int], Batches]:
        classes = sorted((folder / "train").iterdir())
        samples = [Sample(path, i, "") for i, own in enumerate(classes) for path in own.iterdir()]
        batches = training_batches(
            samples,
            lambda epoch: view,
            batch=BATCH,
            workers=workers,
            seed=0,
            epochs=range(EPOCHS),
        )
        ahead = iter(batches)
        return lambda epoch: islice(ahead, len(batches) // EPOCHS)

    return Way(lambda pixels, labels: learner.step(pixels, labels, 0), load)


def timm_way(
    network: nn.Module, imgsz: int, workers: int, device: torch.device, channels_last: bool
) -> Way:
    """What timm's script does."""
    trainer = Trainer(network.to(device), LR, 100, 1000, channels_last)

    def load(folder: Path) -> Callable[[int], Batches]:
        batches = loader(
            folder,
            "train",
            BATCH,
            workers,
            device,
            input_size=(3, imgsz, imgsz),
            scale=SCALE,
            color_jitter=None,
            interpolation="bilinear",
        )
        return lambda epoch: batches

    return Way(trainer.step, load)


def plain_way(network: nn.Module, imgsz: int, workers: int, device: torch.device) -> Way:
    """What a tutorial of PyTorch does: torchvision's data set and transforms, and five lines."""
    import_library("torchvision")
    from torchvision import datasets, transforms

    network = network.train().to(device, memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(network.parameters(), lr=LR)

    def learn(images: Tensor, labels: Tensor) -> None:
        images, labels = images.to(device), labels.to(device)
        optimizer.zero_grad()
        loss = F.cross_entropy(network(images), labels, label_smoothing=SMOOTHING)
        loss.backward()
        optimizer.step()
        loss.item()  # to be logged

    def load(folder: Path) -> Callable[[int], Batches]:
        view = transforms.Compose(
            [
                transforms.RandomResizedCrop(imgsz, scale=SCALE),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
            ]
        )
        photos = datasets.ImageFolder(str(folder / "train"), view)
        batches = DataLoader(photos, BATCH, shuffle=True, num_workers=workers)
        return lambda epoch: batches

    return Way(learn, load)


def make_ways(name: str, imgsz: int, workers: int, device: torch.device) -> dict[str, Way]:
    """All of them, with the same weights."""
    learner = make_learner(name, imgsz, device)
    network = deepcopy(learner.network).cpu()
    return {
        OURS: our_way(learner, workers),
        "timm": timm_way(twin("timm", name, network), imgsz, workers, device, False),
        "timm channels_last": timm_way(twin("timm", name, network), imgsz, workers, device, True),
        "plain loop": plain_way(network, imgsz, workers, device),
    }


def time_steps(
    ways: dict[str, Callable[[], object]], seconds: float, rounds: int
) -> dict[str, tuple[float, ...]]:
    """Milliseconds an image in each round, of steps on a batch in memory."""
    timings, failures = interleave({way: Here(step) for way, step in ways.items()}, seconds, rounds)
    assert not failures, failures
    return {way: tuple(ms / BATCH for ms in timing.rounds_ms) for way, timing in timings.items()}


def time_epochs(
    ways: dict[str, Way], folder: Path, photos: int, rounds: int
) -> dict[str, tuple[float, ...]]:
    """Milliseconds an image in each round, of whole epochs from the disk; one first to warm up."""
    loads = {name: way.load(folder) for name, way in ways.items()}
    times: dict[str, list[float]] = {name: [] for name in ways}
    order, shuffle = list(ways), np.random.default_rng(0)
    for epoch in range(rounds + 1):
        for name in (order[i] for i in shuffle.permutation(len(order))):

            def run(name: str = name, epoch: int = epoch) -> None:
                for images, labels in loads[name](epoch):
                    ways[name].learn(images, labels)

            times[name].append(time_ms(run) / photos)
    return {name: tuple(own[1:]) for name, own in times.items()}


def compare(name: str, effort: Effort, workers: int, device: torch.device, root: Path) -> Rows:
    """Both parts of one network."""
    ways = make_ways(name, effort.imgsz, workers, device)
    write_photos(root / "few" / "train", BATCH, effort.photo)
    steps = {}
    for way, made in ways.items():
        images, labels = next(iter(made.load(root / "few")(0)))
        steps[way] = lambda made=made, images=images, labels=labels: made.learn(images, labels)
    of_steps = time_steps(steps, effort.steps, effort.step_rounds)
    # As many photos as make the epochs last about as long as was asked for.
    at_once = sum(float(np.median(own)) for own in of_steps.values()) * (effort.data_rounds + 1)
    photos = BATCH * int(np.clip(effort.data * 1e3 / at_once / BATCH, 4, 64))
    write_photos(root / "many" / "train", photos, effort.photo)
    of_epochs = time_epochs(ways, root / "many", photos, effort.data_rounds)
    return [*table("step", BATCH, of_steps), *table("data", photos, of_epochs)]


def ceiling(name: str, effort: Effort, workers: int, device: torch.device, root: Path) -> Rows:
    """Our step with and without the gradients in question."""
    learners = {way: make_learner(name, effort.imgsz, device) for way in (OURS, FROZEN)}
    for module in learners[FROZEN].network.modules():
        if isinstance(module, nn.Conv2d) and module.groups > 1 and module.kernel_size[0] >= 5:
            module.weight.requires_grad_(False)
    write_photos(root / "train", BATCH)
    images, labels = next(iter(our_way(learners[OURS], workers).load(root)(0)))
    steps = {
        way: lambda learner=learner: learner.step(images, labels, 0)
        for way, learner in learners.items()
    }
    return table("ceiling", BATCH, time_steps(steps, 2 * effort.steps, 2 * effort.step_rounds))


def table(part: str, images: int, times: dict[str, Sequence[float]]) -> Rows:
    """A row a way; `ratio` says how many times as many images/s ours makes.

    Args:
        part: what was done.
        images: in a step or an epoch of it.
        times: milliseconds an image in each round, of each way.
    """
    rows: Rows = []
    for way, own in times.items():
        against = ratio(own, times[OURS])
        rate = 1e3 / float(np.median(own))
        rows.append(
            {
                "part": part,
                "way": way,
                "images": images,
                "images_per_second": round(rate, 2),
                "ratio": round(against.value, 3),
                "low": round(against.low, 3),
                "high": round(against.high, 3),
                "rounds": len(own),
            }
        )
    return rows


def circumstances(effort: Effort, workers: int, device: torch.device) -> dict[str, object]:
    """What the figures depend on, but for the network."""
    on_gpu = device.type == "cuda"
    return {
        "machine": machine_fingerprint(),
        "device": torch.cuda.get_device_name(device) if on_gpu else str(device),
        "torch": torch.__version__,
        "timm": metadata.version("timm"),
        "omp_wait_policy": os.environ["OMP_WAIT_POLICY"],
        "threads": torch.get_num_threads(),
        "workers": workers,
        "imgsz": effort.imgsz,
        "photo": "x".join(map(str, effort.photo)),
        "batch": BATCH,
    }


def main() -> None:
    """Measures what is missing, adds it to the file and prints it."""
    parser = ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one network, few rounds")
    parser.add_argument("--ceiling", action="store_true", help="the depthwise gradients' cost")
    parser.add_argument("--models", nargs="+", help="these networks instead of all five")
    parser.add_argument("--photo", help="width x height of the photos, as in 4000x3000")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    effort = Effort(32, PHOTO_SIZE, 0.1, 5, 1.0, 1) if arguments.quick else Effort()
    if arguments.photo:
        width, _, height = arguments.photo.partition("x")
        effort = replace(effort, photo=(int(width), int(height)))
    folder: Path = arguments.results / "quick" if arguments.quick else arguments.results
    path = folder / "train_speed.csv"
    device, workers = torch.device(arguments.device), torch.get_num_threads()
    here = circumstances(effort, workers, device)
    measure, part = (ceiling, "ceiling") if arguments.ceiling else (compare, "data")
    print("network,part,way,images/s,ratio,low,high", flush=True)
    for name in arguments.models or (NETWORKS[1:2] if arguments.quick else NETWORKS):
        wanted = {key: str(value) for key, value in (here | {"network": name}).items()}
        known = read_csv(path)
        rows = [row for row in known if wanted.items() <= row.items()]
        if not any(row["part"] == part for row in rows):
            with TemporaryDirectory() as root:
                rows = measure(name, effort, workers, device, Path(root))
            rows = [{**here, "network": name, **row} for row in rows]
            folder.mkdir(parents=True, exist_ok=True)
            write_csv(path, [*known, *rows], list(rows[0]))
        for row in rows:
            print(
                f"{name},{row['part']},{row['way']},{row['images_per_second']},"
                f"{row['ratio']},{row['low']},{row['high']}",
                flush=True,
            )


if __name__ == "__main__":
    try:
        main()
    except EdgewiseError as error:
        sys.exit(f"error: {error}")
