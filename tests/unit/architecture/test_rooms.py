"""The table of rooms in docs/architecture.md, held against what the code imports and calls."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

import pytest

from tests.support.source import PIPELINE, ROOT, dotted, nodes, trees

DOCUMENT = (ROOT / "docs" / "architecture.md").read_text()


@dataclass(frozen=True)
class Room:
    """A row of the table: `doors` are libraries, calls (`os.fork()`) and attributes that only it may use."""

    name: str
    floor: int
    position: int
    doors: tuple[str, ...]


def _rooms() -> dict[str, Room]:
    rows = re.findall(r"^\| (\d) \| `(\w+)/?` \| [^|]+ \|([^|]*)\|$", DOCUMENT, re.MULTILINE)
    return {
        name: Room(name, int(floor), position, tuple(re.findall("`([^`]+)`", doors)))
        for position, (floor, name, doors) in enumerate(rows)
    }


ROOMS = _rooms()
DOORS = sorted({door for room in ROOMS.values() for door in room.doors})
(_NOBODY,) = re.findall(r"^Nobody uses (.*)\.$", DOCUMENT, re.MULTILINE)
NOBODY = re.findall("`([^`]+)`", _NOBODY)


@dataclass(frozen=True)
class Use:
    """Something that a file imports (`import x`), calls (`x()`) or names (`x`)."""

    path: Path
    line: int
    kind: str
    name: str

    @property
    def room(self) -> str:
        return self.path.relative_to(PIPELINE).parts[0].removesuffix(".py")

    def __str__(self) -> str:
        return f"{self.path.relative_to(PIPELINE)}:{self.line} uses {self.name}"


@cache
def _uses() -> tuple[Use, ...]:
    return tuple(use for path, tree in trees().items() for use in _of(path, tree))


def _of(path: Path, tree: ast.Module) -> Iterator[Use]:
    for node in nodes(tree):
        if isinstance(node, ast.Import):
            yield from (Use(path, node.lineno, "import", one.name) for one in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the room"
            names = [one.name for one in node.names] if node.module == "pipeline" else [""]
            yield from (Use(path, node.lineno, "import", f"{node.module}.{name}".rstrip(".")) for name in names)
            # `from os import fork` is the call's door too.
            yield from (Use(path, node.lineno, "call", f"{node.module}.{one.name}") for one in node.names)
        elif isinstance(node, ast.Call):
            yield Use(path, node.lineno, "call", dotted(node.func))
        elif isinstance(node, ast.Attribute):
            yield Use(path, node.lineno, "attribute", dotted(node))
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            yield Use(path, node.lineno, "path", f"{dotted(node.left)} /")


def _through(door: str) -> list[Use]:
    """All uses of what is behind a door."""
    if door.endswith("()"):
        return [use for use in _uses() if use.kind == "call" and fnmatchcase(use.name, door[:-2])]
    if door.endswith(" /"):
        return [
            use
            for use in _uses()
            if use.kind == "path"
            and f".{use.name}".endswith((f".{door}", f"._{door}", "self.root /"))
            and (use.room == "store" or "store" in use.name)
        ]
    return [
        use
        for use in _uses()
        if (use.kind == "import" and f"{use.name}.".startswith(f"{door}."))
        or (use.kind == "attribute" and "." in door and use.name == door)
    ]


def test_every_room_stands_in_the_table_and_nothing_else_does() -> None:
    found = {path.name.removesuffix(".py") for path in PIPELINE.iterdir() if path.is_dir() or path.suffix == ".py"}
    assert ROOMS.keys() == found - {"__init__", "__pycache__"}, "see docs/architecture.md, The rooms"


def test_imports_only_go_down() -> None:
    offences = []
    for use in _uses():
        parts = use.name.split(".")
        if use.kind != "import" or parts[0] != "pipeline" or len(parts) < 2 or use.room == "__init__":
            continue
        if parts[1] == use.room or parts[1] in ("FORMAT", "__version__"):
            continue
        room, target = ROOMS[use.room], ROOMS[parts[1]]
        below = target.position < room.position if room.floor == 0 else target.floor < room.floor
        if not below or target.floor > room.floor:
            offences.append(f"{use}: {room.name} ({room.floor}) → {target.name} ({target.floor})")
    assert not offences, "\n".join(offences)


@pytest.mark.parametrize("door", DOORS)
def test_only_the_door_touches_what_is_behind_it(door: str) -> None:
    allowed = {room.name for room in ROOMS.values() if door in room.doors}
    uses = _through(door)
    offences = [str(use) for use in uses if use.room not in allowed]
    assert not offences, "\n".join(offences)
    assert allowed == {use.room for use in uses}, f"the table names a door to {door} where nothing uses it"


@pytest.mark.parametrize("door", NOBODY)
def test_nobody_uses_what_nobody_may(door: str) -> None:
    assert [str(use) for use in _through(door)] == []


def test_unit_tests_stand_in_the_folder_of_their_room_and_helpers_in_support() -> None:
    unit = ROOT / "tests" / "unit"
    own = {"ground", "architecture", "__pycache__"}
    folders = {path.name for path in unit.iterdir() if path.is_dir()}
    assert folders - own <= ROOMS.keys(), "see docs/architecture.md, The rooms"
    beside = [
        str(path.relative_to(ROOT))
        for path in (*unit.rglob("*.py"), *(ROOT / "tests" / "system").glob("*.py"))
        if not path.name.startswith("test_") and path.name not in ("__init__.py", "conftest.py")
    ]
    assert beside == [], "what tests share stands in tests/support"
    assert [path.name for path in (ROOT / "tests" / "support").glob("test_*")] == []
