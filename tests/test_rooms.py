"""The arrows between the rooms: nothing imports from a room to its right."""

from __future__ import annotations

import ast
from pathlib import Path

import edgewise

PACKAGE = Path(edgewise.__file__).parent
ROOMS = (
    {"", "families"},  # "": the files beside the rooms
    {"weights", "measure", "data"},
    {"training"},
    {"deploy"},
    {"timing"},
    {"compress"},
    {"search"},
    {"reporting"},
    {"lessons"},
    {"cli"},
)


def room(module: str) -> str:
    """`edgewise.data.scan` -> "data"; `edgewise.spec` -> ""; what starts the verbs is theirs."""
    if module == "edgewise.__main__.py":
        return "cli"
    first = module.split(".")[1] if "." in module else ""
    return first if (PACKAGE / first).is_dir() else ""


def position(name: str) -> int:
    return next(i for i, rooms in enumerate(ROOMS) if name in rooms)


def test_nothing_imports_from_the_right() -> None:
    backwards = []
    for path in PACKAGE.rglob("*.py"):
        here = room(".".join(("edgewise", *path.relative_to(PACKAGE).parts)))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("edgewise"):
                there = room(str(node.module))
                if position(there) > position(here):
                    backwards.append(f"{path.relative_to(PACKAGE)} imports {node.module}")
    assert backwards == []


def test_every_room_has_its_place() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    assert folders == set().union(*ROOMS) - {""}
