"""The kinds of foreign launchers, and how the value of `--launcher` names one."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pipeline import process
from pipeline.errors import EnvironmentLacking, UsageError
from pipeline.sandbox.launchers.container_engine import ContainerEngine
from pipeline.sandbox.launchers.docker import Docker
from pipeline.sandbox.launchers.engine_launcher import EngineLauncher, ImageExport
from pipeline.sandbox.launchers.kubectl import CLUSTER_QUESTION, Kubectl, with_variables
from pipeline.sandbox.launchers.kubernetes_launcher import ImagePush, KubernetesLauncher
from pipeline.sandbox.launchers.launcher import Launcher
from pipeline.sandbox.launchers.launcher_options import require_no_secrets
from pipeline.sandbox.launchers.podman import Podman
from pipeline.sandbox.launchers.runsc import Runsc
from pipeline.sandbox.runtime import Runtime
from pipeline.sandbox.sandbox_registry import SandboxRegistry, open_sandbox_registry
from pipeline.sandbox.traced.availability import container_obstacle
from pipeline.urls import shown_url

LAUNCHER_KINDS: Mapping[str, type[ContainerEngine]] = {kind.name: kind for kind in (Podman, Docker, Runsc)}

_PROGRAMS = {Runsc.name: Docker.name}
"""Programs that are called for kinds that are not called as these."""

_KUBECTL = "kubectl"
_KUBERNETES = ("kubernetes", _KUBECTL)

_PLACE = re.compile(r"(registry(\+http)?://)?[A-Za-z0-9.-]+(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+")
"""HOST/NAME of a repository, without tag and digest (distribution-spec 1.1), also as a mirror's address."""

_UID = re.compile(r"[\w-]{8,64}")
"""UIDs of objects are UUIDs (kubernetes.io/docs/concepts/overview/working-with-objects/names)."""

_END_OF_WORD = re.compile(r"[\s'\"\\=]")
"""Ends the first word of a value that cannot be split."""

_ANSWER_TIMEOUT = 10.0
"""Seconds for a program to print its version, or its runtime's."""

_CLUSTER_TIMEOUT = 30.0
"""Seconds for a cluster to tell its version."""


def parse_launcher(text: str) -> ContainerEngine:
    """Read the value of `--launcher`: a kind or its program's path, and global options of it.

    Raises UsageError `launcher-unknown`, `launcher-secret`, EnvironmentLacking `launcher-missing`.
    """
    try:
        program, *options = shlex.split(text) or [""]
        why = ""
    except ValueError:  # What follows the first word may be a secret.
        program, options, why = _END_OF_WORD.split(text, 1)[0], [], " (a quote is not closed)"
    kind = LAUNCHER_KINDS.get(Path(program).name)
    if kind is None or why:
        raise UsageError(
            "launcher-unknown",
            f"unknown launcher: '{shown_url(program)}'{why}",
            hint=f"use {', '.join(LAUNCHER_KINDS)} or kubernetes:HOST/NAME, with options of the program if it needs "
            "any, such as 'podman --cgroup-manager cgroupfs'; --runtime chooses the runtime of relbuild's own sandbox",
        )
    require_no_secrets(options)
    program = _PROGRAMS.get(kind.name, program)
    # Its commands are executed in other working directories, by the reaper too.
    command = (os.path.abspath(program) if "/" in program else program, *options)  # noqa: PTH100 - not resolved
    _require_program(command[0])
    told = _answer([command[0], "--version"])
    found = re.search(r"version (\S+?),?(\s|$)", told)
    engine = kind(command, found[1] if found else "of unknown version")
    question = engine.runtime_question()
    return replace(engine, runtime=_runtime(_answer(question))) if question else engine


def _answer(command: Sequence[str]) -> str:
    return process.run(command, timeout=_ANSWER_TIMEOUT, check=False).stdout.decode(errors="replace")


def _runtime(told: str) -> str:
    """Return name and version of an OCI runtime, as far as an engine has told them."""
    name = re.match(r"[\w.-]{1,64}", told)
    version = re.search(r" version (\S{1,64})", told)
    return " ".join(found for found in (name and name[0], version and version[1]) if found)


def parse_kubernetes(text: str, environment: Mapping[str, str]) -> tuple[Kubectl, str] | None:
    """Read the value of `--launcher` for a cluster.

    It is `kubernetes:HOST/NAME`, and global options of kubectl. HOST/NAME is the repository from which the cluster
    pulls; instead of `kubernetes` it may have kubectl's path. Returns kubectl and the repository's address, None for
    another launcher. Raises UsageError `launcher-place`, `launcher-secret`, EnvironmentLacking `launcher-missing`,
    `cluster-unreachable`.
    """
    try:
        word, *options = shlex.split(text)
    except ValueError:
        return None
    program, _, place = word.partition(":")
    if Path(program).name not in _KUBERNETES:
        return None
    if not _PLACE.fullmatch(place):
        raise UsageError(
            "launcher-place",
            f"'{shown_url(place)}' is not the name of a repository from which the cluster can pull",
            hint="write --launcher kubernetes:HOST/NAME, without tag and digest; relbuild pushes the image there",
        )
    require_no_secrets(options)
    program = _KUBECTL if program == _KUBERNETES[0] else program
    program = os.path.abspath(program) if "/" in program else program  # noqa: PTH100  not resolved; the reaper is in `/`
    _require_program(program)
    command = (*with_variables(program, environment), *options)
    told = process.run([*command, "version", "--output", "json"], timeout=_CLUSTER_TIMEOUT, check=False)
    try:
        version = json.loads(told.stdout)["serverVersion"]["gitVersion"]
    except (ValueError, LookupError, TypeError):
        said = told.stderr.decode(errors="replace").strip()[-1000:] or "no reason given"
        raise EnvironmentLacking(
            "cluster-unreachable",
            f"kubectl does not reach its cluster: {said}",
            hint="check `kubectl version`, KUBECONFIG, and the option --context behind --launcher's name",
        ) from None
    kubectl = Kubectl(command, str(version).removeprefix("v"), _cluster(command), tuple(options))
    return kubectl, place if "://" in place else f"registry://{place}"


def _cluster(command: Sequence[str]) -> str:
    """Return the uid of a cluster's kube-system namespace; "" if this account may not get it."""
    asked = process.run([*command, *CLUSTER_QUESTION], timeout=_CLUSTER_TIMEOUT, check=False)
    told = asked.stdout.decode(errors="replace").strip()
    return told if asked.status == 0 and _UID.fullmatch(told) else ""


def _require_program(program: str) -> None:
    if process.find_program(program) is None:
        raise EnvironmentLacking(
            "launcher-missing",
            f"the launcher's program '{program}' was not found in PATH",
            hint="install it, or leave out --launcher for relbuild's own sandbox",
        )


def open_launcher(
    text: str,
    state: Path,
    export: ImageExport,
    push: ImagePush,
    environment: Mapping[str, str],
    *,
    tell: Callable[[str], None],
) -> Launcher:
    """Open the launcher that `--launcher` names; `state` is the folder of sandboxes.

    `tell` is told of what a killed relbuild has left there and cannot be removed.

    Raises as `parse_launcher` and `parse_kubernetes`, and EnvironmentLacking `root-needed`.
    """
    cluster = parse_kubernetes(text, environment)
    if cluster is not None:
        kubectl, address = cluster
        sandboxes = _sandboxes(state, Runtime(Path(kubectl.command[0]), _KUBERNETES[0], kubectl.version), tell)
        return KubernetesLauncher(kubectl, address, sandboxes, push)
    engine = parse_launcher(text)
    sandboxes = _sandboxes(state, Runtime(Path(engine.command[0]), engine.name, engine.version), tell)
    return EngineLauncher(engine, sandboxes, export)


def _sandboxes(state: Path, launcher: Runtime, tell: Callable[[str], None]) -> SandboxRegistry:
    obstacle = container_obstacle()
    if obstacle:
        raise EnvironmentLacking(
            "root-needed",
            f"images cannot be launched by {launcher.name} here: {obstacle}",
            hint="run relbuild as root: what an engine launched is looked at from this machine",
        )
    return open_sandbox_registry(state, launcher, tell)
