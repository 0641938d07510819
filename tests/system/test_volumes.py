"""Volumes and files from outside, in real instances."""

from __future__ import annotations

import ctypes
import os
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.model.limits import Limits
from pipeline.sandbox import (
    BindMount,
    SandboxRegistry,
    find_runtime,
    launch,
    open_sandbox_registry,
    open_volumes,
)
from tests.support.bombs import (
    LIMITS,
    blocks,
    bomb,
    eventually,
    make_bomb_root,
)
from tests.support.leftover_check import kill_with_reaper
from tests.support.sandbox_images import left_behind, until_logged
from tests.support.tiny_root import ordinary, unenforced

pytestmark = pytest.mark.brief

RATE = 8 << 20

CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")
"""cap_net_bind_service=ep, as an image has it."""

SYNC = ctypes.CDLL(None, use_errno=True)


def sectors_written(device: int) -> int:
    """By a block device so far (the kernel's Documentation/block/stat.rst)."""
    return int(Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat").read_text().split()[6])


@pytest.fixture(scope="module")
def root(closed: Path) -> Path:
    return make_bomb_root(closed)


class TestVolumes:
    def test_data_survives_into_another_instance_with_other_ids(self, root: Path, sandboxes: SandboxRegistry) -> None:
        first = bomb(entrypoint=("/bin/sh", "-c", "cat seed; echo kept > new; id -u > who; ls -a | wc -l"))
        first = replace(first, volumes=("/var/lib/server",), working_directory="/var/lib/server")
        second = replace(first, entrypoint=("/bin/sh", "-c", "cat new; stat -c '%u:%g' new . ; rm seed; ls"))
        bases = set()
        with open_volumes(sandboxes) as volumes:
            said = []
            for image in (first, second):
                with launch(
                    image, [root], Limits(volume=8 << 20), sandboxes=sandboxes, name="keep", volumes=volumes
                ) as instance:
                    bases.add(instance.slot.base)
                    assert instance.wait(10) == 0, instance.log
                    said.append(instance.log)
        assert len(bases) == (1 if ordinary() else 2)
        assert said[0].startswith(b"from the image\n")
        assert said[1] == b"kept\n27:28\n27:28\nnew\nwho\n"
        assert left_behind(sandboxes) == []
        eventually(lambda: not blocks(sandboxes.mark))
        if ordinary():
            unenforced("ids that no other sandbox has")

    @pytest.mark.parametrize("kind", ["of the image", "named"])
    def test_it_begins_with_what_all_layers_together_have_there(
        self, root: Path, sandboxes: SandboxRegistry, closed: Path, kind: str
    ) -> None:
        upper = closed / f"upper {kind}"
        place, below = upper / "var/lib/server", root / "var/lib/server"
        place.mkdir(parents=True)
        (below / "hidden").write_text("x")
        (below / "replaced").mkdir(exist_ok=True)
        (below / "replaced" / "old").write_text("x")
        (below / "tool").write_text("x")
        if not (below / "again").exists():
            (below / "again").hardlink_to(below / "tool")
        os.setxattr(below / "tool", "security.capability", CAPABILITY)
        os.setxattr(below / "tool", "user.note", b"kept")
        # As unpacked layers have them: a whiteout, and a directory that hides what is beneath.
        os.mknod(place / "hidden", stat.S_IFCHR, 0)
        (place / "replaced").mkdir()
        os.setxattr(place / "replaced", "user.overlay.opaque" if ordinary() else "trusted.overlay.opaque", b"y")
        (place / "replaced" / "new").write_text("y")
        (place / "replaced" / "new").chmod(0o604)
        (place / "link").symlink_to("/srv/page")
        os.chown(place / "link", 5, 6, follow_symlinks=False)
        os.chown(place, 27, 28)
        place.chmod(0o750)
        volume = closed / f"volume {kind}"
        image = bomb(entrypoint=("/bin/sh", "-c", "cat /var/lib/server/link; touch /var/lib/server/mine; sleep 100"))
        binding = BindMount(volume, "/var/lib/server", read_only=False, begun=True)
        named = kind == "named"
        with launch(
            image if named else replace(image, volumes=("/var/lib/server",)),
            [root, upper],
            LIMITS.changed(memory=None),
            sandboxes=sandboxes,
            name="begins",
            bindings=[binding] if named else [],
        ) as instance:
            until_logged(instance, b"a page")
            handle = None if named else instance.file_systems.handles["/var/lib/server"]
            seen = volume if named else Path(f"/proc/self/fd/{handle}")
            eventually((seen / "mine").exists)
            names = {path.name for path in seen.iterdir()}
            assert names == {"seed", "again", "tool", "replaced", "link", "mine"}
            status = seen.stat()
            assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (27, 28, 0o750)
            assert [path.name for path in (seen / "replaced").iterdir()] == ["new"]
            assert stat.S_IMODE((seen / "replaced" / "new").stat().st_mode) == 0o604
            link = (seen / "link").lstat()
            assert ((seen / "link").readlink(), link.st_uid, link.st_gid) == (Path("/srv/page"), 5, 6)
            assert (seen / "tool").stat().st_ino == (seen / "again").stat().st_ino
            assert os.getxattr(seen / "tool", "security.capability")[4:20] == CAPABILITY[4:]
            assert os.getxattr(seen / "tool", "user.note") == b"kept"

    def test_its_size_is_read_back(self, root: Path, sandboxes: SandboxRegistry) -> None:
        with launch(
            bomb("serve", "80", volumes=("/data",)), [root], Limits(), sandboxes=sandboxes, name="size"
        ) as instance:
            reading = next(one for one in instance.readings() if one.name == "volume /data")
            assert reading.asked == 4 << 30
            if ordinary():
                assert (reading.read, reading.enforced) == (None, False)
                assert "loop device" in reading.reason
                assert instance.execute(["ls", "-A", "/data"]).stdout == b""
                unenforced("the size of volumes")
            assert reading.enforced
            assert reading.read is not None
            assert 0.97 < reading.read / reading.asked <= 1
            assert instance.execute(["ls", "-A", "/data"]).stdout == b""

    def test_what_is_written_and_synced_is_counted(self, root: Path, sandboxes: SandboxRegistry) -> None:
        command = "sleep 0.3; dd if=/dev/zero of=/data/x bs=1M count=4 conv=fsync"
        image = replace(bomb(entrypoint=("/bin/sh", "-c", command)), volumes=("/data",))
        with launch(image, [root], LIMITS, sandboxes=sandboxes, name="io") as instance:
            assert instance.wait(20) == 0
            written = instance.usage().io_written
        if ordinary():
            assert written is None, "no device of its own, so nothing that could be told from others' writing"
            unenforced("counting what is written to volumes")
        assert written is not None
        assert 4 << 20 <= written < 5 << 20

    @pytest.mark.alone
    def test_its_throughput_is_limited_each_way(self, root: Path, sandboxes: SandboxRegistry) -> None:
        limits = LIMITS.changed(io_bandwidth=RATE, volume=64 << 20)
        with launch(
            bomb("serve", "80", volumes=("/data",)), [root], limits, sandboxes=sandboxes, name="slow"
        ) as instance:
            reading = next(one for one in instance.readings() if one.name == "io_bandwidth")
            if ordinary():
                assert (reading.read, reading.enforced) == (None, False)
                assert reading.reason
                unenforced("throughput of volumes")
            assert (reading.read, reading.enforced, reading.reason) == (RATE, True, "")
            for words in (
                ("if=/dev/zero", "of=/data/direct", "oflag=direct"),
                ("if=/data/direct", "of=/dev/null", "iflag=direct"),
                ("if=/dev/zero", "of=/data/synced", "conv=fsync"),
            ):
                begun = time.monotonic()
                done = instance.execute(["dd", "bs=1M", "count=16", *words])
                took = time.monotonic() - begun
                assert done.status == 0, done.stderr
                assert abs((16 << 20) / took / RATE - 1) < 0.2, (words, took)
            # Written back by the kernel, in its own time: told to, and looked at where it arrives.
            device = instance.file_systems.devices()[0]
            written = instance.execute(["dd", "bs=1M", "count=16", "if=/dev/zero", "of=/data/later"])
            assert written.took < 1, "nobody waits for what is written back later"
            begun = time.monotonic()
            before = sectors_written(device)
            handle = instance.file_systems.handles["/data"]
            assert SYNC.syncfs(handle) == 0
            rate = (sectors_written(device) - before) * 512 / (time.monotonic() - begun)
            assert 0.8 < rate / RATE < 1.2

    def test_a_program_that_waits_for_held_writing_is_killed_at_once(
        self, root: Path, sandboxes: SandboxRegistry
    ) -> None:
        # Room for all that is written, however far the first two are when the third begins.
        limits = LIMITS.changed(io_bandwidth=256 << 10, volume=128 << 20)
        writing = "dd if=/dev/zero of=/data/a bs=1M count=30; echo written; dd if=/data/a of=/data/b conv=fsync"
        image = replace(bomb(entrypoint=("/bin/sh", "-c", writing)), volumes=("/data",))
        with launch(image, [root], limits, sandboxes=sandboxes, name="waits") as instance:
            until_logged(instance, b"written")
            command = ["dd", "bs=16M", "count=1", "if=/dev/zero", "of=/data/c", "conv=fsync"]
            slow = instance.execute(command, timeout=0.5)
            assert slow.timed_out or ordinary()
            begun = time.monotonic()
            instance.kill()
            assert time.monotonic() - begun < 20, "what is held takes minutes to be written"
        assert left_behind(sandboxes) == []

    def test_a_killed_relbuild_leaves_no_limit_on_the_device(self, root: Path, closed: Path) -> None:
        if ordinary():
            unenforced("throughput of volumes")
        state = closed / "held"
        program = f"""
import os, sys
from pathlib import Path
from pipeline.model.image import ImageConfig
from pipeline.model.limits import Limits
from pipeline.sandbox import find_runtime, launch, open_sandbox_registry
image = ImageConfig("amd64", 0, entrypoint=("/bin/bomb", "spin"), user="server", volumes=("/data",))
sandboxes = open_sandbox_registry(Path({str(state)!r}), find_runtime())
limits = Limits(milli_cpus=200, volume=16 << 20, io_bandwidth={RATE})
with launch(image, [Path({str(root)!r})], limits, sandboxes=sandboxes, name="held") as instance:
    (device,) = instance.file_systems.devices()
    print(instance.readings()[1].enforced, f"{{os.major(device)}}:{{os.minor(device)}}", flush=True)
    sys.stdin.read()
"""
        child = subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        enforced, device = child.stdout.readline().split()
        assert enforced == "True"
        kill_with_reaper(child.pid, state)
        child.communicate()
        sandboxes = open_sandbox_registry(state, find_runtime())
        root_group = sandboxes.hierarchies.controllers.get("blkio")
        if root_group is not None:
            held = (root_group / "blkio.throttle.write_bps_device").read_text().splitlines()
            assert not [line for line in held if line.split()[0] == device], "others may have limits on theirs"
        assert left_behind(sandboxes) == []

    def test_without_block_devices_it_is_a_directory_and_said_to_be_unlimited(
        self, root: Path, sandboxes: SandboxRegistry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(file: Path) -> tuple[Path, int]:
            raise PermissionError(1, "Operation not permitted", str(file))

        monkeypatch.setattr("pipeline.sandbox.loop_device.attach_loop_device", refuse)
        image = bomb(entrypoint=("/bin/sh", "-c", "echo x > /data/y; stat -c '%u' /data/y /data; sleep 100"))
        with launch(
            replace(image, volumes=("/data",)), [root], Limits(), sandboxes=sandboxes, name="loose"
        ) as instance:
            until_logged(instance, b"27\n27\n")
            reading = next(one for one in instance.readings() if one.name == "volume /data")
            assert (reading.read, reading.enforced) == (None, False)
            assert "not permitted" in reading.reason

    def test_files_of_the_machine_stand_over_the_images(
        self, root: Path, sandboxes: SandboxRegistry, tmp_path: Path
    ) -> None:
        (tmp_path / "conf").write_text("from outside\n")
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "inner").write_text("inner\n")
        image = bomb(
            entrypoint=("/bin/sh", "-c", "cat /srv/page /opt/new/conf /data/x/inner; touch /srv/page; echo $A")
        )
        pieces: list[bytes] = []
        with launch(
            replace(image, volumes=("/data",)),
            [root],
            Limits(),
            sandboxes=sandboxes,
            name="bound",
            environment={"A": "added"},
            bindings=[
                BindMount(tmp_path / "conf", "/srv/page"),
                BindMount(tmp_path / "conf", "/opt/new/conf"),
                BindMount(tmp_path / "folder", "/data/x"),
            ],
            follow=pieces.append,
        ) as instance:
            assert instance.wait(10) == 0
        # Two pipes: what comes over one of them may be read before what was printed earlier to the other.
        printed = [line for line in instance.log.splitlines() if not line.startswith(b"touch: ")]
        assert printed == [b"from outside", b"from outside", b"inner", b"added"]
        assert instance.log.count(b"touch: ") == 1
        assert b"".join(pieces) == instance.log

    @pytest.mark.parametrize(("source", "target"), [("folder", "/srv/page"), ("conf", "/srv")])
    def test_a_folder_is_not_mounted_over_a_file_nor_a_file_over_a_folder(
        self, source: str, target: str, root: Path, sandboxes: SandboxRegistry, tmp_path: Path
    ) -> None:
        (tmp_path / "folder").mkdir()
        (tmp_path / "conf").touch()
        binding = BindMount(tmp_path / source, target)
        with (
            pytest.raises(UsageError, match=f"'{target}' is a f[a-z]* in the image") as raised,
            launch(
                bomb(entrypoint=("/bin/true",)), [root], Limits(), sandboxes=sandboxes, name="x", bindings=[binding]
            ),
        ):
            pytest.fail("it was launched")
        assert raised.value.code == "bind-impossible"

    @pytest.mark.parametrize(
        ("target", "code"), [("/../../etc/x", "unsafe-path"), ("/srv/page/x", "image-path-failed")]
    )
    def test_a_path_that_no_mount_can_have_is_a_persons_mistake(
        self, target: str, code: str, root: Path, sandboxes: SandboxRegistry, tmp_path: Path
    ) -> None:
        """It was told as a file that cannot be put into the image, with 1."""
        (tmp_path / "conf").touch()
        bindings = [BindMount(tmp_path / "conf", target)]
        with (
            pytest.raises(UsageError) as raised,
            launch(bomb(entrypoint=("/bin/true",)), [root], Limits(), sandboxes=sandboxes, name="x", bindings=bindings),
        ):
            pytest.fail("it was launched")
        assert raised.value.code == code
