"""Names of a room that are imported from its modules when they are first asked for.

A room's door names all that others may use. Were each of its modules imported with it, a command would load, over a few
doors, nearly the whole program: half a second of CPU before the first line of work. PEP 562 lets a package import a
name when somebody asks for it; here the names stand in ordinary import statements, which type checkers read:

    with imported_when_used(__name__):
        from pipeline.store.blobs import BlobWriter
"""

from __future__ import annotations

import builtins
import importlib
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType

from pipeline.lazy_dataclasses import dataclass

_exchange = threading.RLock()
"""Held while the import function is exchanged: two threads would put back each other's."""


@dataclass(frozen=True, slots=True)
class _Source:
    """The module that defines a name, and the name there."""

    module: str
    name: str


class _Named:
    """Stands for a module from which names are imported."""

    def __init__(self, module: str) -> None:
        self._module = module

    def __getattr__(self, name: str) -> _Source:
        return _Source(self._module, name)


class _Room(ModuleType):
    """A package whose names are imported when they are first asked for."""

    _sources: dict[str, _Source]

    def __getattr__(self, name: str) -> object:
        source = self._sources.get(name)
        if source is None:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}", name=name, obj=self)
        if source.module == self.__name__:  # A module of the room, named as itself.
            return importlib.import_module(f"{source.module}.{source.name}")
        value: object = getattr(importlib.import_module(source.module), source.name)
        super().__setattr__(name, value)
        return value

    def __setattr__(self, name: str, value: object) -> None:
        # The import system sets each module at its package. A function of the same name keeps its place.
        source = self._sources.get(name)
        if source is None or source.module == self.__name__ or not isinstance(value, ModuleType):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._sources})


@contextmanager
def imported_when_used(package: str) -> Iterator[None]:
    """Delay the `from … import …` statements of the block until their names are asked for.

    Parameters:
        package: name of the package whose `__init__` contains the block.

    Errors: an import that fails does so when its name is asked for.
    """
    room = sys.modules[package]

    def note(
        name: str,
        names: Mapping[str, object] | None = None,
        local: Mapping[str, object] | None = None,
        wanted: Sequence[str] | None = (),
        level: int = 0,
    ) -> object:
        # Other threads may import meanwhile.
        if names is not vars(room) or not wanted:
            return real(name, names, local, wanted or (), level)
        return _Named(name)

    with _exchange:
        real = builtins.__import__
        builtins.__import__ = note  # type: ignore[assignment]  # typeshed names its parameters otherwise.
        try:
            yield
        finally:
            builtins.__import__ = real
    sources = {name: value for name, value in vars(room).items() if isinstance(value, _Source)}
    for name in sources:
        delattr(room, name)
    vars(room)["_sources"] = sources
    room.__class__ = _Room
