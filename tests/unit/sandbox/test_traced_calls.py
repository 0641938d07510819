"""System calls as the tracer executes them, asked of this process as if it were traced."""

from __future__ import annotations

import contextlib
import copy
import ctypes
import errno
import os
import shutil
import socket
import stat
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest

from pipeline.sandbox.traced.account_calls import ACCOUNT_CALLS
from pipeline.sandbox.traced.call_context import CallContext
from pipeline.sandbox.traced.inode_records import InodeRecord, InodeRecords
from pipeline.sandbox.traced.metadata_calls import METADATA_CALLS
from pipeline.sandbox.traced.path_calls import PATH_CALLS
from pipeline.sandbox.traced.program_calls import _interpreter, _runnable
from pipeline.sandbox.traced.ptrace import CallRegisters
from pipeline.sandbox.traced.recorded_files import RecordedFiles
from pipeline.sandbox.traced.recorded_tree import RecordedTree
from pipeline.sandbox.traced.syscall_numbers import SYSCALL_NUMBERS
from pipeline.sandbox.traced.tracee import ProcessIds, TracedCall, Tracee
from pipeline.sandbox.traced.tracer import _BY_NUMBER, TracedCommand
from pipeline.sandbox.traced.tree_lookup import TreeLookup
from pipeline.sandbox.traced.written_files import strip_written

CALLS = {**PATH_CALLS, **METADATA_CALLS, **ACCOUNT_CALLS}


class Arguments:
    """The registers of a call; strings and bytes are in this process's memory."""

    def __init__(self, *given: str | bytes | int) -> None:
        self.held: list[object] = []
        self.values = [self._value(one) for one in given] + [0] * (6 - len(given))

    def _value(self, given: str | bytes | int) -> int:
        if isinstance(given, int):
            return given & (1 << 64) - 1
        buffer = ctypes.create_string_buffer(os.fsencode(given))
        self.held.append(buffer)
        return ctypes.addressof(buffer)

    def argument(self, index: int) -> int:
        return self.values[index]

    def set_argument(self, index: int, value: int) -> None:
        self.values[index] = value


@dataclass
class Machine:
    """A tree, and this process in it."""

    context: CallContext
    me: Tracee
    held: list[object] = field(default_factory=list)

    @property
    def root(self) -> Path:
        return self.context.tree.root

    def __call__(self, name: str, *given: str | bytes | int) -> int:
        """Make a call; return its result, 0 if the kernel is to execute it, and an error negative."""
        arguments = Arguments(*given)
        self.held.append(arguments)
        self.me.used = 0
        try:
            result = CALLS[name](self.context, TracedCall(self.me, cast("CallRegisters", arguments)))
        except OSError as error:
            return -(error.errno or 0)
        return result or 0

    def record(self, path: str) -> InodeRecord:
        return self.context.tree.records.of(os.lstat(self.root / path))


@pytest.fixture
def call(tmp_path: Path) -> Iterator[Machine]:
    root = tmp_path / "tree"
    for folder in ("run", "tmp", "dev/shm", "proc", "srv", "e"):
        (root / folder).mkdir(parents=True)
    (root / "file").write_text("a")
    (root / "link").symlink_to("e")
    me = Tracee(os.getpid(), ProcessIds())
    scratch = ctypes.create_string_buffer(1 << 16)
    me.scratch, me.scratch_size = ctypes.addressof(scratch), len(scratch)
    tracees = {me.pid: me}
    tree = RecordedTree(root, InodeRecords(root.stat().st_dev, os.getuid()))
    (tmp_path / "programs").mkdir()
    context = CallContext(tree, TreeLookup(str(root), tracees), tracees, str(tmp_path / "programs"))
    yield Machine(context, me, [scratch])
    me.close()


@pytest.mark.parametrize(
    ("given", "number"),
    [
        (("rename", "/file", "/new/"), errno.ENOTDIR),
        (("rename", "/file/", "/new"), errno.ENOTDIR),
        (("rename", "/e/.", "/new"), errno.EBUSY),
        (("symlink", "x", "/new/"), errno.ENOENT),
        (("mknod", "/new/", stat.S_IFREG | 0o644), errno.ENOENT),
        (("link", "/file", "/new/"), errno.ENOENT),
        (("mkdir", "/e/.", 0o755), errno.EEXIST),
        (("mkdir", "/link/", 0o755), errno.EEXIST),
        (("rmdir", "/link/"), errno.ENOTDIR),
        (("rmdir", "/e/."), errno.EINVAL),
        (("rmdir", "/e/.."), errno.ENOTEMPTY),
        (("rmdir", "/"), errno.EBUSY),
        (("unlink", "/file/"), errno.ENOTDIR),
        (("unlink", "/link/"), errno.ENOTDIR),
        (("unlink", "/e/."), errno.EISDIR),
        (("unlink", "/none/."), errno.ENOENT),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, tuple) else None,
)
def test_what_stands_behind_the_last_name_counts(call: Machine, given: tuple[str, ...], number: int) -> None:
    assert call(*given) == -number
    assert sorted(one.name for one in call.root.iterdir()) == sorted(
        ["run", "tmp", "dev", "proc", "srv", "e", "file", "link"]
    )


def test_a_directorys_name_may_end_with_a_slash(call: Machine) -> None:
    assert call("mkdir", "/new//", 0o755) == 0
    assert call("rename", "/new/", "/newer/") == 0
    assert call("rmdir", "/newer/") == 0 and not (call.root / "newer").exists()


@pytest.mark.parametrize("folder", ["run", "tmp", "dev", "dev/shm"])
def test_the_sessions_directories_stay(call: Machine, folder: str) -> None:
    (call.root / "e/empty").mkdir()
    assert call("rmdir", f"/{folder}") == -errno.EBUSY
    assert call("rename", f"/{folder}", f"/{folder}.old") == -errno.EBUSY
    other = f"{Path('/', folder).parent}/other"
    assert call("mkdir", other, 0o755) == 0 and call("rename", other, f"/{folder}") == -errno.EBUSY
    assert (call.root / folder).is_dir()


def test_the_sessions_directories_are_file_systems(call: Machine) -> None:
    for new in ("/tmp/new", "/run/new", "/dev/new", "/dev/shm/new"):
        assert call("rename", "/file", new) == -errno.EXDEV
        assert call("link", "/file", new) == -errno.EXDEV
    (call.root / "tmp/x").write_text("x")
    assert call("rename", "/tmp/x", "/srv/x") == -errno.EXDEV
    assert call("rename", "/tmp/x", "/tmp/y") == 0 and call("link", "/tmp/y", "/tmp/z") == 0


def written(call: Machine, path: str) -> None:
    """Append to a file, as the kernel does after open(2)."""
    assert call("open", path, os.O_WRONLY | os.O_APPEND) == 0
    with (call.root / path.lstrip("/")).open("a") as file:
        file.write("b")


def mode_of(call: Machine, path: str) -> int:
    buffer = ctypes.create_string_buffer(256)
    assert call("stat", path, ctypes.addressof(buffer)) == 0
    return int.from_bytes(buffer.raw[24:28], "little") & 0o7777


CAPABILITY = "security.capability"


@pytest.fixture
def privileged(call: Machine) -> Machine:
    assert call("chmod", "/file", 0o4755) == 0
    assert call("setxattr", "/file", CAPABILITY, b"old", 3, 0) == 0
    return call


def test_a_write_takes_privileges_before_they_are_given_anew(privileged: Machine) -> None:
    written(privileged, "/file")
    assert mode_of(privileged, "/file") == 0o755
    assert privileged("chmod", "/file", 0o4755) == 0
    assert privileged("setxattr", "/file", CAPABILITY, b"new", 3, 0) == 0
    strip_written(privileged.context)
    assert privileged.record("file") == InodeRecord(0o4755, xattrs=((CAPABILITY, b"new"),))


def test_privileges_that_were_given_after_a_write_stay_without_a_look(privileged: Machine) -> None:
    written(privileged, "/file")
    assert privileged("chmod", "/file", 0o6711) == 0
    strip_written(privileged.context)
    assert privileged.record("file") == InodeRecord(0o6711)


@pytest.mark.parametrize("new", ["/other", "/dir/file"])
def test_a_write_takes_privileges_of_a_file_that_is_renamed(privileged: Machine, new: str) -> None:
    assert privileged("open", "/file", os.O_WRONLY) == 0
    assert privileged("mkdir", "/made", 0o755) == 0
    assert privileged("rename", "/file", "/made/file") == 0 and privileged("rename", "/made", "/dir") == 0
    assert new == "/dir/file" or privileged("rename", "/dir/file", new) == 0
    (privileged.root / new[1:]).write_text("written after")
    strip_written(privileged.context)
    assert privileged.record(new[1:]) == InodeRecord(0o755)


def test_opening_alone_takes_nothing(privileged: Machine) -> None:
    assert privileged("open", "/file", os.O_RDWR) == 0
    strip_written(privileged.context)
    assert privileged.record("file").mode == 0o4755 and privileged.record("file").xattrs


def test_a_removed_files_record_is_not_anothers(privileged: Machine) -> None:
    records, before = privileged.context.tree.records, os.lstat(privileged.root / "file")
    key = (before.st_dev, before.st_ino)
    records.lower.add(key)
    assert privileged("link", "/file", "/again") == 0
    again = os.lstat(privileged.root / "again")
    assert privileged("unlink", "/file") == 0 and records.of(again).mode == 0o4755
    assert privileged("unlink", "/again") == 0
    assert records.of(again).mode == 0o4755, "it may be open still"
    records.purge()
    assert (again.st_dev, again.st_ino) not in records.known and (again.st_dev, again.st_ino) not in records.lower


def test_a_replaced_files_record_is_not_anothers(privileged: Machine) -> None:
    records, before = privileged.context.tree.records, os.lstat(privileged.root / "file")
    (privileged.root / "new").write_text("n")
    assert privileged("rename", "/new", "/file") == 0
    records.purge()
    assert (before.st_dev, before.st_ino) not in records.known


def test_a_new_file_with_a_removed_ones_inode_has_its_own_record(privileged: Machine) -> None:
    records, before = privileged.context.tree.records, os.lstat(privileged.root / "file")
    assert privileged("unlink", "/file") == 0
    records.created(before, InodeRecord(0o640, 5, 6))
    records.purge()
    assert records.of(before) == InodeRecord(0o640, 5, 6)


def test_files_of_the_recipe_inherit_nothing_of_removed_ones(privileged: Machine) -> None:
    tree = privileged.context.tree
    handle = os.open(tree.root, os.O_PATH | os.O_DIRECTORY)
    try:
        files = RecordedFiles(handle, 0, tree)
        files.make_directory("srv/a")
        assert privileged("setxattr", "/srv/a", "user.x", b"y", 1, 0) == 0
        files.make_directory("srv/a", mode=0o700)
        assert privileged.record("srv/a") == InodeRecord(0o700, xattrs=(("user.x", b"y"),))
        gone = [os.lstat(tree.root / one) for one in ("srv/a", "file")]
        tree.records.lower.update((one.st_dev, one.st_ino) for one in gone)
        assert files.remove("srv/a")
        files.write_file("file", b"new", mode=0o644)
        new = os.lstat(tree.root / "file")
        for one in gone:
            assert (one.st_dev, one.st_ino) not in tree.records.lower
            assert os.path.samestat(one, new) or (one.st_dev, one.st_ino) not in tree.records.known
        files.make_directory("srv/b")
        assert privileged.record("srv/b") == InodeRecord(0o755)
    finally:
        os.close(handle)


def test_a_program_with_anothers_inode_is_not_it(call: Machine) -> None:
    shutil.copyfile("/bin/true", call.root / "program")
    with (call.root / "program").open("rb") as file:
        linker = _interpreter(file)
    assert linker is not None
    (call.root / linker[1].lstrip("/")).parent.mkdir(parents=True)
    shutil.copyfile("/bin/true", call.root / linker[1].lstrip("/"))
    for path in ("program", linker[1].lstrip("/")):
        (call.root / path).chmod(0o755)
    here = TracedCall(call.me, cast("CallRegisters", Arguments()))

    def executed() -> str:
        return _runnable(call.context, here, call.context.lookup.find(call.me, -100, "/program", follow=True))

    os.utime(call.root / "program", (5, 5))
    first = executed()
    assert executed() == first
    with (call.root / "program").open("ab") as file:
        file.write(b"more")
    os.utime(call.root / "program", (5, 5))
    second = executed()
    assert second != first and b"more" in Path(second).read_bytes()


def test_a_size_below_zero_is_invalid(call: Machine) -> None:
    assert call("truncate", "/file", -1) == -errno.EINVAL and (call.root / "file").read_text() == "a"
    assert call("truncate", "/file", 3) == 0 and (call.root / "file").stat().st_size == 3


NOW, OMIT = 0x3FFF_FFFF, 0x3FFF_FFFE


@pytest.mark.parametrize("part", [-1, 1_000_000_000])
def test_parts_of_seconds_have_bounds(call: Machine, part: int) -> None:
    assert call("utimensat", -100, "/file", struct.pack("<qqqq", 1, 0, 1, part), 0) == -errno.EINVAL
    assert call("utimes", "/file", struct.pack("<qqqq", 1, part, 1, 0)) == -errno.EINVAL
    assert call("utimensat", -100, "/file", struct.pack("<qqqq", 0, OMIT, 7, 9), 0) == 0
    assert (call.root / "file").stat().st_mtime_ns == 7_000_000_009
    assert call("utimes", "/file", struct.pack("<qqqq", 1, 0, 2, 999_999)) == 0
    assert (call.root / "file").stat().st_mtime_ns == 2_999_999_000


@pytest.mark.parametrize(
    ("name", "tags", "needed"),
    [
        ("access", (1, 4, 32), False),
        ("access", (1, 2, 4, 16, 32), True),
        ("default", (1, 4, 32), True),
        ("default", (), False),
    ],
)
def test_an_access_control_list_that_says_more_than_a_mode_needs_a_container(
    call: Machine, name: str, tags: tuple[int, ...], needed: bool
) -> None:
    value = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", tag, 6, 5) for tag in tags)
    assert call("setxattr", "/e", f"system.posix_acl_{name}", value, len(value), 0) == -errno.EOPNOTSUPP
    assert call.context.unsupported == ("an access control list for /e" if needed else "")


def descriptors() -> int:
    return len([*Path("/proc/self/fd").iterdir()])


def test_connecting_holds_one_descriptor_of_each_process(call: Machine) -> None:
    with socket.socket(socket.AF_UNIX) as listener, contextlib.chdir(call.root / "run"):
        listener.bind("s")
    address = struct.pack("<H", socket.AF_UNIX) + b"/run/s\0"
    assert call("connect", 3, address, len(address)) == 0
    before = descriptors()
    for _ in range(5):
        assert call("connect", 3, address, len(address)) == 0
    assert descriptors() == before
    call.me.keep(-1)
    assert descriptors() == before - 1


class Stopped(Arguments):
    """Registers at a stop, with what the tracer makes of them."""

    def __init__(self, number: int, *given: str | bytes | int) -> None:
        super().__init__(*given)
        self.number, self.results = number, list[int]()

    def copy(self) -> Stopped:
        other = copy.copy(self)
        other.values = [*self.values]
        return other

    def differs(self, other: Stopped) -> bool:
        return self.values != other.values

    def restore(self, other: Stopped) -> None:
        self.values = [*other.values]

    def skip(self, result: int) -> None:
        self.results.append(result)


@pytest.fixture
def stop(call: Machine, monkeypatch: pytest.MonkeyPatch) -> Callable[[Stopped], bool]:
    """Stop this process at a call; return whether the call's end is waited for."""
    command = TracedCommand(call.context, [], {}, call.root, {}, 1)
    stops: list[bool] = []
    monkeypatch.setattr("pipeline.sandbox.traced.ptrace.resume", lambda _, to_exit=False: stops.append(to_exit))

    def act(registers: Stopped) -> bool:
        monkeypatch.setattr("pipeline.sandbox.traced.ptrace.CallRegisters", lambda _: registers)
        act_on = command._call_ended if call.me.restoring else command._called
        act_on(call.me)
        return stops.pop()

    return act


def test_a_call_that_has_ended_has_its_arguments_again(call: Machine, stop: Callable[[Stopped], bool]) -> None:
    registers = Stopped(SYSCALL_NUMBERS["open"], "/new", os.O_WRONLY | os.O_CREAT, 0o644)
    before = [*registers.values]
    assert stop(registers) and registers.values != before
    assert not stop(registers) and registers.values == before and call.me.restoring is None


def test_a_call_that_is_executed_here_ends_at_once(call: Machine, stop: Callable[[Stopped], bool]) -> None:
    registers = Stopped(SYSCALL_NUMBERS["mkdir"], "/new", 0o755)
    assert not stop(registers) and registers.results == [0]


@pytest.mark.parametrize(
    ("name", "number"), [("getpid", errno.ENOSYS), ("setfsuid", errno.EINVAL), ("stat", errno.EINVAL)]
)
def test_no_call_ends_the_build(
    stop: Callable[[Stopped], bool], monkeypatch: pytest.MonkeyPatch, name: str, number: int
) -> None:
    def fails(*_: object) -> int:
        raise OverflowError

    registers, results = Stopped(SYSCALL_NUMBERS[name]), list[int]()
    for one in ("setfsuid", "stat"):
        monkeypatch.setitem(_BY_NUMBER, SYSCALL_NUMBERS[one], fails)
    monkeypatch.setattr(Stopped, "skip", lambda _, result: results.append(result))
    assert not stop(registers) and results == [-number]
