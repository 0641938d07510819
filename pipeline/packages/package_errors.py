"""Errors of a package's file, told of the package."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from pipeline.errors import Problem, RelbuildError
from pipeline.model.package import Nevra


@contextmanager
def errors_about(nevra: Nevra, path: Path) -> Iterator[None]:
    """Raise errors of the file at `path`, a blob of a store, as errors of the package."""
    try:
        yield
    except RelbuildError as error:
        problems = [_about(problem, str(nevra), path) for problem in error.problems]
        if tuple(problems) == error.problems:
            raise
        raise type(error).of(problems) from error


def _about(problem: Problem, nevra: str, path: Path) -> Problem:
    if path.name not in problem.message and problem.place != str(path):
        return problem
    return replace(problem, message=problem.message.replace(path.name, nevra), place=nevra)
