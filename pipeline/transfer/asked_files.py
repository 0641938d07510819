"""Errors of files that a recipe names by URL or path, told where it names them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import PurePath

from pipeline.errors import Problem, RelbuildError

_WAYS_OUT = {
    "download-missing": "correct its path or URL in the recipe, or put the file there",
    "download-mismatch": "if it is the right file, write its checksum as 'sha256', else correct its path or URL",
    "package-damaged": "name a binary package, as rpm reads it",
}
"""Hints by code: what a recipe names itself is in no repository's metadata."""


@contextlib.contextmanager
def errors_where_asked(places: Mapping[str, str]) -> Iterator[None]:
    """Tell errors of files where the recipe names them, with the way out.

    `places` are the `file:line` by the place that errors have: the label of a download, the path of a blob.
    """
    try:
        yield
    except RelbuildError as error:
        problems = [_told(problem, places) for problem in error.problems]
        if tuple(problems) == error.problems:
            raise
        raise type(error).of(problems) from error


def _told(problem: Problem, places: Mapping[str, str]) -> Problem:
    place = places.get(problem.place or "")
    if place is None:
        return problem
    message = problem.message.replace("does not match the metadata", "does not match the recipe")
    message = message.replace("is no longer available", "is not there")
    message = message.removeprefix(f"{PurePath(problem.place or '').name}: ")  # The name of a blob.
    return replace(problem, message=message, place=place, hint=_WAYS_OUT.get(problem.code, problem.hint))
