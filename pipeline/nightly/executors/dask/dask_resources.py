"""Dask resources that workers offer and tasks need: relbuild's version, CPU, memory."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
import sys
from collections.abc import Mapping

import pipeline
from pipeline.digest import Digest, canonical_json
from pipeline.nightly.executors.executor_protocol import Requirements
from pipeline.nightly.relbuild_digest import code_digest

CODE_RESOURCE, ARCH_RESOURCE, CONTAINERS_RESOURCE, MEMORY_RESOURCE = "RELBUILD", "ARCH", "CONTAINERS", "MEMORY"
"""Names of Dask resources; the first two are followed by `-` and the version or architecture."""


_DECIDING = ("zstandard", "deflate", "rpm", "solv", "Jinja2", "PyYAML", "cryptography", "distributed")
"""Distributions whose version a task's output bytes, or its transfer, depend on."""


@functools.cache
def code_version() -> str:
    """Return an identifier of this relbuild's code and libraries.

    It names its version, and the digest of its files, of Python's version and of the versions of what its bytes depend
    on. Two that are named alike do the same with the same task.
    """
    versions = {name: importlib.metadata.version(name) for name in _DECIDING}
    python = ".".join(map(str, sys.version_info[:2]))
    whole = Digest.of(canonical_json({"files": str(code_digest()), "python": python, "versions": versions}))
    return f"{CODE_RESOURCE}-{pipeline.__version__}-{whole.short}"


def worker_resources(jobs: int, memory: int, *, containers: bool) -> dict[str, float]:
    """Return the Dask resources that a worker on this machine offers.

    They are its relbuild, its architecture, places for containers, bytes of memory.
    """
    resources = {
        code_version(): float(jobs),
        f"{ARCH_RESOURCE}-{platform.machine()}": float(jobs),
        MEMORY_RESOURCE: float(memory),
    }
    return {**resources, CONTAINERS_RESOURCE: float(jobs)} if containers else resources


def task_resources(requirements: Requirements) -> dict[str, float]:
    """Return the Dask resources that a task takes of its worker while it runs."""
    resources = {code_version(): 1.0, f"{ARCH_RESOURCE}-{requirements.arch}": 1.0}
    if requirements.containers:
        resources[CONTAINERS_RESOURCE] = 1.0
    if requirements.memory:
        resources[MEMORY_RESOURCE] = float(requirements.memory)
    return resources


def can_run(resources: Mapping[str, float], requirements: Requirements) -> bool:
    """Return True if a worker that offers these resources can run such a task."""
    return all(resources.get(name, 0) >= amount for name, amount in task_resources(requirements).items())


def version_text(token: str) -> str:
    """Return `RELBUILD-0.1.0-3f2a…` as people write it: `0.1.0 (3f2a…)`."""
    _, version, which = token.split("-", 2)
    return f"{version} ({which})"


def relbuild_of(resources: Mapping[str, float]) -> str:
    """Return the version of relbuild that a worker offers, for people."""
    return next(
        (version_text(name) for name in resources if name.startswith(f"{CODE_RESOURCE}-")), "an unknown version"
    )


def resources_text(resources: Mapping[str, float]) -> str:
    """Return what a worker offers, for people."""
    if code_version() not in resources:
        return f"another relbuild: {relbuild_of(resources)}"
    words = [name.removeprefix(f"{ARCH_RESOURCE}-") for name in resources if name.startswith(f"{ARCH_RESOURCE}-")]
    if CONTAINERS_RESOURCE in resources:
        words.append("containers")
    words.append(f"{resources.get(MEMORY_RESOURCE, 0) / 2**20:.0f} MiB of memory")
    return ", ".join(words)
