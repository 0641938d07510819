"""Metadata parsed in a child, which is not believed: not what it writes, not that it ends."""

from __future__ import annotations

import errno
import os
import resource
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import EnvironmentLacking, RelbuildError, VerificationError
from pipeline.process import PIPE, start
from pipeline.progress import QUIET
from pipeline.resolve import conversion_pipes, metadata_conversion, solv_cache, solv_conversion
from pipeline.resolve.conversion_pipes import ChildPipes
from pipeline.resolve.solv_cache import solv_file
from pipeline.store import BlobWriter, Store
from tests.support.resolve_world import World
from tests.support.rpmmd import Rpm


def converted(world: World, store: Store | None = None) -> Path:
    kept = store or world.store
    return solv_file(world.opened(kept)[0], "primary", store=kept, progress=QUIET)


def child(folder: Path, monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """Have this program run in place of the one that converts."""
    script = folder / "child.py"
    script.write_text(f"import os, signal, sys, time\n{program}\n")
    monkeypatch.setattr(metadata_conversion, "_PROGRAM", script)


READ = "while os.read(0, 1 << 16): pass\n"
LIMITED = "signal.alarm(20)\n"  # Where relbuild leaves it, the test does not.


@pytest.fixture
def no_descriptor_of_the_child(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int) -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(os, "pidfd_open", refuse)


@pytest.mark.parametrize("descriptor", [True, False])
def test_a_childs_group_is_killed_before_its_number_can_be_anothers(
    descriptor: bool, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not descriptor:
        request.getfixturevalue("no_descriptor_of_the_child")
    statuses: list[int | None] = []
    monkeypatch.setattr(conversion_pipes, "kill_group", lambda process: statuses.append(process.returncode))
    process = start(["sh", "-c", "exit 3"], stdin=PIPE, stdout=PIPE, stderr=PIPE)
    with ChildPipes(process, 60.0) as pipes:
        assert pipes.wait() == 3
    assert statuses == [None]


@pytest.mark.parametrize(
    "program", ["signal.pause()", READ + "signal.pause()", READ + "os.close(1)\nos.close(2)\nsignal.pause()"]
)
@pytest.mark.parametrize("grandchild", ["", "os.fork()\n", "if os.fork() == 0: os.setsid()\n"])
def test_a_child_that_neither_reads_nor_writes_nor_ends_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, grandchild: str
) -> None:
    child(tmp_path, monkeypatch, grandchild + LIMITED + program)
    monkeypatch.setattr(metadata_conversion, "CHILD_LIFETIME", 0.3)
    world = World(tmp_path).add("r", *(Rpm(f"p{number}", files=(f"/usr/bin/{number:099}",)) for number in range(500)))
    monkeypatch.setattr(metadata_conversion, "_PIPE_SIZE", 4096)
    with pytest.raises(EnvironmentLacking, match=r"of repository r did not end in") as caught:
        converted(world)
    assert caught.value.code == "child-failed" and caught.value.problems[0].place == "this machine"
    assert not list((world.store.root / "tmp").iterdir())


@pytest.mark.parametrize("leaves", ["", "os.setsid()\n"])
def test_a_child_that_ended_is_not_waited_for_because_of_what_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leaves: str
) -> None:
    child(
        tmp_path,
        monkeypatch,
        f"{READ}if os.fork():\n os.write(1, b'none')\n os._exit(0)\n{leaves}{LIMITED}signal.pause()",
    )
    with pytest.raises(VerificationError, match="libsolv cannot read what it made of"):
        World(tmp_path).add("r", Rpm("a")).names(["a"])


def test_what_a_download_takes_is_not_the_childs_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[str] = []
    real_pieces, real_start = metadata_conversion.metadata_pieces, metadata_conversion._start

    def pieces(*given: object, **named: object) -> Iterator[bytes]:
        happened.append("fetched")
        yield from real_pieces(*given, **named)  # type: ignore[arg-type]

    def start() -> metadata_conversion.Process:
        happened.append("started")
        return real_start()

    monkeypatch.setattr(metadata_conversion, "metadata_pieces", pieces)
    monkeypatch.setattr(metadata_conversion, "_start", start)
    converted(World(tmp_path).add("r", Rpm("a")))
    assert happened == ["fetched", "started"]

    def slow() -> Iterator[bytes]:
        yield b"a"
        now[0] += 1000.0
        yield b"b"

    now = [0.0]
    monkeypatch.setattr(conversion_pipes.time, "monotonic", lambda: now[0])
    child(tmp_path, monkeypatch, READ)
    with ChildPipes(real_start(), 60.0) as pipes:
        assert pipes.write_all(slow()) == (True, 2)
        assert pipes.read() == pipes.read_errors(1) == b"" and pipes.wait() == 0


@pytest.mark.usefixtures("no_descriptor_of_the_child")
def test_without_a_descriptor_of_the_child_metadata_is_converted_too(tmp_path: Path) -> None:
    assert converted(World(tmp_path).add("r", Rpm("a"))).read_bytes()[:4] == b"SOLV"


def test_a_child_that_writes_without_end_fills_no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child(tmp_path, monkeypatch, READ + "while True: os.write(1, bytes(1 << 16))")
    monkeypatch.setattr(metadata_conversion, "SOLV_SIZE_FLOOR", 1 << 17)
    world = World(tmp_path).add("r", Rpm("a"))
    with pytest.raises(VerificationError, match="makes more than 131072 bytes of") as caught:
        converted(world)
    assert caught.value.code == "metadata-malformed"
    assert not list((world.store.root / "tmp").iterdir())
    assert sum(path.stat().st_size for path in (world.store.root / "blobs").iterdir()) < 1 << 16


@pytest.mark.parametrize("kind", ["primary", "filelists"])
@pytest.mark.parametrize("written", [b"", b"SOLV", b"SOLV\0\0\0\x08" + b"\xff" * 200, b"no solv at all"])
def test_what_a_child_wrote_wrongly_is_an_error_and_no_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, written: bytes
) -> None:
    world = World(tmp_path).add("r", Rpm("a", requires=("/opt/y",)), Rpm("b", files=("/opt/y",)))
    if kind == "filelists":
        converted(world)
    child(tmp_path, monkeypatch, f"{READ}os.write(1, {written!r})")
    with pytest.raises(VerificationError, match="libsolv cannot read what it made of") as caught:
        world.names(["a"])
    assert caught.value.code == "metadata-malformed" and "repository r" in str(caught.value)


def test_a_file_that_libsolv_cannot_read_is_made_again(tmp_path: Path) -> None:
    world = World(tmp_path).add("r", Rpm("a", requires=("b",)), Rpm("b"))
    assert len(world.names(["a"])) == 2
    one = world.opened()[0]
    whole = converted(world).read_bytes()
    for odd in (b"", whole[:4], whole[:40], whole[:200], b"no solv at all"):  # Under the store's own seal.
        world.store.remember(solv_cache._identity(one, "primary"), str(world.store.put(odd)))
        assert world.names(["a"]) == ["a-1-1.noarch", "b-1-1.noarch"]
        assert converted(world).read_bytes() == whole


def test_a_result_for_another_document_is_not_taken(tmp_path: Path) -> None:
    world = World(tmp_path).add("r", Rpm("a")).add("other", Rpm("evil"))
    one, other = world.opened()
    for each in (one, other):
        solv_file(each, "primary", store=world.store, progress=QUIET)
    mine, foreign = (world.store.result(solv_cache._identity(each, "primary")) for each in (one, other))
    mine.write_bytes(foreign.read_bytes())
    assert b"evil" not in converted(world).read_bytes()


def test_several_at_once_make_the_same_file(tmp_path: Path) -> None:
    world = World(tmp_path).add("r", Rpm("a"), Rpm("b"))
    begin = threading.Barrier(4)
    found: list[bytes] = []

    def convert() -> None:
        store = Store.open(world.store.root)  # As each process does.
        begin.wait()
        found.append(converted(world, store).read_bytes())

    threads = [threading.Thread(target=convert) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and len(set(found)) == 1
    assert not list((world.store.root / "tmp").iterdir())


def test_a_full_disk_leaves_nothing_and_no_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path).add("r", Rpm("a"))
    started = []
    real = metadata_conversion._start

    def start() -> metadata_conversion.Process:
        started.append(real())
        return started[-1]

    def full(self: BlobWriter, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "store")

    one = world.opened()[0]
    solv_file(one, "primary", store=Store.open(tmp_path / "other"), progress=QUIET)
    world.store.put((tmp_path / "other" / "blobs" / one.records["primary"].checksum.hex).read_bytes())
    monkeypatch.setattr(metadata_conversion, "_start", start)
    monkeypatch.setattr(BlobWriter, "write", full)
    with pytest.raises(OSError, match="No space left"):
        solv_file(one, "primary", store=world.store, progress=QUIET)
    assert started[0].returncode is not None
    assert not list((world.store.root / "tmp").iterdir())
    monkeypatch.undo()
    assert converted(world).read_bytes()[:4] == b"SOLV"


@pytest.mark.parametrize(
    ("ends", "code", "told"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "metadata-malformed", "SIGSEGV"),
        ("os.kill(os.getpid(), signal.SIGXCPU)", "metadata-malformed", "SIGXCPU"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "child-failed", "SIGKILL"),
        ("import not_there", "child-failed", "not_there"),
    ],
)
def test_a_child_that_does_not_come_to_its_end_says_whose_fault_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: str, code: str, told: str
) -> None:
    script = tmp_path / "ends.py"
    script.write_text(f"import os, signal\nos.read(0, 1)\n{ends}\n")
    monkeypatch.setattr(metadata_conversion, "_PROGRAM", script)
    world = World(tmp_path).add("r", Rpm("a"))
    with pytest.raises(RelbuildError) as caught:
        converted(world)
    assert caught.value.code == code and told in str(caught.value)


def test_a_child_that_ended_before_it_was_told_all_is_no_success_and_an_error_of_the_document_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child(tmp_path, monkeypatch, "")
    with ChildPipes(metadata_conversion._start(), 60.0) as pipes:
        pipes._process.wait()
        assert pipes.write_all([b"x" * 100_000]) == (False, 100_000)

    def broken() -> Iterator[bytes]:
        yield b"x"
        raise BrokenPipeError("of something else")

    child(tmp_path, monkeypatch, READ)
    with (
        pytest.raises(BrokenPipeError, match="of something else"),
        ChildPipes(metadata_conversion._start(), 60.0) as pipes,
    ):
        pipes.write_all(broken())
    one = World(tmp_path).add("r", Rpm("a")).opened()[0]
    assert metadata_conversion._conversion_error(one, "primary", 0, "").code == "child-failed"
    assert "signal 40" in str(metadata_conversion._conversion_error(one, "primary", -40, ""))


def test_pipes_that_may_not_be_enlarged_are_used_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(metadata_conversion.fcntl, "fcntl", refuse)
    world = World(tmp_path).add("r", Rpm("a"))
    assert converted(world).read_bytes()[:4] == b"SOLV"


def test_a_child_without_processor_time_is_told_so_before_it_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: dict[int, tuple[int, int]] = {}
    monkeypatch.setattr(resource, "setrlimit", limits.__setitem__)
    solv_conversion._set_limits()
    soft, hard = limits[resource.RLIMIT_CPU]
    assert soft < hard, "at the hard limit the kernel sends SIGKILL alone, as where memory is short"
    assert limits[resource.RLIMIT_FSIZE] == limits[resource.RLIMIT_NPROC] == (0, 0)
