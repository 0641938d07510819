"""A mirror's files on which a file server has a lease are waited for; what is planted is not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.beneath import Folder, open_without_waiting
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
}


@pytest.mark.parametrize("reader", READERS)
def test_a_file_on_which_another_process_has_a_lease_is_read_when_that_is_given_back(
    reader: str, tmp_path: Path
) -> None:
    """Samba and NFS servers have some on files that are written over the network."""
    (tmp_path / MARKER).write_bytes(CONTENT)
    with leased(tmp_path / MARKER):
        assert READERS[reader](tmp_path / MARKER)


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
