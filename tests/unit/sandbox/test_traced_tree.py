"""Look-ups of traced processes, and the table of a tree's owners: pure functions of a directory."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from pipeline.sandbox.traced.inode_records import InodeRecord, InodeRecords, real_mode
from pipeline.sandbox.traced.program_calls import _first_line, _interpreter
from pipeline.sandbox.traced.recorded_files import RecordedFiles
from pipeline.sandbox.traced.recorded_tree import RecordedTree, owned_by
from pipeline.sandbox.traced.tracee import ProcessIds, Tracee, signed
from pipeline.sandbox.traced.tree_lookup import TreeLookup

AT_FDCWD = -100


@pytest.fixture
def tree(tmp_path: Path) -> RecordedTree:
    root = tmp_path / "tree"
    for folder in ("etc", "usr/bin", "proc", "dev"):
        (root / folder).mkdir(parents=True)
    (root / "bin").symlink_to("usr/bin")
    (root / "usr/bin/sh").write_text("shell")
    (root / "etc/passwd").write_text("root")
    (root / "dev/null").touch()
    return RecordedTree(root, InodeRecords(root.stat().st_dev, os.getuid()))


@pytest.fixture
def me(tree: RecordedTree) -> Tracee:
    """This process, as if it were traced."""
    return Tracee(os.getpid(), ProcessIds(), program="/usr/bin/sh")


@pytest.fixture
def lookup(tree: RecordedTree, me: Tracee) -> TreeLookup:
    return TreeLookup(str(tree.root), {me.pid: me})


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("/etc/passwd", "etc/passwd"),
        ("/bin/sh", "usr/bin/sh"),
        ("/bin/../bin/./sh", "usr/bin/sh"),
        ("/../../etc/passwd", "etc/passwd"),
        ("/usr/bin/", "usr/bin"),
        ("/", ""),
        ("/etc/new", "etc/new"),
    ],
)
def test_paths_are_looked_up_below_the_tree(lookup: TreeLookup, me: Tracee, name: str, path: str) -> None:
    assert lookup.find(me, AT_FDCWD, name, follow=True).path == path


@pytest.mark.parametrize("target", ["/etc/passwd", "../../../../../../etc/passwd", "../etc/./passwd"])
def test_no_link_leads_out(lookup: TreeLookup, me: Tracee, tree: RecordedTree, target: str) -> None:
    (tree.root / "usr/link").symlink_to(target)
    found = lookup.find(me, AT_FDCWD, "/usr/link", follow=True)
    assert (found.path, found.host) == ("etc/passwd", f"{tree.root}/etc/passwd")
    assert lookup.find(me, AT_FDCWD, "/usr/link", follow=False).path == "usr/link"


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("/none/file", errno.ENOENT),
        ("/etc/passwd/file", errno.ENOTDIR),
        ("/etc/passwd/", errno.ENOTDIR),
        ("/loop", errno.ELOOP),
        ("", errno.ENOENT),
        ("/" + "x/" * 2048, errno.ENAMETOOLONG),
        ("/proc/1/environ", errno.ENOENT),
        ("/proc/kcore", errno.ENOENT),
    ],
)
def test_refused_paths(lookup: TreeLookup, me: Tracee, tree: RecordedTree, name: str, number: int) -> None:
    (tree.root / "loop").symlink_to("loop")
    with pytest.raises(OSError) as error:
        lookup.find(me, AT_FDCWD, name, follow=True)
    assert error.value.errno == number


def test_magic_links_of_proc_lead_into_the_tree(lookup: TreeLookup, me: Tracee, tree: RecordedTree) -> None:
    assert lookup.find(me, AT_FDCWD, "/proc/self/root/etc/passwd", follow=True).path == "etc/passwd"
    assert lookup.find(me, AT_FDCWD, "/proc/self/exe", follow=True).path == "usr/bin/sh"
    assert lookup.find(me, AT_FDCWD, "/proc/self/exe", follow=False).link == "/usr/bin/sh"
    with (tree.root / "etc/passwd").open() as file:
        seen = lookup.find(me, AT_FDCWD, f"/proc/self/fd/{file.fileno()}", follow=True)
        assert seen.path == "etc/passwd"
        with pytest.raises(OSError):
            lookup.find(me, AT_FDCWD, f"/proc/self/fd/{file.fileno()}/..", follow=True)


def test_a_descriptor_of_the_machine_names_no_directory(lookup: TreeLookup, me: Tracee, tmp_path: Path) -> None:
    outside = os.open(tmp_path, os.O_RDONLY)
    inside = os.open(tmp_path / "tree/etc", os.O_RDONLY)
    try:
        assert lookup.find(me, inside, "passwd", follow=True).path == "etc/passwd"
        with pytest.raises(OSError):
            lookup.find(me, outside, "tree/etc/passwd", follow=True)
    finally:
        os.close(outside)
        os.close(inside)


def fails(lookup: TreeLookup, me: Tracee, folder: int, name: str, *, follow: bool = True) -> int | None:
    with pytest.raises(OSError) as error:
        lookup.find(me, folder, name, follow=follow)
    return error.value.errno


def test_an_open_symlink_is_neither_a_directory_nor_followed(lookup: TreeLookup, me: Tracee, tmp_path: Path) -> None:
    (tmp_path / "machine").mkdir()
    (tmp_path / "machine/v").touch()
    for target in ("machine", "machine/v"):
        link = tmp_path / "tree/link"
        link.symlink_to(tmp_path / target)
        handle = os.open(link, os.O_PATH | os.O_NOFOLLOW)
        try:
            assert fails(lookup, me, handle, "v", follow=False) == errno.ENOTDIR
            assert fails(lookup, me, handle, "new") == errno.ENOTDIR
            assert fails(lookup, me, AT_FDCWD, f"/proc/self/fd/{handle}/v") == errno.ENOTDIR
            assert fails(lookup, me, AT_FDCWD, f"/proc/self/fd/{handle}") == errno.ELOOP
            assert fails(lookup, me, AT_FDCWD, f"/proc/self/fd/{handle}/", follow=False) == errno.ENOTDIR
            assert lookup.find(me, AT_FDCWD, f"/proc/self/fd/{handle}", follow=False).link == "/link"
        finally:
            os.close(handle)
            link.unlink()


def test_a_symlink_in_place_of_a_removed_open_file_is_not_that_file(
    lookup: TreeLookup, me: Tracee, tree: RecordedTree, tmp_path: Path
) -> None:
    """The kernel tells the path of a removed file as "NAME (deleted)", which may be made too."""
    (tmp_path / "machine").mkdir()
    (tmp_path / "machine/v").touch()
    (tree.root / "gone").mkdir()
    (tree.root / "file").touch()
    folder, file = os.open(tree.root / "gone", os.O_RDONLY), os.open(tree.root / "file", os.O_RDONLY)
    try:
        (tree.root / "gone").rmdir()
        (tree.root / "file").unlink()
        (tree.root / "gone (deleted)").symlink_to(tmp_path / "machine")
        (tree.root / "file (deleted)").symlink_to(tmp_path / "machine/v")
        assert fails(lookup, me, folder, "v") == errno.ENOENT
        assert fails(lookup, me, AT_FDCWD, f"/proc/self/fd/{folder}/v") == errno.ENOENT
        assert lookup.open_file(me, file).path is None
        found = lookup.find(me, AT_FDCWD, f"/proc/self/fd/{file}", follow=True)
        assert found.path is None and found.host == f"/proc/{me.pid}/fd/{file}"
    finally:
        os.close(folder)
        os.close(file)


def test_a_symlink_in_place_of_a_root_or_a_program_is_followed_in_the_tree_only(
    lookup: TreeLookup, me: Tracee, tree: RecordedTree, tmp_path: Path
) -> None:
    (tmp_path / "machine").mkdir()
    (tmp_path / "machine/v").touch()
    (tree.root / "jail").symlink_to(tmp_path / "machine")
    me.root = ("jail",)
    assert fails(lookup, me, AT_FDCWD, "/v") == errno.ENOENT
    me.root, me.program = (), "/jail/v"
    assert fails(lookup, me, AT_FDCWD, "/proc/self/exe") == errno.ENOENT


def test_the_name_of_the_machine_is_the_build_s(lookup: TreeLookup, me: Tracee, tree: RecordedTree) -> None:
    (tree.root / "proc/hostname").write_text("build\n")
    found = lookup.find(me, AT_FDCWD, "/proc/sys/kernel/hostname", follow=True)
    assert Path(found.host).read_text() == "build\n" and found.path is None


def test_devices_are_the_machines(lookup: TreeLookup, me: Tracee) -> None:
    found = lookup.find(me, AT_FDCWD, "/dev/null", follow=True)
    assert found.host == "/dev/null" and found.path is None and found.existing().st_rdev == os.makedev(1, 3)


def test_after_a_chroot_nothing_above_is_seen(lookup: TreeLookup, me: Tracee) -> None:
    me.root = ("usr",)
    assert lookup.find(me, AT_FDCWD, "/../../bin/sh", follow=True).path == "usr/bin/sh"
    with pytest.raises(OSError):
        lookup.find(me, AT_FDCWD, "/etc/passwd", follow=True)


def test_one_name_of_a_lower_file_is_changed_alone(tree: RecordedTree) -> None:
    one, other = tree.root / "usr/bin/sh", tree.root / "usr/bin/bash"
    other.hardlink_to(one)
    status = one.lstat()
    tree.records.lower.add((status.st_dev, status.st_ino))
    tree.records.set(status, InodeRecord(0o755, 1, 2))
    tree.set_mode("usr/bin/sh", status, 0o4711)
    seen = {place.name: tree.records.of(place.lstat()) for place in (one, other)}
    assert seen == {"sh": InodeRecord(0o4711, 1, 2), "bash": InodeRecord(0o755, 1, 2)}
    assert one.read_text() == "shell" and one.lstat().st_mtime_ns == other.lstat().st_mtime_ns
    assert tree.changed == {"usr/bin/sh"}


def test_a_change_of_owner_takes_privileges_as_the_kernel_does() -> None:
    capable = (("security.capability", b"x"), ("user.a", b"y"))
    assert owned_by(InodeRecord(0o6755, 1, 1, capable), 5, -1, keeps_bits=False) == InodeRecord(
        0o755, 5, 1, (("user.a", b"y"),)
    )
    assert owned_by(InodeRecord(0o2644), -1, 7, keeps_bits=False).mode == 0o2644
    assert owned_by(InodeRecord(0o6755, xattrs=capable), 5, 6, keeps_bits=True).mode == 0o6755


def test_the_user_may_on_disk_what_root_may_in_the_image() -> None:
    assert real_mode(0, directory=False) == 0o600 and real_mode(0, directory=True) == 0o700
    assert real_mode(0o4001, directory=False) == 0o701 and real_mode(0o644, directory=False) == 0o644


def test_files_of_the_recipe_have_their_owners_in_the_table(tree: RecordedTree) -> None:
    handle = os.open(tree.root, os.O_PATH | os.O_DIRECTORY)
    try:
        files = RecordedFiles(handle, 0, tree)
        files.make_directory("srv/data", mode=0o1770, uid=5, gid=6)
        files.write_file("bin/new", b"x", mode=0o4000, uid=7)
        files.symlink("etc/link", "passwd", uid=8, gid=9)
        found = [files.stat(path, follow=False) for path in ("srv/data", "bin/new", "etc/link", "srv")]
        seen = [(one.st_mode & 0o7777, one.st_uid, one.st_gid) for one in found if one]
        assert seen == [(0o1770, 5, 6), (0o4000, 7, 0), (0o777, 8, 9), (0o755, 0, 0)]
        assert tree.changed >= {"srv/data", "usr/bin/new", "etc/link"}
        assert files.remove("srv") and files.stat("srv") is None and {"srv", "srv/data"} <= tree.changed
    finally:
        os.close(handle)


def test_access_of_other_accounts() -> None:
    ids, record = ProcessIds(), InodeRecord(0o640, 5, 6)
    assert ids.may(record, 7)
    ids.users[3] = 5
    assert ids.may(record, 6) and not ids.may(record, 1)
    ids.users[3], ids.supplementary = 9, [6]
    assert ids.may(record, 4) and not ids.may(record, 2)
    ids.supplementary = []
    assert not ids.may(record, 4)


def test_first_lines_are_read_as_the_kernel_reads_them() -> None:
    assert _first_line(b"#! /bin/sh -e  x \nrest") == ["/bin/sh", "-e  x"]
    assert _first_line(b"#!/bin/sh") == ["/bin/sh"]
    with pytest.raises(OSError):
        _first_line(b"#!  \n")


def test_the_interpreter_of_a_program(tmp_path: Path) -> None:
    with Path("/bin/true").open("rb") as file:
        found = _interpreter(file)
    assert found is not None and found[1].startswith("/lib")
    (tmp_path / "no").write_bytes(b"\x7fELF" + bytes(100))
    with (tmp_path / "no").open("rb") as file, pytest.raises(OSError) as error:
        _interpreter(file)
    assert error.value.errno == errno.ENOEXEC
    assert (signed(0xFFFFFF9C), signed(5)) == (AT_FDCWD, 5)
