"""The state that a fault leaves, so that it is looked at once and not for each fault that leaves the same.

Two states are the same if they have the same paths with the same kinds, modes, owners, links and bytes. Names of drafts
end in what is random, which does not count. Nor do the bytes of drafts that the next run does not open: those that it
opened are known from the first time. Where inode and time of change stand in a record, what counts is which file has
them; where a seal stands, what counts is that it holds.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.store.authenticated_values import Sealer
from pipeline.store.seal_key import read_key
from pipeline.store.tree_seals import tree_metadata_digest

DRAFTS = re.compile(r"(store/tmp|store/users|store/sandbox/live|mirror/\.incoming)/|(output|recipes)/\.")
"""Where work in flight stands; the part after it is a name of its own."""

_RANDOM = re.compile(r"(?<=[-.])[0-9a-z_]{8,}(?=$|\.)|[0-9a-f]{8,}|\d+")
"""What differs from run to run in the name of a draft: letters of `tempfile`, hexadecimal, numbers of processes."""

_UNCOUNTED = frozenset({"number"})
"""Files of the harness's own."""


@dataclass(frozen=True, slots=True)
class State:
    """A folder. `shape` is a digest over all but the bytes of drafts; `drafts`: path → digest of its bytes;
    `names`: the same path → the path without what is random in it."""

    shape: str
    drafts: dict[str, str]
    names: dict[str, str]


@dataclass(slots=True)
class Known:
    """States after which everything was well, with the drafts that the next run then opened."""

    _good: dict[str, list[frozenset[tuple[str, str]]]] = field(default_factory=dict)

    def __contains__(self, state: State) -> bool:
        there = {(state.names[path], digest) for path, digest in state.drafts.items()}
        return any(read <= there for read in self._good.get(state.shape, ()))

    def add(self, state: State, opened: set[str], moved: set[str]) -> None:
        """After this state all was well. On the way these files were opened, and these files and folders renamed or
        linked: paths below the folder."""
        read = frozenset(
            (state.names[path], digest)
            for path, digest in state.drafts.items()
            if path in opened or path in moved or any(str(parent) in moved for parent in Path(path).parents)
        )
        self._good.setdefault(state.shape, []).append(read)


def state_of(folder: Path) -> State:
    """The state of a folder."""
    shape: list[str] = []
    stamps = {
        _stamp(path): str(path.relative_to(folder))
        for path in _below(folder)
        if "sha256" in path.parts or "blobs" in path.parts
    }
    read = _Reader(folder, stamps)
    drafts: dict[str, str] = {}
    names: dict[str, str] = {}
    for path in _below(folder):
        relative = str(path.relative_to(folder))
        if relative in _UNCOUNTED:
            continue
        found = path.lstat()
        draft = DRAFTS.match(relative)
        name = _counted(relative, draft.end()) if draft else relative
        what = f"{name}\0{found.st_mode:o}\0{found.st_uid}:{found.st_gid}"
        what += f"\0{found.st_nlink}" if stat.S_ISREG(found.st_mode) else ""
        if stat.S_ISLNK(found.st_mode):
            what += f"\0{path.readlink()}"
        elif stat.S_ISREG(found.st_mode):
            digest = hashlib.sha256(read(path, relative)).hexdigest()
            if draft:
                drafts[relative], names[relative] = digest, name
            else:
                what += f"\0{digest}"
        shape.append(what)
    text = "\n".join(sorted(shape)).encode(errors="surrogateescape")
    return State(hashlib.sha256(text).hexdigest(), drafts, names)


Stamp = tuple[int, int, int, int]


def _stamp(path: Path) -> Stamp:
    found = path.lstat()
    return found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns


class _Reader:
    """Reads files, with what differs from run to run in another form."""

    def __init__(self, folder: Path, stamps: Mapping[Stamp, str]) -> None:
        self._stamps = stamps
        self._key = None
        with contextlib.suppress(Exception):
            self._key = read_key(folder / "store")

    def __call__(self, path: Path, relative: str) -> bytes:
        data = path.read_bytes()
        if relative == "store/sandbox/mark":
            return re.sub(rb"^[0-9a-f]{8}$", b"a mark", data)
        if relative.startswith("mirror/.scrub/blobs/"):
            with contextlib.suppress(ValueError):
                return json.dumps(self._plain(json.loads(data), times=True)).encode()
        if data.startswith(b"relbuild 1 ") and self._key is not None:
            return self._unsealed(path, data, self._key)
        return data

    def _unsealed(self, path: Path, data: bytes, key: bytes) -> bytes:
        kind = data.split(b" ", 3)[2].decode(errors="replace")
        sealed = Sealer.of(key, kind).unseal(path.parent.name if path.name == "seal" else f"sha256:{path.name}", data)
        if not isinstance(sealed, bytes):
            return data
        with contextlib.suppress(ValueError, OSError):
            value = json.loads(sealed)
            if path.name == "seal":
                value["look"] = value["look"] == tree_metadata_digest(path.parent / "root")
            return b"sealed " + json.dumps(self._plain(value)).encode()
        return data

    def _plain(self, value: object, *, times: bool = False) -> object:
        match value:
            case [int(a), int(b), int(c), int(d), *rest]:
                return [self._stamps.get((a, b, c, d), "of no file"), *(self._plain(one, times=times) for one in rest)]
            case list():
                return [self._plain(one, times=times) for one in value]
            case dict():
                return {name: self._plain(one, times=times) for name, one in value.items()}
            case float() if times:
                return "a time"
        return value


def _below(folder: Path) -> Iterable[Path]:
    for where, folders, files in os.walk(folder):
        yield from (Path(where, name) for name in (*folders, *files))


def _counted(relative: str, start: int) -> str:
    """The name of a draft without what is random in its own name; what lies in it keeps its name."""
    own, slash, rest = relative[start:].partition("/")
    return relative[:start] + _RANDOM.sub("*", own) + slash + rest
