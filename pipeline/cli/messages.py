"""Printing of messages, JSON results and errors, and the exit status of an error."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Iterator, Mapping

from pipeline.cli.standard_streams import BROKEN_PIPE, STDOUT, drop_stdout, stdout_is_unicode
from pipeline.errors import ERROR_TEXT_LIMIT, EnvironmentLacking, RelbuildError
from pipeline.escaping import escape_invisible, escape_message, json_text
from pipeline.system_errors import relbuild_error
from pipeline.urls import cut_text, redact_urls

INTERNAL_ERROR = 70
_NOTHING: Mapping[str, object] = {}


def print_lines(*lines: str) -> None:
    """Print lines for people on stderr."""
    for line in lines:
        print(escape_invisible(line), file=sys.stderr)


def print_json(value: object) -> None:
    """Print the one machine-readable result on stdout."""
    print(json_text(value, unicode=stdout_is_unicode()))


def print_error(error: RelbuildError) -> int:
    """Print an error on stderr after the result was printed; return the exit status.

    It is not printed as JSON: stdout has one JSON value already.
    """
    return report_error(error, as_json=False)


def report_error(
    error: BaseException, *, as_json: bool, causes: bool = False, finished: Mapping[str, object] = _NOTHING
) -> int:
    """Print an error and return the exit status; a traceback only for a defect of relbuild.

    `causes`: also print the errors that led to it. `finished`: members of the JSON for what was finished before it.
    """
    if isinstance(error, OSError) and error.filename == STDOUT:
        drop_stdout()
        if isinstance(error, BrokenPipeError):
            return BROKEN_PIPE
        error = EnvironmentLacking(
            "stdout-unwritable",
            f"the result cannot be written to standard output: {error.strerror}",
            hint="the command's work is done; run it again with a writable standard output",
        )
    known = relbuild_error(error)
    if known is None:
        print(escape_invisible("".join(traceback.format_exception(error))), end="", file=sys.stderr)
        print(
            escape_invisible(f"internal error: {error!r}; this is a bug in relbuild, please report it"),
            file=sys.stderr,
        )
        if as_json:
            _answer_error({**finished, "error": [{"code": "internal-error", "message": repr(error)}]})
        return INTERNAL_ERROR
    for problem in known.problems:
        where = f"{escape_invisible(problem.place, lines=False)}: " if problem.place else ""
        print(escape_message(f"error[{problem.code}] {where}{problem.message}"), file=sys.stderr)
        if problem.hint:
            print(escape_message(f"  → {problem.hint}"), file=sys.stderr)
    for line in _causes(error) if causes else ():
        print(escape_message(line), file=sys.stderr)
    if as_json:
        answer_error(known, finished)
    return known.exit_code


def answer_error(error: RelbuildError, finished: Mapping[str, object] = _NOTHING) -> None:
    """Print an error that was told to people as JSON, for programs.

    `finished`: members for what was finished before it.
    """
    problems = [{"code": p.code, "message": p.message, "place": p.place, "hint": p.hint} for p in error.problems]
    _answer_error({**finished, "error": problems, "exit_code": error.exit_code})


def _causes(error: BaseException) -> Iterator[str]:
    """Describe the errors that led to this one, nearest first."""
    seen = {id(error)}
    while (cause := _cause(error)) is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield f"  caused by {type(cause).__name__}: {redact_urls(cut_text(str(cause), ERROR_TEXT_LIMIT))}"
        error = cause


def _cause(error: BaseException) -> BaseException | None:
    return error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _answer_error(value: object) -> None:
    """Print the error as JSON, for programs.

    It is on stderr already, so an unwritable stdout is ignored.
    """
    try:
        print(json.dumps(value, indent=2), flush=True)
    except OSError:
        drop_stdout()
