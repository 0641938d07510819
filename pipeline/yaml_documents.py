"""Parser of a safe, bounded YAML subset into plain values with their line numbers.

A document is built from the parser's events, so that it has only strings, numbers, booleans, null, lists and mappings.
Scalars follow the core schema of YAML 1.2
(https://yaml.org/spec/1.2.2/#103-core-schema), where `no`, `on` and `12:30:45` are strings; a key is always
its text. Other features of YAML are errors: tags, anchors, aliases, merge keys, several documents in one file, keys
that are not plain text, and the same key twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import field
from pathlib import Path
from typing import Protocol

import yaml

from pipeline.beneath import (
    GivenFolder,
    PathEscape,
    TooLarge,
    escape_error,
)
from pipeline.errors import Problem, RecipeError
from pipeline.lazy_dataclasses import dataclass
from pipeline.yaml_hints import bracket_hint, syntax_hint

YAML_SIZE_LIMIT = 1 << 20
"""Bytes of a document: a recipe is a few kilobytes, so a megabyte is a mistake or an attack."""
YAML_DEPTH_LIMIT = 32
"""Lists and mappings inside one another: several times what any sensible recipe has."""
YAML_NODE_LIMIT = 100_000
"""Scalars, lists and mappings in a document, so that processing it stays quick."""
YAML_NUMBER_LIMIT = 64
"""Characters of a number: turning longer ones into integers costs more than linear time."""
YAML_PROBLEM_LIMIT = 50
"""Maximum problems reported for one document."""

DocumentPath = tuple[str | int, ...]
"""Keys and list indices from the top of a document to one of its values."""

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE = frozenset({"true", "True", "TRUE"})
_FALSE = frozenset({"false", "False", "FALSE"})
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL_FLOAT = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's parser where PyYAML was built with it; only its events are used, never its constructors."""


@dataclass(frozen=True, slots=True)
class YamlDocument:
    """A parsed document.

    `name` is its name in messages, `positions` the (line, column) of each key and list item, `numbers` the text of each
    number and boolean as it was written. A part of a document stands `within` it at this path; its own paths and
    positions begin there.
    """

    name: str
    value: object
    positions: Mapping[DocumentPath, tuple[int, int]]
    within: DocumentPath = ()
    numbers: Mapping[DocumentPath, str] = field(default_factory=dict)

    def part(self, value: object, *path: str | int) -> YamlDocument:
        """Return the part of the document at `path` as a document of its own, with `value`."""
        length = len(path)
        inner = {key[length:]: position for key, position in self.positions.items() if key[:length] == path}
        numbers = {key[length:]: text for key, text in self.numbers.items() if key[:length] == path}
        return YamlDocument(self.name, value, inner, (*self.within, *path), numbers)

    def place(self, path: DocumentPath) -> str:
        """Return `name:line` of the key or list item at `path`.

        If there is none, that of the nearest enclosing key or item.
        """
        for length in range(len(path), -1, -1):
            position = self.positions.get(path[:length])
            if position is not None:
                return f"{self.name}:{position[0]}"
        return self.name


def load_yaml(path: Path, name: str | None = None, *, given: GivenFolder | None = None) -> YamlDocument:
    """Read and parse the document at `path`.

    `name` (default: the file's name) is its name in places, `given` the folder that no link may lead out of (default:
    its own).

    Raises RecipeError: `document-missing`, `document-unreadable`, `path-escapes`, and all that `parse_yaml` raises.
    """
    shown = name or path.name
    try:
        data = (given or GivenFolder(path.parent)).read(path, YAML_SIZE_LIMIT)
    except FileNotFoundError:
        raise RecipeError(
            "document-missing", f"file not found: '{shown}'", place=shown, hint=f"check the path: {path}"
        ) from None
    except PathEscape as error:
        raise escape_error(error, shown) from None
    except TooLarge:
        raise _too_large(shown) from None
    except OSError as error:
        raise RecipeError(
            "document-unreadable",
            f"'{shown}' cannot be read: {error.strerror}",
            place=shown,
            hint=f"give a file that this user can read; this is {path}",
        ) from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise RecipeError(
            "yaml-encoding",
            f"byte {error.start + 1} is not UTF-8",
            place=f"{shown}:{line}",
            hint="save the file as UTF-8",
        ) from None
    return parse_yaml(text, shown)


def parse_yaml(text: str, name: str) -> YamlDocument:
    """Parse `text`, called `name` in places. An empty document has the value None.

    Raises RecipeError with everything that is wrong, up to YAML_PROBLEM_LIMIT: `yaml-syntax`,
    `yaml-duplicate-key`, `yaml-key`, `yaml-tag`, `yaml-alias`, `yaml-number`, `yaml-encoding`,
    `yaml-too-large`, `yaml-too-deep`.
    """
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        line = text.count("\n", 0, error.start) + 1
        raise RecipeError("yaml-encoding", "invalid character: an unpaired surrogate", place=f"{name}:{line}") from None
    if size > YAML_SIZE_LIMIT:
        raise _too_large(name)
    builder = _Builder(name)
    value: object = None
    try:
        value = builder.document(iter(yaml.parse(text, Loader=_LOADER)))
    except yaml.reader.ReaderError as error:
        builder.problem(
            "yaml-encoding",
            _line_of(text, error.position),
            f"the character U+{_code_point(error.character):04X} is not allowed in YAML",
            "remove it, or write it as an escape in double quotes",
        )
    except yaml.MarkedYAMLError as error:
        builder.syntax(error, text)
    except _TooMany:
        pass
    if builder.problems:
        raise RecipeError.of(builder.problems)
    return YamlDocument(name, value, builder.positions, numbers=builder.numbers)


class _Mark(Protocol):
    @property
    def line(self) -> int: ...
    @property
    def column(self) -> int: ...


class _TooMany(Exception):
    """A bound was exceeded; the problem is recorded already."""


class _Builder:
    """Builder of values from the parser's events, recording positions and problems."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.positions: dict[DocumentPath, tuple[int, int]] = {}
        self.numbers: dict[DocumentPath, str] = {}
        self.problems: list[Problem] = []
        self._nodes = 0

    def document(self, events: Iterator[yaml.Event]) -> object:
        """Build the value of the first and only document."""
        value: object = None
        seen = False
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                if seen:
                    self.problem(
                        "yaml-syntax",
                        _mark(event),
                        "a second YAML document begins here",
                        "keep one document per file; remove the '---'",
                    )
                    return None
                seen = True
                value = self._value(next(events), events, (), 0)
        return value

    def problem(self, code: str, mark: _Mark, message: str, hint: str | None = None) -> None:
        """Record a problem at `mark`; raise _TooMany at YAML_PROBLEM_LIMIT."""
        place = f"{self.name}:{mark.line + 1}:{mark.column + 1}"
        self.problems.append(Problem(code, message, place, hint))
        if len(self.problems) >= YAML_PROBLEM_LIMIT:
            raise _TooMany

    def syntax(self, error: yaml.MarkedYAMLError, text: str) -> None:
        """Record a syntax error of the parser."""
        mark = error.problem_mark or error.context_mark or _At(0, 0)
        said = error.problem or error.context or "invalid YAML"
        context = f", {error.context}" if error.context and error.context != said else ""
        lines = text.splitlines()
        line = lines[mark.line] if mark.line < len(lines) else ""
        begun = error.context_mark if (error.context or "").startswith("while parsing a flow") else None
        hint = (begun and bracket_hint(lines, begun.line, begun.column)) or syntax_hint(said, line)
        place = f"{self.name}:{mark.line + 1}:{mark.column + 1}"
        self.problems.append(Problem("yaml-syntax", said + context, place, hint))

    def _value(self, event: yaml.Event, events: Iterator[yaml.Event], path: DocumentPath, depth: int) -> object:
        mark = _mark(event)
        self._count(mark, depth)
        self.positions.setdefault(path, (mark.line + 1, mark.column + 1))
        self._refuse_decoration(event)
        if isinstance(event, yaml.ScalarEvent):
            value = self._scalar(event)
            if isinstance(value, bool | int | float):
                self.numbers[path] = str(event.value)
            return value
        if isinstance(event, yaml.SequenceStartEvent):
            items: list[object] = []
            while not isinstance(event := next(events), yaml.SequenceEndEvent):
                items.append(self._value(event, events, (*path, len(items)), depth + 1))
            return items
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(events, path, depth)
        return None

    def _mapping(self, events: Iterator[yaml.Event], path: DocumentPath, depth: int) -> dict[str, object]:
        mapping: dict[str, object] = {}
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            mark = _mark(event)
            key = self._key(event, events, path, depth)
            if key is None:
                self._value(next(events), events, (*path, ""), depth + 1)
                continue
            inner = (*path, key)
            twice = key in mapping
            if twice:
                self.problem(
                    "yaml-duplicate-key",
                    mark,
                    f"duplicate key '{_short(key)}'; it was first set in line {self.positions[inner][0]}",
                    "merge the two values, or remove one",
                )
            else:
                self.positions[inner] = (mark.line + 1, mark.column + 1)
            value = self._value(next(events), events, inner, depth + 1)
            if not twice:
                mapping[key] = value
        return mapping

    def _key(self, event: yaml.Event, events: Iterator[yaml.Event], path: DocumentPath, depth: int) -> str | None:
        if isinstance(event, yaml.ScalarEvent):
            self._count(_mark(event), depth)
            self._refuse_decoration(event)
            if event.value == "<<" and event.implicit[0]:
                self.problem(
                    "yaml-alias",
                    _mark(event),
                    "merge keys ('<<') are not supported",
                    "write the keys out, or move the shared keys into a recipe and include it",
                )
                return None
            return str(event.value)
        if isinstance(event, yaml.AliasEvent):
            self._refuse_decoration(event)
            return None
        self.problem(
            "yaml-key",
            _mark(event),
            "a key must be text, not a list or mapping",
            "put the value in double quotes if it begins with '{{'",
        )
        self._value(event, events, (*path, ""), depth + 1)
        return None

    def _count(self, mark: _Mark, depth: int) -> None:
        self._nodes += 1
        if depth > YAML_DEPTH_LIMIT:
            self.problem("yaml-too-deep", mark, f"lists and mappings are nested more than {YAML_DEPTH_LIMIT} deep")
            raise _TooMany
        if self._nodes > YAML_NODE_LIMIT:
            self.problem("yaml-too-large", mark, f"the document has more than {YAML_NODE_LIMIT} values")
            raise _TooMany

    def _refuse_decoration(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.AliasEvent):
            self.problem(
                "yaml-alias",
                _mark(event),
                f"the alias '*{_short(event.anchor)}' is not supported",
                "write the value out; text that begins with '*' needs quotes",
            )
            return
        anchor = getattr(event, "anchor", None)
        if anchor is not None:
            self.problem(
                "yaml-alias",
                _mark(event),
                f"the anchor '&{_short(anchor)}' is not supported",
                "remove it; text that begins with '&' needs quotes",
            )
        tag = getattr(event, "tag", None)
        if tag is not None:
            self.problem(
                "yaml-tag",
                _mark(event),
                f"the tag '{_short(tag)}' is not supported",
                "remove it; quote the value if it should be text",
            )

    def _scalar(self, event: yaml.ScalarEvent) -> object:
        text = str(event.value)
        if not event.implicit[0]:  # quoted, or a block
            return text
        if text in _NULL:
            return None
        if text in _TRUE or text in _FALSE:
            return text in _TRUE
        number: type[int | float] | None = None
        if _INTEGER.fullmatch(text):
            number = int
        elif _FLOAT.fullmatch(text):
            number = float
        if number is not None and len(text) > YAML_NUMBER_LIMIT:
            self.problem(
                "yaml-number",
                _mark(event),
                f"a number has more than {YAML_NUMBER_LIMIT} characters",
                "put it in quotes if it is text",
            )
            return None
        if number is int:
            base = {"0o": 8, "0x": 16}.get(text[:2], 10)
            return int(text, base)
        if number is float:
            return float(text)
        if _SPECIAL_FLOAT.fullmatch(text):
            return float(text.replace(".", "").lower())
        return text


@dataclass(frozen=True, slots=True)
class _At:
    line: int
    column: int


def _mark(event: yaml.Event) -> _Mark:
    return event.start_mark or _At(0, 0)


def _line_of(text: str, position: int) -> _At:
    before = text[:position]
    return _At(before.count("\n"), position - (before.rfind("\n") + 1))


def _short(text: object) -> str:
    shown = str(text).replace("tag:yaml.org,2002:", "!!")
    return shown if len(shown) <= 60 else shown[:59] + "…"


def _code_point(character: object) -> int:
    if isinstance(character, int):
        return character
    if isinstance(character, str | bytes) and character:
        return ord(character[:1])
    return 0


def _too_large(name: str) -> RecipeError:
    return RecipeError(
        "yaml-too-large",
        f"the document is larger than {YAML_SIZE_LIMIT >> 20} MiB",
        place=name,
        hint="move long texts into separate files and refer to them with 'source' or 'template'",
    )
