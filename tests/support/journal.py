"""Stand-ins for the collaborators of a narrative, and a journal of what they were asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pytest


@dataclass(frozen=True)
class Call:
    """One call with its arguments."""

    name: str
    args: tuple[Any, ...]
    options: dict[str, Any]


@dataclass
class Journal:
    """Calls in the order in which they came."""

    monkeypatch: pytest.MonkeyPatch
    calls: list[Call] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """The names of what was called, in order."""
        return [call.name for call in self.calls]

    def of(self, function: Callable[..., Any]) -> list[Call]:
        """The calls of one function."""
        return [call for call in self.calls if call.name == function.__name__]

    def last(self, function: Callable[..., Any]) -> Call:
        """The last call of a function, which was called."""
        return self.of(function)[-1]

    def note(self, name: str, /, *args: Any, **options: Any) -> None:
        """Enter a call of something that is no function of a module."""
        self.calls.append(Call(name, args, options))

    def stand_in(
        self,
        module: ModuleType,
        function: Callable[..., Any],
        does: Callable[..., Any] | None = None,
        gives: Any = None,
    ) -> None:
        """Let `does` (or what gives `gives`) stand in for a function where `module` uses it."""
        name = function.__name__

        def called(*args: Any, **options: Any) -> Any:
            self.note(name, *args, **options)
            return does(*args, **options) if does else gives

        called.__name__ = name
        self.monkeypatch.setattr(module, name, called)

    @contextmanager
    def held(self, name: str) -> Iterator[None]:
        """A lock, of which is noted when it is taken and given back."""
        self.note(f"take {name}")
        try:
            yield
        finally:
            self.note(f"give {name}")


@dataclass
class Told:
    """Progress that remembers warnings, and each task with its notes and its end."""

    warnings: list[str] = field(default_factory=list)
    tasks: list[ToldTask] = field(default_factory=list)

    def start(self, stage: str, label: str, *, total: int | None = None, unit: str = "items") -> ToldTask:
        self.tasks.append(ToldTask(stage, label, total))
        return self.tasks[-1]

    def finish(self, task: ToldTask, *, failed: bool = False) -> None:
        task.ended = "failed" if failed else "done"

    def warn(self, text: str) -> None:
        self.warnings.append(text)


@dataclass
class ToldTask:
    """One task: how far it came, what was noted, and how it ended."""

    stage: str
    label: str
    total: int | None
    advanced: int = 0
    notes: list[str] = field(default_factory=list)
    ended: str = ""

    def advance(self, amount: int) -> None:
        self.advanced += amount

    def note(self, text: str) -> None:
        self.notes.append(text)
