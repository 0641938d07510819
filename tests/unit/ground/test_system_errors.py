"""What the operating system refuses is an error of relbuild's own: with code, path, way out and status."""

from __future__ import annotations

import errno
import os
import sqlite3
import tempfile
from pathlib import Path

import pytest

from pipeline.errors import BuildError, EnvironmentLacking, UsageError
from pipeline.packages import rpmdb_writer
from pipeline.packages.rpmdb_writer import write_database
from pipeline.process import Completed
from pipeline.store import failing_at
from pipeline.system_errors import relbuild_error

_USAGE = {errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG}


@pytest.mark.parametrize("number", sorted(errno.errorcode))
def test_every_errno_has_a_code_a_way_out_and_a_status_that_is_not_that_of_a_defect(number: int) -> None:
    error = relbuild_error(OSError(number, os.strerror(number), "/store/blobs/x"))
    assert error is not None
    (problem,) = error.problems
    assert problem.place == "/store/blobs/x"
    assert problem.hint and problem.code != "internal-error"
    assert error.exit_code == (UsageError if number in _USAGE else EnvironmentLacking).exit_code
    without = relbuild_error(OSError(number, os.strerror(number)))
    assert isinstance(without, EnvironmentLacking), "without a path there is nothing on the command line to correct"


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.EIO, "disk-error"),
        (errno.ENOSPC, "disk-full"),
        (errno.EDQUOT, "disk-full"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "no-permission"),
        (errno.EPERM, "no-permission"),
        (errno.EMFILE, "too-many-open-files"),
        (errno.ENFILE, "too-many-open-files"),
        (errno.ENOMEM, "out-of-memory"),
        (errno.EAGAIN, "too-many-processes"),
        (errno.ENOTDIR, "not-a-directory"),
        (errno.EISDIR, "is-a-directory"),
        (errno.ENOENT, "file-missing"),
        (errno.EBUSY, "system-error"),
    ],
)
def test_the_code_says_what_the_machine_lacks(number: int, code: str) -> None:
    error = relbuild_error(OSError(number, os.strerror(number), "/x"))
    assert error is not None and error.code == code


def test_memory_and_threads_that_are_refused_are_the_machines_fault_and_a_defect_is_not() -> None:
    memory, thread = relbuild_error(MemoryError()), relbuild_error(RuntimeError("can't start new thread"))
    assert memory is not None and (memory.code, memory.exit_code) == ("out-of-memory", 8)
    assert thread is not None and (thread.code, thread.exit_code) == ("too-many-processes", 8)
    assert relbuild_error(RuntimeError("other")) is None
    assert relbuild_error(KeyError("digest")) is None
    ours = BuildError("x", "y")
    assert relbuild_error(ours) is ours


def test_a_file_where_a_folder_is_wanted_is_named_as_that(tmp_path: Path) -> None:
    (tmp_path / "output").write_text("")
    with pytest.raises(FileExistsError) as raised:
        (tmp_path / "output").mkdir(exist_ok=True)
    error = relbuild_error(raised.value)
    assert isinstance(error, UsageError) and error.code == "not-a-directory"
    assert error.problems[0].place == str(tmp_path / "output")


def test_a_write_that_fails_names_the_file_also_where_the_kernel_does_not(tmp_path: Path) -> None:
    with (
        pytest.raises(OSError) as raised,
        failing_at(tmp_path / "x"),
        Path("/dev/full").open("wb", buffering=0) as file,
    ):
        file.write(b"x")
    error = relbuild_error(raised.value)
    assert error is not None and error.code == "disk-full" and error.problems[0].place == str(tmp_path / "x")


@pytest.mark.parametrize(
    ("said", "status", "number"),
    [
        ("error: sqlite failure: CREATE TABLE 'Name': database or disk is full\nerror: No such file", 24, errno.ENOSPC),
        ("error: sqlite failure: INSERT: database or disk is full", 0, errno.ENOSPC),
        ("error: sqlite failure: COMMIT: disk I/O error", 3, errno.EIO),
        ("error: Unable to open sqlite database x/rpmdb.sqlite: unable to open database file", 1, errno.EIO),
        ("error: cannot open Packages: attempt to write a readonly database", 1, errno.EROFS),
        ("error: x: Disk quota exceeded", 1, errno.EDQUOT),
    ],
)
def test_rpms_database_on_a_full_or_broken_disk_is_the_disks_fault(
    said: str, status: int, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rpmdb_writer, "run", lambda *_, **__: Completed(("rpmdb",), status, b"", said.encode()))
    with pytest.raises(OSError) as raised:
        write_database(tmp_path, [])
    assert raised.value.errno == number
    assert raised.value.filename == str(tmp_path / "rpmdb.sqlite")


def test_a_database_that_keeps_its_log_is_the_disks_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On an error of the disk SQLite leaves it in the mode in which rpm wrote it, and raises nothing: no image that has
    it read-only can be read, and a build would remember it."""
    path = tmp_path / "rpmdb.sqlite"

    def imported(*_: object, **__: object) -> Completed:
        made = sqlite3.connect(path)
        made.execute("PRAGMA journal_mode = WAL")
        made.execute("CREATE TABLE Packages (blob)")
        made.close()
        return Completed(("rpmdb",), 0, b"", b"")

    class Kept(sqlite3.Connection):
        def execute(self, sql: str, *words: object) -> sqlite3.Cursor:
            return super().execute(sql.replace("journal_mode = DELETE", "journal_mode"), *words)

    connect = sqlite3.connect
    monkeypatch.setattr(rpmdb_writer, "run", imported)
    monkeypatch.setattr(
        rpmdb_writer.sqlite3, "connect", lambda name: connect(name, factory=Kept) if path.exists() else connect(name)
    )
    with pytest.raises(OSError) as raised:
        write_database(tmp_path, [])
    assert (raised.value.errno, raised.value.filename) == (errno.EIO, str(path))


def test_a_header_that_rpm_refuses_is_not_the_disks_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpmdb_writer, "run", lambda *_, **__: Completed(("rpmdb",), 1, b"", b"error: bad header"))
    with pytest.raises(BuildError, match="bad header"):
        write_database(tmp_path, [])


def test_a_machine_without_a_directory_for_temporary_files_is_told_to_name_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/proc/nothing"])
    with pytest.raises(FileNotFoundError) as refused:
        tempfile.gettempdir()
    error = relbuild_error(refused.value)
    assert isinstance(error, EnvironmentLacking)
    assert error.problems[0].code == "no-temporary-directory" and "TMPDIR" in error.problems[0].hint


def test_a_working_directory_that_was_removed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(FileNotFoundError) as refused:
        Path("recipes").absolute()
    error = relbuild_error(refused.value)
    assert isinstance(error, EnvironmentLacking) and error.problems[0].code == "working-directory-missing"
    missing = relbuild_error(FileNotFoundError(errno.ENOENT, "No such file or directory", "recipe"))
    assert missing is not None and missing.problems[0].code == "file-missing"
