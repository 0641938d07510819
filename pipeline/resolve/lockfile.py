"""Write, read and parse the lock file: TOML with a section per platform and architecture.

It reads well in a diff: every package is one line, sorted by NEVRA. Other packages are referred to by name alone,
unless several have the same name, so that an update of one package changes one line of the packages. The writer is
canonical: the same lock always gives the same bytes. The reader is strict: unknown forms are errors. Each section has a
digest of its own lines, so that one that was edited or merged is seen: a line that is lost leaves a lock well-formed.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.beneath import (
    Folder,
    NotRegular,
    PathEscape,
    TooLarge,
    escape_error,
)
from pipeline.digest import Digest
from pipeline.errors import ResolutionError
from pipeline.model.lock import Lock, LockedParent, LockSection
from pipeline.model.package import Nevra, Package
from pipeline.model.resolution import Chosen, Reason, Resolution
from pipeline.resolve.lock_table import LockTable, malformed_lock
from pipeline.store import write_durably

LOCK_FORMAT = 3
"""To be raised when the file's form changes; a newer form is refused. A lock has the lowest form that is sufficient.

A further line in a section needs a newer form too, as a section's digest is of all its lines.
"""

_WITHOUT_PARENT = 2
"""The form of a lock in which no section has a parent."""

_WITHOUT_METADATA = 1
"""The form of locks without the digests of repomd.xml. It is still read."""

LOCK_LIMIT = 64 << 20
"""Bytes of a lock: ten thousand packages take about ten million."""

_TIME_MOST = (1 << 32) - 1
"""The latest build time: rpm's tag has 32 bits."""

_ACCOUNT_MOST = (1 << 32) - 2
"""The highest number of an account: the kernel's have 32 bits, and all of them set means none (chown(2))."""

_HEAD = """\
# The packages that this recipe came to. Written by relbuild: commit it, do not edit it.
"""


def lock_path(recipe_path: Path) -> Path:
    """Return the path of a recipe's lock: `mysql.lock` beside `mysql.yaml`."""
    return recipe_path.with_suffix(".lock")


# --- writing -------------------------------------------------------------------------------------


def write_lock(path: Path, lock: Lock) -> Digest:
    """Write the lock atomically and durably; return the file's digest.

    A symlink at the path is replaced, never followed.
    """
    data = format_lock(lock).encode()
    write_durably(path, data)
    return Digest.of(data)


def format_lock(lock: Lock) -> str:
    """Return the lock's text."""
    form = LOCK_FORMAT if any(section.parent for section in lock.sections) else _WITHOUT_PARENT
    lines = [_HEAD, f"format = {form}", f"recipe = {_text(lock.recipe)}"]
    for section in sorted(lock.sections, key=lambda one: (one.resolution.platform, one.resolution.arch)):
        own = list(_section_lines(section))
        lines += ["", "[[section]]", f"digest = {_text(str(section.written_as or _digest_of(own)))}", *own]
    return "\n".join(lines) + "\n"


def _digest_of(lines: Sequence[str]) -> Digest:
    """Return the digest of a section's lines as the writer makes them.

    Layout and comments are no part of it.
    """
    return Digest.of("\n".join(lines).encode())


def _section_lines(section: LockSection) -> Iterator[str]:
    resolution = section.resolution
    shorter = _Shorter([one.package.nevra for one in resolution.chosen])
    yield f"platform = {_text(resolution.platform)}"
    yield f"architecture = {_text(resolution.arch)}"
    yield f"build_time = {section.build_time}"
    yield from _array("keys", [_text(key) for key in section.keys])
    yield from _array("assumed", [_text(text) for text in resolution.assumed])
    yield from _array("warnings", [_text(text) for text in resolution.warnings])
    yield from _array("accounts", [_table(kind=k, name=n, number=i) for k, n, i in section.accounts])
    yield from _array("packages", [_package(chosen, shorter) for chosen in resolution.chosen])
    yield from _array("order", [_text(shorter.short(nevra)) for nevra in resolution.order])
    parent = section.parent
    for name, pairs in (
        *(
            [("parent", [("recipe", parent.recipe), ("digest", str(parent.digest)), ("config", str(parent.config))])]
            if parent
            else []
        ),
        ("inputs", [(key, str(digest)) for key, digest in section.inputs]),
        ("metadata", [(key, str(digest)) for key, digest in section.metadata]),
        ("versions", list(section.versions)),
    ):
        yield ""
        yield f"[section.{name}]"
        yield from (f"{_text(key)} = {_text(value)}" for key, value in pairs)


def _package(chosen: Chosen, shorter: _Shorter) -> str:
    package = chosen.package
    why = [
        [reason.kind, reason.by if reason.kind in _BY_TEXT else shorter.short(reason.by), reason.what]
        for reason in chosen.reasons
    ]
    return _table(
        nevra=str(package.nevra),
        layer=chosen.layer,
        sha256=package.checksum.hex,
        size=package.size,
        repository=package.repository,
        location=package.location,
        source=package.source_rpm,
        build_time=package.build_time,
        installed_size=package.installed_size,
        why=[reason if reason[2] else reason[:2] for reason in why],
    )


_BY_TEXT = ("requested", "local")
"""Kinds of reasons whose `by` is no package."""


class _Shorter:
    """Conversion between a NEVRA and the name alone, where that is not ambiguous."""

    def __init__(self, nevras: Sequence[Nevra]) -> None:
        count = Counter(nevra.name for nevra in nevras)
        self._short = {str(nevra): nevra.name for nevra in nevras if count[nevra.name] == 1}
        taken = {str(nevra) for nevra in nevras}
        self._short = {full: name for full, name in self._short.items() if name not in taken}
        self._full = {name: full for full, name in self._short.items()}

    def short(self, nevra: str) -> str:
        """Return the text for a NEVRA in the file: its name alone where that is not ambiguous."""
        return self._short.get(nevra, nevra)

    def full(self, text: str) -> str:
        """Return the NEVRA that a text in the file stands for."""
        return self._full.get(text, text)


def _array(name: str, items: Sequence[str]) -> Iterator[str]:
    if not items:
        yield f"{name} = []"
        return
    yield f"{name} = ["
    yield from (f"  {item}," for item in items)
    yield "]"


def _table(**values: object) -> str:
    return "{ " + ", ".join(f"{name} = {_value(value)}" for name, value in values.items()) + " }"


def _value(value: object) -> str:
    if isinstance(value, int):
        return str(value)
    if isinstance(value, list):
        return "[" + ", ".join(_value(one) for one in value) + "]"
    return _text(str(value))


_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def _text(text: str) -> str:
    """Write a TOML basic string."""
    return '"' + re.sub(r'[\x00-\x1f\x7f"\\]', lambda c: _ESCAPES.get(c[0], f"\\u{ord(c[0]):04x}"), text) + '"'


# --- reading -------------------------------------------------------------------------------------


def is_lock(path: Path) -> bool:
    """Return whether a file begins like a lock of relbuild."""
    head = _HEAD.encode()
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return file.read(len(head)) == head
    except OSError:
        return False


def read_lock(path: Path) -> Lock | None:
    """Read the lock at `path`; None if there is none.

    Raises ResolutionError `lock-malformed` or `lock-newer-format`, RecipeError `path-escapes`.
    """
    try:
        data = Folder(path.parent).read(path.name, LOCK_LIMIT)
    except FileNotFoundError:
        return None
    except PathEscape as error:
        raise escape_error(error, str(path)) from None
    except TooLarge:
        raise malformed_lock(f"it has more than {LOCK_LIMIT} bytes", path.name) from None
    except NotRegular as error:
        raise malformed_lock(str(error.strerror), path.name) from None
    try:
        return parse_lock(data.decode(), path.name)
    except UnicodeDecodeError as error:
        raise malformed_lock("it is not UTF-8", path.name) from error


def parse_lock(text: str, name: str) -> Lock:
    """Parse a lock's text; `name` is its name in errors. Raises as `read_lock`."""
    try:
        document = LockTable(tomllib.loads(text), name)
    except (ValueError, RecursionError) as error:  # A number of 5,000 digits is no TOMLDecodeError.
        raise malformed_lock(str(error), name) from error
    version = document.number("format")
    if version > LOCK_FORMAT:
        raise ResolutionError(
            "lock-newer-format",
            f"{name} was made by a newer relbuild: it has format {version}, and this one reads up to {LOCK_FORMAT}",
            place=name,
            hint="use the relbuild that wrote it, or a newer one",
        )
    if version not in (LOCK_FORMAT, _WITHOUT_PARENT, _WITHOUT_METADATA):
        raise malformed_lock(f"format {version} has never been written", name)
    recipe = document.text("recipe")
    sections = tuple(_section(table, version) for table in document.tables("section"))
    if len({(s.resolution.platform, s.resolution.arch) for s in sections}) != len(sections):
        raise malformed_lock("two sections for the same platform and architecture", name)
    return Lock(recipe, sections)


def _section(table: LockTable, version: int) -> LockSection:
    """Read a section; one from before sections had a digest counts as it is."""
    written = table.optional_digest("digest")
    packages = table.tables("packages")
    nevras = [one.parsed("nevra", Nevra.parse) for one in packages]
    shorter = _Shorter(nevras)
    if len(set(nevras)) != len(nevras):
        raise table.error("a package is listed twice")
    chosen = tuple(_chosen(one, nevra, shorter) for one, nevra in zip(packages, nevras, strict=True))
    order = tuple(shorter.full(text) for text in table.texts("order"))
    if sorted(order) != sorted(str(nevra) for nevra in nevras):
        raise table.error("'order' and 'packages' list different packages")
    resolution = Resolution(
        table.text("platform"),
        table.text("architecture"),
        chosen,
        order,
        tuple(table.texts("assumed")),
        tuple(table.texts("warnings")),
    )
    section = LockSection(
        resolution,
        tuple((key, table.digest(value)) for key, value in table.pairs("inputs")),
        table.number("build_time", _TIME_MOST),
        tuple(_account(one) for one in table.tables("accounts")),
        tuple(table.pairs("versions")),
        tuple(table.texts("keys")),
        (
            tuple((key, table.digest(value)) for key, value in table.pairs("metadata"))
            if version > _WITHOUT_METADATA
            else ()
        ),
        _parent(table) if version > _WITHOUT_PARENT else None,
    )
    unchanged = written is None or _digest_of(list(_section_lines(section))) == written
    return section if unchanged else replace(section, written_as=written)


def _chosen(table: LockTable, nevra: Nevra, shorter: _Shorter) -> Chosen:
    package = Package(
        nevra,
        table.parsed("sha256", Digest),
        table.number("size"),
        table.text("repository"),
        table.text("location"),
        table.number("build_time", _TIME_MOST),
        table.text("source"),
        table.number("installed_size"),
    )
    reasons = []
    for words in table.lists("why"):
        if len(words) not in {2, 3}:
            raise table.error("a reason in 'why' must have two or three words")
        by = words[1] if words[0] in _BY_TEXT else shorter.full(words[1])
        reasons.append(Reason(words[0], by, *words[2:]))
    return Chosen(package, table.text("layer"), tuple(reasons))


def _parent(table: LockTable) -> LockedParent | None:
    inner = table.table("parent")
    if inner is None:
        return None
    return LockedParent(
        inner.text("recipe"), inner.parsed("digest", Digest.parse), inner.parsed("config", Digest.parse)
    )


def _account(table: LockTable) -> tuple[str, str, int]:
    account = table.text("kind"), table.text("name"), table.number("number", _ACCOUNT_MOST)
    if account[0] not in {"user", "group"}:
        raise table.error(f"'{account[0]}' is neither 'user' nor 'group'")
    return account
