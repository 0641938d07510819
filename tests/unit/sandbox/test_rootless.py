"""Being root without being root: what can be told without trying."""

from __future__ import annotations

import os
import pwd
import select
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import EnvironmentLacking
from pipeline.sandbox import cgroups, rootless
from pipeline.sandbox.idmap import FIRST_BASE, IDS, id_map
from pipeline.sandbox.pidns_tracking import command_pids, container_pids
from tests.support.patience import HUNG

WHOLE = "         0          0 4294967295\n"


class TestMapping:
    def test_on_the_machine_itself_it_is_one_piece(self) -> None:
        assert id_map(FIRST_BASE, WHOLE) == ((0, FIRST_BASE, IDS),)

    def test_in_another_namespace_it_has_that_ones_pieces(self) -> None:
        assert id_map(0, "0 1000 1\n1 100000 65536\n") == ((0, 0, 1), (1, 1, IDS - 1))

    def test_ids_that_the_outer_one_lacks_are_left_out(self) -> None:
        assert id_map(0, "0 1000 1\n") == ((0, 0, 1),)
        assert id_map(FIRST_BASE, "0 1000 1\n") == ()


class TestSubordinateIds:
    @pytest.mark.parametrize("text", ["person:100000:65536\n", "# none\nother:1:9\nperson:5:10\nperson:100000:70000\n"])
    def test_the_first_range_that_is_large_enough_is_taken(self, tmp_path: Path, text: str) -> None:
        file = tmp_path / "subuid"
        file.write_text(text)
        assert rootless._subordinate(file, "person", 1000) == 100000

    def test_a_range_can_be_given_by_number(self, tmp_path: Path) -> None:
        file = tmp_path / "subuid"
        file.write_text("1000:200000:65536\n")
        assert rootless._subordinate(file, "person", 1000) == 200000

    @pytest.mark.parametrize("text", ["", "other:100000:65536\n", "person:100000:65535\n", "person:x:y\n", "person\n"])
    def test_without_one_the_way_out_is_said(self, tmp_path: Path, text: str) -> None:
        file = tmp_path / "subuid"
        file.write_text(text)
        with pytest.raises(EnvironmentLacking, match="person") as raised:
            rootless._subordinate(file, "person", 1000)
        assert raised.value.code == "no-sub-ids"
        assert "usermod" in (raised.value.problems[0].hint or "")

    def test_no_file_is_no_range(self, tmp_path: Path) -> None:
        with pytest.raises(EnvironmentLacking):
            rootless._subordinate(tmp_path / "none", "person", 1000)

    def test_an_obstacle_names_the_user(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pwd, "getpwuid", lambda uid: pwd.struct_passwd(("nobody-here", "", uid, 0, "", "/", "")))
        assert "nobody-here" in rootless.rootless_obstacle()


class TestGroups:
    def test_where_this_user_may_use_none_there_are_none(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(cgroups, "in_user_namespace", lambda: True)
        monkeypatch.setattr(cgroups, "_writable", lambda root: False)
        found = cgroups.usable_hierarchies()
        assert found.version == 0
        group = cgroups.Cgroup(found, "x", tmp_path)
        assert (group.path, group.tracker, group.number("memory", "memory.max"), group.processes()) == (
            "",
            None,
            None,
            set(),
        )
        assert group.below("exec0").processes() == set()

    def test_a_part_that_was_handed_over_is_named_as_the_runtime_wants_it(self) -> None:
        part = cgroups.Hierarchies({}, Path("/sys/fs/cgroup/user.slice/a"), prefix="/user.slice/a")
        assert cgroups.Cgroup(part, "x").path == "/user.slice/a/relbuild/x"


class TestUntracked:
    def test_a_pid_file_never_leads_to_processes_that_are_in_no_container(self, tmp_path: Path) -> None:
        file = tmp_path / "exec0.pid"
        file.write_text(str(os.getpid()))
        assert container_pids(tmp_path) == set()
        assert command_pids(file) == set()

    @pytest.mark.parametrize("text", ["", "x", "999999999"])
    def test_a_pid_file_that_leads_nowhere_is_nothing(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "pid").write_text(text)
        assert container_pids(tmp_path) == set()


_WAITING = """
import os
from pipeline.sandbox import rootless
child = os.fork()
if child:
    rootless._forward_signals(child)
os.close(1)
os.close(2)
os.read(0, 1)
os._exit(7)
"""


def test_the_process_that_only_waits_holds_no_streams_and_no_working_directory(tmp_path: Path) -> None:
    # What `$(relbuild run -d …)` reads ends once relbuild itself has left its streams.
    with subprocess.Popen(
        [sys.executable, "-c", _WAITING],
        cwd=tmp_path,
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as waiting:
        assert waiting.stdin is not None and waiting.stdout is not None
        try:
            assert select.select([waiting.stdout], [], [], 30)[0]
            assert waiting.stdout.read() == b""
            assert waiting.poll() is None
            assert Path(f"/proc/{waiting.pid}/cwd").readlink() == Path("/")
        finally:
            waiting.stdin.close()
        assert waiting.wait(HUNG) == 7
