"""The kinds of foreign launchers, and how the value of `--launcher` names one."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from pipeline import process
from pipeline.errors import EnvironmentLacking, UsageError
from pipeline.sandbox.launchers.container_engine import ContainerEngine
from pipeline.sandbox.launchers.docker import Docker
from pipeline.sandbox.launchers.engine_launcher import EngineLauncher, ImageExport
from pipeline.sandbox.launchers.launcher import Launcher
from pipeline.sandbox.launchers.podman import Podman
from pipeline.sandbox.launchers.runsc import Runsc
from pipeline.sandbox.runtime import Runtime
from pipeline.sandbox.sandbox_registry import open_sandbox_registry
from pipeline.sandbox.traced.availability import container_obstacle

LAUNCHER_KINDS: Mapping[str, type[ContainerEngine]] = {kind.name: kind for kind in (Podman, Docker, Runsc)}

_PROGRAMS = {Runsc.name: Docker.name}
"""Programs that are called for kinds that are not called as these."""

_ANSWER_TIMEOUT = 10.0
"""Seconds for a program to print its version."""


def parse_launcher(text: str) -> ContainerEngine:
    """Read the value of `--launcher`: a kind or its program's path, and global options of it.

    Raises UsageError `launcher-unknown`, EnvironmentLacking `launcher-missing`.
    """
    try:
        program, *options = shlex.split(text)
    except ValueError:
        program, options = "", []
    kind = LAUNCHER_KINDS.get(Path(program).name)
    if kind is None:
        raise UsageError(
            "launcher-unknown",
            f"unknown launcher: '{text}'",
            hint=f"use {', '.join(LAUNCHER_KINDS)}, with options of the program if it needs any, "
            "such as 'podman --cgroup-manager cgroupfs'; --runtime chooses the runtime of relbuild's own sandbox",
        )
    command = (_PROGRAMS.get(kind.name, program), *options)
    if process.find_program(command[0]) is None:
        raise EnvironmentLacking(
            "launcher-missing",
            f"the launcher's program '{command[0]}' was not found in PATH",
            hint="install it, or leave out --launcher for relbuild's own sandbox",
        )
    told = process.run([command[0], "--version"], timeout=_ANSWER_TIMEOUT, check=False).stdout.decode(errors="replace")
    found = re.search(r"version (\S+?),?(\s|$)", told)
    return kind(command, found[1] if found else "of unknown version")


def open_launcher(text: str, state: Path, export: ImageExport) -> Launcher:
    """Open the launcher that `--launcher` names; `state` is the folder of sandboxes.

    Raises as `parse_launcher`, and EnvironmentLacking `root-needed`.
    """
    engine = parse_launcher(text)
    obstacle = container_obstacle()
    if obstacle:
        raise EnvironmentLacking(
            "root-needed",
            f"images cannot be launched by {engine.name} here: {obstacle}",
            hint="run relbuild as root: what an engine launched is looked at from this machine",
        )
    sandboxes = open_sandbox_registry(state, Runtime(Path(engine.command[0]), engine.name, engine.version))
    return EngineLauncher(engine, sandboxes, export)
