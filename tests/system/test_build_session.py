"""Build sessions on the real kernel and the real runtime: where scriptlets run."""

from __future__ import annotations

import errno
import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import BuildError
from pipeline.sandbox import (
    BuildLimits,
    BuildSession,
    SandboxRegistry,
    build_session,
)
from tests.support.bombs import blocks, eventually
from tests.support.sandbox_images import left_behind
from tests.support.tiny_root import (
    make_root,
    ordinary,
    processes_of,
    require_groups,
    unenforced,
)

pytestmark = pytest.mark.brief

CAPABILITIES = 0x800400DB
"""CHOWN 0, DAC_OVERRIDE 1, FOWNER 3, FSETID 4, SETGID 6, SETUID 7, SYS_CHROOT 18, SETFCAP 31."""


@pytest.fixture(scope="module")
def root(closed: Path) -> Path:
    return make_root(closed / "root")


@pytest.fixture(params=["alone", "in turn"])
def session(root: Path, sandboxes: SandboxRegistry, request: pytest.FixtureRequest) -> Iterator[BuildSession]:
    """A session whose commands have containers of their own, and one whose commands have one in turn."""
    with build_session([root], sandboxes=sandboxes, label="test") as opened:
        if request.param == "in turn":
            opened.begin_commands(opened.share("/run/relbuild-commands"), "/run/relbuild-commands")
        yield opened


class TestBuilding:
    def test_commands_are_root_over_their_own_ids_with_the_stated_capabilities_only(
        self, session: BuildSession
    ) -> None:
        outcome = session.run(["/bin/sh", "-c", "id -u; cat /proc/self/status /proc/self/uid_map"])
        assert outcome.ok, outcome
        said = outcome.stdout.decode()
        assert said.startswith("0\n")
        for kind in ("CapPrm", "CapEff", "CapBnd"):
            found = re.search(rf"^{kind}:\s*(\w+)", said, re.MULTILINE)
            assert found is not None
            assert int(found[1], 16) == CAPABILITIES
        assert re.search(r"^NoNewPrivs:\s*1$", said, re.MULTILINE)
        assert re.search(r"^Seccomp:\s*2$", said, re.MULTILINE)
        if ordinary():
            # Piece by piece as the user's own ids are: root is the user itself.
            assert session.shift == 0
            assert re.findall(r"^\s*(\d+)\s+(\d+)\s+(\d+)$", said, re.MULTILINE) == [
                ("0", "0", "1"),
                ("1", "1", "65535"),
            ]
            unenforced("ids that no other sandbox has")
        assert re.search(rf"^\s*0\s+{session.shift}\s+65536$", said, re.MULTILINE)

    def test_calls_that_reach_beyond_the_container_are_refused(self, session: BuildSession) -> None:
        said = session.run(["/bin/probe", "calls"]).stdout.decode()
        answers = {name: int(number) for name, number in (line.split() for line in said.splitlines())}
        for name in ("getpid", "af_unix", "af_inet", "af_inet6", "netlink_route", "chroot"):
            assert answers.pop(name) == 0, name
        for name in ("af_packet", "af_vsock", "af_alg"):
            assert answers.pop(name) == errno.EAFNOSUPPORT, name
        assert answers.pop("netlink_audit") == errno.EPROTONOSUPPORT
        assert answers.pop("unknown") == errno.ENOSYS
        assert answers.pop("clone3") == errno.ENOSYS
        assert answers.pop("clone_newuser") == errno.ENOSYS
        assert answers, "the probe tried nothing else"
        assert set(answers.values()) == {errno.EPERM}, answers

    def test_there_is_no_network(self, session: BuildSession) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            port = listening.getsockname()[1]
            outcome = session.run(
                ["/bin/sh", "-c", f"cat /proc/net/dev; nc -w 2 127.0.0.1 {port} </dev/null"], timeout=10
            )
            listening.settimeout(0.2)
            with pytest.raises(TimeoutError):
                listening.accept()
        interfaces = re.findall(r"^\s*(\S+):", outcome.stdout.decode(), re.MULTILINE)
        assert interfaces == ["lo"]
        assert outcome.status != 0

    def test_a_timeout_kills_the_command_and_all_that_it_started(self, session: BuildSession) -> None:
        begun = time.monotonic()
        outcome = session.run(["/bin/sh", "-c", "sleep 1000 & sleep 1000"], timeout=0.5)
        assert outcome.timed_out
        assert not outcome.ok
        assert time.monotonic() - begun < 10
        assert processes_of(session.shift) == []

    def test_what_a_command_leaves_running_ends_with_it(self, session: BuildSession) -> None:
        outcome = session.run(["/bin/sh", "-c", "sleep 1000 >/dev/null 2>&1 & echo started"], timeout=30)
        assert outcome.ok
        assert outcome.stdout == b"started\n"
        assert processes_of(session.shift) == []

    def test_a_flood_of_output_is_bounded(self, root: Path, sandboxes: SandboxRegistry) -> None:
        limits = BuildLimits(output=100_000)
        with build_session([root], sandboxes=sandboxes, limits=limits) as session:
            outcome = session.run(["/bin/sh", "-c", "yes | head -c 5000000; yes | head -c 200000 >&2"])
        assert outcome.ok
        assert (len(outcome.stdout), len(outcome.stderr)) == (100_000, 100_000)
        assert outcome.dropped == 5_000_000 + 200_000 - 200_000

    def test_owners_in_the_upper_directory_are_the_images_plus_the_shift(self, session: BuildSession) -> None:
        assert session.run(["/bin/sh", "-c", "echo x > /etc/made; chown 27:28 /etc/made"]).ok
        status = (session.upper / "etc" / "made").stat()
        assert (status.st_uid - session.shift, status.st_gid - session.shift) == (27, 28)
        assert (session.upper.stat().st_uid, session.upper.stat().st_mode & 0o7777) == (session.shift, 0o755)

    def test_layers_below_are_never_changed(self, root: Path, session: BuildSession) -> None:
        def state() -> list[tuple[str, int, int, int]]:
            return [
                (str(path), path.lstat().st_mode, path.lstat().st_uid, path.lstat().st_mtime_ns)
                for path in sorted(root.rglob("*"))
            ]

        before = state()
        command = "rm -r /srv; echo more >> /etc/passwd; chown -R 5:5 /var; touch /bin/busybox; mkdir /new"
        assert session.run(["/bin/sh", "-c", command]).ok
        assert state() == before
        assert (session.upper / "new").is_dir()

    def test_files_of_the_image_appear_with_the_images_owners(self, session: BuildSession) -> None:
        outcome = session.run(["/bin/stat", "-c", "%u:%g %a", "/var/lib/server"])
        assert outcome.stdout == b"27:28 750\n"

    def test_scratch_is_shared_by_commands_and_stays_out_of_the_image(self, session: BuildSession) -> None:
        assert session.run(["/bin/sh", "-c", "echo one > /run/a; echo two > /tmp/b"]).ok
        assert session.run(["/bin/cat", "/run/a", "/tmp/b"]).stdout == b"one\ntwo\n"
        assert list(session.upper.iterdir()) == []

    def test_a_bound_folder_is_seen_read_only_and_root_owned(self, session: BuildSession, tmp_path: Path) -> None:
        (tmp_path / "tool").write_text("#!/bin/sh\necho tool $1\n")
        (tmp_path / "tool").chmod(0o755)
        session.bind(tmp_path, "/run/relbuild/tools")
        command = "/run/relbuild/tools/tool x; stat -c %u /run/relbuild/tools/tool; touch /run/relbuild/tools/y"
        outcome = session.run(["/bin/sh", "-c", command])
        assert outcome.stdout == b"tool x\n0\n"
        assert b"Read-only" in outcome.stderr
        assert sorted(path.name for path in tmp_path.iterdir()) == ["tool"]
        assert list(session.upper.iterdir()) == []

    def test_no_path_of_the_machine_is_seen_in_what_is_mounted(
        self, session: BuildSession, tmp_path: Path, root: Path
    ) -> None:
        session.bind(tmp_path, "/run/relbuild/tools")
        (session.share("/run/relbuild/shared") / "file").write_text("shared\n")
        command = "cat /proc/self/mountinfo /proc/self/mounts /proc/self/mountstats; cat /run/relbuild/shared/file"
        told = session.run(["/bin/sh", "-c", command]).stdout.decode()
        assert told.endswith("shared\n")
        for path in (tmp_path, root, session.sandboxes.state, tmp_path.parent, Path.home()):
            assert f"{path}/" not in told
            assert f"{path} " not in told

    def test_input_environment_and_directory_arrive(self, session: BuildSession) -> None:
        outcome = session.run(
            ["/bin/sh", "-c", 'cat; echo "$A $HOME"; pwd'],
            stdin=b"fed\n",
            environment={"A": "b c"},
            directory="/srv",
        )
        assert outcome.stdout == b"fed\nb c /root\n/srv\n"

    def test_dev_and_proc_are_what_scripts_expect(self, session: BuildSession) -> None:
        command = "echo x >/dev/null; cat /dev/fd/0; head -c 3 /dev/zero | cat >/dev/stderr; readlink /proc/self/exe"
        outcome = session.run(["/bin/sh", "-c", command], stdin=b"in\n")
        assert outcome.stdout == b"in\n/bin/busybox\n"
        assert outcome.stderr == b"\0\0\0"

    def test_a_missing_program_is_named(self, session: BuildSession) -> None:
        with pytest.raises(BuildError, match="/bin/nowhere") as raised:
            session.run(["/bin/nowhere"])
        assert raised.value.code == "command-not-started"

    def test_its_exit_status_comes_out(self, session: BuildSession) -> None:
        assert session.run(["/bin/sh", "-c", "exit 7"]).status == 7

    def test_memory_processes_and_disk_are_limited(self, root: Path, sandboxes: SandboxRegistry) -> None:
        require_groups("memory and processes of a build")
        limits = BuildLimits(memory=32 << 20, pids=20, disk=4 << 20)
        with build_session([root], sandboxes=sandboxes, limits=limits) as session:
            hog = session.run(["/bin/probe", "hog", str(256 << 20)])
            assert hog.status == 137
            assert hog.out_of_memory
            forks = session.run(["/bin/probe", "forks", "100"])
            found = re.search(rb"made (\d+)", forks.stdout)
            assert found is not None
            assert int(found[1]) < 20
            large = session.run(["/bin/dd", "if=/dev/zero", "of=/var/large", "bs=1M", "count=20"])
            assert not large.ok
            assert (session.upper / "var" / "large").stat().st_size <= 4 << 20
            many = "i=0; while :; do i=$((i+1)); dd if=/dev/zero of=/srv/$i bs=1M count=1; sleep 0.05; done"
            flood = session.run(["/bin/sh", "-c", many], timeout=60)
            assert flood.out_of_disk
            assert not flood.timed_out

    def test_what_is_allocated_at_once_is_limited_too(self, root: Path, sandboxes: SandboxRegistry) -> None:
        with build_session([root], sandboxes=sandboxes, limits=BuildLimits(disk=16 << 20)) as session:
            if ordinary():
                unenforced("a hard limit on what a build writes")
            # Each file is less than the limit on files, and none of them is written to.
            script = "for i in 1 2 3 4 5 6; do fallocate -l 6000000 /srv/$i || echo refused $i; done"
            done = session.run(["/bin/sh", "-c", script])
            assert b"refused 3" in done.stdout
            assert sum(path.lstat().st_blocks * 512 for path in (session.upper / "srv").iterdir()) <= 16 << 20
            files = "i=0; while touch /srv/f$i; do i=$((i+1)); done; exit 1"
            made = session.run(["/bin/sh", "-c", files], timeout=60)
            assert made.out_of_disk and not made.timed_out
            assert len(list((session.upper / "srv").iterdir())) <= 1100
        assert left_behind(sandboxes) == []
        eventually(lambda: not blocks(sandboxes.mark))

    def test_without_block_devices_what_is_written_is_watched(
        self, root: Path, sandboxes: SandboxRegistry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(file: Path) -> tuple[Path, int]:
            raise PermissionError(1, "Operation not permitted", str(file))

        monkeypatch.setattr("pipeline.sandbox.loop_device.attach_loop_device", refuse)
        with build_session([root], sandboxes=sandboxes, limits=BuildLimits(disk=32 << 20)) as session:
            # Slowly: what is written until somebody looks again must be less than the limit on a busy machine, too.
            many = "i=0; while :; do i=$((i+1)); dd if=/dev/zero of=/srv/$i bs=1M count=1; sleep 0.05; done"
            flood = session.run(["/bin/sh", "-c", many], timeout=60)
            assert flood.out_of_disk and not flood.timed_out
            written = sum(path.lstat().st_blocks * 512 for path in (session.upper / "srv").iterdir())
            assert 32 << 20 < written < 64 << 20

    def test_writing_from_outside_never_follows_the_image_outside(self, session: BuildSession, tmp_path: Path) -> None:
        victim = tmp_path / "victim"
        victim.mkdir()
        session.files.make_directory("/links")
        session.files.symlink("/links/absolute", str(victim))
        session.files.symlink("/links/up", "../../../../../../../../../..")
        session.files.symlink("/links/proc", "/proc/self/root")
        with pytest.raises(BuildError):
            session.files.write_file("/links/absolute/a", b"x", mode=0o644)
        session.files.write_file("/links/up/b", b"x", mode=0o644)
        assert (session.upper / "b").read_bytes() == b"x"
        with pytest.raises(BuildError):
            session.files.write_file("/links/proc/c", b"x", mode=0o644)
        assert session.files.read(f"/links/absolute/{tmp_path.name}", limit=10) is None
        assert list(victim.iterdir()) == []
        assert not Path("/b").exists()
        for path in ("..", "/etc/../../x", "", "/"):
            with pytest.raises(BuildError, match="does not name a file"):
                session.files.write_file(path, b"x", mode=0o644)

    def test_files_written_from_outside_have_the_asked_owner_mode_and_time(self, session: BuildSession) -> None:
        session.files.make_directory("/etc/deep/er", mode=0o711, uid=27, gid=28, mtime=1000)
        session.files.write_file("/etc/deep/er/file", b"text", mode=0o4755, uid=27, gid=28, mtime=2000)
        session.files.symlink("/etc/deep/link", "er/file", uid=27, gid=28, mtime=3000)
        command = "stat -c '%u:%g %a %Y %F' /etc/deep /etc/deep/er/file /etc/deep/link; cat /etc/deep/link"
        said = session.run(["/bin/sh", "-c", command]).stdout.decode().splitlines()
        assert said[0].startswith("0:0 755 ")
        assert said[1] == "27:28 4755 2000 regular file"
        assert said[2].startswith("27:28 777 3000 symbolic link")
        assert said[3] == "text"
        assert session.files.remove("/etc/deep")
        assert not session.files.remove("/etc/deep")
        assert session.run(["/bin/test", "-e", "/etc/deep"]).status == 1

    def test_replacing_a_file_leaves_its_hard_links_alone(self, session: BuildSession) -> None:
        session.files.write_file("/etc/one", b"old", mode=0o644)
        os.link(session.upper / "etc" / "one", session.upper.parent / "other")
        session.files.write_file("/etc/one", b"new", mode=0o644)
        assert (session.upper.parent / "other").read_bytes() == b"old"
