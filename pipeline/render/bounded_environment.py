"""Jinja2 environment whose operators, filters and methods are harmless and bounded.

Jinja's own sandbox keeps templates from Python's internals but sets no bound on work. Everything that
multiplies text or numbers is therefore either bounded here or not offered: operators, concatenation, `range`,
the filters and the methods of values. Steps are counted by `pipeline.render.templates`.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterable, Mapping
from functools import partial, wraps
from typing import ClassVar, TypeGuard

from jinja2 import BaseLoader, StrictUndefined, Undefined, nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.environment import TemplateModule
from jinja2.exceptions import TemplateRuntimeError, UndefinedError
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import missing

RENDERED_TEXT_LIMIT = 4 << 20
"""Characters of any text that a template makes, its whole output included."""
RANGE_LIMIT = 10_000
"""Numbers in one `range`: more lines than any configuration file has."""
RENDERED_NUMBER_LIMIT = 1 << 256
"""Numbers stay below this, so that arithmetic stays cheap."""
RENDERED_LIST_LIMIT = 100_000
"""Items of a list that a template makes, and values in what `tojson` prints."""

_TEXT_METHODS = frozenset(
    {
        "capitalize",
        "count",
        "endswith",
        "find",
        "index",
        "isalnum",
        "isalpha",
        "isascii",
        "isdecimal",
        "isdigit",
        "islower",
        "isspace",
        "isupper",
        "lower",
        "lstrip",
        "partition",
        "removeprefix",
        "removesuffix",
        "rfind",
        "rindex",
        "rpartition",
        "rsplit",
        "rstrip",
        "split",
        "splitlines",
        "startswith",
        "strip",
        "title",
        "upper",
    }
)
_DATA_METHODS = frozenset({"count", "get", "index", "items", "keys", "values"})
_PLAIN_FILTERS = (
    "abs",
    "attr",
    "count",
    "d",
    "default",
    "dictsort",
    "first",
    "float",
    "groupby",
    "int",
    "items",
    "last",
    "length",
    "list",
    "map",
    "max",
    "min",
    "reject",
    "rejectattr",
    "reverse",
    "round",
    "select",
    "selectattr",
    "sort",
    "unique",
)
_TEXT_FILTERS = (
    "capitalize",
    "lower",
    "title",
    "trim",
    "truncate",
    "upper",
    "wordcount",
)


class RenderBoundPassed(TemplateRuntimeError):
    """A rendering has exceeded a bound on size or work."""


class NameMissing(UndefinedError):
    """The error for a name that nothing defines.

    The name is `name`, an attribute or item of `owner` unless that is None.
    """

    def __init__(self, message: str | None, *, name: str, owner: object) -> None:
        super().__init__(message)
        self.name = name
        self.owner = owner


class MissingValue(StrictUndefined):
    """The value of an undefined name: any use of it raises `NameMissing`."""

    __slots__ = ()

    def __init__(
        self,
        hint: str | None = None,
        obj: object = missing,
        name: str | None = None,
        exc: type[TemplateRuntimeError] = UndefinedError,
    ) -> None:
        super().__init__(hint, obj, name, exc)
        if exc is UndefinedError and hint is None:
            owner = None if obj is missing else obj
            self._undefined_exception = partial(NameMissing, name=str(name), owner=owner)  # type: ignore[assignment]


class _BoundedCode(CodeGenerator):
    """Code generator that compiles `~` to a call of `BoundedEnvironment.concatenate`."""

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802
        self.write("environment.concatenate((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """The environment that all templates are rendered in."""

    code_generator_class = _BoundedCode
    intercepted_binops: ClassVar[frozenset[str]] = frozenset({"+", "-", "*", "**", "%", "/", "//"})  # type: ignore[misc]

    def __init__(self, loader: BaseLoader | None) -> None:
        super().__init__(
            loader=loader,
            undefined=MissingValue,
            autoescape=False,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            newline_sequence="\n",
            auto_reload=False,
            # The optimizer tries anew at each level of an expression whether what is below is constant: two hundred
            # signs in a row take seconds, and a template is rendered once.
            optimized=False,
            finalize=_printed,
        )
        self.concat = _joined  # type: ignore[method-assign]
        builtin = dict(self.filters)
        self.filters = {name: builtin[name] for name in _PLAIN_FILTERS}
        self.filters |= {name: _on_text(builtin[name]) for name in _TEXT_FILTERS}
        self.filters |= _OWN_FILTERS
        self.globals = {"range": _bounded_range, "dict": dict, "namespace": self.globals["namespace"]}

    def concatenate(self, parts: Iterable[object]) -> str:
        """Join values as text: Jinja's operator `~`."""
        return _joined(_text_of(part) for part in parts)

    def call_binop(self, context: Context, operator: str, left: object, right: object) -> object:
        """Evaluate an arithmetic operator within bounds."""
        _refuse_undefined(left, right)
        if operator in {"+", "-", "*", "**", "/", "//", "%"} and _is_number(left) and _is_number(right):
            return _calculate(operator, left, right)
        if operator == "+":
            if isinstance(left, str) and isinstance(right, str):
                return _joined((left, right))
            if isinstance(left, list | tuple) and isinstance(right, list | tuple):
                _bound(len(left) + len(right), RENDERED_LIST_LIMIT, "a list", "items")
                return [*left, *right]
        if operator == "*" and isinstance(left, str) and isinstance(right, int):
            _bound(len(left) * right, RENDERED_TEXT_LIMIT, "text", "characters")
            return left * right
        raise TemplateRuntimeError(
            f"'{operator}' does not work on {_kind(left)} and {_kind(right)}; join texts with '~'"
        )

    def wrap_str_format(self, value: object) -> None:
        """Return None: `str.format` is not offered, whose widths make any amount of text."""

    def is_safe_attribute(self, obj: object, attr: str, value: object) -> bool:
        """Return whether an attribute may be used: methods of plain data with bounded results."""
        if isinstance(obj, str):
            return attr in _TEXT_METHODS
        if isinstance(obj, dict | list | tuple):
            return attr in _DATA_METHODS
        return bool(super().is_safe_attribute(obj, attr, value))


def _calculate(name: str, left: int | float, right: int | float) -> object:
    if name == "**" and (abs(right) > 256 or abs(left) >= RENDERED_NUMBER_LIMIT):
        raise RenderBoundPassed("a power exceeds the limit (2^256)")
    functions: Mapping[str, Callable[[object, object], object]] = BoundedEnvironment.default_binop_table
    try:
        result = functions[name](left, right)
    except (ZeroDivisionError, OverflowError) as error:
        raise TemplateRuntimeError(f"{left} {name} {right}: {error}") from None
    if _is_number(result) and not -RENDERED_NUMBER_LIMIT < result < RENDERED_NUMBER_LIMIT:
        raise RenderBoundPassed("a number exceeds the limit (2^256)")
    return result


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float)


def _bound(size: int, limit: int, what: str, unit: str) -> None:
    if size > limit:
        raise RenderBoundPassed(f"{what} would have more than {limit} {unit}")


def _kind(value: object) -> str:
    if value is None:
        return "null"
    names = {str: "text", bool: "a boolean", int: "a number", float: "a number", dict: "a mapping"}
    if type(value) in names:
        return names[type(value)]
    return "a list" if isinstance(value, Iterable) else f"a {type(value).__name__}"


def _refuse_undefined(*values: object) -> None:
    for value in values:
        if isinstance(value, Undefined):
            str(value)  # raises NameMissing


def _text_of(value: object) -> str:
    """Return a scalar as text.

    Booleans are written as in YAML; null, collections and objects of Jinja raise TemplateRuntimeError: the text of a
    generator, as `map` and `select` return them, has an address in memory.
    """
    _refuse_undefined(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str | int | float | TemplateModule):
        raise TemplateRuntimeError(
            f"cannot print {_kind(value)}; join a list, give null a default, or use the filter 'tojson'"
        )
    text = str(value)
    _bound(len(text), RENDERED_TEXT_LIMIT, "text", "characters")
    return text


def _printed(value: object) -> object:
    return _text_of(value)


def _joined(parts: Iterable[str]) -> str:
    total = 0
    kept = []
    for part in parts:
        total += len(part)
        _bound(total, RENDERED_TEXT_LIMIT, "text", "characters")
        kept.append(part)
    return "".join(kept)


def _on_text(function: Callable[..., object]) -> Callable[..., object]:
    @wraps(function)
    def on_text(*arguments: object, **options: object) -> object:
        # With pass_environment and the like the text is the second argument.
        passes = getattr(function, "jinja_pass_arg", None) is not None
        index = 1 if passes else 0
        checked = list(arguments)
        checked[index] = _text_of(arguments[index])
        return function(*checked, **options)

    return on_text


def _join(values: Iterable[object], separator: str = "", attribute: str | None = None) -> str:
    """Join values (`['a', 'b'] | join(', ')`); with `attribute`, that item of each mapping."""
    _refuse_undefined(values)
    pieces: list[str] = []
    for value in values:
        if pieces:
            pieces.append(separator)
        pieces.append(_text_of(value[attribute] if attribute is not None and isinstance(value, dict) else value))
    return _joined(pieces)


def _replace(text: object, old: str, new: str) -> str:
    """Replace text: `'a.b' | replace('.', '-')`."""
    whole = _text_of(text)
    _bound(len(whole) + whole.count(old) * len(new), RENDERED_TEXT_LIMIT, "text", "characters")
    return whole.replace(old, new)


def _indent(text: object, width: int = 4, first: bool = False) -> str:
    """Indent the lines of a text after the first by `width` spaces.

    With `first`, the first line is indented too.
    """
    _bound(width, 100, "an indent", "spaces")
    lines = _text_of(text).split("\n")
    _bound(len(lines) * width, RENDERED_TEXT_LIMIT, "text", "characters")
    return ("\n").join(" " * width + line if line and (number or first) else line for number, line in enumerate(lines))


def _quote(value: object) -> str:
    """Quote a scalar as one word of a POSIX shell."""
    return shlex.quote(_text_of(value))


def _tojson(value: object, indent: int | None = None) -> str:
    """Write a value as JSON with sorted keys."""
    _refuse_undefined(value)
    if indent is not None:
        _bound(indent, 16, "an indent", "spaces")
    _count_values(value, [0], 0)
    return json.dumps(value, sort_keys=True, indent=indent, ensure_ascii=False, allow_nan=False)


def _count_values(value: object, seen: list[int], depth: int) -> None:
    seen[0] += 1
    _bound(seen[0], RENDERED_LIST_LIMIT, "a JSON document", "values")
    _bound(depth, 64, "a JSON document", "levels")
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    for item in inner:
        _count_values(item, seen, depth + 1)


def _bounded_range(*arguments: int) -> range:
    numbers = range(*arguments)
    if (numbers.stop - numbers.start) // numbers.step > RANGE_LIMIT:
        raise RenderBoundPassed(f"a range would have more than {RANGE_LIMIT} numbers")
    return numbers


_OWN_FILTERS: Mapping[str, Callable[..., object]] = {
    "indent": _indent,
    "join": _join,
    "quote": _quote,
    "replace": _replace,
    "string": _text_of,
    "tojson": _tojson,
}
FILTERS = tuple(sorted({*_PLAIN_FILTERS, *_TEXT_FILTERS, *_OWN_FILTERS}))
"""The names of all filters that templates may use."""
