"""Open the store; put, read and verify its blobs and cached results; seals; locks.

The package's docstring has the layout of its directory.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from pipeline.digest import Digest, identity
from pipeline.errors import STORE_DAMAGE_HINT, RelbuildError, VerificationError
from pipeline.lazy_dataclasses import dataclass
from pipeline.store.authenticated_values import SealFault, read_small
from pipeline.store.blobs import (
    BlobWriter,
    Stamp,
    blob_stamp,
    stamp_of_whole,
    status_stamp,
)
from pipeline.store.durable_files import sync_folder, write_result_file
from pipeline.store.last_use import record_use
from pipeline.store.locks import named_lock, sweep_temporary, temporary_folder
from pipeline.store.store_folders import READ_ONLY_ERRNOS, make_store_folders, require_own_folders, require_own_store
from pipeline.store.store_processes import register_process
from pipeline.store.store_sealers import StoreSealers
from pipeline.store.unnamed_copies import UnnamedCopies

if TYPE_CHECKING:
    from pipeline.store.unpacked_trees import UnpackedTrees

_T = TypeVar("_T")
_SORTED = json.JSONEncoder(sort_keys=True)


def _silent(text: str) -> None:
    pass


@dataclass(slots=True)
class _Told:
    """The warnings that this process has given of a store, each once."""

    guard: threading.Lock = field(default_factory=threading.Lock)
    foreign: bool = False
    """That the store has results that are not sealed with its key."""
    closed: bool = False
    """That the store is not writable."""


@dataclass(frozen=True, slots=True)
class Store:
    """A store in a directory that only its owner can enter (unpacked trees have setuid files).

    `key`: HMAC key that a CI gives in place of the store's own; `tell`: called with a warning for people.
    """

    root: Path
    key: bytes | None = field(default=None, repr=False, compare=False)
    tell: Callable[[str], None] = field(default=_silent, repr=False, compare=False)
    _told: _Told = field(default_factory=_Told, repr=False, compare=False)
    _sealers: StoreSealers = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_sealers", StoreSealers(self.root, self.key))

    @classmethod
    def open(cls, root: Path, *, key: bytes | None = None, tell: Callable[[str], None] = _silent) -> Store:
        """Open or make the store at `root`, and remove temporary files of killed processes.

        Raises EnvironmentLacking `no-permission`, `store-not-own`; without a given key UsageError `store-of-another`.
        """
        require_own_store(root, key)
        make_store_folders(root)
        store = cls(root.resolve(), key, tell)
        require_own_folders(store.root)
        sweep_temporary(store.root / "tmp")
        register_process(store.root)
        return store

    @property
    def sandbox(self) -> Path:
        """The folder of running sandboxes."""
        return self.root / "sandbox"

    @property
    def instances(self) -> Path:
        """The folder of the instances that people run (`pipeline.instances`)."""
        return self.root / "instances"

    def volume(self, name: str) -> Path:
        """Return the folder of a volume that outlives its instance; it is not made here."""
        return self.root / "volumes" / name

    # --- blobs -------------------------------------------------------------------------------

    def blob(self, digest: Digest) -> Path:
        """Return the path of a blob, which need not exist."""
        return self.root.joinpath("blobs", digest.hex)

    def has(self, digest: Digest) -> bool:
        """Return whether a blob's file exists; its content is not verified (`sound` does)."""
        return self.blob(digest).exists()

    def sound(self, digest: Digest) -> bool:
        """Return whether the blob is here and intact.

        It is hashed, unless this store has hashed it before and the file is unchanged since. A damaged blob is moved to
        quarantine, so that it is made or fetched again.
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
        self.remember(name, whole, sync=False)
        return True

    def stamp(self, digest: Digest) -> Stamp | None:
        """Return the stamp of the blob's file, another after every change of it; None if missing."""
        return blob_stamp(self.blob(digest))

    def writer(self, expected: Digest | None = None, *, hashed: bool = True) -> BlobWriter:
        """Return the writer of a new blob, to be used in a `with` block."""
        return BlobWriter(self.root / "tmp", self.blob, self.note_whole, expected, hashed=hashed)

    def copies_for(self, folder: Path, former: Callable[[Digest], Path] | None = None) -> UnnamedCopies:
        """Return copies of blobs to be named in `folder`, which need not exist.

        To be used in a `with` block. Those are not kept that are at their `former` names already.
        """
        return UnnamedCopies(folder, self.root / "tmp", former)

    def note_whole(self, digest: Digest, status: os.stat_result | None = None) -> None:
        """Record that a blob is `sound` with its present stamp: its writer has just hashed it.

        `status` is that of the file that was written, if the writer has it: then no other file is recorded that came in
        its place meanwhile.
        """
        seen = self.stamp(digest) if status is None else status_stamp(status)
        if seen is not None:
            self.remember(_stamped(digest), seen, sync=False)

    def put(self, data: bytes) -> Digest:
        """Put `data` as a blob; return its digest."""
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
            raise VerificationError(
                "blob-missing", f"{digest} is not in the store", place=str(path), hint=STORE_DAMAGE_HINT
            ) from None
        if size > limit:
            raise VerificationError("blob-too-large", f"{digest} has {size} bytes, more than {limit}", place=str(path))
        data = path.read_bytes()
        if Digest.of(data) != digest:
            raise self._damaged(digest)
        return data

    @contextlib.contextmanager
    def reading(self, digest: Digest) -> Iterator[BinaryIO]:
        """Open a blob within the block, *not* verified: hash it, or call `verify` first."""
        try:
            file = self.blob(digest).open("rb")
        except FileNotFoundError:
            raise VerificationError("blob-missing", f"{digest} is not in the store", hint=STORE_DAMAGE_HINT) from None
        with file:
            yield file

    def verify(self, digest: Digest) -> Stamp:
        """Hash the blob and return its stamp.

        Raises VerificationError; a damaged blob is moved to quarantine first.
        """
        whole = stamp_of_whole(self.blob(digest), digest)
        if whole is None:
            raise self._damaged(digest)
        self.remember(_stamped(digest), whole, sync=False)
        return whole

    def verify_once(self, digest: Digest) -> Stamp:
        """Return the blob's stamp; hash it unless this store has, and the file is unchanged since.

        Raises as `verify`.
        """
        seen = self.stamp(digest)
        return seen if seen is not None and seen == self.recall(_stamped(digest)) else self.verify(digest)

    def _damaged(self, digest: Digest) -> VerificationError:
        self.quarantine(self.blob(digest), "its content does not match its digest")
        return VerificationError(
            "blob-damaged",
            f"blob {digest} in the store is damaged and was moved to quarantine",
            place=str(self.blob(digest)),
            hint="run the command again",
        )

    def settle(self) -> None:
        """Sync the names of all blobs to the disk; their bytes are there already.

        To be called before a lasting document that refers to blobs (a layout) is written.
        """
        with contextlib.suppress(PermissionError):
            sync_folder(self.root / "blobs")

    # --- results -----------------------------------------------------------------------------

    def recall(self, identity: Digest) -> object | None:
        """Return the cached JSON value for `identity`; None if there is none with this store's seal.

        A damaged one is moved to quarantine. One without a byte is missing: a power cut leaves that of one that was not
        synced.
        """
        return self.read_result(self.result(identity), identity)

    def read_result(self, path: Path, identity: Digest) -> object | None:
        """Return the JSON value in the file `path`, as `recall`."""
        data = read_small(path)
        if not data:
            return None
        value = data if isinstance(data, SealFault) else self.unseal(identity, data)
        if isinstance(value, bytes):
            record_use(path)
            known: object = json.loads(value)
            return known
        if value is SealFault.FOREIGN:
            self._tell_of_foreign(path)
        else:
            self.quarantine(path, "a cached result was changed after this store wrote it")
        return None

    def recall_as(self, identity: Digest, read: Callable[[object], _T]) -> _T | None:
        """Return the cached value for `identity`, converted by `read`; None if there is none.

        Also None if `read` raises ValueError, TypeError, LookupError or a RelbuildError: then it has another format.
        """
        known = self.recall(identity)
        if known is None:
            return None
        try:
            return read(known)
        except (ValueError, TypeError, LookupError, RelbuildError) as error:
            self.tell(f"a cached result has another format and is recomputed: {self.result(identity)} ({error})")
            return None

    def remember(self, identity: Digest, value: object, *, sync: bool = True) -> None:
        """Cache a JSON value under `identity`, sealed. A store that is not writable only warns.

        Without `sync`, a crash of the machine may lose it. `remember_seen` is for what cannot be made again.
        """
        self.write_result(self.result(identity), identity, value, sync=sync)

    def unseal(self, identity: Digest, framed: bytes) -> bytes | SealFault:
        """Return the value in the content of a result's file, or why its seal is not accepted."""
        sealer = self._sealers.known("result")
        return SealFault.FOREIGN if sealer is None else sealer.unseal(str(identity), framed)

    def result(self, identity: Digest) -> Path:
        """Return the path of a cached result, which need not exist."""
        return self.root.joinpath("results", identity.hex[:2], identity.hex)

    def write_result(self, path: Path, identity: Digest, value: object, *, sync: bool) -> None:
        """Write a JSON value to the file `path`, as `remember`."""
        data = _SORTED.encode(value).encode()
        try:
            framed = self._sealers.made("result").seal(str(identity), data)
            self.make_place(path.parent)
            write_result_file(path, framed, drafts=self.root / "tmp", sync=sync)
        except OSError as error:
            if error.errno not in READ_ONLY_ERRNOS:
                raise
            if not self._told.closed:
                self._told.closed = True
                self.tell(f"the store is not writable, so new results are not cached: {self.root}")

    def make_place(self, folder: Path) -> None:
        """Make a folder of results; anything else in its place is moved to quarantine."""
        with contextlib.suppress(OSError):
            if stat.S_ISDIR(os.lstat(folder).st_mode):
                return
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            if folder.is_symlink() or not folder.is_dir():
                self.quarantine(folder, "not a directory of results")
                folder.mkdir(exist_ok=True, mode=0o700)

    # --- seals -------------------------------------------------------------------------------

    def seal(self, data: bytes) -> str:
        """Return the seal of this store on `data`: HMAC-SHA256 (RFC 2104), 64 hex digits.

        The key is made when it is first needed. Whoever can read the store can make seals too.
        """
        return self._sealers.seal(data)

    def sealed(self, data: bytes, seal: str) -> bool:
        """Return whether `seal` is this store's seal on `data`."""
        return hmac.compare_digest(self.seal(data).encode(), seal.encode(errors="replace"))

    # --- damage ----------------------------------------------------------------------------------

    def quarantine(self, path: Path, why: str) -> None:
        """Move a damaged file of the store to quarantine, and warn of it."""
        aside = self.root / "quarantine" / f"{time.time_ns()}-{path.name}"
        try:
            path.rename(aside)
        except FileNotFoundError:
            return  # Another process has moved it, and warned.
        except OSError as error:
            if error.errno not in READ_ONLY_ERRNOS:
                raise
            aside = path  # It cannot be moved; it is ignored all the same.
        self.tell(f"{path}: {why}; it was moved to {aside} and is recreated")

    def _tell_of_foreign(self, path: Path) -> None:
        with self._told.guard:
            first, self._told.foreign = not self._told.foreign, True
        if first:
            self.tell(
                "the store holds results that are not sealed with its key (from another machine, or an older relbuild);"
                f" they are ignored and recomputed; the first is {path}"
            )

    # --- trees -------------------------------------------------------------------------------

    @property
    def trees(self) -> UnpackedTrees:
        """The unpacked trees."""
        from pipeline.store.unpacked_trees import UnpackedTrees  # here: an unchanged build uses no tree

        return UnpackedTrees(self, self._sealers)

    # --- metadata, locks, temporary folders ----------------------------------------------------

    @property
    def metadata(self) -> Path:
        """The folder of downloads in progress."""
        return self.root / "metadata"

    def locked(self, name: str) -> contextlib.AbstractContextManager[None]:
        """Hold the lock `name` (any text) within the block, against other processes and threads.

        A store that is not writable needs no lock, because nobody makes anything in it.
        """
        return named_lock(self.root / "locks", name)

    @contextlib.contextmanager
    def temporary(self, prefix: str) -> Iterator[Path]:
        """Make a temporary folder on the store's file system for the time of the block.

        It is removed at its end, or by the next `open` if this process is killed.
        """
        with temporary_folder(self.root / "tmp", prefix) as folder:
            yield folder


def _stamped(digest: Digest) -> Digest:
    return identity("blob", 1, digest=digest)


def last_stamped(store: Store, digest: Digest) -> Path:
    """Return the path of the result with a blob's stamp, whose times show the last use."""
    return store.result(_stamped(digest))
