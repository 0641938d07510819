"""The differences between an image and what rpm installs, each with its reason; docs/differences.md tells them."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable
from dataclasses import dataclass

from tests.support.trees import Difference


@dataclass(frozen=True)
class Context:
    """What the report and the recipe say: paths of changed package content, of the recipe's files and of what it
    removes, the paths that packages own, the numbers of accounts that packages leave open (image's, rpm's), and the
    folder of the RPM database."""

    changed: frozenset[str]
    recipe: frozenset[str]
    removed: frozenset[str]
    owned: frozenset[str]
    accounts: frozenset[tuple[int, int]]
    database: str


@dataclass(frozen=True)
class Explanation:
    """One kind of difference: what it is called in the documentation, and which differences it covers."""

    title: str
    covers: Callable[[Difference, Context], bool]


def _directory_times(it: Difference, _: Context) -> bool:
    return it.field == "mtime" and it.kind == "d"


def _times_of_what_scripts_write(it: Difference, context: Context) -> bool:
    return it.field == "mtime" and it.kind != "d" and (it.path in context.changed or it.path not in context.owned)


def _recipe(it: Difference, context: Context) -> bool:
    if it.path in context.removed:
        return it.field == "presence" and it.side == "rpm"
    if it.path in context.recipe:
        return it.field in ("presence", "content", "size", "mode", "uid", "gid", "mtime")
    return it.field == "presence" and it.kind == "d" and any(p.startswith(f"{it.path}/") for p in context.recipe)


def _accounts(it: Difference, _: Context) -> bool:
    return it.path in ("etc/passwd", "etc/group", "etc/shadow", "etc/gshadow") and it.field in (
        "content",
        "size",
    )


def _numbers(it: Difference, context: Context) -> bool:
    return it.field in ("uid", "gid") and (it.mine, it.theirs) in context.accounts


def _leftovers(it: Difference, _: Context) -> bool:
    left = (
        "etc/.pwd.lock",
        "etc/passwd-",
        "etc/group-",
        "etc/shadow-",
        "etc/gshadow-",
        "var/cache/ldconfig/aux-cache",
    )
    return it.field == "presence" and it.side == "rpm" and it.path in left


def _volatile(it: Difference, _: Context) -> bool:
    return it.field == "presence" and it.side == "rpm" and bool(re.match(r"(tmp|run|var/tmp)/", it.path))


def _no_devices(it: Difference, _: Context) -> bool:
    return it.field == "presence" and it.side == "rpm" and fnmatch.fnmatchcase(it.path, "dev/*")


def _database(it: Difference, context: Context) -> bool:
    folder = context.database
    if it.path == f"{folder}/rpmdb.sqlite":
        return it.field in ("content", "size", "mtime")
    own = (f"{folder}/.rpm.lock", f"{folder}/rpmdb.sqlite-shm", f"{folder}/rpmdb.sqlite-wal")
    return it.field == "presence" and it.side == "rpm" and it.path in own


EXPLANATIONS: tuple[Explanation, ...] = (
    Explanation("Times of directories", _directory_times),
    Explanation("Times of what scripts and the recipe write", _times_of_what_scripts_write),
    Explanation("The recipe's own files", _recipe),
    Explanation("Accounts that own files have their numbers before the first script", _accounts),
    Explanation("Numbers that a package leaves open", _numbers),
    Explanation("What depends on the machine is left out", _leftovers),
    Explanation("Scratch directories are scratch", _volatile),
    Explanation("Scripts find real devices", _no_devices),
    Explanation("The RPM database is one quiet file", _database),
)


def explained(it: Difference, context: Context) -> bool:
    """Is a difference covered by one of the explanations?"""
    return any(explanation.covers(it, context) for explanation in EXPLANATIONS)
