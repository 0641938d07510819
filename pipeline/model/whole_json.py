"""Conversion of nouns to JSON values and back with every field.

`pipeline.model.json_form` writes what takes part in comparisons, by declared types. Here places in recipes and texts
for people are written too: every field, and a value of any type by its own class. It is no format of documents: a value
is read by the same version of relbuild that wrote it, and under a seal.

None, booleans, integers and texts stand for themselves, an array is a tuple, and an object has one member that tells
what its value is. An instance is the number of its class, and its fields in their order.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from enum import StrEnum
from pathlib import Path, PosixPath

_ROOMS = ("pipeline.model.", "pipeline.digest")
"""Beginnings of the names of modules that declare nouns."""

_PLAIN = (type(None), bool, int, str)
_ITEMS = {"list": list, "set": frozenset}


def to_whole_json(value: object) -> object:
    """Return a value as JSON values.

    Raises TypeError for one that is no noun, nor made of nouns.
    """
    writer = _Writer()
    return {"value": writer.written(value), "classes": writer.classes}


def from_whole_json(value: object) -> object:
    """Return the value that was written.

    Raises ValueError, TypeError, LookupError, and what its class raises.
    """
    if not isinstance(value, dict) or value.keys() != {"value", "classes"}:
        raise ValueError("not a written noun")
    return _read(value["value"], [_class(name) for name in value["classes"]])


class _Writer:
    def __init__(self) -> None:
        self._numbers: dict[type, int] = {}
        self.classes: list[str] = []

    def written(self, value: object) -> object:
        kind = type(value)
        if kind in _PLAIN:
            return value
        if isinstance(value, tuple) and kind is tuple:
            return [self.written(item) for item in value]
        if isinstance(value, dict) and kind is dict:
            return {"map": [[self.written(key), self.written(item)] for key, item in value.items()]}
        if isinstance(value, list) and kind is list:
            return {"list": [self.written(item) for item in value]}
        if isinstance(value, frozenset) and kind is frozenset:
            return {"set": sorted((self.written(item) for item in value), key=repr)}
        if isinstance(value, float) and kind is float:
            return {"float": value.hex()}
        if isinstance(value, PosixPath):
            return {"path": str(value)}
        if isinstance(value, StrEnum):
            return {"enum": [self._number(kind), value.value]}
        if is_dataclass(value):
            return {"of": [self._number(kind), *(self.written(getattr(value, one.name)) for one in fields(value))]}
        raise TypeError(f"{kind} has no JSON form")

    def _number(self, kind: type) -> int:
        number = self._numbers.get(kind)
        if number is None:
            name = f"{kind.__module__}:{kind.__qualname__}"
            if _class(name) is not kind:
                raise TypeError(f"{name} is another class")
            number = self._numbers[kind] = len(self.classes)
            self.classes.append(name)
        return number


def _class(name: str) -> type:
    module, _, own = name.partition(":")
    if not module.startswith(_ROOMS):
        raise TypeError(f"{name} is no noun")
    found = getattr(importlib.import_module(module), own, None)
    if not isinstance(found, type) or not (is_dataclass(found) or issubclass(found, StrEnum)):
        raise TypeError(f"{name} is no noun")
    return found


def _read(value: object, classes: Sequence[type]) -> object:
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, list):
        return tuple([_read(item, classes) for item in value])
    if not isinstance(value, dict):
        raise TypeError(f"{type(value)} is not written")
    ((what, inner),) = value.items()
    match what:
        case "of":
            return _instance(classes[inner[0]], [_read(item, classes) for item in inner[1:]])
        case "enum":
            return classes[inner[0]](inner[1])
        case "list" | "set":
            return _ITEMS[what](_read(item, classes) for item in inner)
        case "map":
            return {_read(key, classes): _read(item, classes) for key, item in inner}
        case "path":
            return Path(inner)
        case "float":
            return float.fromhex(inner)
    raise ValueError(f"unknown form {what}")


def _instance(kind: type, values: Sequence[object]) -> object:
    own = fields(kind)
    return kind(**{one.name: item for one, item in zip(own, values, strict=True)})
