"""A machine of a CI in tests: a project on a server of its own, and what runs the steps of its files there."""

from __future__ import annotations

import compileall
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from py_compile import PycInvalidationMode
from xml.etree import ElementTree

from tests.support import ci_files
from tests.support.cheap_keys import write_cheap_key
from tests.support.ci_files import (
    WORKFLOWS,
    Step,
    workflow_steps,
)
from tests.support.sites import PASSWORD
from tests.system.conftest import ROOT

BIN = Path(sys.executable).parent
RECIPE = """
name: {name}
version: "{version}"
platform: small
layers:
  - {{name: base, packages: [small-base]}}
  - {{name: product, packages: [small]}}
files:
  - {{content: "{version}", path: /etc/version}}
image:
  entrypoint: [/usr/bin/busybox, sh, -c, "trap 'exit 0' TERM; echo up; while :; do sleep 1; done & wait"]
smoke:
  ready: {{log: up, within: 20s}}
  checks: [{{name: is what it says, file: {{path: /etc/version, text: "{expected}"}}}}]
"""


_APT = """#!/bin/sh
# The packages have to exist; this machine is left as it is.
[ "$1" = update ] || exec /usr/bin/apt-get --simulate "$@"
"""


_GH = """#!/bin/sh
for word in "$@"; do printf '%s\\n' "$word"; done >>"$GH_TOLD"
"""


@dataclass(frozen=True, slots=True)
class CiMachine:
    """A project with a catalogue, on a server (`origin`, a bare repository), and what a CI machine has: `home`, with
    the virtual environments that a cache would bring, and `bin` before everything else in PATH. `compiled`: relbuild's
    code with its bytecode, which each clone is given, so that not each compiles it again.
    """

    folder: Path
    origin: Path
    home: Path
    compiled: Path
    key: str
    environment: Mapping[str, str] = field(default_factory=dict)

    def clone(self, name: str, branch: str = "main") -> Path:
        """A fresh clone."""
        target = self.folder / name
        argv = ["git", "clone", "--quiet", "--branch", branch, self.origin.as_uri(), target]
        subprocess.run(argv, check=True)
        for bytecode in self.compiled.rglob("__pycache__"):
            shutil.copytree(bytecode, target / "pipeline" / bytecode.relative_to(self.compiled))
        return target

    def push(self, branch: str, files: Mapping[str, str]) -> None:
        """A commit with files, on a branch that begins at main."""
        work = self.clone(f"work-{branch}")
        git_in(work, "checkout", "--quiet", "-B", branch)
        for name, text in files.items():
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            (work / name).write_text(text)
        git_in(work, "add", "--all")
        git_in(work, "commit", "--quiet", "-m", "change")
        git_in(work, "push", "--quiet", "--force", "origin", branch)

    def run(self, step: Step, at: Path, **more: str) -> subprocess.CompletedProcess[str]:
        """A step, as a CI's runner would."""
        return ci_files.run(step, at, {**self.environment, "HOME": str(self.home), **more})

    def all(self, steps: list[Step], at: Path, **more: str) -> list[subprocess.CompletedProcess[str]]:
        """Steps in order, until one fails; those that are run `always()` are run all the same."""
        done: list[subprocess.CompletedProcess[str]] = []
        for step in steps:
            if step.condition == "always()" or all(one.returncode == 0 for one in done):
                assert step.condition in ("", "always()"), step
                done.append(self.run(step, at, **more))
        return done

    def locks(self) -> dict[str, str] | None:
        """What the branch with locks has other than main: path → how git shows the change; None: there is none."""
        if git_in(self.origin, "branch", "--list", "relbuild/locks") == "":
            return None
        lines = git_in(self.origin, "diff", "--name-status", "main", "relbuild/locks").splitlines()
        return {path: how for how, path in (line.split("\t") for line in lines)}

    @property
    def mirror(self) -> Path:
        return self.folder / "mirror"

    def published(self) -> set[str]:
        """The products on the mirror."""
        machine = self.mirror / "repositories"
        return {path.name for path in machine.iterdir() if (path / "_tags").is_dir()} if machine.exists() else set()


def git_in(at: Path, *words: str) -> str:
    argv = ["git", "-c", "user.name=Somebody", "-c", "user.email=s@example.invalid", "-C", at, *words]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def cases(path: Path) -> dict[str, list[str]]:
    """Of a JUnit file: name of each case → what is in it (`failure`, …)."""
    root = ElementTree.parse(path).getroot()
    return {f"{case.get('classname')} {case.get('name')}": [one.tag for one in case] for case in root.iter("testcase")}


def nowhere(secrets: tuple[str, ...], *folders: Path) -> None:
    """None of some texts is in any file."""
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                data = path.read_bytes()
                assert not any(secret.encode() in data for secret in secrets), path


def github(machine: CiMachine, at: Path, **more: str) -> dict[str, str]:
    """What GitHub sets for a job in a clone, and where it reads what steps say."""
    machine.folder.joinpath("summary").touch()
    return {
        "GITHUB_ACTIONS": "true",
        "GITHUB_WORKSPACE": str(at),
        "GITHUB_STEP_SUMMARY": str(machine.folder / "summary"),
        "GITHUB_OUTPUT": str(machine.folder / "output"),
        "GITHUB_REF_NAME": "main",
        **more,
    }


def expressions(machine: CiMachine) -> dict[str, str]:
    """What a project's owner has set up."""
    return {
        "vars.RELBUILD_TO": f"dir:{machine.mirror}",
        "secrets.RELBUILD_KEY": machine.key.rstrip("\n"),
        "secrets.RELBUILD_KEY_PASSWORD": PASSWORD,
        "secrets.RELBUILD_STORE_KEY": "store-secret-" * 4,
        "secrets.RELBUILD_REGISTRY_AUTH": '{"auths": {"registry.example.com": {"auth": "bm9ib2R5OnNlY3JldC13b3Jk"}}}',
        "github.token": "of-a-test",
    }


def github_night(machine: CiMachine, name: str) -> list[subprocess.CompletedProcess[str]]:
    """The job `nightly` in a clone of that name."""
    at = machine.clone(name)
    steps = workflow_steps(WORKFLOWS[0], "nightly", expressions(machine))
    return machine.all(steps, at, **github(machine, at))


def github_locks(machine: CiMachine, name: str, results: Path) -> list[subprocess.CompletedProcess[str]]:
    """The job `locks` in a clone of that name, with what the other job left."""
    at = machine.clone(name)
    shutil.copytree(results, at / "results")
    (machine.folder / "output").write_text("")
    push, request = workflow_steps(WORKFLOWS[0], "locks", expressions(machine))
    environment = github(machine, at)
    done = [machine.run(push, at, **environment)]
    assert (push.id, request.condition) == ("locks", "steps.locks.outputs.pushed == 'true'")
    if "pushed=true" in (machine.folder / "output").read_text().splitlines():
        done.append(machine.run(request, at, **environment))
    return done


def commit_project(folder: Path, packages: Path) -> Path:
    """This project as it stands, with a catalogue of two products, committed to a bare repository in a folder."""
    work = folder / "work"
    work.mkdir()
    listed = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in listed.split("\0"):
        if name and not name.startswith("tests/") and (ROOT / name).is_file():
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, work / name)
    catalogue = work / "catalogue"
    catalogue.mkdir()
    shutil.copy(packages / "repositories.yaml", catalogue)
    for name in ("alpha", "beta"):
        (catalogue / f"{name}.yaml").write_text(RECIPE.format(name=name, version="1", expected="1"))
    git_in(work, "init", "--quiet", "--initial-branch", "main")
    git_in(work, "add", "--all")
    git_in(work, "commit", "--quiet", "-m", "all")
    # By the hash of the source, which is the same in each clone: the times of its files are not.
    compileall.compile_dir(work / "pipeline", quiet=1, invalidation_mode=PycInvalidationMode.CHECKED_HASH)
    origin = folder / "origin.git"
    subprocess.run(["git", "clone", "--quiet", "--bare", work, origin], check=True)
    return origin


def ci_machine(folder: Path, project: Path) -> CiMachine:
    """A CI machine in a folder, with a copy of the project on a server of its own."""
    origin = folder / "origin.git"
    shutil.copytree(project, origin)
    git_in(origin, "config", "receive.advertisePushOptions", "true")
    home = folder / "home"
    (home / ".cache" / "relbuild").mkdir(parents=True)
    (home / ".cache" / "relbuild" / "venv").symlink_to(BIN.parents[1])
    tools = folder / "bin"
    tools.mkdir()
    for name, text in (("apt-get", _APT), ("gh", _GH)):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    write_cheap_key(folder, "release", PASSWORD)
    environment = {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "RELBUILD_RECIPES": "catalogue",
        "GH_TOLD": str(folder / "gh"),
        "CI": "true",
    }
    return CiMachine(
        folder, origin, home, project.parent / "work" / "pipeline", (folder / "release.key").read_text(), environment
    )
