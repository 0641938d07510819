"""The store's files. See the package's docstring for what lies where."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import json
import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from pipeline.digest import CHUNK, DiffId, Digest, digest_file
from pipeline.errors import EnvironmentLacking, VerificationError

_SWEEP_AGE = 30.0
"""Seconds: far more than passes between making a temporary file and locking it."""

KEY_FILE = "key"
"""The key that the store seals with, in its root, readable by its owner only."""

KEY_SIZE = 32
"""Bytes: as many as SHA-256 has (RFC 2104, section 3)."""

_FOLDERS = ("blobs", "results", "trees", "metadata", "locks", "tmp")


class BlobWriter:
    """A blob being written: `write` bytes, then leave the `with` block, and it stands in the store under its
    digest, or nowhere if the block raised. With `expected`, other bytes raise VerificationError."""

    def __init__(self, store: Store, expected: Digest | None = None) -> None:
        self._store = store
        self._expected = expected
        self._hash = hashlib.sha256()
        self.size = 0
        self._digest: Digest | None = None

    def __enter__(self) -> Self:
        handle, name = tempfile.mkstemp(dir=self._store.root / "tmp", prefix="blob-")
        self._path = Path(name)
        self._file = os.fdopen(handle, "wb")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        return self

    def write(self, data: bytes | memoryview, /) -> int:
        """Write all of `data`; returns its length."""
        self._hash.update(data)
        self._file.write(data)
        self.size += len(data)
        return len(data)

    @property
    def digest(self) -> Digest:
        """Digest of what was written so far."""
        return Digest(self._hash.hexdigest())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._file.flush()
            if error is None:
                if self._expected is not None and self.digest != self._expected:
                    raise VerificationError(
                        "digest-mismatch", f"expected {self._expected}, got {self.digest} ({self.size} bytes)"
                    )
                os.fchmod(self._file.fileno(), 0o644)
                self._path.replace(self._store.blob(self.digest))
        finally:
            with contextlib.suppress(OSError):
                self._file.close()
            self._path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Store:
    """A store in a directory that only its owner can enter (unpacked trees hold setuid files)."""

    root: Path

    @classmethod
    def open(cls, root: Path) -> Store:
        """Open or make the store at `root`, and remove what killed processes left in flight."""
        try:
            root.mkdir(parents=True, exist_ok=True, mode=0o700)
            for name in _FOLDERS:
                (root / name).mkdir(exist_ok=True, mode=0o700)
        except PermissionError as error:
            raise EnvironmentLacking(
                "no-permission",
                f"the store cannot be made: {error}",
                place=str(root),
                hint="name another with --store",
            ) from error
        store = cls(root.resolve())
        store._sweep()
        return store

    # --- blobs -------------------------------------------------------------------------------

    def blob(self, digest: Digest) -> Path:
        """Where the blob stands, or would stand."""
        return self.root / "blobs" / digest.hex

    def has(self, digest: Digest) -> bool:
        """Is the blob here?"""
        return self.blob(digest).exists()

    def writer(self, expected: Digest | None = None) -> BlobWriter:
        """A new blob, to be used in a `with` block."""
        return BlobWriter(self, expected)

    def put(self, data: bytes) -> Digest:
        """Keep `data`; returns its digest."""
        digest = Digest.of(data)
        if not self.has(digest):
            with self.writer(digest) as blob:
                blob.write(data)
        return digest

    def read(self, digest: Digest, *, limit: int) -> bytes:
        """A small blob's bytes, verified. Raises VerificationError if it is missing, damaged, or more than
        `limit` bytes."""
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

    def verify(self, digest: Digest) -> None:
        """Recompute the blob's digest. Raises VerificationError; a damaged blob is removed first."""
        if digest_file(self.blob(digest)) != digest:
            raise self._damaged(digest)

    def _damaged(self, digest: Digest) -> VerificationError:
        self.blob(digest).unlink(missing_ok=True)
        return VerificationError(
            "blob-damaged", f"{digest} in the store was damaged and is removed", hint="run the command again"
        )

    # --- results -----------------------------------------------------------------------------

    def recall(self, identity: Digest) -> object | None:
        """The JSON value that was remembered for `identity`, or None."""
        try:
            value: object = json.loads(self._result(identity).read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        return value

    def remember(self, identity: Digest, value: object) -> None:
        """Keep a JSON value under `identity`."""
        self._replace(self._result(identity), json.dumps(value, sort_keys=True).encode())

    def _result(self, identity: Digest) -> Path:
        return self.root / "results" / identity.hex[:2] / identity.hex

    def _replace(self, path: Path, data: bytes) -> None:
        path.parent.mkdir(exist_ok=True, parents=True, mode=0o700)
        handle, name = tempfile.mkstemp(dir=self.root / "tmp", prefix="file-")
        with os.fdopen(handle, "wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(data)
            file.flush()
            Path(name).replace(path)

    # --- seals -------------------------------------------------------------------------------

    def seal(self, data: bytes) -> str:
        """What only this store says of `data`: HMAC-SHA256 (RFC 2104), 64 hex digits, under a key that is made when it
        is first needed. Whoever can read the store can make one too."""
        return hmac.new(self._key(), data, hashlib.sha256).hexdigest()

    def sealed(self, data: bytes, seal: str) -> bool:
        """Was `seal` made by this store, of this very data?"""
        return hmac.compare_digest(self.seal(data).encode(), seal.encode(errors="replace"))

    def _key(self) -> bytes:
        path = self.root / KEY_FILE
        for _ in range(2):
            try:
                key = path.read_bytes()
            except FileNotFoundError:
                self._make_key(path)
                continue
            if len(key) == KEY_SIZE and stat.S_IMODE(path.stat().st_mode) == 0o600:
                return key
            break
        raise VerificationError(
            "store-key",
            "the store's key is not as relbuild made it, so nothing that was sealed with it can be trusted",
            place=str(path),
            hint="remove it and test again what is to be published",
        )

    def _make_key(self, path: Path) -> None:
        """Of several that make one at the same time the first wins."""
        handle, name = tempfile.mkstemp(dir=self.root / "tmp", prefix="key-")
        with os.fdopen(handle, "wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(secrets.token_bytes(KEY_SIZE))
            file.flush()
            os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):
                path.hardlink_to(name)
            Path(name).unlink()

    # --- trees -------------------------------------------------------------------------------

    def tree(self, diff_id: DiffId) -> Path:
        """Folder of the unpacked layer: `root/` is the tree; it exists only when it is whole."""
        return self.root / "trees" / diff_id.hex

    def keep_tree(self, folder: Path, diff_id: DiffId) -> Path:
        """Move a whole unpacked layer from a temporary folder to its place; the first to finish wins."""
        target = self.tree(diff_id)
        try:
            folder.rename(target)
        except OSError:
            if not target.exists():
                raise
            shutil.rmtree(folder)
        return target

    # --- metadata, locks, temporary folders ----------------------------------------------------

    @property
    def metadata(self) -> Path:
        """Folder for repository metadata."""
        return self.root / "metadata"

    @contextlib.contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Hold the lock called `name` (any text) against other processes and threads."""
        path = self.root / "locks" / hashlib.sha256(name.encode()).hexdigest()[:32]
        with path.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def temporary(self, prefix: str) -> Iterator[Path]:
        """A fresh folder on the store's file system, removed with the block, or by the next `open` if this
        process is killed."""
        folder = Path(tempfile.mkdtemp(dir=self.root / "tmp", prefix=f"{prefix}-"))
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield folder
        finally:
            os.close(handle)
            shutil.rmtree(folder, ignore_errors=True)

    def _sweep(self) -> None:
        """Remove temporary files and folders that no living process holds a lock on. The youngest are spared:
        their owner may be about to lock them."""
        spared = time.time() - _SWEEP_AGE
        for path in (self.root / "tmp").iterdir():
            try:
                if path.lstat().st_mtime > spared:
                    continue
                handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            except OSError:
                continue
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            else:
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
            finally:
                os.close(handle)

    # --- looking after it ----------------------------------------------------------------------

    def usage(self) -> dict[str, int]:
        """Bytes on disk per kind of content."""
        return {name: sum(_bytes(path) for path in (self.root / name).iterdir()) for name in _FOLDERS}

    def collect(self, before: float, keep: Collection[Digest] = ()) -> dict[str, int]:
        """Remove what was last used before `before` (seconds since the epoch) and is not in `keep`; returns the
        bytes that were freed per kind of content. Use is when a file was last read or written, as the file system
        tells it (to a day, with relatime); a folder was used when any file directly in it was. What is removed is
        made or fetched again when it is needed."""
        kept = {digest.hex for digest in keep}
        freed = dict.fromkeys(("blobs", "metadata", "results", "trees"), 0)
        for kind in freed:
            for path in sorted((self.root / kind).glob("*/*" if kind == "results" else "*")):
                if path.name in kept or _last_used(path) >= before:
                    continue
                if kind == "blobs" and path.lstat().st_nlink > 1:
                    path.unlink()  # A layout holds it too: nothing is freed, and nothing is lost.
                    continue
                freed[kind] += _bytes(path)
                with self.temporary("collected") as folder:
                    path.rename(folder / path.name)
        return freed

    def check(self) -> list[Digest]:
        """Verify every blob; returns the damaged ones, which are removed."""
        damaged = []
        for path in sorted((self.root / "blobs").iterdir()):
            digest = Digest(path.name)
            if digest_file(path) != digest:
                path.unlink()
                damaged.append(digest)
        return damaged


def _last_used(path: Path) -> float:
    """Seconds since the epoch."""
    seen = [path.lstat()]
    if path.is_dir() and not path.is_symlink():
        seen += [entry.lstat() for entry in path.iterdir() if entry.is_file()]
    return max(max(one.st_atime, one.st_mtime) for one in seen)


def _bytes(path: Path) -> int:
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_blocks * 512
    return sum(entry.lstat().st_blocks * 512 for entry in path.rglob("*"))


def copy_into(file: BinaryIO, target: BlobWriter) -> None:
    """Copy the rest of `file` into a blob."""
    while data := file.read(CHUNK):
        target.write(data)
