"""Dask resources that workers offer and tasks need: relbuild's version, CPU, memory."""

from __future__ import annotations

import functools
import importlib.metadata
import sys
from collections.abc import Iterator, Mapping

import pipeline
from pipeline.digest import Digest, canonical_json
from pipeline.model.configuration import oci_architecture, rpm_arch
from pipeline.nightly.executors.executor_protocol import Requirements
from pipeline.nightly.relbuild_digest import code_digest
from pipeline.resolve import library_versions
from pipeline.sandbox import emulated_architectures, native_architectures

CODE_RESOURCE, CONTAINERS_RESOURCE, MEMORY_RESOURCE = "RELBUILD", "CONTAINERS", "MEMORY"
"""Names of Dask resources; the first is followed by `-` and the version."""

ARCH_RESOURCE, EMULATED_RESOURCE = "ARCH", "EMULATED"
"""Names of Dask resources, followed by `-` and OCI's name of an architecture whose programs the worker's machine runs
by itself, or through an emulator. They are two, for a task takes the one or the other."""


_DECIDING = ("zstandard", "deflate", "Jinja2", "PyYAML", "cryptography", "distributed")
"""Distributions whose version a task's output bytes, or its transfer, depend on, besides `library_versions`."""


@functools.cache
def code_version() -> str:
    """Return an identifier of this relbuild's code and libraries.

    It names its version, and the digest of its files, of Python's version and of the versions of what its bytes depend
    on. Two that are named alike do the same with the same task.
    """
    versions = dict(library_versions()) | {name: importlib.metadata.version(name) for name in _DECIDING}
    python = ".".join(map(str, sys.version_info[:2]))
    whole = Digest.of(canonical_json({"files": str(code_digest()), "python": python, "versions": versions}))
    return f"{CODE_RESOURCE}-{pipeline.__version__}-{whole.short}"


def worker_resources(jobs: int, memory: int, *, containers: bool, emulation: bool = True) -> dict[str, float]:
    """Return the Dask resources that a worker on this machine offers.

    They are its relbuild, the architectures that it runs by itself and, with `emulation`, through an emulator, places
    for containers, bytes of memory.
    """
    emulated = emulated_architectures() if emulation else ()
    resources = {
        code_version(): float(jobs),
        **{f"{ARCH_RESOURCE}-{name}": float(jobs) for name in native_architectures()},
        **{f"{EMULATED_RESOURCE}-{name}": float(jobs) for name in emulated},
        MEMORY_RESOURCE: float(memory),
    }
    return {**resources, CONTAINERS_RESOURCE: float(jobs)} if containers else resources


def task_resources(requirements: Requirements, *, emulated: bool = False) -> dict[str, float]:
    """Return the Dask resources that a task takes of its worker while it runs.

    `emulated`: on a worker that emulates its architecture, else on one of that architecture.
    """
    resources = {code_version(): 1.0}
    if requirements.arch:
        kind = EMULATED_RESOURCE if emulated else ARCH_RESOURCE
        resources[f"{kind}-{oci_architecture(requirements.arch)}"] = 1.0
    if requirements.containers:
        resources[CONTAINERS_RESOURCE] = 1.0
    if requirements.memory:
        resources[MEMORY_RESOURCE] = float(requirements.memory)
    return resources


def can_run(resources: Mapping[str, float], requirements: Requirements, *, emulated: bool = False) -> bool:
    """Return True if a worker that offers these resources can run such a task."""
    wanted = task_resources(requirements, emulated=emulated)
    return all(resources.get(name, 0) >= amount for name, amount in wanted.items())


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
    words = [*_architectures(resources, ARCH_RESOURCE)]
    emulated = " ".join(_architectures(resources, EMULATED_RESOURCE))
    words += [f"{emulated} by emulation"] if emulated else []
    if CONTAINERS_RESOURCE in resources:
        words.append("containers")
    words.append(f"{resources.get(MEMORY_RESOURCE, 0) / 2**20:.0f} MiB of memory")
    return ", ".join(words)


def _architectures(resources: Mapping[str, float], kind: str) -> Iterator[str]:
    """Yield rpm's names of the architectures that a worker offers in one way."""
    names = sorted(name.removeprefix(f"{kind}-") for name in resources if name.startswith(f"{kind}-"))
    return (rpm_arch(name) for name in names)
