"""Instances on the real kernel and the real runtime: images that are tested or run."""

from __future__ import annotations

import os
import re
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import RelbuildError, SmokeError
from pipeline.model.image import ImageConfig
from pipeline.model.limits import Limits
from pipeline.sandbox import SandboxRegistry, build_session, launch
from tests.support.bombs import eventually
from tests.support.sandbox_images import SERVER, config, content_of, until_logged
from tests.support.tiny_root import (
    make_root,
    ordinary,
    processes_of,
    require_groups,
    unenforced,
    without_groups,
)

pytestmark = pytest.mark.brief


@pytest.fixture(scope="module")
def root(closed: Path) -> Path:
    return make_root(closed / "root")


class TestRunning:
    def test_it_runs_as_the_images_user_without_any_capability(self, root: Path, sandboxes: SandboxRegistry) -> None:
        with launch(config("id; cat /proc/self/status"), [root], Limits(), sandboxes=sandboxes, name="who") as instance:
            assert instance.wait(10) == 0
            said = instance.log.decode()
        assert "uid=27(server) gid=28(server) groups=40(readers),41(writers)" in said
        for kind in ("CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb"):
            assert re.search(rf"^{kind}:\s*0+$", said, re.MULTILINE), kind
        assert re.search(r"^NoNewPrivs:\s*1$", said, re.MULTILINE)
        assert re.search(r"^Seccomp:\s*2$", said, re.MULTILINE)

    def test_chroot_is_for_building_only(self, root: Path, sandboxes: SandboxRegistry) -> None:
        image = ImageConfig("amd64", 0, entrypoint=("/bin/probe", "calls"))
        with launch(image, [root], Limits(), sandboxes=sandboxes, name="calls") as instance:
            assert instance.wait(10) == 0
            assert b"chroot 1\n" in instance.log
            assert b"mount 1\n" in instance.log

    def test_the_root_is_read_only_and_volumes_start_with_the_images_content(
        self, root: Path, sandboxes: SandboxRegistry
    ) -> None:
        command = (
            "touch /etc/x || echo refused; stat -c '%u:%g %a' /var/lib/server; cat /var/lib/server/seed; "
            "echo more > /var/lib/server/seed; cat /var/lib/server/seed; stat -c '%u:%g %a' /data"
        )
        image = config(command, volumes=("/var/lib/server", "/data"))
        with launch(image, [root], Limits(), sandboxes=sandboxes, name="volumes") as instance:
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

    def test_no_path_of_the_machine_is_seen_in_what_is_mounted(self, root: Path, sandboxes: SandboxRegistry) -> None:
        command = "cat /proc/self/mountinfo /proc/self/mounts /proc/self/mountstats; cat /etc/hosts /etc/hostname"
        image = config(command, volumes=("/var/lib/server", "/data"))
        with launch(image, [root], Limits(), sandboxes=sandboxes, name="tables") as instance:
            assert instance.wait(10) == 0
            told = instance.log.decode()
        assert told.endswith("\ttables\ntables\n"), "its own hosts and hostname"
        assert " /etc/hosts " in told
        assert " /data " in told
        for path in (root, sandboxes.state, root.parent, Path.home()):
            assert f"{path}/" not in told
            assert f"{path} " not in told

    def test_not_even_the_owner_can_write_to_the_root(self, root: Path, sandboxes: SandboxRegistry) -> None:
        with launch(config("sleep 1000"), [root], Limits(), sandboxes=sandboxes, name="closed") as instance:
            outcome = instance.execute(["touch", "/etc/x"], user="root")
        assert outcome.status != 0
        assert b"Read-only file system" in outcome.stderr

    def test_a_volume_that_the_image_does_not_have_leaves_the_image_as_it_is(
        self, root: Path, sandboxes: SandboxRegistry
    ) -> None:
        image = config("touch /data/x && echo made", volumes=("/data",), user="0")
        with launch(image, [root], Limits(), sandboxes=sandboxes, name="data") as instance:
            assert instance.wait(10) == 0
            assert instance.log == b"made\n"
        assert not (root / "data").exists()

    @pytest.mark.parametrize(
        ("uid", "mode", "seen"),
        [(0, 0o755, "denied 755 root"), (0, 0o1777, "made 1777 root"), (27, 0o750, "made 750 server")],
    )
    def test_run_is_as_the_image_has_it(
        self, root: Path, sandboxes: SandboxRegistry, uid: int, mode: int, seen: str
    ) -> None:
        """What a server may write there it may where the image runs elsewhere, and nothing else."""
        command = (
            "touch /run/pid 2>/dev/null && echo made || echo denied; stat -c '%a %U' /run; ls /run/server/../server"
        )
        place = root / "run"
        before = place.stat()
        os.chown(place, uid, 0)
        place.chmod(mode)
        try:
            with launch(config(command), [root], Limits(), sandboxes=sandboxes, name="run") as instance:
                assert instance.wait(10) == 0
                assert " ".join(instance.log.decode().split()) == seen
        finally:
            os.chown(place, before.st_uid, before.st_gid)
            place.chmod(before.st_mode & 0o7777)
        assert not (place / "pid").exists()

    def test_tmp_and_what_the_image_has_in_run_are_writable_for_its_user_and_sized(
        self, root: Path, sandboxes: SandboxRegistry
    ) -> None:
        command = (
            "touch /run/server/pid /tmp/file /dev/shm/x && echo yes; stat -c '%a %U' /tmp /run /run/server; "
            "dd if=/dev/zero of=/tmp/large bs=1M count=20 2>&1 | grep -c 'No space'"
        )
        limits = Limits(tmpfs=2 << 20)
        with launch(config(command), [root], limits, sandboxes=sandboxes, name="scratch") as instance:
            instance.wait(10)
            assert instance.log.decode().splitlines() == [
                "yes",
                "1777 root",
                "755 root",
                "755 server",
                "1",
            ]

    def test_environment_directory_and_hostname_are_set(self, root: Path, sandboxes: SandboxRegistry) -> None:
        image = config(
            'echo "$PATH|$HOME|$HOSTNAME|$A"; pwd; cat /etc/hostname; grep localhost /etc/hosts',
            environment=("A=b",),
            working_directory="/srv/here",
        )
        with launch(image, [root], Limits(), sandboxes=sandboxes, name="tiny-1") as instance:
            assert instance.wait(10) == 0
            lines = instance.log.decode().splitlines()
        assert lines[0] == "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin|/var/lib/server|tiny-1|b"
        assert lines[1:3] == ["/srv/here", "tiny-1"]
        assert len(lines) > 3

    def test_a_port_below_1024_can_be_served_and_reached_from_outside_only_through_the_instance(
        self, root: Path, sandboxes: SandboxRegistry
    ) -> None:
        with launch(config(SERVER), [root], Limits(), sandboxes=sandboxes, name="web") as instance:
            until_logged(instance, b"serving")
            with instance.connect(80, timeout=5) as connection:
                connection.sendall(b"GET /page HTTP/1.0\r\n\r\n")
                answer = b""
                while piece := connection.recv(4096):
                    answer += piece
            assert answer.endswith(b"a page\n")
            with pytest.raises(ConnectionRefusedError):
                instance.connect(81, timeout=5)

    def test_commands_run_inside_as_whoever_is_asked(self, root: Path, sandboxes: SandboxRegistry) -> None:
        with launch(config("sleep 1000"), [root], Limits(), sandboxes=sandboxes, name="exec") as instance:
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
        self, root: Path, sandboxes: SandboxRegistry
    ) -> None:
        with launch(config("sleep 1000"), [root], Limits(), sandboxes=sandboxes, name="slow") as instance:
            before = sorted(processes_of(instance.slot.base))
            outcome = instance.execute(["sh", "-c", "sleep 1000 & sleep 1000"], timeout=0.5)
            assert outcome.timed_out
            assert sorted(processes_of(instance.slot.base)) == before
            left = instance.execute(["sh", "-c", "sleep 1000 & echo done"], timeout=30)
            assert (left.stdout, left.timed_out) == (b"done\n", False)
            assert instance.alive
            if without_groups():
                assert len(processes_of(instance.slot.base)) == len(before) + 1
                instance.kill()
                assert processes_of(instance.slot.base) == []
                unenforced("ending what has lost its parent before the instance ends, without control groups")
            assert sorted(processes_of(instance.slot.base)) == before

    def test_limits_are_read_back(self, root: Path, sandboxes: SandboxRegistry) -> None:
        limits = Limits(milli_cpus=500, memory=64 << 20, pids=30, open_files=100, bandwidth=10**6, tmpfs=3 << 20)
        with launch(config("sleep 1000"), [root], limits, sandboxes=sandboxes, name="limits") as instance:
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
                assert "not delegated" in readings[name].reason
        assert {name: (reading.read, reading.enforced) for name, reading in readings.items()} == expected
        assert files == b"100\n"
        require_groups("cpus, memory, pids")

    def test_more_memory_than_allowed_ends_it_and_is_counted(self, root: Path, sandboxes: SandboxRegistry) -> None:
        require_groups("memory")
        image = ImageConfig("amd64", 0, entrypoint=("/bin/probe", "hog", str(256 << 20)))
        with launch(image, [root], Limits(memory=32 << 20), sandboxes=sandboxes, name="hog") as instance:
            assert instance.wait(30) == 137
            usage = instance.usage()
            assert b"had it all" not in instance.log
        assert usage.oom_kills is not None
        assert usage.oom_kills >= 1
        assert usage.peak_memory is not None
        assert 16 << 20 < usage.peak_memory <= 32 << 20

    def test_more_processes_than_allowed_are_not_made(self, root: Path, sandboxes: SandboxRegistry) -> None:
        require_groups("pids")
        image = ImageConfig("amd64", 0, entrypoint=("/bin/probe", "forks", "100"))
        with launch(image, [root], Limits(pids=20), sandboxes=sandboxes, name="forks") as instance:
            instance.wait(30)
            found = re.search(rb"made (\d+)", instance.log)
        assert found is not None
        assert 10 < int(found[1]) < 20

    def test_half_a_core_is_half_a_core(self, root: Path, sandboxes: SandboxRegistry) -> None:
        require_groups("cpus")
        image = ImageConfig("amd64", 0, entrypoint=("/bin/probe", "spin"))
        with launch(image, [root], Limits(milli_cpus=500), sandboxes=sandboxes, name="spin") as instance:
            begun, before = time.monotonic(), instance.usage().cpu_time
            instance.wait(1.5)
            after, took = instance.usage(), time.monotonic() - begun
        assert before is not None
        assert after.cpu_time is not None
        share = (after.cpu_time - before) / 1e6 / took
        # Others use the machine: it may get less than it is allowed, but never more. What got all was held back.
        assert share < 0.6
        assert share < 0.5 or (after.throttled_time or 0) > 0

    def test_stopping_gives_its_exit_code(self, root: Path, sandboxes: SandboxRegistry) -> None:
        with launch(config(SERVER), [root], Limits(), sandboxes=sandboxes, name="stop") as instance:
            until_logged(instance, b"serving")
            assert instance.exit_code is None
            assert instance.stop("SIGTERM", 10) == 3
            assert instance.log.endswith(b"bye\n")
            require_groups("measured usage")
            assert (instance.usage().cpu_time or 0) > 0

    def test_a_signal_that_its_process_does_not_handle_yet_is_sent_once_it_does(
        self, root: Path, sandboxes: SandboxRegistry
    ) -> None:
        """The kernel drops it for the first process of a container, which then ran for ever."""
        image = config("sleep 1; trap 'echo got it; exit 3' TERM; while :; do sleep 0.05; done")
        with launch(image, [root], Limits(), sandboxes=sandboxes, name="late") as instance:
            assert instance.stop("SIGTERM", 20) == 3
            assert instance.log.count(b"got it") == 1

    def test_what_ends_before_it_handles_its_signal_has_its_own_exit_code(
        self, root: Path, sandboxes: SandboxRegistry
    ) -> None:
        with launch(config("sleep 0.5; exit 4"), [root], Limits(), sandboxes=sandboxes, name="short") as instance:
            assert instance.stop("SIGTERM", 20) == 4

    def test_what_ignores_its_signal_still_runs_and_is_killed_at_the_end(
        self, root: Path, sandboxes: SandboxRegistry
    ) -> None:
        image = config("trap '' TERM; echo deaf; while :; do sleep 0.05; done")
        with launch(image, [root], Limits(), sandboxes=sandboxes, name="deaf") as instance:
            until_logged(instance, b"deaf")
            assert instance.stop("TERM", 0.3) is None
            assert instance.kill() == 137
            assert not instance.alive

    def test_its_log_is_bounded_and_says_so(self, root: Path, sandboxes: SandboxRegistry) -> None:
        with launch(config("yes | head -c 9000000"), [root], Limits(), sandboxes=sandboxes, name="flood") as instance:
            assert instance.wait(30) == 0
            instance.kill()
            log = instance.log
        assert len(log) < (8 << 20) + 100
        assert log.endswith(b"[relbuild: output limit reached, 611392 bytes dropped]\n")

    def test_instances_see_neither_each_other_nor_the_machine(self, root: Path, sandboxes: SandboxRegistry) -> None:
        def start(name: str) -> object:
            return launch(config("sleep 1000"), [root], Limits(), sandboxes=sandboxes, name=name)

        with start("one") as one, start("two") as two:  # type: ignore[attr-defined]
            assert (one.slot.base == two.slot.base) == ordinary()
            # What was started is a shell for a moment.
            eventually(lambda: content_of(Path(f"/proc/{one.pid}/cmdline")).startswith(b"sleep\0"))
            seen = one.execute(["ps"]).stdout.decode()
            assert [line.split()[2:] for line in seen.splitlines()[1:]] == [["sleep", "1000"], ["ps"]]
            assert one.execute(["ls", "/sys"]).status != 0
            if ordinary():
                unenforced("ids that no other sandbox has")

    @pytest.mark.parametrize("path", ["tmp", "run", "dev", "proc"])
    def test_a_link_where_something_gets_mounted_is_refused(
        self, root: Path, sandboxes: SandboxRegistry, tmp_path: Path, path: str
    ) -> None:
        layer = tmp_path / "layer"
        layer.mkdir()
        (layer / path).symlink_to("/etc")
        with (
            pytest.raises(RelbuildError) as raised,
            launch(config("true"), [root, layer], Limits(), sandboxes=sandboxes, name="links"),
        ):
            pytest.fail("it was launched")
        assert raised.value.code == "mount-point-odd"

    def test_a_volume_behind_a_link_is_mounted_where_it_leads(
        self, root: Path, sandboxes: SandboxRegistry, closed: Path
    ) -> None:
        image = config(
            "readlink /var/run; touch /var/run/server/x && ls /run/server",
            volumes=("/var/link/data",),
        )
        with build_session([root], sandboxes=sandboxes) as session:
            session.files.symlink("/var/run", "/run")
            session.files.symlink("/var/link", "/srv")
            session.files.make_directory("/srv/data", uid=27, gid=28)
            # The upper directory is in a file system that goes with the session.
            layer = closed / "behind"
            subprocess.run(["cp", "-a", session.upper, layer], check=True)
            # It has shifted owners; as a layer it would have the image's.
            for found in [layer, *layer.rglob("*")]:
                status = found.lstat()
                os.lchown(found, status.st_uid - session.shift, status.st_gid - session.shift)
            with launch(image, [root, layer], Limits(), sandboxes=sandboxes, name="behind") as instance:
                assert instance.wait(10) == 0
                assert instance.log == b"/run\nx\n"
                kept = replace(image, command=("touch /srv/data/y && echo there",))
            with launch(kept, [root, layer], Limits(), sandboxes=sandboxes, name="behind") as instance:
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
        self, root: Path, sandboxes: SandboxRegistry, changes: dict[str, object], code: str
    ) -> None:
        with (
            pytest.raises(SmokeError) as raised,
            launch(config("true", **changes), [root], Limits(), sandboxes=sandboxes, name="odd"),
        ):
            pytest.fail("it was launched")
        assert raised.value.code == code
