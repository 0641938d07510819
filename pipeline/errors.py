"""Exception classes of all errors that relbuild raises on purpose, with exit codes.

    RelbuildError                  exit code
    ├── UsageError                 2   the command line is invalid
    ├── RecipeError                3   a recipe, template or repositories file is invalid
    ├── ResolutionError            4   no set of packages satisfies the recipe, or the lock is stale
    ├── VerificationError          5   a checksum, signature or digest does not match
    ├── BuildError                 1   a package, scriptlet or file cannot be put into the image
    ├── SmokeError                 6   the image was launched and did not pass
    ├── PublicationRefused         7   the gate refused
    ├── EnvironmentLacking         8   this machine lacks a requirement; `relbuild doctor` shows which
    └── FixesLacking               9   an image lacks fixes beyond the threshold that was set

The library raises; only `pipeline.cli` prints and exits. An error carries a kebab-case code that stays
the same for ever, what happened to which input, the place in the input, and the way out. Several
problems of one kind travel together in `problems`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pipeline.lazy_dataclasses import dataclass
from pipeline.urls import cut_text, redact_urls

ERROR_TEXT_LIMIT = 8 << 10
"""Characters of a problem's message, place or hint: what a server sends may be in them, and redacting takes time by the
square of the length."""
STORE_DAMAGE_HINT = "check the store with `relbuild store fsck`, then build again"
"""The way out where something that the store had is gone or damaged."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    `code` is kebab-case and stable; `message` says what happened to which input; `place` is
    `file:line` with the path in the document, or a package or file name; `hint` is the way out. Each is cut to
    ERROR_TEXT_LIMIT, and secrets in URLs are redacted here, because errors are written to logs, reports and pages.
    """

    code: str
    message: str
    place: str | None = None
    hint: str | None = None

    def __post_init__(self) -> None:
        for name in ("message", "place", "hint"):
            text = getattr(self, name)
            if text and len(text) > ERROR_TEXT_LIMIT:
                text = cut_text(text, ERROR_TEXT_LIMIT)
                object.__setattr__(self, name, text)
            if text and (":/" in text or not text.isascii()):
                # Halves of surrogate pairs (file names that are no UTF-8, JSON's escapes) cannot be printed.
                object.__setattr__(self, name, redact_urls(text).encode(errors="replace").decode())

    def __str__(self) -> str:
        where = f"{self.place}: " if self.place else ""
        way_out = f"\n  → {self.hint}" if self.hint else ""
        return f"{where}{self.message} [{self.code}]{way_out}"


class RelbuildError(Exception):
    """Base of all errors that a person can act on. `exit_code` is the process's exit status."""

    exit_code: ClassVar[int] = 1

    def __init__(self, code: str, message: str, *, place: str | None = None, hint: str | None = None) -> None:
        self.problems: tuple[Problem, ...] = (Problem(code, message, place, hint),)
        super().__init__(self.problems[0].message)

    @classmethod
    def of(cls, problems: Sequence[Problem]) -> RelbuildError:
        """All `problems` (at least one) as one error of this class."""
        first = problems[0]
        error = cls(first.code, first.message, place=first.place, hint=first.hint)
        error.problems = tuple(problems)
        return error

    @property
    def code(self) -> str:
        """The first problem's code."""
        return self.problems[0].code

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


class UsageError(RelbuildError):
    """The command line is invalid."""

    exit_code = 2


class RecipeError(RelbuildError):
    """A recipe, a template or a repositories file is invalid."""

    exit_code = 3


class ResolutionError(RelbuildError):
    """No set of packages satisfies the recipe, or the lock is stale."""

    exit_code = 4


class VerificationError(RelbuildError):
    """A checksum, a signature or a digest does not match."""

    exit_code = 5


class BuildError(RelbuildError):
    """A package, scriptlet or file cannot be put into the image."""


class SmokeError(RelbuildError):
    """The image did not pass its smoke test."""

    exit_code = 6


class PublicationRefused(RelbuildError):
    """The gate refused the publication."""

    exit_code = 7


class EnvironmentLacking(RelbuildError):
    """This machine lacks a requirement."""

    exit_code = 8


class FixesLacking(RelbuildError):
    """An image lacks security fixes beyond the threshold, or they are unknown."""

    exit_code = 9


def join_errors(errors: Sequence[RelbuildError]) -> RelbuildError:
    """Join errors (at least one) to one of the first one's class, each problem once."""
    return type(errors[0]).of(tuple(dict.fromkeys(problem for error in errors for problem in error.problems)))
