"""From what was raised to what is printed and the process's exit status."""

from __future__ import annotations

import errno
import json
import sys
import traceback

from pipeline.errors import EnvironmentLacking, RelbuildError, UsageError

INTERNAL_ERROR = 1


def as_error(error: BaseException) -> RelbuildError | None:
    """The relbuild error that an exception stands for, or None for a defect in relbuild itself."""
    if isinstance(error, RelbuildError):
        return error
    if isinstance(error, OSError):
        where = str(error.filename) if error.filename else None
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return EnvironmentLacking(
                "disk-full",
                f"no space is left: {error.strerror}",
                place=where,
                hint="free some with `relbuild store gc`, or name another place with --store and --output",
            )
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return EnvironmentLacking(
                "no-permission",
                f"the system refused: {error.strerror}",
                place=where,
                hint="run `relbuild doctor` to see what this user may not do, or name folders that it may write",
            )
        if error.errno in (errno.ENOENT, errno.EISDIR, errno.ENOTDIR) and where:
            return UsageError("file-missing", f"{error.strerror}", place=where, hint="check the path")
    return None


def plain(text: str) -> str:
    """A text for a terminal: what would move the cursor, change colours or hide text is written out as an escape. Much
    of what is printed was read from mirrors and packages, and is whatever their makers liked."""
    return "".join(
        one if one.isprintable() or one in "\n\t" else one.encode("unicode_escape").decode("ascii") for one in text
    )


def report(error: BaseException, *, as_json: bool) -> int:
    """Print what happened and return the exit status. A traceback is only printed for a defect."""
    known = as_error(error)
    if known is None:
        traceback.print_exception(error)
        print(f"internal error: {error!r}; this is a defect in relbuild, please report it", file=sys.stderr)
        if as_json:
            print(json.dumps({"error": [{"code": "internal-error", "message": repr(error)}]}))
        return INTERNAL_ERROR
    for problem in known.problems:
        where = f"{problem.place}: " if problem.place else ""
        print(plain(f"error[{problem.code}] {where}{problem.message}"), file=sys.stderr)
        if problem.hint:
            print(plain(f"  → {problem.hint}"), file=sys.stderr)
    if as_json:
        print(
            json.dumps(
                {
                    "error": [
                        {"code": p.code, "message": p.message, "place": p.place, "hint": p.hint} for p in known.problems
                    ],
                    "exit_code": known.exit_code,
                },
                indent=2,
            )
        )
    return known.exit_code
