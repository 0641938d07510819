"""Command lines of launchers by a container engine, and the value of --launcher."""

from __future__ import annotations

import contextlib
import resource
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline import process
from pipeline.errors import EnvironmentLacking, UsageError
from pipeline.model.limits import LIMITS, Limits
from pipeline.sandbox.launchers.container_engine import ENFORCED, UNENFORCED
from pipeline.sandbox.launchers.launcher_kinds import LAUNCHER_KINDS, parse_kubernetes, parse_launcher
from pipeline.sandbox.launchers.launcher_options import require_no_secrets, shown_options
from pipeline.sandbox.launchers.podman import Podman
from tests.support.engine_starts import DOCKER, IMAGE, PODMAN, RUNSC, start

pytestmark = pytest.mark.usefixtures("unlimited")


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
