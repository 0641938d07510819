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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# Raise it when a change here must rebuild every package.
FORMAT = 3

VENDOR = "relbuild development mirror"
BUILD_HOST = "mirror.relbuild.invalid"
DEFAULT_PAYLOAD = "w3.zstdio"


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
    """A spec's text, its build time (None: the date of its own changelog) and what differs."""

    spec: str
    build_time: int | None
    payload: str | None = None
    target: str | None = None


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
        spec = work.folder / "package.spec"
        spec.write_text(build.spec, encoding="utf-8")
        result = work.folder / "result"
        defines = {
            "_topdir": str(work.folder / "top"),
            "_tmppath": str(work.folder / "tmp"),
            "_builddir": str(work.folder / "build"),
            "_rpmdir": str(result),
            "_rpmfilename": "%%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm",
            "mirror_parts": str(self._parts),
            "mirror_payload": str(work.payload),
            # The same header wherever and whenever it is built.
            "_buildhost": BUILD_HOST,
            "vendor": VENDOR,
            "use_source_date_epoch_as_buildtime": "1",
            "source_date_epoch_from_changelog": "1" if build.build_time is None else "0",
            "clamp_mtime_to_source_date_epoch": "1" if build.build_time is None else "0",
            "_binary_payload": build.payload or DEFAULT_PAYLOAD,
            "_binary_filedigest_algorithm": "8",
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
        for name in ("tmp", "build"):
            (work.folder / name).mkdir()
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(work.folder),  # no ~/.rpmmacros
            "LC_ALL": "C.UTF-8",
            "TZ": "UTC",
        }
        if build.build_time is not None:
            environment["SOURCE_DATE_EPOCH"] = str(build.build_time)
        command = ["rpmbuild", "-bb", "--quiet"]
        command += ["--target", build.target or "x86_64-linux"]
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
        if done.returncode != 0 or not any(result.glob("*.rpm")):
            tail = "\n".join((done.stdout + done.stderr).splitlines()[-30:])
            raise BuildFailed(tail)
        return result
