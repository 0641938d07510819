"""Copies of blobs before they have a name: nobody sees them, nothing is left of them, and none is of other bytes."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline import clone
from pipeline.digest import Digest
from pipeline.store import Store, UnnamedCopies, UnnamedCopy

CONTENT = os.urandom(3000)
DIGEST = Digest.of(CONTENT)


def copied(copies: UnnamedCopies, content: bytes = CONTENT) -> UnnamedCopy:
    """Begin a copy, and let `content` pass through it in three pieces."""
    copy = copies.begin(len(content))
    assert copy is not None
    pieces = iter([content[:1000], content[1000:2000], content[2000:], b""])

    def readinto(view: memoryview) -> int:
        piece = next(pieces)
        view[: len(piece)] = piece
        return len(piece)

    read, buffer = copy.passing(readinto), memoryview(bytearray(4096))
    assert [read(buffer) for _ in range(4)] == [1000, 1000, len(content) - 2000, 0]
    assert bytes(buffer[: len(content) - 2000]) == content[2000:]
    return copy


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "output"
    made.mkdir()
    return made


def test_a_copy_is_seen_by_its_name_alone_which_it_gets_once(store: Store, folder: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with store.copies_for(folder) as copies:
        copy = copied(copies)
        assert not copies.name(DIGEST, len(CONTENT), folder / "x"), "it was not confirmed"
        copies.confirm(DIGEST, copy)
        assert list(folder.iterdir()) == []
        assert copies.name(DIGEST, len(CONTENT), folder / "x")
        assert not copies.name(DIGEST, len(CONTENT), folder / "y")
    assert [path.name for path in folder.iterdir()] == ["x"]
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    (folder / "opened").open("wb").close()
    found = (folder / "x").stat()
    assert (folder / "x").read_bytes() == CONTENT and found.st_nlink == 1
    assert found.st_mode == (folder / "opened").stat().st_mode


def test_a_folder_need_not_be_there_until_the_copy_gets_its_name(store: Store, tmp_path: Path) -> None:
    target = tmp_path / "a" / "b"
    with store.copies_for(target) as copies:
        copies.confirm(DIGEST, copied(copies))
        assert not (tmp_path / "a").exists()
        target.mkdir(parents=True)
        assert copies.name(DIGEST, len(CONTENT), target / "x")
    assert (target / "x").read_bytes() == CONTENT


def test_a_copy_of_another_size_gets_no_name(store: Store, folder: Path) -> None:
    with store.copies_for(folder) as copies:
        copies.confirm(DIGEST, copied(copies))
        assert not copies.name(DIGEST, len(CONTENT) + 1, folder / "x")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG])
def test_what_cannot_be_written_is_no_copy_and_hinders_nobody_who_reads(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    real = os.write

    def once(handle: int, data: memoryview) -> int:
        if bytes(data[:1000]) == CONTENT[1000:2000]:
            raise OSError(error, os.strerror(error))
        return real(handle, data)

    with store.copies_for(folder) as copies:
        monkeypatch.setattr(os, "write", once)
        copies.confirm(DIGEST, copied(copies))
        assert not copies.name(DIGEST, len(CONTENT), folder / "x")
    assert list(folder.iterdir()) == []


def test_what_is_written_in_parts_is_whole(store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    with store.copies_for(folder) as copies:
        monkeypatch.setattr(os, "write", lambda handle, data: real(handle, data[:7]))
        copies.confirm(DIGEST, copied(copies))
        assert copies.name(DIGEST, len(CONTENT), folder / "x")
    assert (folder / "x").read_bytes() == CONTENT


def test_a_name_that_is_taken_or_cannot_be_given_is_refused(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "x").write_bytes(b"another's")
    with store.copies_for(folder) as copies:
        copies.confirm(DIGEST, copied(copies))
        assert not copies.name(DIGEST, len(CONTENT), folder / "x")
        copies.confirm(DIGEST, copied(copies))

        def refused(*_: object, **__: object) -> None:
            raise PermissionError

        monkeypatch.setattr(os, "link", refused)
        assert not copies.name(DIGEST, len(CONTENT), folder / "y")
    assert [path.name for path in folder.iterdir()] == ["x"] and (folder / "x").read_bytes() == b"another's"


def _little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    room = (2 * len(CONTENT) + (64 << 20)) // 4096
    monkeypatch.setattr(os, "fstatvfs", lambda _: SimpleNamespace(f_blocks=1 << 40, f_bavail=room, f_frsize=4096))


def _shared_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "ioctl", lambda *_: 0)


def _no_unnamed_files(monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def refused(path: Path, flags: int, *mode: int) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "not supported")
        return real(path, flags, *mode)

    monkeypatch.setattr(os, "open", refused)


@pytest.mark.parametrize("hindrance", [_little_room, _shared_blocks, _no_unnamed_files])
def test_no_copy_is_begun_where_it_saves_nothing_or_takes_others_room(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch, hindrance: Callable[[pytest.MonkeyPatch], None]
) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with store.copies_for(folder) as copies:
        hindrance(monkeypatch)
        assert copies.begin(len(CONTENT)) is None
        assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
        monkeypatch.undo()
        assert copies.begin(len(CONTENT)) is not None


def test_blocks_are_asked_for_with_files_of_both_folders(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int, str]] = []

    def ioctl(target: int, request: int, source: int) -> int:
        said = [str(Path(f"/proc/self/fd/{one}").readlink().parent) for one in (target, source)]
        asked.append((said[0], request, said[1]))
        raise OSError(errno.EXDEV, "another file system")

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    with store.copies_for(folder) as copies:
        assert copies.begin(1) is not None
    assert asked == [(str(folder), clone._FICLONE, str(store.root / "tmp"))]


def test_nothing_is_left_of_a_process_that_is_killed(store: Store, folder: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path\n"
        "from pipeline.store import Store; from pipeline.digest import Digest\n"
        "copies = Store.open(Path(sys.argv[1])).copies_for(Path(sys.argv[2])).__enter__(); copy = copies.begin(5)\n"
        "copy.passing(lambda view: 5)(memoryview(bytearray(5))); copies.confirm(Digest.of(bytes(5)), copy)\n"
        "print('confirmed', flush=True); time.sleep(60)\n"
    )
    args = [sys.executable, "-c", program, str(store.root), str(folder)]
    with subprocess.Popen(args, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None and killed.stdout.readline() == "confirmed\n"
        killed.send_signal(signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL
    assert list(folder.iterdir()) == [] and list((store.root / "tmp").iterdir()) == []


def _room(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    room = SimpleNamespace(f_blocks=1 << 40, f_bavail=2 * size + (64 << 20), f_frsize=1)
    monkeypatch.setattr(os, "fstatvfs", lambda _: room)


def test_room_is_promised_once(store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until a copy is whole or gone, others have only the rest."""
    _room(monkeypatch, 2 * len(CONTENT))
    with store.copies_for(folder) as copies:
        first, second = copied(copies), copies.begin(len(CONTENT))
        assert second is not None and copies.begin(1) is None
        copies.confirm(DIGEST, first)
        assert copies.begin(len(CONTENT) + 1) is None
        third = copies.begin(len(CONTENT))
        assert third is not None and copies.begin(1) is None
        second.close()
        assert copies.begin(len(CONTENT)) is not None


def test_a_copy_that_has_its_name_or_cannot_have_it_is_closed(store: Store, folder: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with store.copies_for(folder) as copies:
        for name in ("x", "x"):
            copies.confirm(DIGEST, copied(copies))
            copies.name(DIGEST, len(CONTENT), folder / name)
            assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
        copies.confirm(DIGEST, copied(copies))
        copies.close()
        assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
        assert not copies.name(DIGEST, len(CONTENT), folder / "y")
    assert [path.name for path in folder.iterdir()] == ["x"]


@pytest.mark.parametrize("size", [len(CONTENT), len(CONTENT) - 1, None])
def test_a_copy_goes_if_the_output_has_a_file_of_the_blobs_name_and_size(
    store: Store, folder: Path, size: int | None
) -> None:
    if size is not None:
        (folder / DIGEST.hex).write_bytes(bytes(size))
    with store.copies_for(folder, lambda digest: folder / digest.hex) as copies:
        copy = copied(copies)
        copies.confirm(DIGEST, copy)
        assert copy.closed == (size == len(CONTENT))
        assert copies.name(DIGEST, len(CONTENT), folder / "x") == (size != len(CONTENT))
        assert (folder / "x").exists() == (size != len(CONTENT))


def test_no_copy_takes_the_last_descriptors(store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with store.copies_for(folder) as copies:
        monkeypatch.setattr(os, "sysconf", lambda _: used + 8)
        assert copies.begin(1) is None
        monkeypatch.setattr(os, "sysconf", lambda _: used + 32)
        assert copies.begin(1) is not None


def test_a_copy_that_cannot_be_closed_gets_no_name(store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.close

    def close(handle: int) -> None:
        real(handle)
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    with store.copies_for(folder) as copies:
        copies.confirm(DIGEST, copied(copies))
        with monkeypatch.context() as full:
            full.setattr(os, "close", close)
            assert not copies.name(DIGEST, len(CONTENT), folder / "x")
    assert list(folder.iterdir()) == []
