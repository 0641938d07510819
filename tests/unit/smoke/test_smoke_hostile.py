"""Images that answer with too much or with nonsense, or that die while they are asked.

There is an answer or a reason, never an internal error, and never an answer that is not so.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import pytest

from pipeline.errors import SmokeError
from pipeline.model.account_files import names_of_id
from pipeline.model.checks import CHECK_KINDS, CheckKind, NoAnswer, Subject, attempt, judge
from pipeline.model.checks.account_check import AccountAnswer, AccountFacts
from pipeline.model.checks.file_check import FileFacts
from pipeline.model.checks.listening_check import ListeningAnswer, ListeningFacts
from pipeline.model.checks.process_check import PROCESSES_MOST, ProcessAnswer, ProcessFacts
from pipeline.model.smoke import Check, Expectation
from pipeline.model.value_rules import Rule
from pipeline.sandbox import Instance
from pipeline.sandbox.command_container import CommandResult
from pipeline.sandbox.container_user import resolve_user
from pipeline.sandbox.rootfs import RootFs
from pipeline.smoke import procfs
from pipeline.smoke.instance_probe import InstanceProbe
from tests.support.tested_images import image

_PR_SET_NAME = 15


class Group:
    def __init__(self, pids: set[int]) -> None:
        self.pids = pids

    def processes(self) -> set[int]:
        return self.pids


class Slot:
    base = 0

    def __init__(self, pids: set[int]) -> None:
        self.group = Group(pids)


class Stub:
    """Stands for an instance whose processes are these."""

    def __init__(self, pid: int, *others: int, root: Path | None = None, alive: bool = True) -> None:
        self.pid = pid
        self.alive = alive
        self.slot = Slot({pid, *others})
        self.files = RootFs(os.open(root, os.O_PATH), 0) if root is not None else None

    @property
    def first_id(self) -> int:
        return self.slot.base

    def processes(self) -> set[int]:
        return self.slot.group.processes()

    def as_instance(self) -> Instance:
        return cast(Instance, self)


def look(subject: Subject, stub: Stub) -> object:
    (kind,) = (kind for kind in CHECK_KINDS if kind.subject is type(subject))
    check = Check("c", CheckKind(kind.name), 1, subject=subject)
    return attempt(check, InstanceProbe(stub.as_instance(), image()), 0).answer


@pytest.fixture
def zombie() -> Iterator[int]:
    """A process that has ended and that nobody has waited for yet: all of it that is left is its number."""
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    yield child.pid
    child.wait()


@pytest.mark.parametrize(
    "subject",
    [ListeningFacts(), FileFacts("/etc/passwd", text=()), ProcessFacts("sh")],
    ids=lambda one: type(one).__name__,
)
def test_an_instance_that_has_just_died_gives_a_reason_and_no_error(subject: Subject, zombie: int) -> None:
    assert isinstance(look(subject, Stub(zombie)), NoAnswer)


def test_an_instance_that_dies_while_its_sockets_are_read_is_not_one_that_listens_on_nothing(tmp_path: Path) -> None:
    stub = Stub(os.getpid(), alive=False)
    assert isinstance(look(ListeningFacts(), stub), NoAnswer)
    assert isinstance(look(ListeningFacts(), Stub(os.getpid())), ListeningAnswer)


def test_processes_that_have_gone_since_they_were_counted_are_left_out(zombie: int) -> None:
    found = look(ProcessFacts("python"), Stub(os.getpid(), zombie, 2**22 + 1))
    assert isinstance(found, ProcessAnswer)
    assert len(found.processes) == 1


def test_more_processes_than_are_looked_at_are_counted_and_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(procfs, "_process", lambda *_: pytest.fail("it was read"))
    found = look(ProcessFacts("sh"), Stub(1, *range(2, PROCESSES_MOST + 2)))
    assert isinstance(found, NoAnswer)
    assert f"{PROCESSES_MOST + 1} processes" in found.reason


def test_command_lines_of_many_processes_take_a_bounded_memory_together(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[int] = []
    monkeypatch.setattr(procfs, "_process", lambda pid, base, limit, emulator: limits.append(limit))
    for count in (1, 100, 4096):
        limits.clear()
        procfs.list_processes(Stub(1, *range(2, count + 1)).as_instance())
        assert len(limits) == count
        assert sum(limits) <= max(procfs._CMDLINE_TOTAL, count * procfs._CMDLINE_MIN)


def test_a_process_cannot_name_itself_into_another_user() -> None:
    """Separators that Python splits lines at and the kernel does not escape."""
    script = (
        "import ctypes, sys; "
        "ctypes.CDLL(None).prctl(15, b'a\\x0bUid:\\t7 7 7 7', 0, 0, 0); print('up', flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdin is not None
    child.stdout.readline()
    (found,) = procfs.list_processes(Stub(child.pid).as_instance())
    child.stdin.close()
    child.stdout.close()
    child.wait()
    assert found.uid == os.getuid()
    assert "Uid:" in found.name


def test_thousands_of_sockets_do_not_hide_the_one_that_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(procfs, "_TABLE_LIMIT", 200)
    with pytest.raises(SmokeError, match="too many"):
        procfs.list_listeners(Stub(os.getpid()).as_instance())
    found = look(ListeningFacts(), Stub(os.getpid()))
    assert isinstance(found, NoAnswer)


@pytest.fixture
def accounts(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "passwd").write_text(
        "long:x:" + "9" * 5000 + ":0::/:/bin/sh\nsquare:x:²:0::/:/bin/sh\n"
        "web:x:33:33:a\x0broot2:x:0:0::/:/bin/sh\x85admin:x:0:0::/:/bin/sh\u2028:/srv:/bin/sh\n"
    )
    (tmp_path / "etc" / "group").write_text("many:x:5:" + "u," * 100_000 + "\n" + "g:x:" + "1" * 5000 + ":\n")
    return tmp_path


def test_numbers_without_end_and_lines_that_are_none_are_no_accounts(accounts: Path) -> None:
    stub = Stub(os.getpid(), root=accounts)
    for name in ("long", "square", "root2", "admin"):
        assert look(AccountFacts(user=name), stub) == AccountAnswer(None), name
    found = look(AccountFacts(user="web"), stub)
    assert isinstance(found, AccountAnswer)
    assert found.entry is not None
    assert found.entry[2] == "33"
    assert stub.files is not None
    assert names_of_id(0, "root2", InstanceProbe(stub.as_instance(), image()).files, "/etc/passwd") == ()


@pytest.mark.parametrize("name", ["root2", "admin", "long", "square"])
def test_nobody_runs_as_an_account_that_is_none(accounts: Path, name: str) -> None:
    passwd, group = ((accounts / "etc" / table).read_text() for table in ("passwd", "group"))
    with pytest.raises(SmokeError) as raised:
        resolve_user(name, passwd, group)
    assert raised.value.code == "user-unknown"


class Ending(Stub):
    """Stands for an instance that ends during a command, which the runtime tells only when that is waited for."""

    def __init__(self, status: int, *, ends: bool = True) -> None:
        super().__init__(os.getpid())
        self.status, self.ends = status, ends

    def execute(self, argv: Sequence[str], *, stdin: bytes, user: str, timeout: float) -> CommandResult:
        return CommandResult(tuple(argv), self.status, b"", b"", 0.0)

    def wait(self, timeout: float) -> None:
        self.alive = not self.ends


@pytest.mark.parametrize("status", [125, 127, 137, 255])
def test_a_command_that_an_ended_instance_did_not_run_has_no_status(status: int) -> None:
    for check in (
        Check("c", CheckKind.COMMAND, 1, Expectation(exit_code=None), command=("x",)),
        Check("c", CheckKind.COMMAND, 1, Expectation(exit_code=status), command=("x",)),
    ):
        for stub in (Ending(status), Gone()):
            found = attempt(check, InstanceProbe(stub.as_instance(), image()), 0).answer
            assert found == NoAnswer("the instance has ended")
        right = attempt(check, InstanceProbe(Ending(status, ends=False).as_instance(), image()), 0).answer
        assert not judge(check, right, image().config)


class Gone(Stub):
    """Stands for an instance that ends just before a command."""

    def __init__(self) -> None:
        super().__init__(os.getpid())

    def execute(self, argv: Sequence[str], *, stdin: bytes, user: str, timeout: float) -> CommandResult:
        raise ProcessLookupError("the instance has ended")


@pytest.mark.parametrize("alive", [True, False])
def test_no_process_of_an_ended_instance_is_not_none_that_matches(alive: bool) -> None:
    stub = Stub(os.getpid(), alive=alive)
    if alive:
        stub.slot.group.pids.clear()
    assert look(ProcessFacts("evil", count=(Rule(equals="0"),)), stub) == NoAnswer("the instance has ended")
    assert isinstance(look(ProcessFacts("evil", count=(Rule(equals="0"),)), Stub(os.getpid())), ProcessAnswer)
