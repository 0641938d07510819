"""Dataclasses whose methods are made when they are first called.

`dataclasses.dataclass` writes and compiles six methods of each class as it is declared, a third of a millisecond. A
command declares some hundred classes, makes instances of few, and compares or prints fewer still. Here a class is
declared in a tenth of that time, and what it does is the same: `fields`, `replace`, `asdict` and the rest of
`dataclasses` work with it, and type checkers read it as `dataclasses.dataclass`. Classes of which annotations and plain
defaults say all are not looked at by `dataclasses` until its functions are called, and the `__init__` of frozen ones is
a copy of one that was compiled for their number of fields.

The classes have slots. Annotations are strings (`from __future__ import annotations`); there is no `InitVar`.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable
from dataclasses import MISSING, Field, FrozenInstanceError, fields
from functools import cache, partial
from reprlib import recursive_repr
from types import FunctionType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

_Method = TypeVar("_Method", bound=Callable[..., Any])

_NOT_FIELDS = ("ClassVar", "typing.ClassVar", "KW_ONLY")

_NOT_PLAIN = ("ClassVar", "InitVar", "KW_ONLY")
"""Words in annotations that `dataclasses` has to look at."""

__all__ = ["dataclass"]

if TYPE_CHECKING:
    from dataclasses import dataclass
else:

    def dataclass(cls: type | None = None, /, *, slots: bool = False, **how: bool) -> object:
        """Declare a class as `dataclasses.dataclass` does; `slots` must be true."""
        if not slots:
            raise TypeError("a class without slots is declared by dataclasses.dataclass")
        return partial(_declare, **how) if cls is None else _declare(cls, **how)


class _FirstUse:
    """Placeholder of a class's attribute, replaced by `make(class)` when it is asked for."""

    __slots__ = ("make", "name", "owner")

    def __init__(self, make: Callable[[type], object]) -> None:
        self.make = make

    def __set_name__(self, owner: type, name: str) -> None:
        self.owner, self.name = owner, name

    def __get__(self, instance: object, asked: type | None = None) -> object:
        # Two threads may do it at the same time: one result is as good as the other.
        value = self.make(self.owner)
        setattr(self.owner, self.name, value)
        return value.__get__(instance, asked) if isinstance(value, FunctionType) else value


def _declare(
    cls: type,
    *,
    frozen: bool = False,
    eq: bool = True,
    order: bool = False,
    repr: bool = True,
    kw_only: bool = False,
) -> type:
    body = dict(vars(cls))
    annotations: dict[str, str] = body.get("__annotations__", {})
    names = [name for name, kind in annotations.items() if not kind.startswith(_NOT_FIELDS)]
    defaults = {name: body.pop(name) for name in names if name in body}
    inherited = {name for base in cls.__mro__[1:-1] for name in vars(base).get("__slots__", ())}
    body["__slots__"] = tuple(name for name in names if name not in inherited)
    for name in ("__dict__", "__weakref__"):
        body.pop(name, None)

    def standard(made: type) -> Any:  # noqa: ANN401  a dataclass
        """Return what the standard decorator makes of the class's own fields."""
        # A class without a docstring would get one, with its signature, which takes the longest of all.
        alone = {"__module__": made.__module__, "__doc__": "-", "__annotations__": annotations, **defaults}
        return dataclasses.dataclass(init=False, repr=False, eq=False, kw_only=kw_only)(type(made.__name__, (), alone))

    def all_fields(made: type) -> dict[str, Field[object]]:
        own = standard(made)
        found: dict[str, Field[object]] = {}
        if [one.name for one in fields(own)] != names:
            raise TypeError(f"the fields of {made.__qualname__} cannot be told by its annotations")
        for base in made.__mro__[:0:-1]:
            found |= getattr(base, "__dataclass_fields__", {})
        return {**found, **own.__dataclass_fields__}

    def parameters(made: type) -> object:
        of_class = standard(made).__dataclass_params__
        of_class.init, of_class.repr, of_class.eq, of_class.order, of_class.frozen = True, repr, eq, order, frozen
        if hasattr(of_class, "slots"):  # since Python 3.12
            of_class.slots = True
        return of_class

    methods: dict[str, Callable[[type], object]] = {"__init__": _frozen_init if frozen else _init}
    if repr:
        methods["__repr__"] = _repr
    if eq:
        methods["__eq__"] = _eq
        if body.get("__hash__") is None:  # Python sets it to None in a class that has an `__eq__`.
            body["__hash__"] = _FirstUse(_hash) if frozen else None
    if order:
        methods |= {f"__{one.__name__}__": partial(_order, one) for one in _ORDER}
    for name, make in methods.items():
        body.setdefault(name, _FirstUse(make))
    body["__match_args__"] = _FirstUse(_match_args)
    body["__dataclass_fields__"], body["__dataclass_params__"] = _FirstUse(all_fields), _FirstUse(parameters)
    if frozen:
        body["__setattr__"], body["__delattr__"] = _FirstUse(_setattr), _FirstUse(_delattr)
        body["__getstate__"], body["__setstate__"] = _getstate, _setstate
    made = type(cls)(cls.__name__, cls.__bases__, body)
    made.__qualname__ = cls.__qualname__
    if not kw_only and _is_plain(made, names, annotations, defaults):
        _plain[made] = _Plain(tuple(names), tuple(defaults.values()), annotations)
    return made


class _Plain(NamedTuple):
    """The fields of a class with annotations and plain defaults alone; the last ones have one."""

    names: tuple[str, ...]
    defaults: tuple[object, ...]
    annotations: dict[str, str]


_plain: WeakKeyDictionary[type, _Plain] = WeakKeyDictionary()
"""Classes whose fields are known without `dataclasses`; it refuses none of them."""


def _is_plain(made: type, names: list[str], annotations: dict[str, str], defaults: dict[str, object]) -> bool:
    return (
        len(names) == len(annotations)
        and "self" not in names
        and not any(word in kind for kind in annotations.values() for word in _NOT_PLAIN)
        and not any("__dataclass_fields__" in vars(base) for base in made.__mro__[1:])
        and list(defaults) == names[len(names) - len(defaults) :]
        and not any(isinstance(one, Field) or one.__class__.__hash__ is None for one in defaults.values())
    )


def _names(made: Any, wanted: Callable[[Field[Any]], bool | None]) -> tuple[str, ...]:  # noqa: ANN401  a dataclass
    """Return the names of a class's fields that are wanted; by default, all are."""
    known = _plain.get(made)
    return tuple(one.name for one in fields(made) if wanted(one)) if known is None else known.names


def _match_args(made: Any) -> tuple[str, ...]:  # noqa: ANN401  a dataclass, here and below
    return _names(made, lambda one: one.init and not one.kw_only)


class _Factory:
    """Stands in a signature for the value that a factory makes."""

    def __repr__(self) -> str:
        return "<factory>"


_FACTORY = _Factory()


def _init(made: Any, assign: str = "self.{0} = {1}") -> Callable[..., None]:  # noqa: ANN401
    scope: dict[str, Any] = {"__factory__": _FACTORY}
    positional: list[str] = []
    by_keyword: list[str] = []
    lines: list[str] = []
    for one in fields(made):
        name = value = parameter = one.name
        if one.default_factory is not MISSING:
            scope[f"__make_{name}__"] = one.default_factory
            parameter = f"{name}=__factory__"
            value = f"__make_{name}__()" + (f" if {name} is __factory__ else {name}" if one.init else "")
        elif one.default is not MISSING:
            scope[f"__default_{name}__"] = one.default
            parameter, value = f"{name}=__default_{name}__", name if one.init else f"__default_{name}__"
        elif not one.init:
            continue
        if one.init:
            (by_keyword if one.kw_only else positional).append(parameter)
        scope[f"__set_{name}__"] = getattr(made, name).__set__
        lines.append(assign.format(name, value))
    if hasattr(made, "__post_init__"):
        lines.append("self.__post_init__()")
    parameters = ", ".join(["self", *positional, *(["*", *by_keyword] if by_keyword else [])])
    exec(f"def __init__({parameters}):\n " + "\n ".join(lines or ["pass"]), scope)  # noqa: S102  as dataclasses does
    method: Callable[..., None] = _named(made, "__init__", scope["__init__"])
    method.__annotations__ = {**{one.name: one.type for one in fields(made) if one.init}, "return": None}
    return method


def _frozen_init(made: Any) -> Callable[..., None]:  # noqa: ANN401
    # The setter of a slot takes half the time of `object.__setattr__`.
    known = _plain.get(made)
    if known is None or not known.names or hasattr(made, "__post_init__"):
        return _init(made, "__set_{0}__(self, {1})")
    method = _setting(len(known.names))(*(getattr(made, name).__set__ for name in known.names))
    method.__code__ = method.__code__.replace(co_varnames=("self", *known.names))
    method.__defaults__ = known.defaults or None
    method.__annotations__ = {**known.annotations, "return": None}
    return _named(made, "__init__", method)


@cache
def _setting(count: int) -> Callable[..., FunctionType]:
    """Return a function that makes an `__init__` of so many setters of slots.

    Compiling one takes as long as making twenty copies.
    """
    numbers = range(count)
    setters, values = ", ".join(f"set{one}" for one in numbers), ", ".join(f"value{one}" for one in numbers)
    lines = "\n".join(f"  set{one}(self, value{one})" for one in numbers)
    scope: dict[str, Any] = {}
    exec(f"def made({setters}):\n def __init__(self, {values}):\n{lines}\n return __init__", scope)  # noqa: S102
    making: Callable[..., FunctionType] = scope["made"]
    return making


def _repr(made: Any) -> Callable[[object], str]:  # noqa: ANN401
    names = _names(made, lambda one: one.repr)

    def shown(self: object) -> str:
        return f"{type(self).__qualname__}({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"

    return _named(made, "__repr__", recursive_repr()(shown))


def _values(made: Any, wanted: Callable[[Field[Any]], bool | None]) -> Callable[[object], object]:  # noqa: ANN401
    """Return a function that returns an instance's values of the wanted fields as a tuple."""
    names = _names(made, wanted)
    if len(names) > 1:
        return operator.attrgetter(*names)
    return lambda one: tuple(getattr(one, name) for name in names)


def _eq(made: Any) -> Callable[[object, object], bool]:  # noqa: ANN401
    values = _values(made, operator.attrgetter("compare"))

    def is_equal(self: object, other: object) -> bool:
        return values(self) == values(other) if other.__class__ is self.__class__ else NotImplemented

    return _named(made, "__eq__", is_equal)


_ORDER = (operator.lt, operator.le, operator.gt, operator.ge)


def _order(compare: Callable[[Any, Any], bool], made: Any) -> Callable[[object, object], bool]:  # noqa: ANN401
    values = _values(made, operator.attrgetter("compare"))

    def is_ordered(self: object, other: object) -> bool:
        return compare(values(self), values(other)) if other.__class__ is self.__class__ else NotImplemented

    return _named(made, f"__{compare.__name__}__", is_ordered)


def _hash(made: Any) -> Callable[[object], int]:  # noqa: ANN401
    values = _values(made, lambda one: one.compare if one.hash is None else one.hash)
    return _named(made, "__hash__", lambda self: hash(values(self)))


def _setattr(made: Any) -> Callable[[object, str, object], None]:  # noqa: ANN401
    names = frozenset(_names(made, lambda _: True))

    def assign(self: object, name: str, value: object) -> None:
        if type(self) is made or name in names:
            raise FrozenInstanceError(f"cannot assign to field {name!r}")
        super(made, self).__setattr__(name, value)

    return _named(made, "__setattr__", assign)


def _delattr(made: Any) -> Callable[[object, str], None]:  # noqa: ANN401
    names = frozenset(_names(made, lambda _: True))

    def delete(self: object, name: str) -> None:
        if type(self) is made or name in names:
            raise FrozenInstanceError(f"cannot delete field {name!r}")
        super(made, self).__delattr__(name)

    return _named(made, "__delattr__", delete)


def _getstate(self: Any) -> list[object]:  # noqa: ANN401
    return [getattr(self, name) for name in _names(type(self), lambda _: True)]


def _setstate(self: Any, state: list[object]) -> None:  # noqa: ANN401
    for name, value in zip(_names(type(self), lambda _: True), state, strict=True):
        object.__setattr__(self, name, value)


def _named(made: type, name: str, method: _Method) -> _Method:
    named = {"__name__": name, "__qualname__": f"{made.__qualname__}.{name}", "__module__": made.__module__}
    for key, value in named.items():
        setattr(method, key, value)
    return method
