"""What a program in a container can reach of the machine: a table of probes (tests/system/isolation/*.c).

Every probe runs three times: on the machine as root in throw-away namespaces, which proves that it can succeed
there (or, where succeeding would do harm, that it is the wall and not the kernel that refuses: the kernel gives
another errno for arguments that are no good), in an image that is run, as root and as its user, and in a
build session. `RELBUILD_REGENERATE=1` writes the table into docs/sandbox.md.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pipeline.errors import RelbuildError
from pipeline.model.image import ImageConfig
from pipeline.model.limits import Limits
from pipeline.sandbox import (
    SandboxRegistry,
    build_session,
    find_runtime,
    launch,
    open_sandbox_registry,
)
from tests.support.patience import HUNG
from tests.support.tiny_root import make_root, require_root
from tests.system.isolation.probes import ADMITTED, PROBES, REFUSALS, table

pytestmark = pytest.mark.alone

SOURCES = Path(__file__).parent / "isolation"
DOCUMENT = Path(__file__).parents[2] / "docs" / "sandbox.md"
USER = 27


@dataclass(frozen=True)
class Answer:
    """What one probe said."""

    gained: bool
    error: int
    detail: str

    def __str__(self) -> str:
        if self.gained:
            return "gained"
        if self.detail == "killed":
            return "killed"
        return "none" if self.error == 0 else errno.errorcode.get(self.error, str(self.error))


def answers(text: str) -> dict[str, Answer]:
    found = {}
    for line in text.splitlines():
        name, word, number, *detail = line.split(" ", 3)
        found[name] = Answer(word == "gained", int(number), "killed" if word == "died" else " ".join(detail))
    return found


@dataclass(frozen=True)
class Machine:
    """What could be changed on it, as far as a test can compare it."""

    mounts: str
    sysctls: dict[str, str]
    names: tuple[str, ...]
    modules: str
    keys: tuple[str, ...]
    devices: tuple[str, ...]
    queues: tuple[str, ...]
    runtime: str
    clock: float = field(compare=False)
    """By how much it is before the time since the start; see `require_unchanged`."""

    @staticmethod
    def look() -> Machine:
        def text(path: str) -> str:
            try:
                return Path(path).read_text(errors="replace")
            except OSError as error:
                return str(error.errno)

        kernel = ("hostname", "domainname", "core_pattern", "sysrq", "modprobe", "printk", "panic", "hotplug")
        others = ("vm/swappiness", "vm/overcommit_memory", "net/ipv4/ip_forward", "fs/suid_dumpable")
        names = [*(f"kernel/{name}" for name in kernel), *others, "kernel/randomize_va_space"]
        return Machine(
            mounts="\n".join(line for line in text("/proc/self/mountinfo").splitlines()),
            sysctls={name: text(f"/proc/sys/{name}") for name in names},
            names=tuple(os.uname()),
            modules=text("/proc/modules"),
            keys=tuple(line for line in text("/proc/keys").splitlines() if "relbuild-probe" in line),
            # The control opens every console, and of one that was never open the kernel makes /dev/vcsN then.
            devices=tuple(sorted(path.name for path in Path("/dev").iterdir() if not path.name.startswith("vcs"))),
            queues=tuple(path.name for path in Path("/dev/shm").glob("relbuild*")),
            runtime=hashlib.sha256(find_runtime().path.read_bytes()).hexdigest(),
            clock=time.time() - time.monotonic(),
        )

    def require_unchanged(self) -> None:
        """It is now as it was."""
        now = Machine.look()
        assert now == self
        assert abs(now.clock - self.clock) < 1, "it may be adjusted by much less meanwhile"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny root with the probes in it, also as a set-user-id and as a capable program."""
    require_root()
    folder = tmp_path_factory.mktemp("isolation")
    folder.chmod(0o700)
    root = make_root(folder / "root")
    program = root / "bin" / "probes"
    subprocess.run(
        ["gcc", "-O1", "-Wall", "-Wextra", "-Werror", "-static", "-o", program, *sorted(SOURCES.glob("*.c"))],
        check=True,
    )
    privileged(program, root / "bin")
    return root


def privileged(program: Path, folder: Path) -> None:
    for name in ("setuid", "filecap"):
        shutil.copy(program, folder / name)
    (folder / "setuid").chmod(0o4755)
    subprocess.run(["setcap", "cap_net_raw+ep", folder / "filecap"], check=True)


@pytest.fixture(scope="module")
def sandboxes(tmp_path_factory: pytest.TempPathFactory) -> SandboxRegistry:
    require_root()
    return open_sandbox_registry(tmp_path_factory.mktemp("sandboxes"), find_runtime())


@pytest.fixture(scope="module")
def outside(image: Path) -> Iterator[tuple[str, ...]]:
    """On the machine: a process that has something of every kind, and files; where they are."""
    # Not pytest's folder: another user has to be able to walk here.
    with tempfile.TemporaryDirectory(prefix="relbuild-probes-", dir="/var/tmp") as made:
        folder = Path(made)
        folder.chmod(0o755)
        privileged(image / "bin" / "probes", folder)
        marker = folder / "marker"
        marker.touch()
        victim = subprocess.Popen(
            [image / "bin" / "probes", "victim", marker], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert victim.stdin is not None
        assert victim.stdout is not None
        told = victim.stdout.readline().split()
        yield (*told, f"marker={marker}", f"folder={folder}")
        victim.stdin.close()
        assert victim.wait(HUNG) == 0
        victim.stdout.close()


@pytest.fixture(scope="module")
def results(image: Path, sandboxes: SandboxRegistry, outside: tuple[str, ...]) -> dict[str, dict[str, Answer]]:
    """All answers by place: `control`, `root`, `user`, `build`. The machine is the same afterwards."""
    before = Machine.look()
    folder = outside[-1].partition("=")[2]
    there = [f"trial={folder}/trial", f"setuid={folder}/setuid", f"filecap={folder}/filecap", "uid=65534", "gid=65534"]
    there.append(f"hidden={folder}")
    control = subprocess.run(
        [image / "bin" / "probes", "control", "all", *outside, *there], capture_output=True, text=True, check=True
    )
    inside = ["setuid=/bin/setuid", "filecap=/bin/filecap", f"uid={USER}", f"gid={USER}"]
    inside.append(f"hidden={sandboxes.state}")

    def command(place: str) -> list[str]:
        return ["/bin/probes", "contained", "all", *outside, *inside, f"trial=/tmp/trial-{place}"]

    said = {"control": control.stdout}
    sleeping = ImageConfig("amd64", 0, entrypoint=("/bin/sleep", "1000"), user="root", volumes=("/data",))
    with launch(sleeping, [image], Limits(), sandboxes=sandboxes, name="probes") as instance:
        for place, user in (("root", "root"), ("user", "server")):
            outcome = instance.execute(command(place), user=user, timeout=120)
            assert outcome.ok, outcome
            said[place] = outcome.stdout.decode()
    with build_session([image], sandboxes=sandboxes, label="probes") as session:
        outcome = session.run(command("build"), timeout=120)
        assert outcome.ok, outcome
        said["build"] = outcome.stdout.decode()
    before.require_unchanged()
    return {place: answers(text) for place, text in said.items()}


def test_a_probe_that_is_not_told_what_to_go_for_ends_all(image: Path) -> None:
    """`strstr` finds an empty path everywhere, and no empty program can be run: both would look like an answer."""
    done = subprocess.run([image / "bin" / "probes", "contained", "mount-tables"], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (-signal.SIGABRT, b"probes: hidden= is missing\n")


def test_every_probe_is_in_the_table(results: dict[str, dict[str, Answer]]) -> None:
    assert {place: set(found) for place, found in results.items()} == {place: set(PROBES) for place in results}


@pytest.mark.parametrize("name", PROBES)
def test_the_control_can(name: str, results: dict[str, dict[str, Answer]]) -> None:
    """Without the wall it succeeds, or the kernel refuses it with an errno of its own."""
    probe, answer = PROBES[name], results["control"][name]
    if probe.control == "gained":
        assert answer.gained, answer
        return
    assert not answer.gained, f"{name} was meant to be harmless"
    if probe.control == "lacking" and answer.error in (errno.ENOENT, errno.ENOSYS, errno.EAFNOSUPPORT):
        return
    contained = {results[place][name].error for place in ("root", "user", "build")}
    assert answer.error not in contained, f"{answer}: it cannot be told who refuses"


@pytest.mark.parametrize("place", ["root", "user", "build"])
@pytest.mark.parametrize("name", PROBES)
def test_the_container_cannot(name: str, place: str, results: dict[str, dict[str, Answer]]) -> None:
    answer = results[place][name]
    if name in ADMITTED.get(place, {}):
        assert answer.gained, f"{name} is said to be admitted in {place}, and is not: {answer}"
        return
    assert not answer.gained, f"{name} succeeded in {place} {answer.detail}"
    if PROBES[name].filtered:
        assert answer.detail == "killed" or answer.error in REFUSALS, answer


def test_the_table_in_the_documentation_is_this_one(results: dict[str, dict[str, Answer]]) -> None:
    made = table({place: {name: str(answer) for name, answer in found.items()} for place, found in results.items()})
    text = DOCUMENT.read_text()
    begin, end = "<!-- probes -->\n", "<!-- /probes -->"
    head, _, rest = text.partition(begin)
    old, _, tail = rest.partition(end)
    if os.environ.get("RELBUILD_REGENERATE"):
        DOCUMENT.write_text(f"{head}{begin}{made}{end}{tail}")
        return
    # Controls depend on the kernel: their column is not compared.
    assert _without_control(old) == _without_control(made), "run again with RELBUILD_REGENERATE=1"


def _without_control(text: str) -> list[str]:
    return [line.rpartition("|")[0].rpartition("|")[0] for line in text.splitlines()]


class TestTheRuntime:
    def test_it_cannot_be_rewritten_through_the_programs_of_processes(
        self, image: Path, sandboxes: SandboxRegistry
    ) -> None:
        """CVE-2019-5736: whoever opens /proc/PID/exe of the runtime while it enters a container."""
        runtime = find_runtime().path
        before = runtime.read_bytes()
        # The control: nothing but being in use protects the program; a copy that is not can be opened to write.
        copy = shutil.copy(runtime, image.parent / "copy")
        with Path(copy).open("r+b"):
            pass
        hunting = ImageConfig("amd64", 0, entrypoint=("/bin/probes", "hunt"), user="root")
        with launch(hunting, [image], Limits(), sandboxes=sandboxes, name="hunt") as instance:
            for _ in range(8):
                assert instance.execute(["/bin/true"], user="root").ok
            # May be killed itself: the hunter is the first process, and ends at once.
            instance.execute(["/bin/touch", "/tmp/stop"], user="root")
            assert instance.wait(20) == 0
            instance.kill()
            found = re.search(rb"seen (\d+) held (\d+) written (\d+)", instance.log)
        assert found is not None
        assert int(found[1]) > 0, "it saw no other process"
        assert int(found[3]) == 0
        assert runtime.read_bytes() == before

    def test_an_entrypoint_that_is_the_runtime_itself_leads_nowhere(
        self, image: Path, sandboxes: SandboxRegistry, tmp_path: Path
    ) -> None:
        layer = tmp_path / "layer"
        (layer / "bin").mkdir(parents=True)
        script = layer / "bin" / "again"
        script.write_text("#!/proc/self/exe\n")
        script.chmod(0o755)
        before = Machine.look()
        for argv in (("/bin/again",), ("/proc/self/exe",)):
            entry = ImageConfig("amd64", 0, entrypoint=argv, user="root")
            try:
                with launch(entry, [image, layer], Limits(), sandboxes=sandboxes, name="again") as instance:
                    instance.wait(10)
            except RelbuildError as error:
                assert error.code == "not-started", error
        before.require_unchanged()

    @pytest.mark.parametrize("place", [*(f"/proc/self/fd/{number}" for number in (3, 7, 8, 9)), "/elsewhere"])
    def test_a_working_directory_behind_a_descriptor_is_refused(
        self, image: Path, sandboxes: SandboxRegistry, tmp_path: Path, place: str
    ) -> None:
        """CVE-2024-21626: a descriptor that the runtime had open leads to the machine's directories."""
        layer = tmp_path / "layer"
        layer.mkdir()
        (layer / "elsewhere").symlink_to("/proc/self/fd/7")
        entry = ImageConfig(
            "amd64", 0, entrypoint=("/bin/ls", "-la", "../../../../.."), user="root", working_directory=place
        )
        with (
            pytest.raises(RelbuildError) as raised,
            launch(entry, [image, layer], Limits(), sandboxes=sandboxes, name="cwd"),
        ):
            pytest.fail("it was launched")
        assert raised.value.code == "directory-impossible"
        with build_session([image, layer], sandboxes=sandboxes) as session, pytest.raises(RelbuildError) as refused:
            session.run(["/bin/true"], directory=place)
        assert refused.value.code == "directory-impossible"

    def test_only_three_descriptors_reach_a_container(self, image: Path, sandboxes: SandboxRegistry) -> None:
        leak = os.open("/", os.O_RDONLY)
        os.set_inheritable(leak, True)
        try:
            entry = ImageConfig("amd64", 0, entrypoint=("/bin/ls", "/proc/self/fd"), user="root")
            with launch(entry, [image], Limits(), sandboxes=sandboxes, name="fds") as instance:
                assert instance.wait(20) == 0
                instance.kill()
                # The fourth is the folder that ls itself reads.
                assert instance.log.split() == [b"0", b"1", b"2", b"3"]
        finally:
            os.close(leak)


class TestOddImages:
    @pytest.mark.parametrize("path", ["dev", "proc", "tmp", "run", "etc"])
    def test_a_link_where_something_is_mounted_is_refused(
        self, image: Path, sandboxes: SandboxRegistry, tmp_path: Path, path: str
    ) -> None:
        layer, victim = tmp_path / "layer", tmp_path / "victim"
        layer.mkdir()
        victim.mkdir()
        (layer / path).symlink_to(victim)
        entry = ImageConfig("amd64", 0, entrypoint=("/bin/true",))
        with (
            pytest.raises(RelbuildError) as raised,
            launch(entry, [image, layer], Limits(), sandboxes=sandboxes, name="links"),
        ):
            pytest.fail("it was launched")
        assert raised.value.code == "mount-point-odd"
        assert list(victim.iterdir()) == []

    @pytest.mark.parametrize("path", ["sys", "etc/resolv.conf", "etc/hosts", "etc/hostname", "dev/shm", "dev/pts"])
    def test_a_link_where_nothing_is_mounted_over_it_leads_nowhere_outside(
        self, image: Path, sandboxes: SandboxRegistry, tmp_path: Path, path: str
    ) -> None:
        layer, victim = tmp_path / "layer", tmp_path / "victim"
        victim.mkdir()
        (victim / "file").write_text("the machine's\n")
        (layer / path).parent.mkdir(parents=True, exist_ok=True)
        (layer / path).symlink_to(victim / "file" if path.startswith("etc") else victim)
        command = f"cat /{path} /{path}/file; echo x > /{path}; mkdir /{path}/made; echo done"
        entry = ImageConfig("amd64", 0, entrypoint=("/bin/sh", "-c", command), user="root")
        with launch(entry, [image, layer], Limits(), sandboxes=sandboxes, name="links") as instance:
            assert instance.wait(20) is not None
            instance.kill()  # Waits for the rest of its output.
            assert b"the machine's" not in instance.log
            assert b"done" in instance.log
        with build_session([image, layer], sandboxes=sandboxes) as session:
            assert b"the machine's" not in session.run(["/bin/sh", "-c", command]).stdout
        assert [file.name for file in victim.iterdir()] == ["file"]
        assert (victim / "file").read_text() == "the machine's\n"


def test_unpacked_trees_and_state_are_closed_to_others(sandboxes: SandboxRegistry) -> None:
    with build_session([], sandboxes=sandboxes) as session:
        for folder in (sandboxes.state, sandboxes.state / "live", session.slot.folder):
            status = folder.stat()
            assert (status.st_mode & 0o7777, status.st_uid) == (0o700, 0), folder
