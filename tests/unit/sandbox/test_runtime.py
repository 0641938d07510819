"""The OCI runtime that is found, and what it says of itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import EnvironmentLacking
from pipeline.sandbox.runtime import find_runtime, not_started


def runtime(tmp_path: Path, script: str) -> str:
    program = tmp_path / "runtime"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return str(program)


def test_a_runtime_tells_its_name_and_version(tmp_path: Path) -> None:
    found = find_runtime(runtime(tmp_path, "echo 'crun version 1.14.1+x'; exit 1"))
    assert (found.name, found.version) == ("crun", "1.14.1")


@pytest.mark.parametrize(
    ("script", "code", "said"),
    [
        ("echo 'fatal error: out of address space' >&2; exit 2", "runtime-failed", "out of address space"),
        ("exit 3", "runtime-failed", "status 3: it printed nothing"),
        ("echo something else", "runtime-unknown", "something else"),
        (":", "runtime-unknown", "printed ''"),
    ],
)
def test_what_is_no_runtime_is_told_by_what_it_says(tmp_path: Path, script: str, code: str, said: str) -> None:
    with pytest.raises(EnvironmentLacking, match=said) as refused:
        find_runtime(runtime(tmp_path, script))
    assert refused.value.code == code


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        (
            "runc create failed: unable to start container process: unable to apply cgroup configuration: "
            "mkdir /sys/fs/cgroup/memory/relbuild: read-only file system",
            "control group",
        ),
        ("creating cgroup directory `/sys/fs/cgroup/relbuild`: Permission denied", "control group"),
        ("the requested cgroup controller `pids` is not available", "control group"),
        ('unable to start container process: exec: "/cgroup": stat /cgroup: no such file or directory', "entrypoint"),
        ("executable file `/usr/bin/cgroupd` not found: No such file or directory", "entrypoint"),
        ("", "entrypoint"),
    ],
)
def test_the_way_out_is_that_of_what_the_runtime_was_refused(reason: str, said: str) -> None:
    error = not_started(reason)
    (problem,) = error.problems
    assert problem.code == "not-started" and reason in problem.message and said in (problem.hint or "")
