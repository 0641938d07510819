"""Repeat the last night's result if a snapshot of all that it read is unchanged.

The files and documents that the last night read are compared by digest. Recipes are not parsed, nothing is resolved,
and most modules are not imported, so it takes a fraction of a second, which is enough for most nights.

Nothing is trusted that a whole night would not trust: a repomd.xml that was verified yesterday is valid if its bytes
are the same. Where anything differs, or a platform has metalinks (whose bytes change from hour to hour), the whole
night is run.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import re
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.beneath import read_file
from pipeline.digest import Digest, canonical_json, digest_file, identity
from pipeline.errors import RelbuildError, VerificationError
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.json_form import read_json, to_json
from pipeline.model.night_record import NightlyRun, Outcome, ProductRun
from pipeline.nightly.relbuild_digest import code_digest
from pipeline.store import Store

FORMAT = 1
"""To be raised when the content of a snapshot changes."""

RUN_BYTES = 8
"""Random bytes of a night's unique id `run`."""

SNAPSHOT_DOCUMENT_LIMIT = 4 << 20
"""Bytes of a repomd.xml or a file of keys."""

NOTHING_CHANGED = "no input of its build or tests changed"

_VARIABLE = re.compile(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)")
_LIBRARIES = ("deflate", "solv", "zstandard", "Jinja2", "MarkupSafe", "PyYAML", "cryptography", "pydantic")
"""Distributions that the meaning of recipes, the resolution, or output bytes depend on. rpm's library is not among
them: its files are in the snapshot."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot of all that a night read.

    `made` is the digest of its settings and of relbuild's code; `files` are (path, digest or `missing`), `folders`
    (path, digest of the names in it), `documents` (URL, digest), `programs` (path, size and time of change),
    `variables` (name of an environment variable, digest of its value), `tags` (product, tag, digest).
    """

    made: Digest
    files: tuple[tuple[str, str], ...]
    folders: tuple[tuple[str, str], ...]
    documents: tuple[tuple[str, str], ...]
    programs: tuple[tuple[str, str], ...]
    variables: tuple[tuple[str, str], ...]
    tags: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True, slots=True)
class RememberedNight:
    """The last night's record, and the snapshot of what it read."""

    watch: Snapshot
    night: NightlyRun


FetchDocument = Callable[[str, int], bytes]
"""Function that fetches a document by its URL, of at most so many bytes."""

ResolveTag = Callable[[str, str], Digest | None]
"""Function that returns the digest of a product's tag on the mirror."""


def request_digest(words: object) -> Digest:
    """Return the digest of a night's settings (JSON values) and of the program that does it.

    The program counts to its last byte: a relbuild that changed at all runs a whole night, which compares formats and
    decides.
    """
    libraries = [importlib.metadata.version(name) for name in _LIBRARIES]
    return identity(
        "asked",
        FORMAT,
        words=words,
        libraries=libraries,
        python=platform.python_version(),
        relbuild=code_digest(),
        machine=platform.machine(),
    )


def repeat_unchanged(
    store: Store,
    made: Digest,
    *,
    environment: Mapping[str, str],
    clock: Callable[[], float],
    get: FetchDocument,
    resolve: ResolveTag,
) -> NightlyRun | None:
    """Return the last night's record as tonight's if nothing that it read has changed.

    Returns None if something is or may be.
    """
    began = clock()
    remembered = _recall(store, made)
    if remembered is None or not _holds(remembered.watch, environment, get, resolve):
        return None
    products = tuple(
        replace(product, run=ProductRun(Outcome.UNCHANGED, NOTHING_CHANGED, began=int(began * 1000)))
        for product in remembered.night.products
    )
    night = replace(remembered.night, began=int(began * 1000), ended=int(clock() * 1000), products=products)
    return replace(night, set_aside=(), run=secrets.token_hex(RUN_BYTES))


def take_snapshot(
    made: Digest,
    *,
    files: Iterable[Path],
    folders: Iterable[Path],
    documents: Sequence[tuple[str, Digest]],
    programs: Iterable[Path],
    environment: Mapping[str, str],
    tags: Sequence[tuple[str, str, Digest]],
) -> Snapshot:
    """Take a snapshot of all that the next night is to compare.

    Variables are those that any of the files names.
    """
    every = sorted({os.fspath(path) for path in files})
    named: set[str] = set()
    for path in every:
        if path.endswith((".yaml", ".yml")):
            with contextlib.suppress(OSError):
                named.update(_VARIABLE.findall(read_file(Path(path), SNAPSHOT_DOCUMENT_LIMIT).decode(errors="replace")))
    return Snapshot(
        made=made,
        files=tuple((path, _content(path)) for path in every),
        folders=tuple((path, _names(path)) for path in sorted({os.fspath(one) for one in folders})),
        documents=tuple(sorted((url, str(digest)) for url, digest in documents)),
        programs=tuple((path, _stamp(path)) for path in sorted({os.fspath(one) for one in programs})),
        variables=tuple((name, _value(name, environment)) for name in sorted(named)),
        tags=tuple(sorted((product, tag, str(digest)) for product, tag, digest in tags)),
    )


def remember_night(store: Store, seen: Snapshot, night: NightlyRun) -> None:
    """Remember a night of which nothing failed."""
    store.remember(_name(seen.made), to_json(RememberedNight(seen, night)))


def _name(made: Digest) -> Digest:
    return identity("quiet-night", FORMAT, asked=made)


def _recall(store: Store, made: Digest) -> RememberedNight | None:
    known = store.recall(_name(made))
    try:
        return None if known is None else read_json(RememberedNight, known)
    except (ValueError, VerificationError):
        return None


def _holds(seen: Snapshot, environment: Mapping[str, str], get: FetchDocument, resolve: ResolveTag) -> bool:
    """Return True if nothing in a snapshot has changed; cheap comparisons come first."""
    return (
        all(_value(name, environment) == value for name, value in seen.variables)
        and all(_stamp(path) == stamp for path, stamp in seen.programs)
        and all(_names(path) == names for path, names in seen.folders)
        and all(_content(path) == content for path, content in seen.files)
        and all(str(resolve(product, tag)) == digest for product, tag, digest in seen.tags)
        and all(_document(get, url) == digest for url, digest in seen.documents)
    )


def _value(name: str, environment: Mapping[str, str]) -> str:
    return str(Digest.of(environment[name].encode())) if name in environment else "unset"


def _stamp(path: str) -> str:
    try:
        status = Path(path).stat()
    except OSError:
        return "missing"
    return f"{status.st_size} {status.st_mtime_ns}"


def _names(path: str) -> str:
    try:
        return str(Digest.of(canonical_json(sorted(os.listdir(path)))))  # noqa: PTH208  names, not paths
    except OSError:
        return "missing"


def _content(path: str) -> str:
    try:
        return str(digest_file(Path(path)))
    except OSError:
        return "missing"


def _document(get: FetchDocument, url: str) -> str:
    try:
        return str(Digest.of(get(url, SNAPSHOT_DOCUMENT_LIMIT)))
    except RelbuildError:
        return "missing"
