"""Conversion of dataclasses to JSON values and back, by their declared types.

What is read is exactly what could have been written.

A dataclass is an object with a member for each field (but those that do not take part in comparisons: where in a
recipe something stood); the members of an `EMBEDDED` field stand in the object itself. Where one of several may stand
(a union, or a class that is `OneOf` several), `type` says which. A tuple is an array, a digest its text. A fraction
is a text, because canonical JSON has none. A value of another type is refused: nothing is guessed and nothing
converted.

Documents that outlive a release (a night, evidence, a report) are read with `read_json`: members that are not known are
passed over, and one that is missing has its field's default, if it has one. So a field may be added to a noun, with a
default, and the document's format stays; a change that makes a former reader judge wrongly raises the format, and a
newer format is refused by name (`refuse_newer`). What stays within a release (identities, results in the store) is read
with `from_json`: there a member too many or too few is refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import StrEnum
from functools import cache
from types import MappingProxyType, NoneType, UnionType
from typing import TypeVar, Union, get_args, get_origin, get_type_hints

from pipeline.digest import DiffId, Digest, canonical_json
from pipeline.errors import VerificationError

_Value = TypeVar("_Value")

_TAG = "type"
_PLAIN = frozenset((str, int, bool))
"""Types whose values are JSON values of the same meaning."""
EMBEDDED: Mapping[str, bool] = MappingProxyType({"embedded": True})
"""Metadata of a field that is a dataclass and whose members stand in JSON beside those of the outer one: one object to
readers, two to those who fill it."""


class OneOf:
    """Base of classes of which any may stand where the one that overrides `kinds` is declared."""

    __slots__ = ()

    @classmethod
    def kinds(cls) -> tuple[type, ...]:
        """Return the classes that are allowed as a value."""
        raise NotImplementedError


def to_json(value: object) -> object:
    """Return a dataclass as JSON values, from which `from_json` makes an equal one."""
    return _written(type(value), value)


def from_json(kind: type[_Value], value: object) -> _Value:
    """JSON values as a `kind`. Raises ValueError with the path of what is wrong."""
    made = _read(kind, value, "$", lenient=False)
    assert isinstance(made, kind)
    return made


def read_json(kind: type[_Value], value: object) -> _Value:
    """Read JSON values of this or another release as a `kind`.

    Raises ValueError with the path of what is wrong.
    """
    made = _read(kind, value, "$", lenient=True)
    assert isinstance(made, kind)
    return made


def refuse_newer(what: str, version: object, known: int) -> None:
    """Refuse a document by its format.

    Raises VerificationError `format-newer` that names the way out, ValueError where `version` is none that was ever
    written.
    """
    if type(version) is not int or version < 1:
        raise ValueError(f"{what} has no format")
    if version > known:
        raise VerificationError(
            "format-newer",
            f"{what} was made by a newer relbuild: it has format {version}, and this one reads up to {known}",
            hint="use the relbuild version that made it, or a newer one",
        )


def is_canonical(data: bytes) -> bool:
    """Return whether JSON text is written as relbuild writes it.

    Keys are unique and in order, and there is no space, no fraction, and no half of a surrogate pair. Unknown members
    may hold anything. Text that is no JSON, or is nested too deeply, is not canonical either.
    """
    try:
        return canonical_json(json.loads(data)) == data
    except (TypeError, ValueError, RecursionError):
        return False


def extends(document: object, written: object, *, optional: bool = False) -> bool:
    """Return whether a document says all of what would be `written`, the same way.

    Its objects may have more members. `optional`: they may also lack members, as those that have a default.
    """
    if isinstance(written, dict):
        return isinstance(document, dict) and all(
            extends(document[key], inner, optional=optional) if key in document else optional
            for key, inner in written.items()
        )
    if isinstance(written, list):
        if not isinstance(document, list) or len(document) != len(written):
            return False
        return all(extends(one, other, optional=optional) for one, other in zip(document, written, strict=True))
    return type(document) is type(written) and document == written


# --- writing -------------------------------------------------------------------------------------------


def _written(declared: object, value: object) -> object:
    kind: type = type(value)
    # Most values are plain, and they are many: a night writes some hundred thousand.
    if value is None or (kind is declared and kind in _PLAIN):
        return value
    if _is_choice(declared):
        return _written_one_of(declared, value)
    if _is_tuple(declared):
        assert isinstance(value, tuple)
        return [_written(inner, item) for inner, item in zip(_items(declared, len(value)), value, strict=True)]
    if issubclass(kind, Digest | DiffId | StrEnum):
        return str(value)
    if is_dataclass(kind):
        return _written_object(kind, value)
    if declared is float:
        assert isinstance(value, int | float)
        return repr(float(value))
    if kind not in _PLAIN:
        raise TypeError(f"{value!r} has no JSON form")
    return value


def _written_object(kind: type, value: object) -> dict[str, object]:
    made: dict[str, object] = {}
    embedded = _embedded(kind)
    for name, inner in _members(kind):
        written = _written(inner, getattr(value, name))
        if name in embedded:
            assert isinstance(written, dict)
            made |= written
        else:
            made[name] = written
    return made


def _written_one_of(declared: object, value: object) -> object:
    kinds = _kinds(declared)
    if len(kinds) == 1:
        return _written(kinds[0], value)
    written = _written(type(value), value)
    return {_TAG: type(value).__name__, **(written if isinstance(written, dict) else {"value": written})}


# --- reading -------------------------------------------------------------------------------------------


def _read(declared: object, value: object, where: str, *, lenient: bool) -> object:
    if _is_choice(declared):
        return _read_one_of(declared, value, where, lenient=lenient)
    if _is_tuple(declared):
        if not isinstance(value, list):
            raise ValueError(f"{where} is not an array")
        kinds = _items(declared, len(value))
        if len(kinds) != len(value):
            raise ValueError(f"{where} has {len(value)} items, not {len(kinds)}")
        pairs = enumerate(zip(kinds, value, strict=True))
        return tuple(_read(kind, item, f"{where}[{index}]", lenient=lenient) for index, (kind, item) in pairs)
    if not isinstance(declared, type):
        raise TypeError(f"{declared!r} is not a readable type")
    if declared in _PLAIN:
        if type(value) is not declared:
            raise ValueError(f"{where} is not a {declared.__name__}")
        return value
    if declared is float or issubclass(declared, Digest | DiffId | StrEnum):
        return _read_text(declared, value, where)
    return _read_object(declared, value, where, lenient=lenient)


def _read_text(declared: type[Digest | DiffId | StrEnum | float], value: object, where: str) -> object:
    if not isinstance(value, str):
        raise ValueError(f"{where} is not text")
    try:
        if issubclass(declared, Digest | DiffId):
            return declared.parse(value)
        made: object = float(value) if declared is float else _made(declared, {"value": value})
    except (ValueError, VerificationError) as error:
        raise ValueError(f"{where}: {error}") from error
    if isinstance(made, float) and (math.isnan(made) or repr(made) != value):
        raise ValueError(f"{where} is not a fraction in lowest terms")
    return made


def _read_object(declared: type, value: object, where: str, *, lenient: bool) -> object:
    if not isinstance(value, dict):
        raise ValueError(f"{where} is not an object")
    given = {str(key) for key in value}
    known = _names(declared)
    optional = _with_default(declared) if lenient else frozenset()
    if lacking := sorted(known - given - optional):
        raise ValueError(f"{where} lacks {', '.join(lacking)[:200]}")
    if not lenient and (unknown := sorted(given - known)):
        raise ValueError(f"{where} has unknown members: {', '.join(unknown)[:200]}")
    read: dict[str, object] = {}
    embedded = _embedded(declared)
    for name, inner in _members(declared):
        if name in embedded:
            assert isinstance(inner, type)
            own = {key: one for key, one in value.items() if key in _names(inner)}
            read[name] = _read(inner, own, where, lenient=lenient)
        elif name in given:
            read[name] = _read(inner, value[name], f"{where}.{name}", lenient=lenient)
    return _made(declared, read)


def _made(make: Callable[..., object], members: Mapping[str, object]) -> object:
    return make(**members)


def _read_one_of(declared: object, value: object, where: str, *, lenient: bool) -> object:
    kinds = _kinds(declared)
    if value is None and NoneType in get_args(declared):
        return None
    if len(kinds) == 1:
        return _read(kinds[0], value, where, lenient=lenient)
    if not isinstance(value, dict) or not isinstance(value.get(_TAG), str):
        raise ValueError(f"{where} has no type")
    named = next((kind for kind in kinds if isinstance(kind, type) and kind.__name__ == value[_TAG]), None)
    if named is None:
        raise ValueError(f"{where} is none of {', '.join(getattr(kind, '__name__', '?') for kind in kinds)}")
    if issubclass(named, StrEnum):
        if "value" not in value or (not lenient and value.keys() != {_TAG, "value"}):
            raise ValueError(f"{where} must have only a type and a value")
        return _read(named, value["value"], where, lenient=lenient)
    return _read(named, {key: inner for key, inner in value.items() if key != _TAG}, where, lenient=lenient)


# --- types ---------------------------------------------------------------------------------------------


@cache
def _members(kind: type) -> tuple[tuple[str, object], ...]:
    """Return the fields of a dataclass, with their types."""
    if not is_dataclass(kind):
        raise TypeError(f"{kind!r} has no JSON form")
    hints = get_type_hints(kind)
    return tuple((field.name, hints[field.name]) for field in fields(kind) if field.compare)


@cache
def _embedded(kind: type) -> Mapping[str, type]:
    """Return the fields of a dataclass whose members are in its own object, with their types."""
    hints = get_type_hints(kind)
    return {one.name: hints[one.name] for one in fields(kind) if "embedded" in one.metadata}


@cache
def _names(kind: type) -> frozenset[str]:
    """Return the members of a dataclass's object. Raises TypeError if two fields have one name."""
    own = [name for name, _ in _members(kind) if name not in _embedded(kind)]
    names = [*own, *(name for inner in _embedded(kind).values() for name in _names(inner))]
    if len(names) != len(set(names)):
        raise TypeError(f"{kind!r} has one member for two fields")
    return frozenset(names)


@cache
def _with_default(kind: type) -> frozenset[str]:
    """Return the members of a dataclass's object that may be left out."""

    def has_default(field: Field[object]) -> bool:
        return field.default is not MISSING or field.default_factory is not MISSING

    inner = _embedded(kind)
    own = frozenset(field.name for field in fields(kind) if field.name not in inner and has_default(field))
    return own.union(*(_with_default(one) for one in inner.values()))


@cache
def _is_choice(declared: object) -> bool:
    """Return whether one of several types may stand where `declared` does."""
    return get_origin(declared) in (Union, UnionType) or _is_open(declared)


@cache
def _is_tuple(declared: object) -> bool:
    return get_origin(declared) is tuple


@cache
def _kinds(declared: object) -> tuple[object, ...]:
    """Return the types of a declared union but None.

    They are what may stand where one of several may, nothing left out.
    """
    members = (declared,) if _is_open(declared) else get_args(declared)
    kinds: list[object] = []
    for member in members:
        if isinstance(member, type) and issubclass(member, OneOf) and _is_open(member):
            kinds += member.kinds()
        elif member is not NoneType:
            kinds.append(member)
    return tuple(kinds)


def _is_open(declared: object) -> bool:
    """Return whether any of several classes may stand where this one is declared."""
    return isinstance(declared, type) and issubclass(declared, OneOf) and "kinds" in vars(declared)


def _items(declared: object, length: int) -> tuple[object, ...]:
    """Return the type of each item of a tuple."""
    arguments = get_args(declared)
    return arguments[:1] * length if len(arguments) == 2 and arguments[1] is ... else arguments
