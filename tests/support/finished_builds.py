"""A build that was done, for tests of how it is remembered and recognised."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pipeline import process
from pipeline.beneath import GivenFolder, ReadLog, list_folder, logged_reads, read_file
from pipeline.build import begun_snapshot
from pipeline.build.build_result import BuildResult
from pipeline.build.build_snapshot import take_build_snapshot
from pipeline.build.remembered_build import (
    RememberedBuild,
    recall_build,
)
from pipeline.digest import Digest
from pipeline.model.image import Descriptor, Image, Layer
from pipeline.model.lock import Lock
from pipeline.oci import make_image, write_layout
from pipeline.prepare import BuildEnvironment, BuildOptions
from pipeline.progress import QUIET
from pipeline.resolve import write_lock
from pipeline.snapshots import program_files
from pipeline.store import Store
from tests.support import builds

NAME = Digest.of(b"the request")
NEVRA = "bash-5.2-1.x86_64"
LATER = 10.0
"""Seconds by which the files of these tests are older than the build that reads them."""


@dataclass(frozen=True, slots=True)
class FinishedBuild:
    """A build that was done: all that it read and wrote is below `folder`."""

    folder: Path
    env: BuildEnvironment
    built: BuildResult
    options: BuildOptions
    log: ReadLog
    image: Image

    @property
    def recipe(self) -> Path:
        return self.folder / "recipes" / "demo.yaml"

    @property
    def layer(self) -> Path:
        return self.folder / "output" / "demo" / "blobs" / "sha256" / self.image.layers[0].blob.digest.hex

    def snapshot(self, **more: Any) -> RememberedBuild | None:
        options = replace(self.options, **more)
        return take_build_snapshot(self.built, options, self.env, self.log, started=time.time() + LATER)

    def recalled(self, later: float = 0.0) -> RememberedBuild | None:
        return recall_build(self.env.store, NAME, self.env.clock() + later)


def _clock() -> float:
    return time.time() + LATER


def make_finished_build(folder: Path, monkeypatch: pytest.MonkeyPatch) -> FinishedBuild:
    """Make one whose inputs and outputs are small files below `folder`."""
    for sync in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, sync, lambda handle: None)
    for name in ("recipes", "templates", "platforms", "code/inner", "libraries", "bin", "later"):
        (folder / name).mkdir(parents=True)
    for name in ("code/a.py", "code/inner/b.py", "libraries/c.so", "bin/gpg", "later/runc"):
        (folder / name).write_text("x")
        (folder / name).chmod(0o755)
    monkeypatch.setattr(program_files, "CODE", folder / "code")
    monkeypatch.setattr(process, "SEARCH_PATH", f"{folder / 'bin'}:{folder / 'later'}")
    monkeypatch.setattr(sys, "path", [str(folder / "libraries"), *sys.path])
    libraries = [str(folder / "libraries" / "c.so")]
    for source in ("loaded_files", "mapped_files", "library_records"):
        monkeypatch.setattr(begun_snapshot, source, lambda known=(): iter(libraries))
    builds.write_demo(folder / "recipes")
    (folder / "templates" / "demo.conf.j2").write_text("port {{ port }}")
    (folder / "platforms" / "one.repo").write_text("[one]")
    (folder / "recipes" / "copied").write_text("copied")

    env = builds.build_env(folder, clock=_clock, progress=QUIET)
    env.store.put(NEVRA.encode())
    image = _image(env.store)
    options = BuildOptions(
        folder / "recipes" / "demo.yaml", folder / "recipes" / "repositories.yaml", output=folder / "output"
    )
    recipe = builds.recipe(folder / "recipes")
    locked = builds.locked(recipe, NEVRA, wrote=True)
    with logged_reads(_clock) as log:
        given = GivenFolder(folder / "recipes")
        for path in (options.recipe, options.repositories, folder / "templates" / "demo.conf.j2"):
            given.read(path, 1 << 20)
        for name in list_folder(folder / "platforms"):
            read_file(folder / "platforms" / name, 1 << 20)
        given.open(folder / "recipes" / "copied").close()
        assert given.has_folder(folder / "templates")
        assert not given.has_file(folder / "recipes" / "demo.conf.j2")
        write_lock(locked.path, Lock("demo", (locked.section,)))
        read_file(locked.path, 1 << 20)
    write_layout(image, store=env.store, target=options.layout("demo"))
    report = folder / "output" / "demo.report"
    report.mkdir()
    (report / "bill.json").write_text("{}")
    layers = [{"name": "base", "reused": False}]
    (report / "report.json").write_text(
        json.dumps(
            {
                "image": {"digest": str(image.digest), "layers": layers},
                "lock": {"wrote": True, "changes": ["+ bash"]},
                "smoke": {},
                "verdict_reused": False,
                "took_ms": 9000,
            }
        )
    )
    assembled = SimpleNamespace(begun=None)
    built = SimpleNamespace(
        assembled=assembled, locked=locked, image=image, member=False, report=None, failed_scriptlets=(), tested=None
    )
    return FinishedBuild(folder, env, cast(BuildResult, built), options, log, image)


def _image(store: Store) -> Image:
    content = b"a layer" * 1000
    layer = Layer("base", builds.layer("base").diff_id, Descriptor("layer", store.put(content), len(content)), 1024)
    return make_image("demo", "1.0", builds.image().config, [layer])


def swap(path: Path) -> None:
    """Write other content of the same size, and give the file its old times."""
    before = path.stat()
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def package_blob(done: FinishedBuild) -> Path:
    """Return the blob of the package in the store."""
    return done.env.store.blob(Digest.of(NEVRA.encode()))


def report_file(done: FinishedBuild) -> Path:
    """Return the file of the report in the output folder."""
    return done.folder / "output" / "demo.report" / "report.json"
