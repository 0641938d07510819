"""Sessions in which commands of relbuild are executed: on the machine with fewer rights, or in a container."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from stage import Place, Stage

_LONGEST = 1800
"""Seconds for one command, which takes half a minute on two quiet cores."""

LIMITS = ("--ulimit", "nofile=20000:20000", "--ulimit", "nproc=4096:4096")
"""Where podman itself is in a container, it may not raise limits to its own defaults."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a command: its exit status, its JSON, and the code and hint of its error."""

    status: int
    answer: object
    code: str = ""
    hint: str = ""
    text: str = ""


class Session(Protocol):
    """An environment in which commands of relbuild are executed."""

    def relbuild(self, *words: str, variables: Mapping[str, str] | None = None) -> Outcome:
        """Execute a command with `--json`, in the folder `work`."""
        ...


@dataclass(frozen=True, slots=True)
class OnMachine:
    """The machine's own programs, behind `wrapper`, a command that gives up rights."""

    stage: Stage
    place: Place
    wrapper: Sequence[str | Path] = ()
    extra: Mapping[str, str] | None = None

    def relbuild(self, *words: str, variables: Mapping[str, str] | None = None) -> Outcome:
        """As `Session` says."""
        environment = {**self.stage.variables(self.place), **(self.extra or {}), **(variables or {})}
        given = [f"{name}={value}" for name, value in environment.items()]
        program = ("env", "-i", f"--chdir={self.place.work}", *given, "/usr/bin/python3", "-m", "pipeline")
        return execute(self.stage.enter(*self.wrapper, *program, *words, "--json"))


@dataclass(frozen=True, slots=True)
class InContainer:
    """A container that waits; `podman` is a command line, `program` relbuild in it."""

    podman: Sequence[str]
    name: str
    program: Sequence[str]
    work: str

    def relbuild(self, *words: str, variables: Mapping[str, str] | None = None) -> Outcome:
        """As `Session` says."""
        given = [word for name, value in (variables or {}).items() for word in ("--env", f"{name}={value}")]
        command = [*self.podman, "exec", "--workdir", self.work, *given, self.name, *self.program, *words, "--json"]
        return execute(command)


@contextlib.contextmanager
def container(podman: Sequence[str], name: str, options: Sequence[str], image: Sequence[str]) -> Iterator[None]:
    """Start a container in the background, and remove it in the end."""
    try:
        _call([*podman, "run", "--detach", "--name", name, "--network", "none", *LIMITS, *options, *image])
        yield
    finally:
        # One that is still there ends with the namespace (`supervised`), but its storage is removed before.
        for words in (("rm", "--all", "--force", "--time", "1"), ("rmi", "--all", "--force")):
            ended = subprocess.run([*podman, *words], capture_output=True, text=True, check=False)
            if ended.returncode:
                print(f"podman {words[0]} failed: {ended.stderr[-600:]}", file=sys.stderr, flush=True)


def podman_command(storage: Path) -> list[str]:
    """Return podman's command line with a storage of its own."""
    where = ("--root", str(storage / "root"), "--runroot", str(storage / "run"), "--storage-driver", "vfs")
    return ["podman", *where, "--runtime", "runc", "--cgroup-manager", "cgroupfs"]


def execute(command: Sequence[str]) -> Outcome:
    """Execute a command of relbuild and read what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=_LONGEST, check=False)
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        return Outcome(done.returncode, None, text=(done.stderr or done.stdout)[-600:])
    problems = answer.get("error") if isinstance(answer, dict) else None
    if not isinstance(problems, list) or not problems:
        return Outcome(done.returncode, answer, text=done.stderr[-600:])
    return Outcome(
        done.returncode, answer, str(problems[0]["code"]), str(problems[0].get("hint", "")), done.stderr[-600:]
    )


def _call(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_LONGEST, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
