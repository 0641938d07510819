"""The sandbox on the real kernel and the real runtime."""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import BuildError, RelbuildError, SmokeError
from pipeline.model.image import ImageConfig
from pipeline.model.smoke import Limits
from pipeline.sandbox import (
    BuildLimits,
    BuildSession,
    Instance,
    Station,
    build_session,
    check_environment,
    find_runtime,
    launch,
    open_station,
)
from pipeline.sandbox.cgroups import groups_named
from tests.system.tiny import (
    make_root,
    ordinary,
    processes_of,
    require_groups,
    require_root,
    unenforced,
    without_groups,
)

CAPABILITIES = 0x800400DB
"""CHOWN 0, DAC_OVERRIDE 1, FOWNER 3, FSETID 4, SETGID 6, SETUID 7, SYS_CHROOT 18, SETFCAP 31."""


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that only root can enter, as a store is."""
    require_root()
    folder = tmp_path_factory.mktemp("store")
    folder.chmod(0o700)
    return folder


@pytest.fixture(scope="module")
def root(closed: Path) -> Path:
    return make_root(closed / "root")


@pytest.fixture(scope="module")
def station(closed: Path) -> Station:
    return open_station(closed / "sandbox", find_runtime())


@pytest.fixture
def session(root: Path, station: Station) -> Iterator[BuildSession]:
    with build_session([root], station=station, label="test") as opened:
        yield opened


def config(*command: str, **changes: object) -> ImageConfig:
    base = ImageConfig("amd64", 0, entrypoint=("/bin/sh", "-c"), command=command, user="server")
    return replace(base, **changes)  # type: ignore[arg-type]


def until_logged(instance: Instance, text: bytes) -> None:
    deadline = time.monotonic() + 20
    while text not in instance.log:
        assert time.monotonic() < deadline, instance.log
        assert instance.alive or text in instance.log, instance.log
        instance.wait(0.01)


SERVER = "httpd -p 80 -h /srv; echo serving; trap 'echo bye; exit 3' TERM; while :; do sleep 0.05; done"


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

    def test_a_flood_of_output_is_bounded(self, root: Path, station: Station) -> None:
        limits = BuildLimits(output=100_000)
        with build_session([root], station=station, limits=limits) as session:
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

    def test_memory_processes_and_disk_are_limited(self, root: Path, station: Station) -> None:
        require_groups("memory and processes of a build")
        limits = BuildLimits(memory=32 << 20, pids=20, disk=4 << 20)
        with build_session([root], station=station, limits=limits) as session:
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


class TestRunning:
    def test_it_runs_as_the_images_user_without_any_capability(self, root: Path, station: Station) -> None:
        with launch(config("id; cat /proc/self/status"), [root], Limits(), station=station, name="who") as instance:
            assert instance.wait(10) == 0
            said = instance.log.decode()
        assert "uid=27(server) gid=28(server) groups=40(readers),41(writers)" in said
        for kind in ("CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb"):
            assert re.search(rf"^{kind}:\s*0+$", said, re.MULTILINE), kind
        assert re.search(r"^NoNewPrivs:\s*1$", said, re.MULTILINE)
        assert re.search(r"^Seccomp:\s*2$", said, re.MULTILINE)

    def test_chroot_is_for_building_only(self, root: Path, station: Station) -> None:
        image = ImageConfig("amd64", 0, entrypoint=("/bin/probe", "calls"))
        with launch(image, [root], Limits(), station=station, name="calls") as instance:
            assert instance.wait(10) == 0
            assert b"chroot 1\n" in instance.log
            assert b"mount 1\n" in instance.log

    def test_the_root_is_read_only_and_volumes_start_with_the_images_content(
        self, root: Path, station: Station
    ) -> None:
        command = (
            "touch /etc/x || echo refused; stat -c '%u:%g %a' /var/lib/server; cat /var/lib/server/seed; "
            "echo more > /var/lib/server/seed; cat /var/lib/server/seed; stat -c '%u:%g %a' /data"
        )
        image = config(command, volumes=("/var/lib/server", "/data"))
        with launch(image, [root], Limits(), station=station, name="volumes") as instance:
            assert instance.wait(10) == 0
            lines = instance.log.decode().splitlines()
        assert [line for line in lines if "touch:" not in line] == [
            "refused",
            "27:28 750",
            "from the image",
            "more",
            "0:0 755",
        ]
        assert (root / "var/lib/server/seed").read_text() == "from the image\n"

    def test_not_even_the_owner_can_write_to_the_root(self, root: Path, station: Station) -> None:
        with launch(config("sleep 1000"), [root], Limits(), station=station, name="closed") as instance:
            outcome = instance.execute(["touch", "/etc/x"], user="root")
        assert outcome.status != 0
        assert b"Read-only file system" in outcome.stderr

    def test_a_volume_that_the_image_does_not_have_leaves_the_image_as_it_is(
        self, root: Path, station: Station
    ) -> None:
        image = config("touch /data/x && echo made", volumes=("/data",), user="0")
        with launch(image, [root], Limits(), station=station, name="data") as instance:
            assert instance.wait(10) == 0
            assert instance.log == b"made\n"
        assert not (root / "data").exists()

    def test_tmp_and_run_are_writable_for_its_user_and_sized(self, root: Path, station: Station) -> None:
        command = (
            "touch /run/pid /tmp/file /dev/shm/x && echo yes; stat -c '%a %U' /tmp /run /run/server; "
            "dd if=/dev/zero of=/tmp/large bs=1M count=20 2>&1 | grep -c 'No space'"
        )
        limits = Limits(tmpfs=2 << 20)
        with launch(config(command), [root], limits, station=station, name="scratch") as instance:
            instance.wait(10)
            assert instance.log.decode().splitlines() == [
                "yes",
                "1777 root",
                "755 server",
                "755 server",
                "1",
            ]

    def test_environment_directory_and_hostname_are_set(self, root: Path, station: Station) -> None:
        image = config(
            'echo "$PATH|$HOME|$HOSTNAME|$A"; pwd; cat /etc/hostname; grep localhost /etc/hosts',
            environment=("A=b",),
            working_directory="/work/here",
        )
        with launch(image, [root], Limits(), station=station, name="tiny-1") as instance:
            assert instance.wait(10) == 0
            lines = instance.log.decode().splitlines()
        assert lines[0] == "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin|/var/lib/server|tiny-1|b"
        assert lines[1:3] == ["/work/here", "tiny-1"]
        assert len(lines) > 3

    def test_a_port_below_1024_can_be_served_and_reached_from_outside_only_through_the_instance(
        self, root: Path, station: Station
    ) -> None:
        with launch(config(SERVER), [root], Limits(), station=station, name="web") as instance:
            until_logged(instance, b"serving")
            with instance.connect(80, timeout=5) as connection:
                connection.sendall(b"GET /page HTTP/1.0\r\n\r\n")
                answer = b""
                while piece := connection.recv(4096):
                    answer += piece
            assert answer.endswith(b"a page\n")
            with pytest.raises(ConnectionRefusedError):
                instance.connect(81, timeout=5)

    def test_commands_run_inside_as_whoever_is_asked(self, root: Path, station: Station) -> None:
        with launch(config("sleep 1000"), [root], Limits(), station=station, name="exec") as instance:
            assert instance.execute(["id"]).stdout.startswith(b"uid=27(server) gid=28(server)")
            as_root = instance.execute(["/bin/sh", "-c", 'id -u; echo "$HOME"; cat'], user="root", stdin=b"fed")
            assert as_root.stdout == b"0\n/root\nfed"
            assert instance.execute(["sh", "-c", "exit 5"]).status == 5
            missing = instance.execute(["nowhere"])
            assert (missing.status, missing.stdout) == (127, b"")
            assert b"nowhere" in missing.stderr
            with pytest.raises(SmokeError, match="nobody-here"):
                instance.execute(["id"], user="nobody-here")
            bounding = instance.execute(["grep", "CapBnd", "/proc/self/status"], user="root")
            assert bounding.stdout.split()[1].strip(b"0") == b""

    def test_a_command_that_takes_too_long_is_killed_with_its_children_and_nothing_else(
        self, root: Path, station: Station
    ) -> None:
        with launch(config("sleep 1000"), [root], Limits(), station=station, name="slow") as instance:
            before = sorted(processes_of(instance.berth.base))
            outcome = instance.execute(["sh", "-c", "sleep 1000 & sleep 1000"], timeout=0.5)
            assert outcome.timed_out
            assert sorted(processes_of(instance.berth.base)) == before
            left = instance.execute(["sh", "-c", "sleep 1000 & echo done"], timeout=30)
            assert (left.stdout, left.timed_out) == (b"done\n", False)
            assert instance.alive
            if without_groups():
                assert len(processes_of(instance.berth.base)) == len(before) + 1
                instance.kill()
                assert processes_of(instance.berth.base) == []
                unenforced("ending what has lost its parent before the instance ends, without control groups")
            assert sorted(processes_of(instance.berth.base)) == before

    def test_limits_are_read_back(self, root: Path, station: Station) -> None:
        limits = Limits(milli_cpus=500, memory=64 << 20, pids=30, open_files=100, bandwidth=10**6, tmpfs=3 << 20)
        with launch(config("sleep 1000"), [root], limits, station=station, name="limits") as instance:
            readings = {reading.name: reading for reading in instance.readings()}
            files = instance.execute(["sh", "-c", "ulimit -n"]).stdout
        expected: dict[str, tuple[int | None, bool]] = {
            "cpus": (500, True),
            "memory": (64 << 20, True),
            "pids": (30, True),
            "open_files": (100, True),
            "bandwidth": (10**6, True),
            "tmpfs": (3 << 20, True),
            "tmpfs_inodes": (1024, True),
        }
        if without_groups():
            for name in ("cpus", "memory", "pids"):
                expected[name] = (None, False)
                assert "handed over" in readings[name].reason
        assert {name: (reading.read, reading.enforced) for name, reading in readings.items()} == expected
        assert files == b"100\n"
        require_groups("cpus, memory, pids")

    def test_more_memory_than_allowed_ends_it_and_is_counted(self, root: Path, station: Station) -> None:
        require_groups("memory")
        image = ImageConfig("amd64", 0, entrypoint=("/bin/probe", "hog", str(256 << 20)))
        with launch(image, [root], Limits(memory=32 << 20), station=station, name="hog") as instance:
            assert instance.wait(30) == 137
            usage = instance.usage()
            assert b"had it all" not in instance.log
        assert usage.oom_kills is not None
        assert usage.oom_kills >= 1
        assert usage.peak_memory is not None
        assert 16 << 20 < usage.peak_memory <= 32 << 20

    def test_more_processes_than_allowed_are_not_made(self, root: Path, station: Station) -> None:
        require_groups("pids")
        image = ImageConfig("amd64", 0, entrypoint=("/bin/probe", "forks", "100"))
        with launch(image, [root], Limits(pids=20), station=station, name="forks") as instance:
            instance.wait(30)
            found = re.search(rb"made (\d+)", instance.log)
        assert found is not None
        assert 10 < int(found[1]) < 20

    def test_half_a_core_is_half_a_core(self, root: Path, station: Station) -> None:
        require_groups("cpus")
        image = ImageConfig("amd64", 0, entrypoint=("/bin/probe", "spin"))
        with launch(image, [root], Limits(milli_cpus=500), station=station, name="spin") as instance:
            begun, before = time.monotonic(), instance.usage().cpu_time
            instance.wait(1.5)
            after, took = instance.usage(), time.monotonic() - begun
        assert before is not None
        assert after.cpu_time is not None
        share = (after.cpu_time - before) / 1e6 / took
        # Others use the machine: it may get less than it is allowed, but never more.
        assert share < 0.6
        assert share < 0.4 or (after.throttled_time or 0) > 0

    def test_stopping_gives_its_exit_code(self, root: Path, station: Station) -> None:
        with launch(config(SERVER), [root], Limits(), station=station, name="stop") as instance:
            until_logged(instance, b"serving")
            assert instance.exit_code is None
            assert instance.stop("SIGTERM", 10) == 3
            assert instance.log.endswith(b"bye\n")
            require_groups("measured usage")
            assert (instance.usage().cpu_time or 0) > 0

    def test_what_ignores_its_signal_still_runs_and_is_killed_at_the_end(self, root: Path, station: Station) -> None:
        image = config("trap '' TERM; echo deaf; while :; do sleep 0.05; done")
        with launch(image, [root], Limits(), station=station, name="deaf") as instance:
            until_logged(instance, b"deaf")
            assert instance.stop("TERM", 0.3) is None
            assert instance.kill() == 137
            assert not instance.alive

    def test_its_log_is_bounded_and_says_so(self, root: Path, station: Station) -> None:
        with launch(config("yes | head -c 9000000"), [root], Limits(), station=station, name="flood") as instance:
            assert instance.wait(30) == 0
            instance.kill()
            log = instance.log
        assert len(log) < (8 << 20) + 100
        assert log.endswith(b"[relbuild: 611392 more bytes were dropped]\n")

    def test_instances_see_neither_each_other_nor_the_machine(self, root: Path, station: Station) -> None:
        def start(name: str) -> object:
            return launch(config("sleep 1000"), [root], Limits(), station=station, name=name)

        with start("one") as one, start("two") as two:  # type: ignore[attr-defined]
            assert (one.berth.base == two.berth.base) == ordinary()
            seen = one.execute(["ps"]).stdout.decode()
            assert [line.split()[2:] for line in seen.splitlines()[1:]] == [["sleep", "1000"], ["ps"]]
            assert one.execute(["ls", "/sys"]).status != 0
            if ordinary():
                unenforced("ids that no other sandbox has")

    @pytest.mark.parametrize("path", ["tmp", "run", "dev", "proc"])
    def test_a_link_where_something_gets_mounted_is_refused(
        self, root: Path, station: Station, tmp_path: Path, path: str
    ) -> None:
        layer = tmp_path / "layer"
        layer.mkdir()
        (layer / path).symlink_to("/etc")
        with (
            pytest.raises(RelbuildError) as raised,
            launch(config("true"), [root, layer], Limits(), station=station, name="links"),
        ):
            pytest.fail("it was launched")
        assert raised.value.code == "mount-point-odd"

    def test_a_volume_behind_a_link_is_mounted_where_it_leads(self, root: Path, station: Station) -> None:
        image = config(
            "readlink /var/run; touch /var/run/server/x && ls /run/server",
            volumes=("/var/link/data",),
        )
        with build_session([root], station=station) as session:
            session.files.symlink("/var/run", "/run")
            session.files.symlink("/var/link", "/srv")
            session.files.make_directory("/srv/data", uid=27, gid=28)
            layer = session.upper
            # The upper directory has shifted owners; as a layer it would have the image's.
            for found in [layer, *layer.rglob("*")]:
                status = found.lstat()
                os.lchown(found, status.st_uid - session.shift, status.st_gid - session.shift)
            with launch(image, [root, layer], Limits(), station=station, name="behind") as instance:
                assert instance.wait(10) == 0
                assert instance.log == b"/run\nx\n"
                kept = replace(image, command=("touch /srv/data/y && echo there",))
            with launch(kept, [root, layer], Limits(), station=station, name="behind") as instance:
                instance.wait(10)
                assert instance.log == b"there\n"

    @pytest.mark.parametrize(
        ("changes", "code"),
        [
            ({"user": "nobody-here"}, "user-unknown"),
            ({"user": "0:nobody-here"}, "group-unknown"),
            ({"entrypoint": ("/bin/nowhere",)}, "not-started"),
            ({"entrypoint": (), "command": ()}, "nothing-to-run"),
            ({"volumes": ("/etc/passwd",)}, "volume-impossible"),
            ({"volumes": ("/",)}, "volume-impossible"),
        ],
    )
    def test_an_image_that_cannot_start_says_why(
        self, root: Path, station: Station, changes: dict[str, object], code: str
    ) -> None:
        with (
            pytest.raises(SmokeError) as raised,
            launch(config("true", **changes), [root], Limits(), station=station, name="odd"),
        ):
            pytest.fail("it was launched")
        assert raised.value.code == code


def left_behind(station: Station) -> list[str]:
    """Whatever of a station's sandboxes is still on the machine."""
    groups = [f"cgroup {name}" for name in groups_named(station.hierarchies, station.mark)]
    files = [f"file {path.name}" for path in (station.state / "live").iterdir()]
    mounts = [place for place in _mounted() if place not in _BEFORE]
    commands = [path for path in Path("/proc").glob("[0-9]*/cmdline") if station.mark.encode() in _content(path)]
    return groups + files + mounts + [str(path) for path in commands]


def _mounted() -> list[str]:
    places = [line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [place for place in places if "relbuild" in place]


_BEFORE = _mounted() if ordinary() else []
"""What an ordinary user's tests themselves run from. For root there is nothing that could be meant."""


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


class TestNothingIsLeft:
    def test_after_sessions_and_instances_have_ended(self, root: Path, closed: Path) -> None:
        station = open_station(closed / "ends", find_runtime())
        with build_session([root], station=station) as session:
            session.run(["true"])
            assert left_behind(station), "the test would not see anything"
        with launch(config("sleep 1000"), [root], Limits(), station=station, name="x") as instance:
            instance.execute(["true"])
        with (
            pytest.raises(RelbuildError),
            launch(config(entrypoint=("/no",)), [root], Limits(), station=station, name="x"),
        ):
            pytest.fail("it was launched")
        assert left_behind(station) == []

    @pytest.mark.parametrize("what", ["instance", "session"])
    def test_after_a_killed_relbuild_at_the_next_start(self, root: Path, closed: Path, what: str) -> None:
        state = closed / f"killed-{what}"
        program = f"""
import sys
from pathlib import Path
from pipeline.model.image import ImageConfig
from pipeline.model.smoke import Limits
from pipeline.sandbox import build_session, find_runtime, launch, open_station
station = open_station(Path({str(state)!r}), find_runtime())
root = Path({str(root)!r})
if {what!r} == "instance":
    image = ImageConfig("amd64", 0, entrypoint=("/bin/sleep", "1000"))
    with launch(image, [root], Limits(), station=station, name="x") as instance:
        print("up", instance.berth.base, flush=True)
        sys.stdin.read()
else:
    with build_session([root], station=station) as session:
        print("up", session.shift, flush=True)
        session.run(["/bin/sleep", "1000"])
"""
        child = subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        assert child.stdin is not None
        base = int(child.stdout.readline().split()[1])
        deadline = time.monotonic() + 20
        while not any(b"sleep" in _content(Path(f"/proc/{pid}/cmdline")) for pid in processes_of(base)):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdin.close()
        child.stdout.close()
        assert processes_of(base), "nothing was left, so nothing is tested"
        station = open_station(state, find_runtime())
        deadline = time.monotonic() + 10
        while left_behind(station) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert left_behind(station) == []
        assert processes_of(base) == []

    def test_the_sandboxes_of_a_living_relbuild_are_left_alone(self, root: Path, station: Station) -> None:
        with launch(config("sleep 1000"), [root], Limits(), station=station, name="live") as instance:
            assert open_station(station.state, station.runtime).sweep() == ()
            assert instance.alive
            assert instance.execute(["true"]).ok

    def test_after_many_at_once(self, root: Path, closed: Path) -> None:
        station = open_station(closed / "many", find_runtime())
        outcomes: list[bytes] = []

        def work(number: int) -> None:
            with build_session([root], station=station) as session:
                outcomes.extend(session.run(["/bin/echo", str(number)]).stdout for _ in range(3))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcomes) == sorted([b"%d\n" % number for number in range(6)] * 3)
        assert left_behind(station) == []


def test_the_doctor_finds_this_machine_able() -> None:
    require_root()
    findings = {finding.name: finding for finding in check_environment()}
    assert findings["overlay"].ok, findings
    assert findings["OCI runtime"].detail == f"{find_runtime()}: {find_runtime().wall}"
    assert all(finding.needed_for for finding in findings.values())
