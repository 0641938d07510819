"""A build is recognised when nothing changed, and never when anything did: each input is changed in turn."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.build.remembered_build import (
    BuildRequest,
    recall_build,
    request_name,
)
from pipeline.snapshots import LIFETIME
from pipeline.store import Store
from tests.support.finished_builds import (
    NAME,
    FinishedBuild,
    package_blob,
    swap,
)


def _linked(path: Path) -> None:
    """Put a symlink to a copy in a file's place."""
    shutil.copy2(path, path.with_name("elsewhere"))
    path.unlink()
    path.symlink_to("elsewhere")


def _config(done: FinishedBuild) -> Path:
    return done.layer.with_name(done.image.config_descriptor.digest.hex)


def _record(done: FinishedBuild) -> Path:
    return done.env.store.result(NAME)


CHANGES: dict[str, Callable[[FinishedBuild], object]] = {
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
    "a package": lambda done: swap(package_blob(done)),
    "a package is gone": lambda done: package_blob(done).unlink(),
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


def test_a_build_is_recognised(done: FinishedBuild) -> None:
    known = done.recalled()
    assert known is not None
    assert known.told(verbose=False, took=0.04) == ("in 0.0 s",)


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_changes_is_noticed(done: FinishedBuild, change: str) -> None:
    CHANGES[change](done)
    store = Store.open(done.env.store.root)  # As another process has it: the key is read again.
    assert recall_build(store, NAME, done.env.clock()) is None


def test_times_and_copies_without_another_content_are_no_change(done: FinishedBuild) -> None:
    os.utime(done.recipe)
    template = done.folder / "templates" / "demo.conf.j2"
    shutil.copy2(template, template.with_name("draft"))
    template.with_name("draft").replace(template)
    assert done.recalled() is not None


def test_a_build_is_remembered_for_a_day(done: FinishedBuild) -> None:
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
    monkeypatch.setattr("pipeline.snapshots.process_snapshot._OWN_STATUS", status)
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
