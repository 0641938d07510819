"""A move of a process into its own control group, which has no effect but the kernel's wait."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.sandbox import cgroup_migration
from pipeline.sandbox.cgroups import Hierarchies

MEMBERSHIPS = "7:pids:/other\n6:cpu,freezer:/a:b/c\n0::/v2\n"


@pytest.fixture
def moves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hierarchy's root, with this process's groups in /proc given."""
    real = Path.read_text

    def read_text(path: Path) -> str:
        return MEMBERSHIPS if path == Path(f"/proc/{os.getpid()}/cgroup") else real(path)

    monkeypatch.setattr(Path, "read_text", read_text)
    return tmp_path


@pytest.mark.parametrize(
    ("group", "unified"), [("a:b/c", False), ("v2", True)], ids=["the freezer's on v1 and hybrid", "the only one on v2"]
)
def test_a_process_is_moved_into_its_own_group(moves: Path, group: str, unified: bool) -> None:
    hierarchies = Hierarchies({}, moves) if unified else Hierarchies({"freezer": moves}, beside=moves / "v2")
    members = moves / group / "cgroup.procs"
    members.parent.mkdir(parents=True)
    members.write_text(f"1\n{os.getpid()}\n")
    cgroup_migration.wait_for_migration(os.getpid(), hierarchies)
    assert members.read_text() == str(os.getpid())


@pytest.mark.parametrize(
    ("prefix", "group"), [("/v2", "."), ("/v", None), ("/v2/user", None)], ids=["its own", "a name's part", "below it"]
)
def test_below_a_delegated_group_its_path_is_not_there_twice(moves: Path, prefix: str, group: str | None) -> None:
    delegated = moves / prefix.lstrip("/")
    for folder in ("", "2", "v2", "user"):
        members = delegated / folder / "cgroup.procs"
        members.parent.mkdir(parents=True, exist_ok=True)
        members.write_text(f"1\n{os.getpid()}\n")
    cgroup_migration.wait_for_migration(os.getpid(), Hierarchies({}, delegated, prefix=prefix))
    written = {path for path in delegated.rglob("cgroup.procs") if path.read_text() == str(os.getpid())}
    assert written == (set() if group is None else {delegated / group / "cgroup.procs"})


def test_a_process_is_not_moved_into_a_group_that_it_is_not_in(moves: Path) -> None:
    members = moves / "v2" / "cgroup.procs"
    members.parent.mkdir()
    members.write_text(f"1\n1{os.getpid()}\n")
    cgroup_migration.wait_for_migration(os.getpid(), Hierarchies({}, moves))
    assert members.read_text() == f"1\n1{os.getpid()}\n"


def test_nothing_happens_where_groups_are_not_to_be_had(moves: Path) -> None:
    for hierarchies in (Hierarchies(), Hierarchies({"memory": moves}), Hierarchies({}, moves)):
        cgroup_migration.wait_for_migration(os.getpid(), hierarchies)
    assert list(moves.iterdir()) == []
