"""Record which blobs of a mirror are intact; hash files; put blobs, replacing corrupt ones.

A publisher need not read a blob again that was hashed in this run, or by a recent scrub, or, on a directory, by another
publisher not long ago, if the file's stamp is unchanged. Corrupt files are moved to quarantine and replaced by the
publisher's own bytes.

    .scrub/blobs/AB           record of blobs whose digests begin with AB: stamp, time, and who hashed them
    .quarantine/rotten/…      files whose content does not match their digest
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import stat
import time
from collections.abc import Callable, Mapping
from dataclasses import field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from pipeline.beneath import Folder, LinkRefused, NotRegular
from pipeline.digest import CHUNK, Digest, identity
from pipeline.errors import VerificationError
from pipeline.lazy_dataclasses import dataclass
from pipeline.mirror.atomic_files import (
    make_drafts_folder,
    replace_file,
    sync_names,
    write_blob,
)
from pipeline.mirror.damage_memory import DamageMemory
from pipeline.mirror.protocol import Arrival, ignore_progress
from pipeline.model.image import Descriptor
from pipeline.store import Store

FileStamp = tuple[int, int, int, int]
"""Size, inode, modification and change time in nanoseconds; only the kernel sets the change time."""

NO_STAMP: FileStamp = (0, 0, 0, 0)
"""Stamp of blobs that are not files on this machine."""

KNOWN_SECONDS = 12 * 3600.0
"""Seconds for which publishers trust another publisher's hash while the stamp is the same: a night."""

SCRUB_KNOWN_SECONDS = 8 * 86_400.0
"""Seconds for which they trust a scrub, which should run each week."""

SETTLED_NANOSECONDS = 10_000_000
"""Nanoseconds for which a file must be unchanged before it is hashed: more than two ticks of the kernel's clock for
file times, so that no later change has the same stamp."""

_SHARD_LIMIT = 32 << 20
"""Bytes of one file of the record: 200,000 blobs whose digests begin with the same two digits."""


class HashedBy(StrEnum):
    """The process that hashed a blob: a publisher's or a scrub's."""

    PUBLISHER = "publisher"
    SCRUB = "scrub"


class KnownBlobs(Protocol):
    """Interface of the record of blobs known to be intact. Without it, blobs are hashed again."""

    def believes(self, digest: Digest, stamp: FileStamp) -> bool:
        """Return whether the blob was found intact not too long ago and has had this stamp since."""

    def note(self, digest: Digest, stamp: FileStamp, finder: HashedBy) -> None:
        """Record that a blob with this stamp was hashed just now, and is intact."""


@dataclass(frozen=True, slots=True)
class KnownInRun:
    """Record in memory, for this process, and in the store for scrubs of a registry.

    `url`: the mirror's; `clock` returns seconds since the epoch.
    """

    url: str = ""
    store: Store | None = None
    clock: Callable[[], float] = lambda: 0.0
    _whole: dict[Digest, FileStamp] = field(default_factory=dict)

    def believes(self, digest: Digest, stamp: FileStamp) -> bool:
        """See `KnownBlobs`."""
        if self._whole.get(digest) == stamp:
            return True
        scrub = self._scrub(digest)
        return scrub is not None and 0 <= self.clock() - scrub[0] < SCRUB_KNOWN_SECONDS

    def note(self, digest: Digest, stamp: FileStamp, finder: HashedBy) -> None:
        """See `KnownBlobs`."""
        self._whole[digest] = stamp
        if self.store is not None:
            DamageMemory(self.store, self.url).clear(digest)

    def note_damage(self, digest: Digest) -> None:
        """Record that a registry returned a blob corrupt just now: its word for it counts no more."""
        self.forget(digest)
        if self.store is not None:
            DamageMemory(self.store, self.url).note(digest)

    def doubts(self, digest: Digest) -> bool:
        """Return whether a blob was found corrupt, and not intact since."""
        return self.store is not None and DamageMemory(self.store, self.url).has(digest)

    def note_scrub(self, digest: Digest, run: str) -> None:
        """Record that the scrub `run` (its random name) read a registry's blob just now, intact."""
        self._whole[digest] = NO_STAMP
        if self.store is not None:
            self.store.remember(self._name(digest), [int(self.clock()), run])

    def forget(self, digest: Digest) -> None:
        """Remove a blob from the record."""
        self._whole.pop(digest, None)
        if self._scrub(digest) is not None and self.store is not None:
            self.store.remember(self._name(digest), 0)

    def read_in(self, digest: Digest, run: str) -> bool:
        """Return whether the scrub `run` has read a blob and found it intact."""
        scrub = self._scrub(digest)
        return scrub is not None and scrub[1] == run

    def _scrub(self, digest: Digest) -> tuple[int, str] | None:
        known = self.store.recall(self._name(digest)) if self.store else None
        if not isinstance(known, list) or len(known) != 2 or not isinstance(known[0], int):
            return None
        return known[0], str(known[1])

    def _name(self, digest: Digest) -> Digest:
        return identity("scrubbed", 1, mirror=self.url, digest=digest)


@dataclass(frozen=True, slots=True)
class KnownInFolder:
    """Record in a folder of the mirror, shared by all processes that use it.

    There is a file for each two first digits of digests. When two processes write one at the same time, the entries of
    one are lost, and those blobs are hashed again.
    """

    folder: Path
    drafts: Path
    clock: Callable[[], float]

    def believes(self, digest: Digest, stamp: FileStamp) -> bool:
        """See `KnownBlobs`."""
        known = self.read(digest.hex[:2]).get(digest.hex)
        if known is None or known[0] != stamp:
            return False
        _, at, finder = known
        return 0 <= self.clock() - at < (SCRUB_KNOWN_SECONDS if finder is HashedBy.SCRUB else KNOWN_SECONDS)

    def note(self, digest: Digest, stamp: FileStamp, finder: HashedBy) -> None:
        """See `KnownBlobs`. Only for a `settled` stamp (see `Hashed`)."""
        self.note_all({digest: stamp}, finder)

    def note_all(self, found: Mapping[Digest, FileStamp], finder: HashedBy) -> None:
        """Record several blobs; a publisher's entry does not replace a scrub's for the same stamp."""
        now = self.clock()
        for start in {digest.hex[:2] for digest in found}:
            known = self.read(start)
            for digest, stamp in found.items():
                if digest.hex[:2] == start and not (
                    finder is HashedBy.PUBLISHER and self._scrubbed(known, digest, stamp)
                ):
                    known[digest.hex] = (stamp, now, finder)
            text = json.dumps({name: [*stamp, at, str(by)] for name, (stamp, at, by) in sorted(known.items())})
            make_drafts_folder(self.folder)
            replace_file(text.encode(), self.folder / start, self.drafts, sync=False)

    def forget(self, digest: Digest) -> None:
        """Remove a blob from the record."""
        known = self.read(digest.hex[:2])
        if known.pop(digest.hex, None) is not None:
            text = json.dumps({name: [*stamp, at, str(by)] for name, (stamp, at, by) in sorted(known.items())})
            replace_file(text.encode(), self.folder / digest.hex[:2], self.drafts, sync=False)

    def read(self, start: str) -> dict[str, tuple[FileStamp, float, HashedBy]]:
        """Return digest (hex) → stamp, time, hasher for digests that begin with `start`.

        Empty if the file is missing or damaged.
        """
        try:
            with Folder(self.folder).open_without_links(start) as file:
                data = file.read(_SHARD_LIMIT + 1)
            rows = json.loads(data) if len(data) <= _SHARD_LIMIT else {}
            return {
                name: ((int(row[0]), int(row[1]), int(row[2]), int(row[3])), float(row[4]), HashedBy(row[5]))
                for name, row in rows.items()
            }
        except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError, OverflowError):
            return {}

    def _scrubbed(
        self, known: Mapping[str, tuple[FileStamp, float, HashedBy]], digest: Digest, stamp: FileStamp
    ) -> bool:
        before = known.get(digest.hex)
        return before is not None and before[0] == stamp and before[2] is HashedBy.SCRUB


def stamp_of(status: os.stat_result) -> FileStamp:
    """Return a file's stamp."""
    return (status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns)


def regular_file(path: Path) -> os.stat_result | None:
    """Return the status of a regular file; None if it is missing or of another kind."""
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found if stat.S_ISREG(found.st_mode) else None


@dataclass(frozen=True, slots=True)
class Hashed:
    """Result of hashing a file.

    `stamp`: taken before the bytes were read; `settled`: any later change of the file gives another stamp.
    """

    digest: Digest
    stamp: FileStamp
    settled: bool


def hash_file(root: Path, path: Path, advance: Callable[[int], None] = ignore_progress) -> Hashed | None:
    """Hash a file below `root`; None if it is missing, not a regular file, or behind a symlink.

    `advance` is called with the number of bytes of each piece. Raises OSError where the disk cannot read it.
    """
    try:
        file = Folder(root).open_without_links(path.relative_to(root))
    except (FileNotFoundError, NotADirectoryError, LinkRefused, NotRegular):
        return None
    with file:
        # The kernel's clock, because the kernel's file times are compared.
        settled = time.clock_gettime_ns(time.CLOCK_REALTIME) - SETTLED_NANOSECONDS > os.fstat(file.fileno()).st_ctime_ns
        stamp = stamp_of(os.fstat(file.fileno()))
        seen = hashlib.sha256()
        while piece := file.read(CHUNK):
            seen.update(piece)
            advance(len(piece))
    return Hashed(Digest(seen.hexdigest()), stamp, settled)


def place_blob(
    descriptor: Descriptor, content: bytes | Path, target: Path, *, root: Path, drafts: Path, known: KnownBlobs
) -> Arrival:
    """Make sure that an intact blob is at `target`, in a file of its own.

    Not as a hard link to `content`.

    Raises VerificationError `digest-mismatch` if `content` does not match `descriptor`, `blob-missing` if it is
    missing.
    """
    if is_whole(root, target, descriptor.digest, descriptor.size, known):
        if not isinstance(content, Path) or not _same_file(target, content):
            return Arrival.PRESENT
        write_blob(descriptor, content, target, drafts)  # hard-linked by an older relbuild
        return Arrival.PRESENT
    if os.path.lexists(target):
        set_aside(root, target, stays=True)
    write_blob(descriptor, content, target, drafts)
    return Arrival.UPLOADED


def _same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except FileNotFoundError:
        return False


def is_whole(root: Path, path: Path, digest: Digest, size: int, known: KnownBlobs) -> bool:
    """Return whether the blob at `path` is intact; hash it if `known` does not have it.

    An unreadable file is not intact.
    """
    found = regular_file(path)
    if found is None or found.st_size != size:
        return False
    if known.believes(digest, stamp_of(found)):
        return True
    try:
        seen = hash_file(root, path)
    except OSError:
        return False
    if seen is None or seen.digest != digest:
        return False
    if seen.settled:
        with contextlib.suppress(OSError):  # a full or read-only mirror: hashed again the next time
            known.note(digest, seen.stamp, HashedBy.PUBLISHER)
    return True


def set_aside(root: Path, path: Path, *, stays: bool = False, below: str = "") -> None:
    """Move a corrupt file to quarantine, where it can be examined; nothing if it is missing.

    `stays`: hard-link it there, because it stays in place until it is replaced. `below`: a folder in `rotten`.
    """
    aside = make_quarantine(root, "rotten", *([below] if below else []))
    target = aside / f"{path.name}.{secrets.token_hex(4)}"
    with contextlib.suppress(FileNotFoundError):
        if stays and not path.is_dir():
            os.link(path, target, follow_symlinks=False)
        else:
            path.rename(target)
            sync_names(path.parent)
        sync_names(aside)


def make_quarantine(root: Path, *below: str) -> Path:
    """Make the quarantine of the mirror at `root`, or a folder in it; return its path.

    A link or a file in the place of one is moved into it: nothing is put where a link leads.
    """
    folder, planted = root, list[Path]()
    for name in (".quarantine", *below):
        folder = folder / name
        if is_folder(folder):
            continue
        if os.path.lexists(folder):
            planted.append(folder.rename(folder.with_name(f"{name}.{secrets.token_hex(4)}")))
        folder.mkdir(mode=0o700, exist_ok=True)
        sync_names(folder.parent)
    for path in planted:
        path.rename(folder / path.name.lstrip("."))
    return folder


def is_folder(path: Path) -> bool:
    """Return whether a path is a folder, and no link to one."""
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def still_corrupt(what: str, url: str) -> VerificationError:
    """Make the error of content that a registry returns corrupt even after a new upload."""
    return VerificationError(
        "mirror-rotten",
        f"the registry returns corrupt content of the {what}, also after a new upload",
        place=url,
        hint="it does not replace a blob it has: remove its file from the registry's own storage "
        "(docker-registry: docker/registry/v2/blobs/sha256/…/data), restart the registry, and publish again",
    )
