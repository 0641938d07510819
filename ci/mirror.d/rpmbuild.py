"""Running rpmbuild, and keeping what it made: one folder of RPMs per identity.

An identity is a hash over everything that goes into a build. A folder appears under its identity
whole, by a rename, after its RPMs are signed; so a run that is killed loses only work in flight.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

# Raise it when a change here must rebuild every package.
FORMAT = 5

VENDOR = "relbuild development mirror"
BUILD_HOST = "mirror.relbuild.invalid"
DEFAULT_PAYLOAD = "w3.zstdio"
# Debian has compressed what goes into a source package already.
SOURCE_PAYLOAD = "w1.zstdio"
# The time of sources whose spec has a changelog of our own: the date in specs/preamble.
OWN_TIME = 1_767_225_600
SOURCE_SUFFIX = ".src.rpm"


class BuildFailed(Exception):
    """rpmbuild refused a spec; the message carries the end of its output."""


@dataclass(frozen=True, slots=True)
class Work:
    """Where a build happens: a folder of its own, removed afterwards."""

    folder: Path

    @property
    def payload(self) -> Path:
        """The tree that becomes the build root of a converted package."""
        return self.folder / "payload"


@dataclass(frozen=True, slots=True)
class Build:
    """A spec's name and text, its build time (None: the date of its own changelog) and what differs.

    ``sources`` are what the package is made from, by their names in its source package.
    """

    name: str
    spec: str
    build_time: int | None
    payload: str | None = None
    target: str = "x86_64-linux"
    sources: Mapping[str, Path] = field(default_factory=dict)


def identity(*inputs: object) -> str:
    """Return the hash over ``inputs``, which must be JSON or print the same every time."""
    text = json.dumps([FORMAT, VENDOR, BUILD_HOST, DEFAULT_PAYLOAD, *inputs], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class PackageCache:
    """Folders of finished RPMs by identity, below ``home``."""

    def __init__(self, home: Path, parts: Path) -> None:
        self._finished = home / "rpms"
        self._working = home / "work"
        self._parts = parts
        self._finished.mkdir(parents=True, exist_ok=True)
        # The caller holds the lock, so whatever is here was left by a run that was killed.
        shutil.rmtree(self._working, ignore_errors=True)
        self._working.mkdir()

    def find(self, key: str) -> list[Path] | None:
        """Return the RPMs under ``key``, or None when they are yet to be built."""
        folder = self._finished / key
        return sorted(folder.glob("*.rpm")) if folder.is_dir() else None

    def make(self, key: str, prepare: Callable[[Work], Build], sign: Callable[[list[Path]], None]) -> list[Path]:
        """Build, sign and keep the RPMs of ``key``. Raises ``BuildFailed``."""
        folder = Path(tempfile.mkdtemp(prefix="build-", dir=self._working))
        try:
            work = Work(folder)
            work.payload.mkdir()
            build = prepare(work)
            result = self._run(build, work)
            sign(sorted(result.glob("*.rpm")))
            result.rename(self._finished / key)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return sorted((self._finished / key).glob("*.rpm"))

    def keep_only(self, keys: set[str]) -> None:
        """Forget packages that no repository holds any more."""
        for folder in self._finished.iterdir():
            if folder.name not in keys:
                shutil.rmtree(folder)

    def _run(self, build: Build, work: Work) -> Path:
        spec, sources = _write_sources(build, work)
        result = work.folder / "result"
        for name in ("tmp", "build"):
            (work.folder / name).mkdir()
        here = {
            "_topdir": str(work.folder / "top"),
            "mirror_parts": str(self._parts),
            "mirror_payload": str(work.payload),
        }
        _rpmbuild(["-bb"], spec, {**_defines(build, work, sources, result), **here}, build, work)
        # By itself, for its header holds the spec with every macro expanded, and so every path.
        nowhere = {"_topdir": "/top", "mirror_parts": "/parts", "mirror_payload": "/payload"}
        _rpmbuild(["-bs"], spec, {**_defines(build, work, sources, result), **nowhere}, build, work)
        return result


def _defines(build: Build, work: Work, sources: Path, result: Path) -> dict[str, str]:
    """Return the macros of both kinds of package: the same header wherever and whenever it is built."""
    return {
        "_tmppath": str(work.folder / "tmp"),
        "_builddir": str(work.folder / "build"),
        "_rpmdir": str(result),
        "_srcrpmdir": str(result),
        "_sourcedir": str(sources),
        "_rpmfilename": "%%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm",
        "_buildhost": BUILD_HOST,
        "vendor": VENDOR,
        "use_source_date_epoch_as_buildtime": "1",
        "source_date_epoch_from_changelog": "1" if build.build_time is None else "0",
        "clamp_mtime_to_source_date_epoch": "1" if build.build_time is None else "0",
        "_binary_payload": build.payload or DEFAULT_PAYLOAD,
        "_source_payload": SOURCE_PAYLOAD,
        "_binary_filedigest_algorithm": "8",
        "_source_filedigest_algorithm": "8",
        # Else rpmbuild marks what is below /usr/share/doc as documents, licences too.
        "__docdir_path": "/nowhere",
        # Debian has stripped, compressed and checked everything already.
        "debug_package": "%{nil}",
        "_build_id_links": "none",
        "__os_install_post": "%{nil}",
        "__spec_install_post": "%{nil}",
        "_missing_build_ids_terminate_build": "0",
        "__brp_mangle_shebangs": "%{nil}",
    }


def _rpmbuild(stage: list[str], spec: Path, defines: Mapping[str, str], build: Build, work: Work) -> None:
    """Run one stage of rpmbuild. Raises ``BuildFailed`` with the end of what it said."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(work.folder),  # no ~/.rpmmacros
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
    }
    if build.build_time is not None:
        environment["SOURCE_DATE_EPOCH"] = str(build.build_time)
    command = ["rpmbuild", *stage, "--quiet", "--target", build.target]
    for name, value in defines.items():
        command += ["--define", f"{name} {value}"]
    done = subprocess.run(
        [*command, str(spec)],
        env=environment,
        capture_output=True,
        text=True,
        errors="replace",
        umask=0o022,
        check=False,
    )
    if done.returncode != 0:
        raise BuildFailed("\n".join((done.stdout + done.stderr).splitlines()[-30:]))


def _write_sources(build: Build, work: Work) -> tuple[Path, Path]:
    """Write the spec and put beside it what it names as sources; return the spec and their folder.

    Modes and times are fixed, for they go into the source package.
    """
    folder = work.folder / "sources"
    folder.mkdir()
    spec = folder / f"{build.name}.spec"
    named = "".join(f"Source{number}: {name}\n" for number, name in enumerate(build.sources))
    spec.write_text(named + build.spec, encoding="utf-8")
    for name, source in build.sources.items():
        shutil.copyfile(source, folder / name)
    time = OWN_TIME if build.build_time is None else build.build_time
    for file in folder.iterdir():
        file.chmod(0o644)
        os.utime(file, (time, time))
    return spec, folder
