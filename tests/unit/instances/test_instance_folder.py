"""Names, locks, states and removal of instances, without any that run."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.digest import Digest
from pipeline.errors import RelbuildError
from pipeline.instances import (
    InstanceFolder,
    InstancePhase,
    InstanceRecord,
    InstanceState,
    find_instance,
    host_instance,
    instance_state,
    list_instances,
)
from pipeline.model.limit import LimitReading
from pipeline.model.published_port import PublishedPort

RECORD = InstanceRecord(
    name="",
    product="redis",
    version="8.0.2",
    digest=Digest.of(b"image"),
    subject="recipes/redis.yaml",
    started=1_000,
    detached=True,
    ports=(PublishedPort(18080, 6379),),
    limits=(LimitReading("memory", 1 << 28, 1 << 28, True), LimitReading("cpus", 500, None, False, "no groups")),
    changes=("maxmemory=64mb",),
)


def clock() -> float:
    return 42.0


def names(root: Path) -> list[str]:
    return [folder.name for folder in list_instances(root)]


def kept(root: Path, name: str | None = None, record: InstanceRecord = RECORD) -> InstanceFolder:
    """The folder of an instance that ran and has ended."""
    with host_instance(root, record, name, clock) as hosted:
        hosted._write(replace(hosted.record, phase=InstancePhase.RUNNING))
        hosted.ended(3)
    return hosted.folder


def test_an_instance_is_named_after_its_product_with_the_next_free_number(tmp_path: Path) -> None:
    with contextlib.ExitStack() as closing:
        for _ in range(2):
            closing.enter_context(host_instance(tmp_path, RECORD, None, clock))
        closing.enter_context(host_instance(tmp_path, replace(RECORD, product="nginx"), None, clock))
        assert names(tmp_path) == ["nginx-1", "redis-1", "redis-2"]
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("product", "name"),
    [
        ("../../up", "up-1"),
        ("a/b c", "a-b-c-1"),
        ("", "instance-1"),
        ("..", "instance-1"),
        ("x" * 200, "x" * 50 + "-1"),
    ],
)
def test_an_image_s_own_name_leads_nowhere_else(tmp_path: Path, product: str, name: str) -> None:
    root = tmp_path / "store" / "instances"
    with host_instance(root, replace(RECORD, product=product), None, clock):
        assert names(root) == [name]
        assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_a_given_name_is_used_once(tmp_path: Path) -> None:
    with host_instance(tmp_path, RECORD, "cache", clock), pytest.raises(RelbuildError) as running:
        host_instance(tmp_path, RECORD, "cache", clock).__enter__()
    kept(tmp_path, "cache")
    with pytest.raises(RelbuildError) as ended:
        host_instance(tmp_path, RECORD, "cache", clock).__enter__()
    assert (running.value.code, ended.value.code) == ("instance-exists", "instance-exists")
    assert "relbuild rm cache" not in str(running.value)
    assert "relbuild rm cache" in str(ended.value)


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "-f", "x" * 64, "ümlaut", "two words"])
def test_a_name_that_is_no_host_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(RelbuildError) as raised:
        host_instance(tmp_path, RECORD, name, clock).__enter__()
    assert raised.value.code == "instance-name-malformed"
    assert names(tmp_path) == []


def test_the_record_is_read_as_it_was_written_and_says_how_it_ended(tmp_path: Path) -> None:
    record = kept(tmp_path).record()
    assert record == replace(RECORD, name="redis-1", phase=InstancePhase.EXITED, exit_code=3, ended=42_000)
    assert instance_state(record, supervised=False) is InstanceState.EXITED


def test_a_detached_instance_that_never_ran_leaves_nothing_but_changed_files(tmp_path: Path) -> None:
    with contextlib.suppress(KeyError), host_instance(tmp_path, RECORD, "fails", clock):
        raise KeyError
    with contextlib.suppress(KeyError), host_instance(tmp_path, RECORD, "edited", clock) as hosted:
        hosted.folder.files.mkdir()
        raise KeyError
    assert names(tmp_path) == ["edited"]


def test_an_attached_instance_leaves_nothing_but_changed_files(tmp_path: Path) -> None:
    attached = replace(RECORD, detached=False)
    kept(tmp_path, "plain", attached)
    with host_instance(tmp_path, attached, "edited", clock) as hosted:
        hosted.folder.files.mkdir()
        hosted.ended(0)
    assert names(tmp_path) == ["edited"]


@pytest.mark.parametrize("phase", [InstancePhase.STARTING, InstancePhase.RUNNING])
def test_a_supervisor_that_was_killed_is_told_from_one_that_runs(tmp_path: Path, phase: InstancePhase) -> None:
    """The lock ends with the process, whatever stands in the record, and whoever has its number now."""
    program = (
        "import sys; from dataclasses import replace; from pathlib import Path\n"
        "from tests.unit.instances.test_instance_folder import *\n"
        "with host_instance(Path(sys.argv[1]), RECORD, 'killed', clock) as hosted:\n"
        "    hosted._write(replace(hosted.record, phase=InstancePhase(sys.argv[2])))\n"
        "    print('up', flush=True); sys.stdin.read()\n"
    )
    supervisor = subprocess.Popen(
        [sys.executable, "-c", program, tmp_path, phase], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert supervisor.stdout is not None and supervisor.stdout.readline() == b"up\n"
    folder = find_instance(tmp_path, "killed")
    record = folder.record()
    assert record is not None and folder.supervised()
    assert instance_state(record, supervised=True) == phase
    assert not folder.remove() and not folder.wait_until_ended(0)
    os.kill(supervisor.pid, signal.SIGKILL)
    supervisor.communicate()
    assert folder.wait_until_ended(0)
    assert instance_state(record, supervised=folder.supervised()) is InstanceState.DEAD
    assert folder.remove() and names(tmp_path) == []


def test_folders_of_attached_runs_that_were_killed_are_removed_at_the_next_start(tmp_path: Path) -> None:
    for name, detached in (("attached", False), ("detached", True)):
        left = InstanceFolder(tmp_path / name)
        left.path.mkdir()
        left.write(replace(RECORD, name=name, detached=detached, phase=InstancePhase.RUNNING))
    with host_instance(tmp_path, RECORD, "next", clock):
        assert names(tmp_path) == ["detached", "next"]


def test_a_folder_without_a_record_is_removed_at_the_next_start(tmp_path: Path) -> None:
    for name in ("without", "unreadable"):
        (tmp_path / name).mkdir()
    (tmp_path / "unreadable" / "record.json").write_text('{"of": "a newer release"}')
    with host_instance(tmp_path, RECORD, "next", clock):
        assert names(tmp_path) == ["next", "unreadable"]


def test_a_full_disk_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(folder: InstanceFolder, record: InstanceRecord) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(InstanceFolder, "write", full)
    with pytest.raises(OSError, match="No space left"):
        host_instance(tmp_path, RECORD, "cache", clock).__enter__()
    assert list(tmp_path.iterdir()) == []


def full_disk(*given: object, **more: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("changes", [("maxmemory=64mb",), ()], ids=["longer", "shorter"])
def test_an_end_is_recorded_on_a_full_disk_in_the_place_of_the_record_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: tuple[str, ...]
) -> None:
    folder = kept(tmp_path)
    monkeypatch.setattr("pipeline.instances.instance_folder.write_durably", full_disk)
    before = folder.record()
    assert before is not None
    after = replace(before, exit_code=None if not changes else 137, changes=changes)
    folder.write(after)
    assert folder.record() == after and {path.name for path in folder.path.iterdir()} == {"log", "record.json"}


def test_other_failures_to_write_a_record_and_a_first_record_on_a_full_disk_are_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = kept(tmp_path)
    record = folder.record()
    assert record is not None
    monkeypatch.setattr("pipeline.instances.instance_folder.write_durably", full_disk)
    (folder.path / "record.json").unlink()
    with pytest.raises(OSError, match="No space left"):
        folder.write(record)


def locking_after(monkeypatch: pytest.MonkeyPatch, first: Callable[[], object]) -> None:
    """Call `first` before the next exclusive lock, as another process may."""
    flock, pending = fcntl.flock, [first]

    def locked(handle: int, operation: int) -> None:
        if operation & fcntl.LOCK_EX and pending:
            pending.pop()()
        flock(handle, operation)

    monkeypatch.setattr(fcntl, "flock", locked)


def test_a_folder_that_is_removed_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locking_after(monkeypatch, InstanceFolder(tmp_path / "cache").discard)
    with host_instance(tmp_path, RECORD, "cache", clock) as hosted:
        assert hosted.folder.supervised() and names(tmp_path) == ["cache"]


def test_a_folder_that_another_run_made_anew_is_not_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = kept(tmp_path, "cache")
    with contextlib.ExitStack() as running:

        def made_anew() -> None:
            folder.discard()
            running.enter_context(host_instance(tmp_path, RECORD, "cache", clock))

        locking_after(monkeypatch, made_anew)
        assert not folder.remove()
        assert names(tmp_path) == ["cache"]


def test_a_missing_instance_is_named_with_those_that_look_like_it(tmp_path: Path) -> None:
    with pytest.raises(RelbuildError) as none:
        find_instance(tmp_path, "redis")
    kept(tmp_path)
    with pytest.raises(RelbuildError) as near:
        find_instance(tmp_path, "redis-2")
    assert "run --detach" in str(none.value) and "did you mean 'redis-1'" in str(near.value)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"name": 1}'])
def test_a_record_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    folder = kept(tmp_path)
    (folder.path / "record.json").write_text(text)
    assert folder.record() is None
