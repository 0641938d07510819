"""Nouns as JSON and back, by their declared types: what is read is exactly what could have been written.

A dataclass is an object with a member for each field (but those that do not take part in comparisons: where in a
recipe something stood); where one of several may stand, `type` says which. A tuple is an array, a digest its text. A
fraction is a text, because canonical JSON has none. A member too many or too few, or a value of another type, is
refused: nothing is guessed and nothing converted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from enum import StrEnum
from functools import cache
from types import NoneType, UnionType
from typing import TypeVar, Union, get_args, get_origin, get_type_hints

from pipeline.digest import DiffId, Digest
from pipeline.errors import VerificationError

Noun = TypeVar("Noun")

_TAG = "type"


def to_json(value: object) -> object:
    """A dataclass as JSON values that `from_json` makes the same one of."""
    return _written(type(value), value)


def from_json(kind: type[Noun], value: object) -> Noun:
    """JSON values as a `kind`. Raises ValueError with the path of what is wrong."""
    made = _read(kind, value, "$")
    assert isinstance(made, kind)
    return made


# --- writing -------------------------------------------------------------------------------------------


def _written(declared: object, value: object) -> object:
    if value is None:
        return None
    if get_origin(declared) in (Union, UnionType):
        return _written_one_of(declared, value)
    if get_origin(declared) is tuple:
        assert isinstance(value, tuple)
        return [_written(inner, item) for inner, item in zip(_items(declared, len(value)), value, strict=True)]
    if isinstance(value, Digest | DiffId | StrEnum):
        return str(value)
    kind: type = type(value)
    if is_dataclass(kind):
        return {name: _written(inner, getattr(value, name)) for name, inner in _members(kind)}
    if declared is float:
        assert isinstance(value, int | float)
        return repr(float(value))
    if type(value) not in (str, int, bool):
        raise TypeError(f"{value!r} has no JSON form")
    return value


def _written_one_of(declared: object, value: object) -> object:
    kinds = _kinds(declared)
    if len(kinds) == 1:
        return _written(kinds[0], value)
    written = _written(type(value), value)
    return {_TAG: type(value).__name__, **(written if isinstance(written, dict) else {"value": written})}


# --- reading -------------------------------------------------------------------------------------------


def _read(declared: object, value: object, where: str) -> object:
    origin = get_origin(declared)
    if origin in (Union, UnionType):
        return _read_one_of(declared, value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise ValueError(f"{where} is no array")
        kinds = _items(declared, len(value))
        if len(kinds) != len(value):
            raise ValueError(f"{where} has {len(value)} items, not {len(kinds)}")
        pairs = enumerate(zip(kinds, value, strict=True))
        return tuple(_read(kind, item, f"{where}[{index}]") for index, (kind, item) in pairs)
    if not isinstance(declared, type):
        raise TypeError(f"{declared!r} is no type that can be read")
    if declared in (str, int, bool):
        if type(value) is not declared:
            raise ValueError(f"{where} is no {declared.__name__}")
        return value
    if declared is float or issubclass(declared, Digest | DiffId | StrEnum):
        return _read_text(declared, value, where)
    return _read_object(declared, value, where)


def _read_text(declared: type[Digest | DiffId | StrEnum | float], value: object, where: str) -> object:
    if not isinstance(value, str):
        raise ValueError(f"{where} is no text")
    try:
        if issubclass(declared, Digest | DiffId):
            return declared.parse(value)
        made: object = float(value) if declared is float else _made(declared, {"value": value})
    except (ValueError, VerificationError) as error:
        raise ValueError(f"{where}: {error}") from error
    if isinstance(made, float) and (math.isnan(made) or repr(made) != value):
        raise ValueError(f"{where} is no fraction in its shortest form")
    return made


def _read_object(declared: type, value: object, where: str) -> object:
    if not isinstance(value, dict):
        raise ValueError(f"{where} is no object")
    members = _members(declared)
    unlike = sorted({name for name, _ in members} ^ {str(key) for key in value})
    if unlike:
        raise ValueError(f"{where} lacks, or has without reason, {', '.join(unlike)[:200]}")
    return _made(declared, {name: _read(inner, value[name], f"{where}.{name}") for name, inner in members})


def _made(make: Callable[..., object], members: Mapping[str, object]) -> object:
    return make(**members)


def _read_one_of(declared: object, value: object, where: str) -> object:
    kinds = _kinds(declared)
    if value is None and NoneType in get_args(declared):
        return None
    if len(kinds) == 1:
        return _read(kinds[0], value, where)
    if not isinstance(value, dict) or not isinstance(value.get(_TAG), str):
        raise ValueError(f"{where} does not say what it is")
    named = next((kind for kind in kinds if isinstance(kind, type) and kind.__name__ == value[_TAG]), None)
    if named is None:
        raise ValueError(f"{where} is none of {', '.join(getattr(kind, '__name__', '?') for kind in kinds)}")
    if issubclass(named, StrEnum):
        if value.keys() != {_TAG, "value"}:
            raise ValueError(f"{where} has other members than its type and its value")
        return _read(named, value["value"], where)
    return _read(named, {key: inner for key, inner in value.items() if key != _TAG}, where)


# --- types ---------------------------------------------------------------------------------------------


@cache
def _members(kind: type) -> tuple[tuple[str, object], ...]:
    """The fields of a dataclass, with their types."""
    if not is_dataclass(kind):
        raise TypeError(f"{kind!r} has no JSON form")
    hints = get_type_hints(kind)
    return tuple((field.name, hints[field.name]) for field in fields(kind) if field.compare)


@cache
def _kinds(declared: object) -> tuple[object, ...]:
    """What may stand where one of several may, nothing left out."""
    return tuple(kind for kind in get_args(declared) if kind is not NoneType)


def _items(declared: object, length: int) -> tuple[object, ...]:
    """The type of each item of a tuple."""
    arguments = get_args(declared)
    return arguments[:1] * length if len(arguments) == 2 and arguments[1] is ... else arguments
