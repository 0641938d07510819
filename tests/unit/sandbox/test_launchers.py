"""Launchers by a container engine: their command lines, what they refuse, and what they leave unenforced."""

from __future__ import annotations

import contextlib
import resource
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline import process
from pipeline.errors import EnvironmentLacking, RelbuildError, UsageError
from pipeline.model.checks import CheckKind
from pipeline.model.checks.http_check import HttpRequest
from pipeline.model.enforcement import enforcement, unenforced
from pipeline.model.limit import LimitReading
from pipeline.model.limits import LIMITS, Limits
from pipeline.model.smoke import Check, Neighbours, SmokePlan, Variant
from pipeline.oci import make_image
from pipeline.sandbox.cgroups import Cgroup, Hierarchies
from pipeline.sandbox.launchers import engine_launcher
from pipeline.sandbox.launchers.container_engine import ENFORCED, UNENFORCED, ContainerEngine, ContainerStart
from pipeline.sandbox.launchers.docker import Docker
from pipeline.sandbox.launchers.engine_cgroup import engine_cgroup
from pipeline.sandbox.launchers.engine_instance import ISOLATION, EngineInstance
from pipeline.sandbox.launchers.engine_launcher import (
    ASKED_FROM_OUTSIDE,
    EngineLauncher,
    require_launchable,
    require_same_image,
)
from pipeline.sandbox.launchers.launcher_kinds import LAUNCHER_KINDS, parse_kubernetes, parse_launcher
from pipeline.sandbox.launchers.launcher_options import require_no_secrets, shown_options
from pipeline.sandbox.launchers.podman import Podman
from pipeline.sandbox.launchers.runsc import Runsc
from pipeline.sandbox.removals import RemovalCommand, run_removals, write_removals
from pipeline.sandbox.runtime import Runtime
from pipeline.sandbox.sandbox_registry import SandboxSlot, open_sandbox_registry
from tests.support.tested_images import report
from tests.support.tiny_image import CONFIG

PODMAN = Podman(("podman", "--cgroup-manager", "cgroupfs"), "4.3.1")
DOCKER = Docker(("docker",), "27.1")
RUNSC = Runsc(("docker",), "27.1")

IMAGE = "sha256:" + "a" * 64
LIMITED = Limits(milli_cpus=500, memory=64 << 20, pids=50, open_files=100, tmpfs=1 << 20, bandwidth=1000)


@pytest.fixture(autouse=True)
def unlimited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (1, resource.RLIM_INFINITY))
    monkeypatch.setattr("os.fchown", lambda *_: None)  # Without root, pipes stay their maker's.


def start(limits: Limits = LIMITED, **more: object) -> ContainerStart:
    values = {"hostname": "redis-1", "image": IMAGE, "limits": limits, "seccomp": Path("/s/seccomp.json"), **more}
    return ContainerStart("mark-redis-1-ab", **values)  # type: ignore[arg-type]


def test_every_limit_is_an_option_or_is_said_to_be_unenforced() -> None:
    assert set(ENFORCED).isdisjoint(UNENFORCED)
    assert {*ENFORCED, *UNENFORCED} == {limit.name for limit in LIMITS}


LIMIT_OPTIONS = [
    *("--cpus", "0.5", "--memory", "67108864b", "--memory-swap", "67108864b", "--pids-limit", "50"),
    *("--ulimit", "nofile=100:100", "--ulimit", "nproc=4096:4096", "--ulimit", "core=0:0", "--shm-size", "1048576b"),
    *("--tmpfs", "/tmp:rw,size=1048576,mode=1777", "--tmpfs", "/run:rw,size=1048576,mode=1777"),
]


def test_podman_is_called_with_all_limits_mounts_and_the_user() -> None:
    given = start(user="10001:0", volumes={"/data": "v-0", "/a": "v-1"})
    assert PODMAN.run(given) == [
        *("podman", "--cgroup-manager", "cgroupfs", "run", "--pull", "never"),
        *(
            "--name",
            "mark-redis-1-ab",
            "--hostname",
            "redis-1",
            "--log-driver",
            "none",
            "--network",
            "none",
            "--read-only",
        ),
        *("--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--security-opt", "seccomp=/s/seccomp.json"),
        *("--sysctl", "net.ipv4.ip_unprivileged_port_start=0", "--read-only-tmpfs=false"),
        *LIMIT_OPTIONS,
        *("--mount", "type=volume,source=v-1,destination=/a", "--mount", "type=volume,source=v-0,destination=/data"),
        *("--user", "10001:0", IMAGE),
    ]


def test_docker_and_runsc_are_called_the_same_way_but_for_their_own() -> None:
    common = ["--security-opt", "seccomp=/s/seccomp.json", "--sysctl", "net.ipv4.ip_unprivileged_port_start=0"]
    names = ["run", "--pull", "never", "--name", "mark-redis-1-ab", "--hostname", "redis-1", "--log-driver", "none"]
    alone = ["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", *common]
    assert DOCKER.run(start()) == ["docker", *names, "--network", "none", *alone, *LIMIT_OPTIONS, IMAGE]
    published = ["--publish", "127.0.0.1::80", "--publish", "127.0.0.1::443"]
    expected = ["docker", *names, *published, *alone, "--runtime", "runsc", *LIMIT_OPTIONS, IMAGE]
    assert RUNSC.run(start(ports=(80, 443))) == expected


def test_without_limits_processes_and_files_are_bounded_all_the_same() -> None:
    line = PODMAN.run(start(Limits()))
    assert "--cpus" not in line and "--memory" not in line
    assert line[line.index("--pids-limit") + 1] == "4096" and "nofile=65536:65536" in line


def test_no_limit_of_files_and_processes_is_asked_for_that_this_process_may_not_give(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (1, 1024))
    line = PODMAN.run(start(Limits()))
    assert "nofile=1024:1024" in line and "nproc=1024:1024" in line


def test_the_other_commands_of_engines() -> None:
    call = ("docker",)
    assert DOCKER.execute("c", ("id", "-u"), "27", {"A": "b"}) == [
        *(*call, "exec", "--interactive", "--user", "27", "--env", "A=b", "c", "id", "-u")
    ]
    assert DOCKER.signal("c", 15) == [*call, "kill", "--signal", "15", "c"]
    assert DOCKER.remove("c") == [*call, "rm", "--force", "--volumes", "c"]
    assert DOCKER.remove_volume("v") == [*call, "volume", "rm", "--force", "v"]
    assert DOCKER.inspect_volume("v") == [*call, "volume", "inspect", "v"]
    assert DOCKER.remove_image("i:latest") == [*call, "rmi", "i:latest"]
    assert DOCKER.published("c", 80) == [*call, "port", "c", "80/tcp"]
    assert DOCKER.load(Path("/s/i")) == [*call, "load", "--quiet", "--input", "i"]
    assert DOCKER.inspect("c")[1:] == [
        "inspect",
        "--type",
        "container",
        "--format",
        "{{.State.Pid}} {{.Image}} {{.Id}}",
        "c",
    ]
    assert DOCKER.inspect_image("i")[1:] == ["image", "inspect", "--format", "{{.Id}}", "i"]
    assert PODMAN.inspect_image("i")[-2:] == ["{{.Id}} {{.Digest}}", "i"]
    assert (PODMAN.loaded_name("i"), DOCKER.loaded_name("i")) == ("localhost/i:latest", "i:latest")
    assert PODMAN.load(Path("/s/i")) == [*PODMAN.command, "load", "--quiet", "--input", "i"]


def test_only_podman_is_proved() -> None:
    assert [name for name, kind in LAUNCHER_KINDS.items() if kind.proved] == ["podman"]


# --- the value of --launcher -------------------------------------------------------------------------------


def test_a_launcher_is_named_by_its_kind_or_program_with_options(tmp_path: Path) -> None:
    program = tmp_path / "podman"
    info = 'case "$*" in *" info "*) echo crun crun version 1.17; echo commit: 1;; *) echo podman version 5.2.1;; esac'
    program.write_text(f"#!/bin/sh\n{info}\n")
    program.chmod(0o755)
    engine = parse_launcher(f"{program} --root '/a b'")
    assert isinstance(engine, Podman) and engine.command == (str(program), "--root", "/a b")
    assert str(engine) == "podman 5.2.1 (crun 1.17) --root '/a b'" and engine.identified
    with contextlib.chdir(tmp_path):
        assert parse_launcher("./podman").command == (str(program),)


def test_a_runtime_that_an_engine_does_not_tell_is_not_identified() -> None:
    assert not PODMAN.identified and not DOCKER.identified and RUNSC.identified
    assert replace(DOCKER, runtime="runc").identified and DOCKER.runtime_question()[-1] == "{{.DefaultRuntime}}"
    assert str(PODMAN) == "podman 4.3.1 --cgroup-manager cgroupfs"


def test_options_are_shown_on_one_line_and_bounded() -> None:
    first, second = (shown_options(["--root", "/a\n\x1b" + "b" * 2000 + end]) for end in "xy")
    assert first.startswith("--root '/a??bbb") and len(first) < 350 and first != second


def test_runsc_is_launched_by_docker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "find_program", lambda program: None)
    with pytest.raises(EnvironmentLacking) as refused:
        parse_launcher("runsc")
    assert refused.value.problems[0].code == "launcher-missing" and "'docker'" in refused.value.problems[0].message


@pytest.mark.parametrize("text", ["lxc", "", "'", "/usr/bin/nerdctl"])
def test_an_unknown_launcher_is_refused_with_the_known_ones(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_launcher(text)
    assert refused.value.problems[0].code == "launcher-unknown"
    assert "podman, docker, runsc" in refused.value.problems[0].hint


@pytest.mark.parametrize("text", ["podman --token='abc", "lxc --token 'abc", "podman='abc", "'abc", "podman\\"])
def test_a_launcher_with_a_quote_that_is_not_closed_is_shown_without_its_options(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_launcher(text)
    assert refused.value.code == "launcher-unknown" and "abc" not in str(refused.value)
    assert "a quote is not closed" in str(refused.value)


@pytest.mark.parametrize(
    "options",
    ["--token abc", "--token=abc", "--registry-password abc", "--url ssh://me:abc@host/s", "--Client-Secret=abc"],
)
@pytest.mark.parametrize("kind", ["podman", "kubernetes:r.example/a"])
def test_a_secret_among_a_launchers_options_is_refused_and_not_repeated(kind: str, options: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_kubernetes(f"{kind} {options}", {}) or parse_launcher(f"{kind} {options}")
    assert refused.value.code == "launcher-secret" and "abc" not in str(refused.value)


def test_options_that_name_files_and_users_are_no_secrets() -> None:
    require_no_secrets(["--token-file", "/t", "--kubeconfig", "/k", "--url=ssh://me@host:22/s", "--tlskey", "/y"])


# --- what is refused before anything is launched -------------------------------------------------------------


def lacking(engine: ContainerEngine, plan: SmokePlan) -> str:
    with pytest.raises(UsageError) as refused:
        require_launchable(engine, plan)
    (problem,) = refused.value.problems
    assert problem.code == "launcher-lacks" and "--launcher" in problem.hint
    return problem.message


def check(kind: CheckKind, **more: object) -> Check:
    return Check("mine", kind, 1, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", list(CheckKind), ids=str)
def test_an_engine_in_sight_can_ask_all_kinds_and_another_refuses_by_name(kind: CheckKind) -> None:
    plan = SmokePlan(None, (check(kind),))
    require_launchable(PODMAN, plan)
    if str(kind) in ASKED_FROM_OUTSIDE:
        require_launchable(RUNSC, plan)
    else:
        assert f"the check 'mine' ({kind}) cannot be done by the launcher runsc" in lacking(RUNSC, plan)


def test_a_socket_in_the_image_and_its_authorities_are_out_of_sight_of_some() -> None:
    for asked in (HttpRequest(socket="/run/a"), HttpRequest(port=1, tls=True, trust="/etc/ca.pem")):
        assert "'mine'" in lacking(RUNSC, SmokePlan(check(CheckKind.HTTP, subject=asked)))
    require_launchable(RUNSC, SmokePlan(check(CheckKind.HTTP, subject=HttpRequest(port=1))))


def test_neighbours_and_the_read_only_variant_need_the_own_sandbox() -> None:
    assert "'smoke.neighbours'" in lacking(PODMAN, SmokePlan(neighbours=Neighbours()))
    assert "read-only" in lacking(PODMAN, SmokePlan(variants=(Variant.READ_ONLY,)))
    require_launchable(PODMAN, SmokePlan(variants=(Variant.ARBITRARY_UID,)))


# --- the same image ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("told", [["b" * 64], ["sha256:" + "b" * 64, IMAGE], ["a" * 64, "sha256:" + "c" * 64], []])
def test_another_image_than_the_tested_one_is_refused(told: list[str]) -> None:
    with pytest.raises(Exception, match="image") as refused:
        require_same_image(["a" * 64, "b" * 64], told, PODMAN)
    assert refused.value.problems[0].code == "launcher-image"  # type: ignore[attr-defined]


def test_the_same_image_is_known_by_one_digest_or_both() -> None:
    for told in (["a" * 64], [IMAGE], [IMAGE, "sha256:" + "b" * 64]):
        require_same_image(["a" * 64, "b" * 64], told, PODMAN)


# --- what runs -----------------------------------------------------------------------------------------------


class Slots:
    """A registry whose slots are folders, without root."""

    hierarchies = Hierarchies({})

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextlib.contextmanager
    def slot(self, label: str) -> Iterator[SandboxSlot]:
        folder = self.folder / label
        folder.mkdir(exist_ok=True)
        yield SandboxSlot(label, folder, Cgroup(self.hierarchies, label, folder), 0, 0)


def launched_by(script: str, folder: Path) -> EngineInstance:
    """Launch an image by a program that answers as Podman, and return the instance."""
    image = make_image("tiny", "1.0", CONFIG, ())
    program = folder / "podman"
    config = image.config_descriptor.digest.hex
    program.write_text(f"#!/bin/sh\nconfig={config} manifest={image.digest.hex}\ncase $1 in\n{script}\nesac\n")
    program.chmod(0o755)
    launcher = EngineLauncher(
        Podman((str(program),)),
        Slots(folder),  # type: ignore[arg-type]
        lambda image, target, form: target.mkdir(),
    )
    with launcher.opened(), launcher.launch(image, (), Limits(), name="one", user="", volumes=None) as instance:
        return instance


ENDED = f"image) echo $config;; run) exit 0;; inspect) echo 0 $config {'c' * 64};; load|kill) ;;"
RUNNING = "image) echo $config sha256:$manifest;; run) exec sleep 600;; load|kill) ;;"


@pytest.mark.parametrize(
    ("container", "code"),
    [
        (f"echo 1 {'b' * 64} {'c' * 64}", "launcher-image"),
        # Process 1 is of this machine, and of no such container.
        (f"echo 1 $config {'c' * 64}", "launcher-elsewhere"),
    ],
)
def test_what_is_not_the_container_of_the_image_on_this_machine_is_refused_and_its_client_ended(
    container: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_launcher, "_END_SEEN", 0.1)
    with pytest.raises(RelbuildError) as refused:
        launched_by(f"{RUNNING} inspect) {container};;", tmp_path)
    assert refused.value.code == code
    assert [path for path in Path("/proc").glob("[0-9]*/cwd") if is_link_to(path, tmp_path / "one")] == []


def test_an_engine_that_cannot_load_is_at_fault_and_not_the_image(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentLacking) as refused:
        launched_by("load) echo no space >&2; exit 125;;", tmp_path)
    assert refused.value.code == "launcher-failed" and "no space" in str(refused.value)


def is_link_to(path: Path, target: Path) -> bool:
    with contextlib.suppress(OSError):
        return path.readlink() == target
    return False


def test_of_a_command_that_floods_a_bound_is_kept(tmp_path: Path) -> None:
    done = launched_by(f"{ENDED} exec) head -c 3000000 /dev/zero;;", tmp_path).execute(("flood",))
    assert (done.status, len(done.stdout), done.dropped) == (0, 1 << 20, 3_000_000 - (1 << 20))


def test_a_comma_in_an_images_volume_begins_no_other_option() -> None:
    line = PODMAN.run(start(volumes={'/x,type=bind,source=/,"y"': "v-0"}))
    assert line[line.index("--mount") + 1] == 'type=volume,source=v-0,"destination=/x,type=bind,source=/,""y"""'


# --- limits and usage ----------------------------------------------------------------------------------------


def test_what_a_launcher_lacks_reads_as_unenforced_so_that_a_rule_can_refuse_it() -> None:
    reading = LimitReading(ISOLATION, 1, 0, False, PODMAN.not_isolated)
    whole = report(make_image("tiny", "1.0", CONFIG, ()))
    found = enforcement(replace(whole, instances=(replace(whole.instances[0], limits=(reading,)),)))
    assert unenforced(["isolation*"], found) == (f"isolation ({PODMAN.not_isolated})",)


def test_a_group_is_found_by_the_first_process(tmp_path: Path) -> None:
    for name in ("memory", "cpu"):
        (tmp_path / name / "pod/x").mkdir(parents=True)
        (tmp_path / name / "pod/x/cgroup.procs").write_text("7\n8\n")
    (tmp_path / "memory/pod/x/memory.limit_in_bytes").write_text("4096\n")
    v1 = Hierarchies({name: tmp_path / name for name in ("memory", "cpu", "cpuacct")} | {"cpuacct": tmp_path / "cpu"})
    group = engine_cgroup("x", "5:memory:/pod/x\n3:cpu,cpuacct:/pod/x\n0::/pod/x\n", v1)
    assert group.number("memory", "memory.limit_in_bytes") == 4096 and group.processes() == {7, 8}
    ended = engine_cgroup("x", "5:memory:/\n3:cpu,cpuacct:/\n0::/\n", v1)
    assert ended.folders == {} and ended.usage().peak_memory is None and ended.usage().cpu_time is None
    v2 = engine_cgroup("x", "0::/pod/x\n", Hierarchies({}, tmp_path / "memory"))
    assert v2.folder("memory") == v2.folder("cpu") == tmp_path / "memory/pod/x"


def test_what_an_engine_out_of_sight_was_told_reads_as_unenforced(tmp_path: Path) -> None:
    instance = launched_by(ENDED, tmp_path)
    instance.engine = RUNSC
    found = {one.name: one.enforced for one in instance.readings()}
    assert found["tmpfs"] is False and not any(found.values())


# --- removal -------------------------------------------------------------------------------------------------


def test_what_was_recorded_is_removed_and_a_client_that_still_starts_it_is_ended(tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.touch()
    write_removals(tmp_path, RemovalCommand(["rm", str(made)], ["test", "-e", str(made)]))
    program = "import sys; print('up', flush=True); sys.stdin.read()"
    words = [sys.executable, "-c", program, f"seccomp={tmp_path}/seccomp.json"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None and client.stdout.readline() == b"up\n"
        run_removals(tmp_path)
        assert client.wait(30) == -9 and not made.exists()
    run_removals(tmp_path)


def test_a_client_that_still_loads_is_ended(tmp_path: Path) -> None:
    folder = tmp_path / "mark-image-ab"
    (folder / folder.name).mkdir(parents=True)
    write_removals(folder, RemovalCommand(["true"], ["false"]))
    program = "import sys; print('up', flush=True); sys.stdin.read()"
    words = [sys.executable, "-c", program, "load", "--input", folder.name]
    with subprocess.Popen(words, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None and client.stdout.readline() == b"up\n"
        run_removals(folder)
        assert client.wait(30) == -9


def test_commands_that_another_user_wrote_are_not_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = tmp_path / "made"
    made.touch()
    write_removals(tmp_path, RemovalCommand(["rm", str(made)], ["true"]))
    monkeypatch.setattr("os.geteuid", lambda: 4711)
    with pytest.raises(EnvironmentLacking) as refused:
        run_removals(tmp_path)
    assert refused.value.code == "removal-failed" and made.exists()


def test_only_their_owner_reads_the_commands(tmp_path: Path) -> None:
    write_removals(tmp_path, RemovalCommand(["false"], ["false"]))
    assert (tmp_path / "removals.json").stat().st_mode & 0o777 == 0o600


DAMAGED = [b"", b"[[", b"\xff", b"null", b"[1]", b'[["rm"]]', b'[["rm", "x"]]', b"[[[], []]]", b"[" * 9999]


@pytest.mark.parametrize("damaged", DAMAGED)
def test_a_damaged_record_names_its_place_and_what_to_remove(damaged: bytes, tmp_path: Path) -> None:
    write_removals(tmp_path, RemovalCommand(["false"], ["false"]))
    path = tmp_path / "removals.json"
    path.write_bytes(damaged)
    with pytest.raises(EnvironmentLacking) as refused:
        run_removals(tmp_path)
    (problem,) = refused.value.problems
    assert (problem.code, problem.place) == ("removals-damaged", str(path)) and "podman ps --all" in problem.hint


def test_what_is_still_there_is_an_error_so_that_it_is_tried_again(tmp_path: Path) -> None:
    write_removals(tmp_path, RemovalCommand(["false"], ["true"]))
    with pytest.raises(EnvironmentLacking) as refused:
        run_removals(tmp_path)
    assert refused.value.problems[0].code == "removal-failed"


@pytest.mark.parametrize(
    ("program", "shown"),
    [(["sh"], "`sh … mark-1` failed"), (["env", "KUBECONFIG=abc", "sh"], "`sh … mark-1` failed")],
    ids=["podman", "kubectl"],
)
def test_a_command_that_failed_is_shown_without_its_options(program: list[str], shown: str, tmp_path: Path) -> None:
    remove = [*program, "-c", "exit 1", "--token", "abc", "mark-1"]
    write_removals(tmp_path, RemovalCommand(remove, ["true"]))
    with pytest.raises(EnvironmentLacking) as refused:
        run_removals(tmp_path)
    (problem,) = refused.value.problems
    assert shown in problem.message and "removals.json" in problem.hint and "abc" not in str(refused.value)


@pytest.mark.parametrize(
    ("record", "said"), [(b"[[", "damaged"), (b'[[["false"], ["true"]]]', "`false` failed")], ids=["damaged", "failing"]
)
def test_what_a_killed_relbuild_left_and_cannot_be_removed_is_told_with_its_place(
    record: bytes, said: str, tmp_path: Path
) -> None:
    folder = tmp_path / "live/mark-one-ab"
    folder.mkdir(parents=True)
    (folder / "removals.json").write_bytes(record)
    (tmp_path / "live/mark-one-ab.lock").touch()
    told: list[str] = []
    open_sandbox_registry(tmp_path, Runtime(Path("podman"), "podman", "4"), told.append)
    (text,) = told
    assert text.startswith(str(folder)) and said in text and "by hand" in text and folder.exists()


def test_a_sandbox_without_a_foreign_runtime_has_nothing_to_remove(tmp_path: Path) -> None:
    run_removals(tmp_path)
    assert list(tmp_path.iterdir()) == []
