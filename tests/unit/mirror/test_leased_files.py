"""A mirror's files on which a file server has a lease are waited for; what is planted is not."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.beneath import Folder, PathEscape, open_without_waiting, path_resolution, read_file
from pipeline.digest import Digest
from pipeline.mirror.atomic_files import file_locked
from pipeline.mirror.backends.directory.directory_address_form import MARKER
from pipeline.mirror.backends.directory.manifest_files import read_regular
from pipeline.mirror.backends.directory.mirror_marker import read_host
from pipeline.mirror.known_blobs import hash_file
from pipeline.mirror.verified_blobs import read_verified
from pipeline.model.image import Descriptor

CONTENT = b'{"format":1,"host":"a.example"}'
DIGEST = Digest.of(CONTENT)

HOLDER = """
import fcntl, os, signal, sys
handle = os.open(sys.argv[1], os.O_RDWR)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGIO})
fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print("leased", flush=True)
signal.sigwait({signal.SIGIO})
fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_UNLCK)
print("given back", flush=True)
"""


@contextmanager
def leased(path: Path) -> Iterator[None]:
    """Have another process hold a write lease on a file until somebody opens it."""
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        try:
            assert holder.stdout.readline() == "leased\n"
            yield
            assert holder.stdout.readline() == "given back\n"
        finally:
            holder.kill()


def locked(path: Path) -> bool:
    with file_locked(path):
        return True


def document(path: Path) -> bool:
    with Folder(path.parent).open_without_links(path.name) as file:
        return file.read() == CONTENT


READERS: dict[str, Callable[[Path], object]] = {
    "layer": lambda path: read_verified(path, Descriptor("application/x", DIGEST, len(CONTENT))) == CONTENT,
    "manifest": lambda path: (read_regular(path) or (b"",))[0] == CONTENT,
    "lock": locked,
    "marker": lambda path: read_host(path.parent) == "a.example",
    "scrub": lambda path: (found := hash_file(path.parent, path)) is not None and found.digest == DIGEST,
    "document": document,
    "rules": lambda path: Folder(path.parent).read(path.name, 100) == CONTENT,
    "rules of an old kernel": lambda path: Folder(path.parent).read(path.name, 100) == CONTENT,
    "named file": lambda path: read_file(path, 100) == CONTENT,
}


@pytest.mark.parametrize("proc", [True, False])
@pytest.mark.parametrize("reader", READERS)
def test_a_file_on_which_another_process_has_a_lease_is_read_when_that_is_given_back(
    reader: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proc: bool
) -> None:
    """Samba and NFS servers have some on files that are written over the network."""
    (tmp_path / MARKER).write_bytes(CONTENT)
    if reader == "rules of an old kernel":
        monkeypatch.setattr(path_resolution, "kernel_resolves", lambda: False)
    if not proc:
        without_proc(monkeypatch)
    with leased(tmp_path / MARKER):
        assert READERS[reader](tmp_path / MARKER)


@pytest.mark.parametrize("reader", ["manifest", "document", "rules", "rules of an old kernel"])
def test_without_proc_a_lease_that_is_kept_is_told_as_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: str
) -> None:
    """And not as a file that is missing, which scrub would put aside."""
    (tmp_path / MARKER).write_bytes(CONTENT)
    if reader == "rules of an old kernel":
        monkeypatch.setattr(path_resolution, "kernel_resolves", lambda: False)
    without_proc(monkeypatch)
    monkeypatch.setattr(path_resolution, "_LEASE_TIME", 0)
    real = os.open

    def kept(path: str | Path, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if Path(path).name == MARKER and not flags & os.O_PATH:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), str(path))
        return real(path, flags, mode, dir_fd=dir_fd)

    def kept_below(folder: int, name: str, flags: int) -> int:
        return kept(name, flags, dir_fd=folder)

    monkeypatch.setattr(os, "open", kept)
    monkeypatch.setattr(path_resolution, "_openat2", kept_below)
    with pytest.raises(BlockingIOError):
        READERS[reader](tmp_path / MARKER)


def test_a_lease_below_a_folder_is_no_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Openat2 fails with the same error for both; what is no regular file is looked up again."""
    (tmp_path / MARKER).write_bytes(CONTENT)
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    looked = list[str]()

    def refuse(folder: int, name: str, flags: int) -> int:
        if flags == path_resolution.PATH_FLAGS:
            return os.open(name, flags, dir_fd=folder)
        looked.append(name)
        raise BlockingIOError(errno.EAGAIN, "exchanged")

    monkeypatch.setattr(path_resolution, "kernel_resolves", lambda: True)
    monkeypatch.setattr(path_resolution, "_openat2", refuse)
    top = os.open(tmp_path, os.O_PATH)
    try:
        for name in ("fifo", "folder"):
            with pytest.raises(PathEscape, match="changes between lookups"):
                path_resolution.open_below(top, tmp_path, name, os.O_RDONLY | os.O_NONBLOCK)
    finally:
        os.close(top)
    assert set(looked) == {"fifo", "folder"} and len(looked) == 2 * path_resolution._TRIES
    assert Folder(tmp_path).read(MARKER, 100) == CONTENT and looked.count(MARKER) == 1


def without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def opened(path: str | Path, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if str(path).startswith("/proc/"):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return real(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", opened)


def test_what_is_no_regular_file_is_never_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver may refuse to open a device with the same error."""
    os.mkfifo(tmp_path / "fifo")
    opened, closed, real, close = list[int](), list[int](), os.open, os.close

    def refuse(path: str | Path, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == tmp_path / "fifo" and not flags & os.O_PATH:
            assert flags & os.O_NONBLOCK, "it would wait for a writer"
            raise BlockingIOError
        opened.append(real(path, flags, mode, dir_fd=dir_fd))
        return opened[-1]

    def close_noted(handle: int) -> None:
        closed.append(handle)
        close(handle)

    with monkeypatch.context() as patch, pytest.raises(BlockingIOError):
        patch.setattr(os, "open", refuse)
        patch.setattr(os, "close", close_noted)
        open_without_waiting(tmp_path / "fifo", os.O_RDONLY)
    assert len(opened) == 1 and opened == closed
