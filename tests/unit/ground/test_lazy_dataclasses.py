"""Dataclasses whose methods are made when used: as the standard ones in all that can be asked of them."""

from __future__ import annotations

import ast
import copy
import dataclasses
import inspect
import pickle
import subprocess
import sys
from collections.abc import Callable, Hashable
from dataclasses import KW_ONLY, FrozenInstanceError, asdict, astuple, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import pytest

import pipeline
from pipeline import lazy_dataclasses

_T = TypeVar("_T")


class _Base:
    """A base with a slot that is no field."""

    __slots__ = ("cached",)


class Standard:
    """The classes of these tests by the standard library's decorator."""


class Lazy:
    """The same classes by relbuild's decorator."""


def _declare(place: type, dataclass: Callable[..., Any]) -> None:
    @dataclass(frozen=True, slots=True)
    class Frozen:
        """A frozen class with a default of each kind."""

        kept: ClassVar[int] = 7
        name: str
        count: int = 3
        words: list[str] = field(default_factory=list, compare=False)
        secret: str = field(default="x", repr=False, metadata={"key": "of secret"})
        made: str = field(init=False, default="made")

    @dataclass(slots=True)
    class Mutable:
        """A class whose instances change."""

        name: str
        _: KW_ONLY
        number: int = 1
        more: dict[str, int] = field(default_factory=dict)

    @dataclass(frozen=True, slots=True)
    class Child(Frozen):
        """A class that changes an inherited default and adds a field."""

        count: int = 4
        added: float = 0.5

    @dataclass(frozen=True, slots=True, order=True)
    class Ordered(_Base, Generic[_T]):
        """A generic class with an order, a base that is none, and one field."""

        value: _T

        def __post_init__(self) -> None:
            if self.value is None:
                raise ValueError("None has no order")

    @dataclass(frozen=True, slots=True, repr=False)
    class Own:
        """A class that says itself how it is shown and compared."""

        name: str

        def __repr__(self) -> str:
            return "shown"

        def __eq__(self, other: object) -> bool:
            return True

        def __hash__(self) -> int:
            return 5

    @dataclass(slots=True, eq=False)
    class Same:
        """A class whose instances are equal only to themselves."""

        name: str = ""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Named:
        """A class whose values are given by name."""

        second: int = 2
        first: int

    @dataclass(frozen=True, slots=True)
    class Empty:
        """A class without fields."""

    @dataclass(frozen=True, slots=True, order=True)
    class Plain:
        """A class with annotations and plain defaults alone."""

        name: str
        number: int
        text: str = "t"
        pair: tuple[int, ...] = ()

        @property
        def both(self) -> str:
            return f"{self.name}{self.number}"

    @dataclass(frozen=True, slots=True)
    class OverPlain(Plain):
        """A class that inherits plain fields."""

        more: int = 1

    @dataclass(frozen=True, slots=True)
    class Checked:
        """A class with plain fields that looks at them."""

        name: str

        def __post_init__(self) -> None:
            if not self.name:
                raise ValueError("no name")

    wide = {f"field_{number}": "int" for number in range(30)}
    of_wide = {"__annotations__": wide, "__module__": __name__, "__qualname__": "_declare.<locals>.Wide", "field_29": 5}
    wide_class = dataclass(frozen=True, slots=True)(type("Wide", (), of_wide))

    for one in (Frozen, Mutable, Child, Ordered, Own, Same, Named, Empty, Plain, OverPlain, Checked, wide_class):
        one.__qualname__ = f"{place.__qualname__}.{one.__name__}"
        setattr(place, one.__name__, one)


_declare(Standard, dataclasses.dataclass)
_declare(Lazy, lazy_dataclasses.dataclass)


def _outcome(act: Callable[[Any], object], place: type) -> object:
    try:
        found = act(place)
    except Exception as error:
        found = f"{type(error).__name__}: {error}"
    return (
        repr(found).replace("_declare.<locals>", "").replace(place.__qualname__, "")
    )  # The methods' and the classes'.


def _assign(instance: object, name: str, value: object) -> object:
    setattr(instance, name, value)
    return instance


def _matched(place: Any) -> object:
    match place.Child("n", 5, ["w"]):
        case place.Child(name, count, words):
            return name, count, words
    raise AssertionError("not matched")


_ASKED: dict[str, Callable[[Any], object]] = {
    "shown": lambda of: [of.Frozen("n"), of.Mutable("n"), of.Child("n"), of.Ordered(1), of.Own(""), of.Empty()],
    "by position": lambda of: of.Frozen("n", 1, ["w"], "s"),
    "by name": lambda of: (of.Mutable("n", number=2, more={"a": 1}), of.Named(first=1)),
    "missing": lambda of: of.Frozen(),
    "too many": lambda of: of.Mutable("n", 2),
    "not to be given": lambda of: of.Frozen("n", made="x"),
    "unknown": lambda of: of.Frozen("n", other=1),
    "own list each": lambda of: of.Frozen("n").words is of.Frozen("n").words,
    "equal": lambda of: [of.Frozen("n", words=["w"]) == of.Frozen("n"), of.Frozen("n") == of.Frozen("m")],
    "other class": lambda of: [of.Frozen("n") == of.Child("n", 3), of.Empty() == of.Empty(), of.Empty() != 3],
    "identical": lambda of: [of.Same() == of.Same(), of.Ordered(float("nan")) == of.Ordered(float("nan"))],
    "hash": lambda of: [hash(of.Frozen("n")), hash(of.Child("n")), hash(of.Ordered(1)), hash(of.Empty())],
    "own hash": lambda of: [hash(of.Own("a")), of.Own("a") == of.Own("b")],
    "no hash": lambda of: hash(of.Mutable("n")),
    "hashable": lambda of: [isinstance(one, Hashable) for one in (of.Mutable("n"), of.Same(), of.Frozen("n"))],
    "order": lambda of: [*sorted([of.Ordered(3), of.Ordered(1)]), of.Ordered(1) >= of.Ordered(1)],
    "no order": lambda of: of.Ordered(1) < 2,
    "after": lambda of: of.Ordered(None),
    "assigned": lambda of: _assign(of.Mutable("n"), "number", 9),
    "frozen": lambda of: _assign(of.Frozen("n"), "name", "m"),
    "frozen child": lambda of: _assign(of.Child("n"), "added", 1),
    "deleted": lambda of: delattr(of.Frozen("n"), "name"),
    "no other attribute": lambda of: _assign(of.Mutable("n"), "other", 1),
    "replaced": lambda of: [replace(of.Frozen("n"), name="m"), replace(of.Mutable("n"), number=4)],
    "replaced wrongly": lambda of: replace(of.Frozen("n"), made="m"),
    "as values": lambda of: [asdict(of.Frozen("n")), astuple(of.Child("n"))],
    "fields": lambda of: [
        (one.name, one.type, one.default, one.init, one.repr, one.compare, one.kw_only, dict(one.metadata))
        for kind in (of.Frozen, of.Child, of.Mutable, of.Named, of.Empty)
        for one in fields(kind)
    ],
    "parameters": lambda of: [of.Ordered.__dataclass_params__, of.Mutable.__dataclass_params__],
    "signature": lambda of: [inspect.signature(one) for one in (of.Frozen, of.Mutable, of.Child, of.Named, of.Empty)],
    "slots": lambda of: [one.__slots__ for one in (of.Frozen, of.Mutable, of.Child, of.Ordered, of.Empty)],
    "variable of the class": lambda of: [of.Frozen.kept, of.Child("n").kept, of.Frozen.__doc__],
    "match": _matched,
    "to be matched": lambda of: [of.Frozen.__match_args__, of.Mutable.__match_args__, of.Named.__match_args__],
    "pickled": lambda of: [pickle.loads(pickle.dumps(one)) for one in (of.Frozen("n"), of.Mutable("n", number=5))],
    "copied": lambda of: [copy.copy(of.Child("n")), copy.deepcopy(of.Mutable("n", more={"a": 1}))],
    "plain": lambda of: [of.Plain("n", 1), of.Plain("n", number=2, pair=(3,)), of.Plain(text="", number=1, name="")],
    "plain, missing": lambda of: of.Plain("n"),
    "plain, all missing": lambda of: of.Plain(),
    "plain, too many": lambda of: of.Plain("n", 1, "t", (), 5),
    "plain, twice": lambda of: of.Plain("n", 1, name="m"),
    "plain, unknown": lambda of: of.Plain("n", 1, other=1),
    "plain, property": lambda of: of.Plain("n", 1).both,
    "plain, compared": lambda of: [of.Plain("n", 1) == of.Plain("n", 1), of.Plain("n", 1) < of.Plain("n", 2)],
    "plain, hash": lambda of: hash(of.Plain("n", 1)),
    "plain, frozen": lambda of: _assign(of.Plain("n", 1), "name", "m"),
    "plain, deleted": lambda of: delattr(of.Plain("n", 1), "pair"),
    "plain, replaced": lambda of: [replace(of.Plain("n", 1), text="u"), asdict(of.Plain("n", 1))],
    "plain, copied": lambda of: [copy.copy(of.Plain("n", 1)), pickle.loads(pickle.dumps(of.Plain("n", 1)))],
    "plain, told": lambda of: [
        inspect.signature(of.Plain),
        inspect.signature(of.Wide),
        of.Plain.__match_args__,
        of.Plain.__init__.__qualname__,
        of.Plain.__init__.__annotations__,
        of.Plain.__init__.__defaults__,
        of.Plain.__init__.__module__,
        inspect.getfullargspec(of.Plain.__init__),
    ],
    "plain, inherited": lambda of: [of.OverPlain("n", 1, more=3), of.OverPlain("n", 1) == of.Plain("n", 1)],
    "plain, looked at": lambda of: of.Checked(""),
    "wide": lambda of: [of.Wide(*range(29)), of.Wide(**{f"field_{number}": number for number in range(30)})],
    "wide, missing": lambda of: of.Wide(*range(27)),
    "method's name": lambda of: [of.Frozen.__init__.__qualname__, of.Frozen.__eq__.__name__],
}


@pytest.mark.parametrize("asked", _ASKED)
def test_as_the_standard_dataclass(asked: str) -> None:
    assert _outcome(_ASKED[asked], Lazy) == _outcome(_ASKED[asked], Standard)


def test_a_dataclass_of_the_standard_library_may_inherit() -> None:
    made = dataclasses.make_dataclass("Made", [("more", int)], bases=(Lazy.Empty,), frozen=True, slots=True)  # type: ignore[attr-defined]
    with pytest.raises(FrozenInstanceError):
        made(1).more = 2


def test_a_method_is_made_once_when_it_is_first_called() -> None:
    @lazy_dataclasses.dataclass(frozen=True, slots=True)
    class Fresh:
        """A class nobody has used."""

        name: str

    before = vars(Fresh)["__init__"]
    Fresh("n")
    made = vars(Fresh)["__init__"]
    Fresh("m")
    assert not inspect.isfunction(before)
    assert inspect.isfunction(made)
    assert vars(Fresh)["__init__"] is made
    assert not inspect.isfunction(vars(Fresh)["__repr__"])


def test_what_it_does_not_support_is_refused() -> None:
    with pytest.raises(TypeError, match="without slots"):
        lazy_dataclasses.dataclass(frozen=True)(type("C", (), {}))
    hidden = lazy_dataclasses.dataclass(slots=True)(
        type("Hidden", (), {"__annotations__": {"kept": "kept_in_class", "name": "str"}, "__module__": __name__})
    )
    with pytest.raises(TypeError, match="fields of Hidden cannot be told"):
        hidden("n")


kept_in_class = ClassVar[int]

_USE_ALL = """
import dataclasses, importlib, pkgutil, sys
import pipeline
from pipeline import lazy_dataclasses
from pipeline.lazy_dataclasses import _FirstUse
for module in pkgutil.walk_packages(pipeline.__path__, "pipeline."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
used = 0
for module in [one for name, one in sys.modules.items() if name.startswith("pipeline.")]:
    for kind in [one for one in vars(module).values() if isinstance(one, type)]:
        for name in [name for name, value in vars(kind).items() if isinstance(value, _FirstUse)]:
            getattr(kind, name)
            used += 1
print(used)
plain = list(lazy_dataclasses._plain.items())
for kind, known in plain:
    told = dataclasses.fields(kind)
    assert tuple(one.name for one in told) == known.names, kind
    assert tuple(one.default for one in told if one.default is not dataclasses.MISSING) == known.defaults, kind
    assert {one.name: one.type for one in told} == known.annotations, kind
    for one in told:
        assert one.init and one.repr and one.compare and one.hash is None and not one.kw_only, kind
        assert one.default_factory is dataclasses.MISSING, kind
print(len(plain))
"""


def test_every_method_of_every_class_can_be_made_and_plain_fields_are_those_of_the_standard() -> None:
    words = [sys.executable, "-c", _USE_ALL]
    used, plain = map(int, subprocess.run(words, capture_output=True, text=True, check=True).stdout.split())
    assert used > 2000
    assert plain > 300


def test_no_other_dataclass_is_made_while_modules_are_loaded() -> None:
    others = []
    for path in Path(pipeline.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.ImportFrom(module="dataclasses", names=names) if any(one.name == "dataclass" for one in names):
                    others.append(path.name)
                case ast.Attribute(value=ast.Name(id="dataclasses"), attr="dataclass"):
                    others.append(path.name)
    assert set(others) == {"lazy_dataclasses.py"}
