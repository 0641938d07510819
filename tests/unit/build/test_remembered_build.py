"""A build is recognised when nothing changed, and never when anything did: each input is changed in turn."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pipeline import process
from pipeline.beneath import GivenFolder, ReadLog, list_folder, logged_reads, read_file
from pipeline.build import build_snapshot, remembered_build
from pipeline.build.build_result import BuildResult
from pipeline.build.build_snapshot import repeated_warnings, take_build_snapshot
from pipeline.build.remembered_build import (
    LIFETIME,
    TOOK,
    BuildRequest,
    RememberedBuild,
    recall_build,
    remember_build,
    request_name,
    settle_reports,
)
from pipeline.digest import Digest
from pipeline.model.image import Descriptor, Image, Layer
from pipeline.model.lock import Lock, LockMode
from pipeline.oci import make_image, write_layout
from pipeline.prepare import BuildEnvironment, BuildOptions, LockedRecipe
from pipeline.progress import QUIET
from pipeline.resolve import write_lock
from pipeline.store import Store
from tests.support import builds

NAME = Digest.of(b"the request")
NEVRA = "bash-5.2-1.x86_64"
LATER = 10.0
"""Seconds by which the files of these tests are older than the build that reads them."""


@dataclass(frozen=True, slots=True)
class Done:
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


@pytest.fixture
def done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Done:
    """A build, remembered."""
    made = _done(tmp_path, monkeypatch)
    snapshot = made.snapshot()
    assert snapshot is not None
    remember_build(made.env.store, NAME, snapshot.saying(warnings=(), lines=(f"in {TOOK} s",), all_lines=(), answer={}))
    return made


def _done(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Done:
    for sync in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, sync, lambda handle: None)
    for name in ("recipes", "templates", "platforms", "code/inner", "libraries", "bin", "later"):
        (folder / name).mkdir(parents=True)
    for name in ("code/a.py", "code/inner/b.py", "libraries/c.so", "bin/gpg", "later/runc"):
        (folder / name).write_text("x")
        (folder / name).chmod(0o755)
    monkeypatch.setattr(remembered_build, "CODE", folder / "code")
    monkeypatch.setattr(process, "SEARCH_PATH", f"{folder / 'bin'}:{folder / 'later'}")
    monkeypatch.setattr(sys, "path", [str(folder / "libraries"), *sys.path])
    libraries = [str(folder / "libraries" / "c.so")]
    for source in ("_loaded_files", "_mapped_files", "_library_records"):
        monkeypatch.setattr(build_snapshot, source, lambda: iter(libraries))
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
    built = SimpleNamespace(locked=locked, image=image, member=False, report=None, failed_scriptlets=(), tested=None)
    return Done(folder, env, cast(BuildResult, built), options, log, image)


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


def _linked(path: Path) -> None:
    """Put a symlink to a copy in a file's place."""
    shutil.copy2(path, path.with_name("elsewhere"))
    path.unlink()
    path.symlink_to("elsewhere")


def _blob(done: Done) -> Path:
    return done.env.store.blob(Digest.of(NEVRA.encode()))


def _config(done: Done) -> Path:
    return done.layer.with_name(done.image.config_descriptor.digest.hex)


def _record(done: Done) -> Path:
    return done.env.store.result(NAME)


CHANGES: dict[str, Callable[[Done], object]] = {
    "the recipe": lambda done: done.recipe.write_text("name: other"),
    "the recipe, with its size and times": lambda done: swap(done.recipe),
    "the recipe is gone": lambda done: done.recipe.unlink(),
    "the recipe's mode": lambda done: done.recipe.chmod(0o600),
    "the recipe is a link": lambda done: _linked(done.recipe),
    "a copied file": lambda done: swap(done.folder / "recipes" / "copied"),
    "the platforms": lambda done: swap(done.folder / "recipes" / "repositories.yaml"),
    "a template": lambda done: swap(done.folder / "templates" / "demo.conf.j2"),
    "a template in a folder before": lambda done: (done.folder / "recipes" / "demo.conf.j2").write_text("port"),
    "a broken link in a folder before": lambda done: (done.folder / "recipes" / "demo.conf.j2").symlink_to("/no"),
    "the folder of templates is a link": lambda done: _linked_folder(done.folder / "templates"),
    "the lock": lambda done: swap(done.recipe.with_suffix(".lock")),
    "the lock is gone": lambda done: done.recipe.with_suffix(".lock").unlink(),
    "a .repo file": lambda done: swap(done.folder / "platforms" / "one.repo"),
    "another .repo file": lambda done: (done.folder / "platforms" / "two.repo").write_text("[two]"),
    "a file of relbuild": lambda done: swap(done.folder / "code" / "inner" / "b.py"),
    "a new file of relbuild": lambda done: (done.folder / "code" / "new.py").write_text(""),
    "a file less of relbuild": lambda done: (done.folder / "code" / "a.py").unlink(),
    "a library": lambda done: swap(done.folder / "libraries" / "c.so"),
    "a library is gone": lambda done: (done.folder / "libraries" / "c.so").unlink(),
    "a module before another": lambda done: (done.folder / "libraries" / "json.py").write_text(""),
    "another distribution": lambda done: (done.folder / "libraries" / "new-1.0.dist-info").mkdir(),
    "a program": lambda done: swap(done.folder / "bin" / "gpg"),
    "the runtime": lambda done: swap(done.folder / "later" / "runc"),
    "a runtime before it": lambda done: shutil.copy2(done.folder / "later" / "runc", done.folder / "bin" / "runc"),
    "a package": lambda done: swap(_blob(done)),
    "a package is gone": lambda done: _blob(done).unlink(),
    "a layer in the store is gone": lambda done: done.env.store.blob(done.image.layers[0].blob.digest).unlink(),
    "the index": lambda done: swap(done.folder / "output" / "demo" / "index.json"),
    "the config": lambda done: swap(_config(done)),
    "a layer": lambda done: swap(done.layer),
    "a layer is gone": lambda done: done.layer.unlink(),
    "a layer is a link": lambda done: _linked(done.layer),
    "a blob more": lambda done: done.layer.with_name("0" * 64).write_text("x"),
    "a report": lambda done: swap(done.folder / "output" / "demo.report" / "bill.json"),
    "a report is gone": lambda done: (done.folder / "output" / "demo.report" / "bill.json").unlink(),
    "a report more": lambda done: (done.folder / "output" / "demo.report" / "new").write_text("x"),
    "no output": lambda done: shutil.rmtree(done.folder / "output"),
    "what is remembered": lambda done: swap(_record(done)),
    "the store's key": lambda done: (done.env.store.root / "key").write_bytes(bytes(32)),
}


def _linked_folder(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def test_a_build_is_recognised(done: Done) -> None:
    known = done.recalled()
    assert known is not None
    assert known.told(verbose=False, took=0.04) == ("in 0.0 s",)


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_changes_is_noticed(done: Done, change: str) -> None:
    CHANGES[change](done)
    store = Store.open(done.env.store.root)  # As another process has it: the key is read again.
    assert recall_build(store, NAME, done.env.clock()) is None


def test_times_and_copies_without_another_content_are_no_change(done: Done) -> None:
    os.utime(done.recipe)
    template = done.folder / "templates" / "demo.conf.j2"
    shutil.copy2(template, template.with_name("draft"))
    template.with_name("draft").replace(template)
    assert done.recalled() is not None


def test_a_build_is_remembered_for_a_day(done: Done) -> None:
    assert done.recalled(LIFETIME - 60) is not None
    assert done.recalled(LIFETIME + 60) is None
    assert done.recalled(-60) is None


REQUEST = BuildRequest(
    recipe=Path("a.yaml"),
    repositories=Path("r.yaml"),
    locks=None,
    output=Path("output"),
    platform=None,
    architectures=(),
    mode="default",
    compression="gzip",
    smoke=True,
    full=False,
    offline=False,
    runtime=None,
)


def test_each_option_and_variable_has_a_memory_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(tmp_path / "store")
    others: dict[str, Any] = {
        "recipe": Path("b.yaml"),
        "repositories": Path("s.yaml"),
        "locks": Path(),
        "output": Path("other"),
        "platform": "el9",
        "architectures": ("x86_64",),
        "mode": "locked",
        "compression": "zstd",
        "smoke": False,
        "full": True,
        "offline": True,
        "runtime": "crun",
    }
    assert set(others) == set(BuildRequest.__slots__)
    requests = [REQUEST, *(replace(REQUEST, **{name: value}) for name, value in others.items())]
    names = {request_name(one, store, {}) for one in requests}
    names |= {request_name(REQUEST, store, one) for one in ({"HTTPS_PROXY": "a"}, {"HTTPS_PROXY": "b"}, {"X": "a"})}
    monkeypatch.chdir(tmp_path)
    names.add(request_name(REQUEST, store, {}))
    assert len(names) == len(requests) + 4
    assert request_name(REQUEST, store, {"TERM": "a", "SHLVL": "1"}) == request_name(REQUEST, store, {})


RIGHTS = "Name:\tpython\nUid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nCapEff:\t1f\nCapBnd:\t1f\nSeccomp:\t0\nThreads:\t1\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [("Uid:\t0", "Uid:\t9"), ("Gid:\t0", "Gid:\t9"), ("CapEff:\t1f", "CapEff:\t0"), ("Seccomp:\t0", "Seccomp:\t2")],
)
def test_a_process_with_other_rights_repeats_no_answer(
    before: str, after: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be one that cannot launch the image, of which the build itself says `root-needed`."""
    store, status = Store.open(tmp_path / "store"), tmp_path / "status"
    monkeypatch.setattr(remembered_build, "_OWN_STATUS", status)
    status.write_text(RIGHTS)
    name = request_name(REQUEST, store, {})
    status.write_text(RIGHTS.replace("Threads:\t1", "Threads:\t8"))
    assert request_name(REQUEST, store, {}) == name
    status.write_text(RIGHTS.replace(before, after))
    assert request_name(REQUEST, store, {}) != name


def test_no_value_of_the_environment_is_in_the_store(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    name = request_name(REQUEST, store, {"PASSWORD": "a secret"})
    assert name != request_name(REQUEST, Store.open(tmp_path / "other"), {"PASSWORD": "a secret"})


# --- what is not remembered ----------------------------------------------------------------------


def test_what_changed_while_it_was_read_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = _done(tmp_path, monkeypatch)
    before = made.recipe.read_bytes()
    for name in ("demo.yaml", "copied"):
        swap(made.folder / "recipes" / name)
        assert made.snapshot() is None
        made.recipe.write_bytes(before)


def test_what_changed_just_before_it_was_read_is_not_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two changes within a tick of the clock leave the same times."""
    made = _done(tmp_path, monkeypatch)
    path = str(made.folder / "recipes" / "copied")
    status, _ = made.log.opened[path][0]
    made.log.opened[path] = [(status, status.st_ctime + build_snapshot.TICK / 2)]
    assert made.snapshot() is None


def test_a_lock_that_is_another_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = _done(tmp_path, monkeypatch)
    section = replace(made.built.locked.section, build_time=1)
    write_lock(made.built.locked.path, Lock("demo", (section,)))
    assert made.snapshot() is None


def test_a_lock_that_nobody_read_after_it_was_written_is_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = _done(tmp_path, monkeypatch)
    lock = str(made.built.locked.path)
    del made.log.contents[lock]
    snapshot = made.snapshot()
    assert snapshot is not None and lock in {path for path, *_ in snapshot.files}


def _report(done: Done) -> Path:
    return done.folder / "output" / "demo.report" / "report.json"


@pytest.mark.parametrize(
    "change",
    [
        lambda done: write_layout(
            replace(done.image, reference="2.0"), store=done.env.store, target=done.options.layout("demo")
        ),
        lambda done: _report(done).write_text(_report(done).read_text().replace(done.image.digest.hex, "0" * 64)),
        lambda done: _report(done).write_text("no JSON"),
        lambda done: _report(done).write_text("[]"),
        lambda done: done.built.locked.path.write_text("<<<<<<< no lock"),
    ],
)
def test_what_another_program_wrote_since_is_not_remembered_and_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Done], object]
) -> None:
    """Such as a build of the same recipe for another platform into the same folder."""
    made = _done(tmp_path, monkeypatch)
    change(made)
    assert made.snapshot() is None


def test_what_appeared_meanwhile_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = _done(tmp_path, monkeypatch)
    (made.folder / "recipes" / "demo.conf.j2").write_text("port")
    assert made.snapshot() is None


def test_a_relbuild_that_was_installed_meanwhile_is_not_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = _done(tmp_path, monkeypatch)
    assert take_build_snapshot(made.built, made.options, made.env, made.log, started=time.time()) is None


@pytest.mark.parametrize("more", [{"mode": LockMode.UPGRADE}, {"retest": True}, {"sources": True}])
def test_what_is_to_be_done_again_is_not_remembered(done: Done, more: dict[str, Any]) -> None:
    assert done.snapshot(**more) is None


def _locked(done: Done, **more: Any) -> None:
    cast(Any, done.built).locked = replace(done.built.locked, **more)


def _keys_at(done: Done, url: str) -> None:
    repository = replace(builds.PLATFORM.repositories[0], keys=(url,))
    _locked(done, platform=replace(builds.PLATFORM, repositories=(repository,)))


def _tested_with_an_older_image(done: Done) -> None:
    recipe = done.built.locked.recipe
    _locked(done, recipe=replace(recipe, smoke=replace(recipe.smoke, upgrade_from="older")))


def _for_another_machine(done: Done) -> None:
    section: Any = done.built.locked.section
    _locked(done, section=replace(section, resolution=replace(section.resolution, arch="s390x")))


def _failed(done: Done) -> None:
    cast(Any, done.built).report = SimpleNamespace(passed=False)


@pytest.mark.parametrize(
    "change",
    [
        lambda done: _keys_at(done, "https://keys.example/key"),
        _tested_with_an_older_image,
        _for_another_machine,
        _failed,
        lambda done: setattr(done.built, "member", True),
        lambda done: _blob(done).unlink(),
        lambda done: swap(done.layer),
    ],
)
def test_what_depends_on_more_than_files_is_not_remembered(done: Done, change: Callable[[Done], object]) -> None:
    change(done)
    assert done.snapshot() is None


def test_keys_from_the_network_count_offline(done: Done) -> None:
    _keys_at(done, "https://keys.example/key")
    offline = replace(done, env=replace(done.env, offline=True))
    assert offline.snapshot() is not None


def _result(locked: LockedRecipe, *unused: str, reused: tuple[str, ...] = ()) -> BuildResult:
    image = builds.image("demo", "base")
    made = SimpleNamespace(image=image, locked=locked, reused=reused, failed_scriptlets=(), unused_waivers=unused)
    return cast(BuildResult, SimpleNamespace(assembled=made, failed_scriptlets=(), tested=None))


def test_warnings_of_what_was_made_are_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locked = builds.locked(builds.recipe(tmp_path), NEVRA)
    assert repeated_warnings(_result(locked, "unused"), ["unused"]) == ("unused",)
    monkeypatch.setattr(build_snapshot, "unchanged_result", lambda built: object())
    assert repeated_warnings(_result(locked), ["tried again"]) is None
    monkeypatch.setattr(build_snapshot, "unchanged_result", lambda built: built)
    assert repeated_warnings(_result(locked), ["the key expired"]) == ("the key expired",)


# --- the report ----------------------------------------------------------------------------------


def test_a_report_tells_once_that_nothing_was_made_again(done: Done) -> None:
    known = done.recalled()
    assert known is not None and known.fresh
    assert settle_reports(done.env.store, NAME, known, lambda: 0.04) is not None
    report = json.loads((done.folder / "output" / "demo.report" / "report.json").read_text())
    assert report["image"]["layers"] == [{"name": "base", "reused": True}]
    assert report["lock"] == {"wrote": False, "changes": []}
    assert (report["verdict_reused"], report["took_ms"]) == (True, 40)
    again = done.recalled()
    assert again is not None and not again.fresh


def test_a_report_that_cannot_be_written_is_left_to_the_build(done: Done) -> None:
    known = done.recalled()
    assert known is not None
    shutil.rmtree(done.folder / "output" / "demo.report")
    assert settle_reports(done.env.store, NAME, known, lambda: 0.0) is None


def test_a_report_that_another_build_has_written_since_is_left_alone(done: Done) -> None:
    known = done.recalled()
    assert known is not None
    other = _report(done).read_text().replace("9000", "9001")
    _report(done).write_text(other)
    assert settle_reports(done.env.store, NAME, known, lambda: 0.0) is None
    assert _report(done).read_text() == other


def test_a_full_disk_of_the_store_is_no_error_of_a_build_that_is_done(
    done: Done, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    known = done.recalled()
    assert known is not None
    monkeypatch.setattr(Store, "remember", full)
    assert settle_reports(done.env.store, NAME, known, lambda: 0.0) is not None
    remember_build(done.env.store, NAME, known)
