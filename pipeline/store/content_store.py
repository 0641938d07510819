"""The store's files. See the package's docstring for what lies where."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, TypeVar

from pipeline.digest import DiffId, Digest, identity
from pipeline.errors import RelbuildError, VerificationError
from pipeline.store.blobs import (
    BlobWriter,
    Stamp,
    blob_stamp,
    stamp_of_whole,
)
from pipeline.store.durable_files import failing_at, sync_file, sync_folder
from pipeline.store.locks import hold_lock, sweep_temporary, temporary_folder
from pipeline.store.sealed_envelopes import EnvelopeFault, read_small
from pipeline.store.store_folders import READ_ONLY_ERRNOS, make_store_folders, require_own_folders
from pipeline.store.store_processes import register_process
from pipeline.store.store_sealers import StoreSealers
from pipeline.store.tree_seals import (
    TREE_ROOT,
    content_digest,
    hash_tree_files,
    tree_holds,
    write_seal,
)

_USED_AGE = 3600.0
"""Seconds after which the use of something is noted anew: seldom enough to cost nothing."""

_T = TypeVar("_T")


def _silent(text: str) -> None:
    pass


@dataclass(slots=True)
class _Known:
    """The facts that a store has found out in this process."""

    guard: threading.Lock = field(default_factory=threading.Lock)
    foreign: bool = False
    """Was told that results of others stand here."""
    closed: bool = False
    """Was told that nothing can be remembered."""


@dataclass(frozen=True, slots=True)
class Store:
    """A store in a directory that only its owner can enter (unpacked trees hold setuid files).

    `key` is what a CI gives in place of the store's own; `tell` is told, in a sentence, what was not as this store had
    left it.
    """

    root: Path
    key: bytes | None = field(default=None, repr=False, compare=False)
    tell: Callable[[str], None] = field(default=_silent, repr=False, compare=False)
    _known: _Known = field(default_factory=_Known, repr=False, compare=False)
    _sealers: StoreSealers = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_sealers", StoreSealers(self.root, self.key))

    @classmethod
    def open(cls, root: Path, *, key: bytes | None = None, tell: Callable[[str], None] = _silent) -> Store:
        """Open or make the store at `root`, and remove what killed processes left in flight.

        Raises EnvironmentLacking `no-permission`, `store-not-own`.
        """
        make_store_folders(root)
        store = cls(root.resolve(), key, tell)
        require_own_folders(store.root)
        sweep_temporary(store.root / "tmp")
        register_process(store.root)
        return store

    @property
    def sandbox(self) -> Path:
        """The folder in which sandboxes stand while they run."""
        return self.root / "sandbox"

    def volume(self, name: str) -> Path:
        """The folder of a volume that outlives its instance. It is not made."""
        return self.root / "volumes" / name

    # --- blobs -------------------------------------------------------------------------------

    def blob(self, digest: Digest) -> Path:
        """Return the path at which the blob stands, or would stand."""
        return self.root / "blobs" / digest.hex

    def has(self, digest: Digest) -> bool:
        """Return whether a file of that name is here.

        Its bytes are what they should be only where `sound` says so, or whoever reads them hashes them.
        """
        return self.blob(digest).exists()

    def sound(self, digest: Digest) -> bool:
        """Return whether the blob is here and its bytes are what its name says.

        They are hashed unless this store has hashed them before and the file was not touched since. A damaged blob is
        put into quarantine, so that it is made or fetched again.
        """
        name, path = _stamped(digest), self.blob(digest)
        seen = blob_stamp(path)
        if seen is not None and seen == self.recall(name):
            return True
        if seen is None and not os.path.lexists(path):
            return False
        whole = stamp_of_whole(path, digest)
        if whole is None:
            self.quarantine(path, "its content does not match its digest")
            return False
        self._keep(name, whole, sync=False)
        return True

    def stamp(self, digest: Digest) -> Stamp | None:
        """Stamp of the blob's file, another after every change of it; None if there is no file."""
        return blob_stamp(self.blob(digest))

    def writer(self, expected: Digest | None = None) -> BlobWriter:
        """A new blob, to be used in a `with` block."""
        return BlobWriter(self.root / "tmp", self.blob, self.note_whole, expected)

    def note_whole(self, digest: Digest) -> None:
        """Note that a blob is whole, for its bytes were just hashed by whoever wrote or linked it.

        It is `sound` as it stands now.
        """
        seen = self.stamp(digest)
        if seen is not None:
            self._keep(_stamped(digest), seen, sync=False)

    def put(self, data: bytes) -> Digest:
        """Keep `data`; returns its digest."""
        digest = Digest.of(data)
        if read_small(self.blob(digest)) != data:
            with self.writer(digest) as blob:
                blob.write(data)
        return digest

    def read(self, digest: Digest, *, limit: int) -> bytes:
        """Return a small blob's bytes, verified.

        Raises VerificationError if it is missing, damaged, or more than `limit` bytes.
        """
        path = self.blob(digest)
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            raise VerificationError("blob-missing", f"{digest} is not in the store", place=str(path)) from None
        if size > limit:
            raise VerificationError("blob-too-large", f"{digest} has {size} bytes, more than {limit}", place=str(path))
        data = path.read_bytes()
        if Digest.of(data) != digest:
            raise self._damaged(digest)
        return data

    @contextlib.contextmanager
    def reading(self, digest: Digest) -> Iterator[BinaryIO]:
        """The blob as a file. What is read is *not* verified: hash it, or call `verify` first."""
        try:
            file = self.blob(digest).open("rb")
        except FileNotFoundError:
            raise VerificationError("blob-missing", f"{digest} is not in the store") from None
        with file:
            yield file

    def verify(self, digest: Digest) -> Stamp:
        """Recompute the blob's digest, and return its stamp.

        Raises VerificationError; a damaged blob is put into quarantine first.
        """
        whole = stamp_of_whole(self.blob(digest), digest)
        if whole is None:
            raise self._damaged(digest)
        self._keep(_stamped(digest), whole, sync=False)
        return whole

    def _damaged(self, digest: Digest) -> VerificationError:
        self.quarantine(self.blob(digest), "its content does not match its digest")
        return VerificationError(
            "blob-damaged",
            f"blob {digest} in the store is damaged and was moved to quarantine",
            place=str(self.blob(digest)),
            hint="run the command again",
        )

    def settle(self) -> None:
        """Sync the names of all blobs to the disk, whose bytes are there already.

        What names blobs and is to last (a layout) calls it first.
        """
        with contextlib.suppress(PermissionError):
            sync_folder(self.root / "blobs")

    # --- results -----------------------------------------------------------------------------

    def recall(self, identity: Digest) -> object | None:
        """Return the JSON value that this store remembered for `identity`, or None.

        What another store or anybody else wrote is None; what was damaged is put into quarantine.
        """
        path = self.result(identity)
        data = read_small(path)
        if data is None:
            return None
        value = data if isinstance(data, EnvelopeFault) else self.opened(identity, data)
        if isinstance(value, bytes):
            self._used(path)
            known: object = json.loads(value)
            return known
        if value is EnvelopeFault.FOREIGN:
            self._tell_of_foreign(path)
        else:
            self.quarantine(path, "a cached result was changed after this store wrote it")
        return None

    def recall_as(self, identity: Digest, read: Callable[[object], _T]) -> _T | None:
        """Recall what was remembered for `identity`, as `read` makes it; None if there is none.

        One that `read` refuses (ValueError, TypeError, LookupError, a RelbuildError) has another form than is wanted,
        and is None.
        """
        known = self.recall(identity)
        if known is None:
            return None
        try:
            return read(known)
        except (ValueError, TypeError, LookupError, RelbuildError) as error:
            self.tell(f"a cached result has another format and is recomputed: {self.result(identity)} ({error})")
            return None

    def remember(self, identity: Digest, value: object) -> None:
        """Keep a JSON value under `identity`, sealed.

        A store that cannot be written to remembers nothing, and says so: what is remembered only saves time.
        """
        self._keep(identity, value, sync=True)

    def opened(self, identity: Digest, envelope: bytes) -> bytes | EnvelopeFault:
        """The value in a result's file, as it was written, or why it does not count."""
        sealer = self._sealers.known("result")
        return EnvelopeFault.FOREIGN if sealer is None else sealer.open(str(identity), envelope)

    def result(self, identity: Digest) -> Path:
        """Path where a result stands, or would stand."""
        return self.root / "results" / identity.hex[:2] / identity.hex

    def _keep(self, identity: Digest, value: object, *, sync: bool) -> None:
        path = self.result(identity)
        data = json.dumps(value, sort_keys=True).encode()
        try:
            envelope = self._sealers.made("result").close(str(identity), data)
            self._make_place(path.parent)
            handle, name = tempfile.mkstemp(dir=self.root / "tmp", prefix="file-")
            with failing_at(path), os.fdopen(handle, "wb") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                file.write(envelope)
                if sync:
                    sync_file(file)
                file.flush()
                Path(name).replace(path)
        except OSError as error:
            if error.errno not in READ_ONLY_ERRNOS:
                raise
            if not self._known.closed:
                self._known.closed = True
                self.tell(f"the store is not writable, so new results are not cached: {self.root}")

    def _make_place(self, folder: Path) -> None:
        """Make a folder of results. Something else in its place, a link also, is put aside."""
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            if folder.is_symlink() or not folder.is_dir():
                self.quarantine(folder, "not a directory of results")
                folder.mkdir(exist_ok=True, mode=0o700)

    # --- seals -------------------------------------------------------------------------------

    def seal(self, data: bytes) -> str:
        """Return the seal of this store on `data`: HMAC-SHA256 (RFC 2104), 64 hex digits.

        Only this store says it of `data`, under a key that is made when it is first needed. Whoever can read the store
        can make one too.
        """
        return self._sealers.seal(data)

    def sealed(self, data: bytes, seal: str) -> bool:
        """Tell whether `seal` was made by this store, of this very data."""
        return hmac.compare_digest(self.seal(data).encode(), seal.encode(errors="replace"))

    # --- what is not as it should be ------------------------------------------------------------

    def quarantine(self, path: Path, why: str) -> None:
        """Put a file of the store out of the way, for people to look at, and tell of it."""
        aside = self.root / "quarantine" / f"{time.time_ns()}-{path.name}"
        try:
            path.rename(aside)
        except FileNotFoundError:
            return  # Another process was faster, and told of it.
        except OSError as error:
            if error.errno not in READ_ONLY_ERRNOS:
                raise
            aside = path  # It cannot be moved, and does not count.
        self.tell(f"{path}: {why}; it was moved to {aside} and is recreated")

    def _tell_of_foreign(self, path: Path) -> None:
        with self._known.guard:
            first, self._known.foreign = not self._known.foreign, True
        if first:
            self.tell(
                "the store holds results that are not sealed with its key (from another machine, or an older relbuild);"
                f" they are ignored and recomputed; the first is {path}"
            )

    def _used(self, path: Path) -> None:
        """Note that something was used, for `collect`."""
        with contextlib.suppress(OSError):
            now = time.time()
            if now - path.stat().st_mtime > _USED_AGE:
                os.utime(path, (now, now))

    # --- trees -------------------------------------------------------------------------------

    def tree(self, name: DiffId | str) -> Path:
        """Return the folder of an unpacked layer, or of another kept tree.

        `root/` in it is the tree; the folder exists only when it is whole.
        """
        return self.root / "trees" / (name if isinstance(name, str) else name.hex)

    def keep_tree(self, folder: Path, name: DiffId | str, content: Mapping[str, str] | None = None) -> Path:
        """Move a whole tree (`folder`/root, in a temporary folder) to its place, sealed.

        The first to finish wins. `content` is the sha256 of each of its files by path, where whoever made it knows.
        """
        target = self.tree(name)
        found = content if content is not None else hash_tree_files(folder / TREE_ROOT)
        write_seal(folder, target.name, content_digest(found), self._sealers.made("tree"))
        try:
            folder.rename(target)
        except OSError:
            if not target.exists():
                raise
            shutil.rmtree(folder)
        return target

    def kept_tree(self, name: DiffId | str) -> Path | None:
        """Return the folder of a kept tree that is as it was when it was made, or None.

        One that is not as it was is removed.
        """
        folder = self.tree(name)
        if not os.path.lexists(folder):
            return None
        if self.tree_holds(folder):
            return folder
        self.tell(f"an unpacked layer was changed after the store wrote it, and is unpacked again: {folder}")
        with self.temporary("damaged") as aside:
            folder.rename(aside / "tree")
        return None

    def tree_holds(self, folder: Path, *, reading: bool = False) -> bool:
        """Return whether a kept tree is as it was when it was made.

        With `reading` every file is read.
        """
        holds = tree_holds(folder, folder.name, self._sealers.known("tree"), reading=reading)
        if holds and not reading:
            self._used(folder / "seal")
        return holds

    # --- metadata, locks, temporary folders ----------------------------------------------------

    @property
    def metadata(self) -> Path:
        """Folder for repository metadata."""
        return self.root / "metadata"

    @contextlib.contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Hold the lock called `name` (any text) against other processes and threads.

        In a store that cannot be written to nobody makes anything, so there is nothing to be locked.
        """
        path = self.root / "locks" / hashlib.sha256(name.encode()).hexdigest()[:32]
        try:
            handle = hold_lock(path)
        except OSError as error:
            if error.errno not in READ_ONLY_ERRNOS:
                raise
            yield
            return
        try:
            yield
        finally:
            os.close(handle)

    @contextlib.contextmanager
    def temporary(self, prefix: str) -> Iterator[Path]:
        """Make a fresh folder on the store's file system, for the time of the block.

        It is removed with the block, or by the next `open` if this process is killed.
        """
        with temporary_folder(self.root / "tmp", prefix) as folder:
            yield folder


def _stamped(digest: Digest) -> Digest:
    return identity("blob", 1, digest=digest)


def last_stamped(store: Store, digest: Digest) -> Path:
    """The file that says when a blob was hashed or last used."""
    return store.result(_stamped(digest))
