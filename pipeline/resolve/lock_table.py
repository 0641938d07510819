"""Strict reader of the lock's TOML tables: key by key, with an error that names the place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from pipeline.digest import Digest
from pipeline.errors import RecipeError, ResolutionError, VerificationError

_T = TypeVar("_T")

NUMBER_MOST = (1 << 63) - 1
"""The largest number in a lock: TOML's have 64 bits with a sign."""


class LockTable:
    """A TOML table that is read key by key.

    Unknown keys are ignored: a later release would have raised the format if they mattered.
    """

    def __init__(self, values: Mapping[str, object], place: str) -> None:
        self._values = dict(values)
        self._place = place

    def error(self, message: str) -> ResolutionError:
        return malformed_lock(message, self._place)

    def _take(self, key: str) -> object:
        if key not in self._values:
            raise self.error(f"'{key}' is missing")
        return self._values.pop(key)

    def text(self, key: str) -> str:
        return self._text(self._take(key), key)

    def _text(self, value: object, key: str) -> str:
        if not isinstance(value, str):
            raise self.error(f"'{key}' has an entry that is not text")
        return value

    def number(self, key: str, most: int = NUMBER_MOST) -> int:
        value = self._take(key)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
            raise self.error(f"'{key}' is not a whole number of 0 to {most}")
        return value

    def parsed(self, key: str, parse: Callable[[str], _T]) -> _T:
        try:
            return parse(self.text(key))
        except (RecipeError, VerificationError) as error:
            raise self.error(error.problems[0].message) from error

    def optional_digest(self, key: str) -> Digest | None:
        return self.parsed(key, Digest.parse) if key in self._values else None

    def digest(self, text: str) -> Digest:
        try:
            return Digest.parse(text)
        except VerificationError as error:
            raise self.error(error.problems[0].message) from error

    def _list(self, value: object, key: str) -> list[object]:
        if not isinstance(value, list):
            raise self.error(f"'{key}' is not a list")
        return value

    def texts(self, key: str) -> list[str]:
        return [self._text(one, key) for one in self._list(self._take(key), key)]

    def lists(self, key: str) -> list[list[str]]:
        outer = self._list(self._take(key), key)
        return [[self._text(one, key) for one in self._list(inner, key)] for inner in outer]

    def tables(self, key: str) -> list[LockTable]:
        found = []
        for number, one in enumerate(self._list(self._values.pop(key, []), key), 1):
            if not isinstance(one, dict):
                raise self.error(f"'{key}' has an entry that is not a table")
            found.append(LockTable(one, f"{self._place}, {key} {number}"))
        return found

    def table(self, key: str) -> LockTable | None:
        value = self._values.pop(key, None)
        if value is None or isinstance(value, dict):
            return None if value is None else LockTable(value, f"{self._place}, {key}")
        raise self.error(f"'{key}' is not a table")

    def pairs(self, key: str) -> list[tuple[str, str]]:
        value = self._take(key)
        if not isinstance(value, dict):
            raise self.error(f"'{key}' is not a table")
        return [(str(name), self._text(inner, key)) for name, inner in value.items()]


def malformed_lock(message: str, place: str) -> ResolutionError:
    """Make the error of a lock that cannot be read, `lock-malformed`."""
    return ResolutionError(
        "lock-malformed",
        f"the lock cannot be read: {message}",
        place=place,
        hint="restore it from version control, or remove it and run `relbuild lock`",
    )
