"""What there is to build, under which identity, and doing it: two at a time on two cores.

A job's identity covers everything that can change its packages: the debs, the catalogue entry,
scriptlet and overlay files, the code that converts, and the keys. A job whose identity is in the
cache costs nothing.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from architecture import Architecture
from catalogue import Catalogue, Conversion, Update
from conversion import Origin, Parts, prepare
from rpmbuild import SOURCE_SUFFIX, Build, BuildFailed, PackageCache, Work, identity
from signing import Signer

SOURCES_FOLDER = Path(__file__).resolve().parent

# Their content decides what is in a package; a change in any of them rebuilds the conversions.
_CONVERSION_SOURCES = (
    "conversion.py",
    "payload.py",
    "deb.py",
    "debian_version.py",
    "filesystem.directories",
    "filesystem.symlinks",
)
# Folders of specs of our own, and the repository that each goes to.
_OWN = (("base", "base"), ("hardcases", "base"), ("updates", "updates"), ("bad", "bad"), ("large", "large"))
_OWN_ELSEWHERE = (("base", "base"),)  # of other architectures than x86_64
_OWN_SHARED = ("specs/preamble", "setup", "filesystem.directories", "filesystem.symlinks", "tiny_elf.py")
_TARGET_MARK = "# Target:"
_PART = re.compile(r"%\{mirror_parts\}/([\w./*-]+)")
# Source packages of these repositories stand in one of their own.
_WITH_SOURCES = frozenset({"base", "updates"})
SOURCES = "sources"


@dataclass(frozen=True, slots=True)
class Job:
    """One spec to build: for which repository, under which identity, and from what."""

    repository: str
    label: str
    key: str
    conversion: Conversion | None = None
    update: Update | None = None
    spec: Path | None = None


@dataclass(frozen=True, slots=True)
class Keys:
    """The mirror's own key, and another that nobody is told to trust."""

    mirror: Signer
    stranger: Signer

    def identity(self) -> str:
        """Return what changes when either key is another one."""
        return self.mirror.fingerprint() + self.stranger.fingerprint()

    def sign(self, packages: Iterable[Path]) -> None:
        """Sign each package as its name says: hardly any is unsigned or signed by a stranger."""
        for package in packages:
            if package.name.startswith("hardcase-wrongly-signed-"):
                self.stranger.sign_packages([package])
            elif not package.name.startswith("hardcase-unsigned-"):
                self.mirror.sign_packages([package])


def _digest_of(paths: Iterable[Path], folder: Path) -> str:
    """Return a hash over the names in ``folder``, contents and execute bits of files, also of those in folders."""
    state = hashlib.sha256()
    for path in paths:
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            if file.is_file():
                executable = file.stat().st_mode & 0o100
                state.update(f"{file.relative_to(folder)} {executable}\0".encode())
                state.update(hashlib.sha256(file.read_bytes()).digest())
    return state.hexdigest()


def conversion_jobs(
    catalogue: Catalogue, origin: Origin, keys: str, parts: Parts, architecture: Architecture
) -> list[Job]:
    """Return the jobs that turn Debian packages into RPMs, the updates' second builds included."""
    names = (SOURCES_FOLDER / name for name in _CONVERSION_SOURCES)
    sources = _digest_of(names, SOURCES_FOLDER)
    jobs = []
    for conversion in catalogue.conversions_for(origin.packages).values():
        debs = [origin.packages[deb] for deb in conversion.debs]
        depended = {r.name for deb in debs for clause in deb.depends for r in clause}
        inputs = (
            [deb.sha256 for deb in debs],
            repr(conversion),
            _digest_of([parts.scriptlets(conversion.name), parts.overlay(conversion.name)], parts.folder),
            sources,
            # Which dependencies are carried over depends on what else was chosen.
            sorted(f"{name}={origin.names.get(name)}" for name in depended),
            keys,
            *_told(architecture, parts),
        )
        jobs.append(Job("base", conversion.name, identity(*inputs), conversion))
        if update := catalogue.updates.get(conversion.name):
            jobs.append(Job("updates", conversion.name, identity(*inputs, repr(update)), conversion, update))
    return jobs


def _told(architecture: Architecture, parts: Parts) -> tuple[str, ...]:
    """Return what another architecture than x86_64 adds to an identity: its name and its directories."""
    if architecture.is_first:
        return ()
    return (architecture.rpm, *sorted(parts.of_filesystem()))


def own_jobs(keys: str, parts: Parts, architecture: Architecture, *, large: bool) -> list[Job]:
    """Return the jobs for the specs of our own; those of the ``large`` repository on request."""
    shared = _digest_of((parts.folder / name for name in _OWN_SHARED), parts.folder)
    jobs = []
    for folder, repository in _OWN if architecture.is_first else _OWN_ELSEWHERE:
        if repository == "large" and not large:
            continue
        for spec in sorted((parts.folder / "specs" / folder).glob("*.spec")):
            key = identity(_digest_of([spec], parts.folder), shared, keys, *_told(architecture, parts))
            jobs.append(Job(repository, spec.stem, key, spec=spec))
    return jobs


@dataclass(frozen=True, slots=True)
class Builder:
    """Builds jobs into the cache."""

    cache: PackageCache
    origin: Origin
    keys: Keys
    parts: Parts
    architecture: Architecture
    say: Callable[[str], None]

    def build(self, jobs: list[Job]) -> tuple[dict[str, list[Path]], int]:
        """Return the RPMs per repository and how many jobs were not in the cache.

        Every job is tried; then ``BuildFailed`` names all that failed.
        """
        missing = [job for job in jobs if self.cache.find(job.key) is None]
        if missing:
            self.say(f"Building {len(missing)} of {len(jobs)} packages")
        failures = []
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            futures = {pool.submit(self._build_one, job): job for job in missing}
            for number, future in enumerate(as_completed(futures), 1):
                label = futures[future].label
                try:
                    future.result()
                except BuildFailed as problem:
                    failures.append(f"{label}: {problem}")
                else:
                    self.say(f"  [{number}/{len(missing)}] {label}")
        if failures:
            raise BuildFailed("\n\n".join(failures))
        packages: dict[str, list[Path]] = {}
        sources: dict[str, Path] = {}
        for job in jobs:
            for file in self.cache.find(job.key) or []:
                if not file.name.endswith(SOURCE_SUFFIX):
                    packages.setdefault(job.repository, []).append(file)
                elif job.repository in _WITH_SOURCES:
                    # Specs of one name and version differ in the architecture alone.
                    sources.setdefault(file.name, file)
        return {**packages, SOURCES: [sources[name] for name in sorted(sources)]}, len(missing)

    def _build_one(self, job: Job) -> None:
        def prepared(work: Work) -> Build:
            if job.conversion is not None:
                spec = prepare(job.conversion, self.origin, self.parts, work.payload, job.update)
                return Build(
                    job.conversion.name,
                    spec.text,
                    spec.build_time,
                    job.conversion.payload,
                    target=f"{self.architecture.rpm}-linux",
                    sources=_conversion_sources(job.conversion, self.origin, self.parts),
                )
            assert job.spec is not None, f"{job.label} has neither conversion nor spec"
            return _own_build(job.spec, self.parts, self.architecture)

        self.cache.make(job.key, prepared, self.keys.sign)


def _conversion_sources(conversion: Conversion, origin: Origin, parts: Parts) -> dict[str, Path]:
    """Return what a conversion is made from besides its spec: the debs, and files of our own."""
    overlay = parts.overlay(conversion.name)
    ours = {file.relative_to(overlay).as_posix(): file for file in sorted(overlay.rglob("*")) if file.is_file()}
    debs = {f"{name}.deb": origin.debs[name] for name in conversion.debs}
    return debs | {path.replace("/", "_"): file for path, file in ours.items()}


def _own_build(spec: Path, parts: Parts, architecture: Architecture) -> Build:
    lines = spec.read_text(encoding="utf-8").splitlines()
    targets = [line.removeprefix(_TARGET_MARK).strip() for line in lines if line.startswith(_TARGET_MARK)]
    preamble = (parts.folder / "specs/preamble").read_text(encoding="utf-8")
    text = preamble + "\n".join(lines) + "\n"
    named = {file.name: file for name in _PART.findall(text) for file in sorted(parts.folder.glob(name))}
    return Build(spec.stem, text, None, target=targets[0] if targets else f"{architecture.rpm}-linux", sources=named)
