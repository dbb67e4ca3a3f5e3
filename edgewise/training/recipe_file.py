"""Settings of a recipe as people write them: a TOML file, a name, or words such as epochs=5."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

import edgewise
from edgewise.errors import UsageError, unknown
from edgewise.training.progressive import MULTIPLE
from edgewise.training.recipe import Recipe

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDER = Path(edgewise.__file__).parent / "recipes"
SUFFIX = ".toml"
SETTINGS = tuple(Recipe.__dataclass_fields__)
# Of these a value such as 2024 is a name.
TEXTS = {
    name
    for name, setting in Recipe.__pydantic_fields__.items()  # type: ignore[attr-defined]
    if str in (setting.annotation, *get_args(setting.annotation))
}

WORDS = {"True": True, "False": False, "None": None}  # as Python writes what JSON has in small

# Two ways to say one thing, of which the one that is said above stands for both below.
INSTEAD = (("epochs", "minutes"), ("batch", "find_batch"), ("lr", "find_lr"))
# Words for a number, and the setting that they stand for.
FOUND = (("batch", "auto", "find_batch"), ("lr", "find", "find_lr"))

TRAINING_SIZES = {"train_imgsz", "first_imgsz"}  # that belong to an imgsz
LEAST_SIZE = 16  # of a recipe


def recipe_names() -> list[str]:
    """The recipes that come with edgewise."""
    return sorted(path.stem for path in FOLDER.glob(f"*{SUFFIX}"))


def read_settings(source: str) -> dict[str, Any]:
    """The settings in a TOML file, or in the recipe of that name.

    Raises:
        UsageError: there is none, it is not TOML, or a setting is unknown; the nearest are named.
    """
    path = Path(source)
    if path.suffix != SUFFIX:
        if source not in recipe_names():
            raise unknown("recipe", source, recipe_names())
        path = FOLDER / f"{source}{SUFFIX}"
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"can't read the recipe {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}") from None
    for name in settings:
        _check(name, f"{path}: ")
    return settings


def parse_settings(words: Iterable[str]) -> dict[str, Any]:
    """`epochs=5 lr=.01 flip=false model=mobilenet_v2` as settings.

    A value is read as JSON or as Python writes numbers and truths, and else taken as a word. One
    without a fraction is a whole number: `epochs=1e2`.

    Raises:
        UsageError: not of that form, or an unknown setting; the nearest are named.
    """
    settings = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise UsageError(f"'{word}' is not a setting such as epochs=5")
        _check(name)
        value = _value(text)
        settings[name] = text if name in TEXTS and isinstance(value, int | float) else value
    return settings


def _value(text: str) -> Any:
    if text in WORDS:
        return WORDS[text]
    for read in (json.loads, float):
        try:
            value = read(text)
        except ValueError:
            continue
        return int(value) if isinstance(value, float) and value.is_integer() else value
    return text


def laid_over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """The settings of both, where `above` decides: its `minutes` also replace `epochs` below.

    Its `imgsz` also scales the sizes of training below, so that they keep their parts of it. A
    batch of "auto" or a rate of "find" is one to be found.
    """
    replaced = {one for pair in INSTEAD for one, other in (pair, pair[::-1]) if above.get(other)}
    below = {name: value for name, value in below.items() if name not in replaced}
    old, new = below.get("imgsz"), above.get("imgsz")
    if isinstance(old, int) and isinstance(new, int) and new != old:
        for name in TRAINING_SIZES & below.keys():
            below[name] = _scaled(below[name], old, new)
    both = below | above
    for setting, word, found in FOUND:
        if both.get(setting) == word:
            both[found] = True
            del both[setting]
    return both


def _scaled(size: Any, old: int, new: int) -> Any:
    """A size beside an `imgsz` that was `old`; what is none is left for the recipe to refuse."""
    if size == old:
        return new
    if not isinstance(size, int):
        return size
    return max(LEAST_SIZE, round(size * new / old / MULTIPLE) * MULTIPLE)


def _check(name: str, where: str = "") -> None:
    if name not in SETTINGS:
        raise UsageError(f"{where}{unknown('setting', name, SETTINGS)}")
