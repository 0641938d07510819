"""The table of rooms in docs/architecture.md, held against the code's imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PIPELINE = Path(__file__).parents[2] / "pipeline"

GROUND = {
    "urls": -1,
    "errors": 0,
    "beneath": 1,
    "system_errors": 1,
    "digest": 2,
    "process": 3,
    "progress": 3,
    "compression": 2,
    "streams": 3,
    "archives": 3,
    "documents": 3,
    "clone": 3,
    "drafts": 3,
    "escaping": 2,
    "limited": 4,
    "patterns": 5,
}
"""On the ground floor, in that order, a later room may use an earlier one: everything raises errors."""

FLOORS: dict[str, int] = {
    **dict.fromkeys(GROUND, 0),
    **dict.fromkeys(("model", "store", "render", "transfer"), 1),
    **dict.fromkeys(("recipes", "repos", "packages", "trees", "oci", "sandbox"), 2),
    **dict.fromkeys(("resolve", "layers", "smoke", "mirror"), 3),
    **dict.fromkeys(("gather", "launch", "materials", "reports", "site"), 4),
    **dict.fromkeys(("build", "release"), 5),
    "nightly": 6,
    "cli": 7,
    "__main__": 8,
}

DOORS: dict[str, tuple[str, ...]] = {
    "subprocess": ("process",),
    "zstandard": ("compression",),
    "deflate": ("compression",),
    "yaml": ("documents",),
    "jinja2": ("render",),
    "markupsafe": ("render",),
    "httpx": ("transfer",),
    "pydantic": ("recipes",),
    "rpm": ("packages",),
    "solv": ("resolve",),
    "cryptography": ("oci",),
    "nacl": ("oci",),
    "spdx_tools": ("oci",),
    "cyclonedx": ("oci",),
    "license_expression": ("oci",),
    "packageurl": ("oci",),
    "starlette": ("mirror",),
    "uvicorn": ("mirror",),
    "pyroute2": ("sandbox",),
    "ctypes": ("archives", "beneath", "sandbox", "drafts"),
    "libarchive": ("archives",),
    "typer": ("cli",),
    "rich": ("cli",),
    "dask": ("nightly",),
    "distributed": ("nightly",),
}


def _imports() -> Iterator[tuple[Path, str, str]]:
    """Every import in the code: file, its room, the imported module's full name."""
    for path in sorted(PIPELINE.rglob("*.py")):
        room = path.relative_to(PIPELINE).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                for name in node.names:
                    yield path, room, name.name
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: relative imports hide the room"
                if node.module == "pipeline":
                    for name in node.names:
                        yield path, room, f"pipeline.{name.name}"
                else:
                    yield path, room, node.module or ""


def test_every_room_has_a_floor() -> None:
    rooms = {path.name.removesuffix(".py") for path in PIPELINE.iterdir() if path.suffix in ("", ".py")}
    assert rooms - {"__init__", "__pycache__"} <= FLOORS.keys()


def test_imports_only_go_down() -> None:
    offences = []
    for path, room, module in _imports():
        parts = module.split(".")
        if parts[0] != "pipeline" or len(parts) < 2 or room == "__init__":
            continue
        target = parts[1]
        if target == room or target in ("FORMAT", "__version__"):
            continue
        if target in GROUND and room in GROUND:
            if GROUND[target] >= GROUND[room]:
                offences.append(f"{path.relative_to(PIPELINE)}: {room} → {target} (ground floor)")
        elif FLOORS[target] >= FLOORS[room]:
            offences.append(f"{path.relative_to(PIPELINE)}: {room} ({FLOORS[room]}) → {target} ({FLOORS[target]})")
    assert not offences, "\n".join(offences)


@pytest.mark.parametrize("library", sorted(DOORS))
def test_only_the_door_touches_the_library(library: str) -> None:
    offences = [
        f"{path.relative_to(PIPELINE)} imports {module}"
        for path, room, module in _imports()
        if module.split(".")[0] == library and room not in DOORS[library]
    ]
    assert not offences, "\n".join(offences)


def test_the_library_neither_prints_nor_exits_nor_reads_the_clock_or_environment() -> None:
    forbidden = {"print", "exit", "breakpoint", "input"}
    offences = []
    for path in sorted(PIPELINE.rglob("*.py")):
        room = path.relative_to(PIPELINE).parts[0].removesuffix(".py")
        if FLOORS.get(room, 9) >= FLOORS["cli"]:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in forbidden:
                offences.append(f"{path.relative_to(PIPELINE)}:{node.lineno} calls {node.func.id}")
            uses = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
            if uses in {"os.environ", "os.getenv", "sys.exit"} or (uses == "time.time" and room != "store"):
                offences.append(f"{path.relative_to(PIPELINE)}:{node.lineno} uses {uses}")
    assert not offences, "\n".join(offences)
