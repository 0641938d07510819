"""Values that a shell completes: recipes, platforms, layouts, references on mirrors.

They are read from file names and lines, because loading recipes takes longer than a person waits for a key.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from pipeline.shipped import SHIPPED_RECIPES, platforms_file
from pipeline.user_home import home_folder

_PLATFORM = re.compile(r"^  (\w[\w.-]*):\s*(?:#.*)?$")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_MOST = 1000
"""Values that are offered at most: a terminal shows no more."""


def recipe_values(incomplete: str) -> Iterator[str]:
    """Yield names of recipes in recipes/ and files that may be recipes, which begin with a text."""
    if "/" not in incomplete:
        folders = [folder for folder in (Path("recipes"), *SHIPPED_RECIPES) if folder.is_dir()]
        found = {path.stem for folder in folders[:1] for path in folder.glob("*.yaml")} - {"repositories"}
        yield from sorted(name for name in found if name.startswith(incomplete))
    for path in _beginning_with(incomplete):
        if path.is_dir():
            yield f"{path}/"
        elif path.suffix in {".yaml", ".yml"} and path.stem != "repositories":
            yield str(path)


def platform_values(incomplete: str) -> Iterator[str]:
    """Yield the platforms of repositories.yaml in recipes/, in this folder, or of relbuild."""
    inside = False
    for line in platforms_file(Path("recipes"), Path()).read_text(errors="replace").splitlines():
        inside = line.startswith("platforms:") or (inside and (not line or line[0] in " #"))
        if inside and (found := _PLATFORM.match(line)) and found[1].startswith(incomplete):
            yield found[1]


def subject_values(incomplete: str) -> Iterator[str]:
    """Yield recipes and layouts."""
    yield from recipe_values(incomplete)
    yield from (str(path) for path in _layouts(incomplete))


def image_values(incomplete: str) -> Iterator[str]:
    """Yield layouts, and references on directory mirrors."""
    yield from (str(path) for path in _layouts(incomplete))
    yield from reference_values(incomplete)


def reference_values(incomplete: str) -> Iterator[str]:
    """Yield `dir:PATH/NAME:TAG` for directory mirrors below the path that was begun."""
    kind, colon, rest = incomplete.partition(":")
    if not colon:
        yield from (one for one in ("dir:", "registry://", "oci:") if one.startswith(incomplete))
        return
    if kind != "dir":
        return
    path, _, tag = rest.partition(":")
    root = next((one for one in (Path(path), *Path(path).parents) if (one / "repositories").is_dir()), None)
    if root is None:
        yield from (f"dir:{one}/" for one in _beginning_with(path) if one.is_dir())
        return
    held = root / "repositories"
    for manifests in sorted(held.glob("**/_tags"))[:_MOST]:
        name = manifests.parent.relative_to(held)
        reference = f"{root / name}"
        if ":" not in rest and reference.startswith(path):
            yield f"dir:{reference}:"
        elif ":" in rest and reference == path:
            names = sorted(one.name for one in manifests.iterdir() if not one.name.startswith(("sha256-", "move.")))
            yield from (f"dir:{reference}:{one}" for one in names[:_MOST] if one.startswith(tag))


def instance_values(incomplete: str) -> Iterator[str]:
    """Yield the names of instances in the store that the environment names, else in the user's."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "")
    if not cache.is_absolute():
        cache = Path(home_folder(os.environ) or "/", ".cache")
    store = Path(os.environ.get("RELBUILD_STORE") or Path(cache, "relbuild", "store"))
    names = sorted(path.name for path in (store / "instances").glob("[!.]*"))
    yield from (name for name in names if name.startswith(incomplete))


def _layouts(incomplete: str) -> Iterator[Path]:
    for path in _beginning_with(incomplete):
        if (path / "oci-layout").is_file():
            yield path
    for path in sorted(Path("output").glob("*/oci-layout")):
        if str(path.parent).startswith(incomplete):
            yield path.parent


def _beginning_with(text: str) -> Iterator[Path]:
    """Yield the files whose path begins with `text`; hidden ones only if asked for."""
    folder, name = (Path(text), "") if text.endswith("/") else (Path(text).parent, Path(text).name)
    try:
        found = sorted(folder.iterdir())
    except OSError:
        return
    for path in found[:_MOST]:
        if path.name.startswith(name) and (name.startswith(".") or not path.name.startswith(".")):
            yield path
