"""Lookup and import of rpm's Python bindings that fit this interpreter."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import site
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

_VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"
_UNTAGGED = ".so"
"""The suffix of an extension that does not say which interpreter it was built for."""


def binding_folders() -> Iterator[Path]:
    """Yield folders that may have rpm's bindings: this interpreter's, then the distribution's."""
    yield from map(Path, sys.path)
    yield from map(Path, site.getsitepackages([sys.base_prefix]))
    yield Path("/usr/lib/python3/dist-packages")
    yield from (Path(prefix, _VERSION, "site-packages") for prefix in ("/usr/lib64", "/usr/lib"))


def load_bindings(folders: Sequence[Path]) -> ModuleType | None:
    """Import rpm's bindings from the first folder that has some for this interpreter.

    None if there are none. PyPI's package `rpm`, which only starts other interpreters to ask them, is not taken.
    """
    for folder in folders:
        if not _fits(folder):
            continue
        try:
            return _import_package("rpm", folder / "rpm")
        except ImportError:  # Of another rpm's library, for instance.
            for name in [name for name in sys.modules if name.partition(".")[0] == "rpm"]:
                del sys.modules[name]
    return None


def _fits(folder: Path) -> bool:
    """Return True if the folder has rpm's bindings, and they were built for this interpreter."""
    own = _VERSION in folder.parts
    suffixes = [one for one in importlib.machinery.EXTENSION_SUFFIXES if own or one != _UNTAGGED]
    return any((folder / "rpm" / f"_rpm{suffix}").is_file() for suffix in suffixes)


def _import_package(name: str, folder: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None:
        raise ImportError(name, name=name, path=str(folder))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
