"""The stages from a recipe to its lock, each on what the one before it gives."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pipeline.digest import Digest
from pipeline.errors import ResolutionError
from pipeline.model.accounts import AccountTable, NumberedAccounts
from pipeline.model.lock import (
    Lock,
    LockedParent,
    LockMode,
    LockSection,
)
from pipeline.model.platform import Platform
from pipeline.model.recipe import LayerPlan
from pipeline.model.resolution import Resolution
from pipeline.prepare import (
    BuildOptions,
    LockPlan,
    group_layers,
    keep_lock,
    resolve,
)
from pipeline.prepare.build_options import RepositoryCache
from pipeline.progress import QUIET
from pipeline.resolve import LockAction, lock_update, read_lock, write_lock
from tests.support.patience import HUNG

NOBODY = AccountTable((), ())
SECTION = LockSection(Resolution("el9", "x86_64", (), ()), (("requests", Digest.of(b"a")),), 7)
OTHER = replace(SECTION, resolution=Resolution("el9", "aarch64", (), ()))
CONFIG = Digest.of(b"config")


def plan(
    folder: Path, section: LockSection | None = None, *, action: LockAction = LockAction.USE, **more: Any
) -> LockPlan:
    """A plan for a recipe `r` without packages, whose lock has `section` and one of another architecture."""
    lock = Lock("r", (OTHER, section)) if section else None
    if lock:
        write_lock(folder / "r.lock", lock)
    build_env = SimpleNamespace(progress=QUIET, store=None, environment={}, offline=False)
    given = {
        "recipe": SimpleNamespace(name="r", users=(), groups=(), layers=()),
        "platform": Platform("el9", ()),
        "path": folder / "r.lock",
        "lock": lock,
        "section": section,
        "inputs": SECTION.inputs,
        "keys": (),
        "why": ("it is stale",),
        "action": action,
        "cache": RepositoryCache(Platform("el9", ()), "x86_64", cast("Any", build_env)),
        "parent": None,
        **more,
    }
    return LockPlan(**given)


def kept(plan: LockPlan, section: LockSection, mode: LockMode = LockMode.DEFAULT) -> LockSection:
    """What `keep_lock` says the section is, which is also what stands in the file."""
    locked = keep_lock(plan, section, (), NumberedAccounts(NOBODY, ()), mode)
    stands = read_lock(plan.path)
    assert stands is not None and stands.section("el9", "x86_64") == locked.section
    assert locked.wrote is (locked.section != plan.section) and locked.first is (plan.section is None)
    return locked.section


def test_a_lock_that_is_fresh_is_what_is_resolved_and_no_repository_is_opened(tmp_path: Path) -> None:
    used = plan(tmp_path, SECTION)
    assert not used.resolves and resolve(used) is SECTION
    assert used.cache._opened is None


@pytest.mark.parametrize(
    ("section", "action"), [(None, LockAction.USE), (None, LockAction.RESOLVE), (SECTION, LockAction.RESOLVE)]
)
def test_what_has_no_lock_or_a_stale_one_is_resolved(
    section: LockSection | None, action: LockAction, tmp_path: Path
) -> None:
    assert plan(tmp_path, section, action=action).resolves


def test_a_new_lock_is_written_and_keeps_the_sections_of_others(tmp_path: Path) -> None:
    assert kept(plan(tmp_path), SECTION) == SECTION
    stale = plan(tmp_path, SECTION, action=LockAction.RESOLVE)
    assert kept(stale, replace(SECTION, build_time=8)).build_time == 8
    stands = read_lock(stale.path)
    assert stands is not None and stands.section("el9", "aarch64") == OTHER


def test_a_section_that_others_locked_meanwhile_is_kept(tmp_path: Path) -> None:
    """`relbuild lock` for another platform, which began and ended while this one resolved."""
    for used in (plan(tmp_path), plan(tmp_path, SECTION, action=LockAction.RESOLVE)):
        others = replace(SECTION, resolution=Resolution("el8", "x86_64", (), ()))
        newer = replace(OTHER, build_time=9)
        write_lock(used.path, Lock("r", (others, newer, replace(SECTION, build_time=5))))
        assert kept(used, replace(SECTION, build_time=8)).build_time == 8
        stands = read_lock(used.path)
        assert stands is not None and set(stands.sections) == {others, newer, replace(SECTION, build_time=8)}
        assert [path.name for path in tmp_path.iterdir()] == ["r.lock"]


def is_folder(handle: Any) -> bool:
    return stat.S_ISDIR(os.fstat(handle if isinstance(handle, int) else handle.fileno()).st_mode)


def test_two_that_lock_at_the_same_time_wait_for_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one begins when the first one has read the file, and has not written it yet."""
    second = plan(tmp_path)
    first = replace(second, platform=Platform("el8", ()))
    theirs = replace(SECTION, resolution=Resolution("el8", "x86_64", (), ()))
    write, pool = lock_update.write_lock, ThreadPoolExecutor(1)
    writing, waits = Event(), Event()
    began: list[Future[LockSection]] = []
    flock = fcntl.flock

    def lock_folder(handle: Any, how: int) -> None:
        try:
            flock(handle, how)
        except BlockingIOError:
            if writing.is_set() and is_folder(handle):
                waits.set()
            raise

    def write_first(path: Path, lock: Lock) -> Digest:
        monkeypatch.setattr(lock_update, "write_lock", write)
        writing.set()
        began.append(pool.submit(kept, second, SECTION))
        assert waits.wait(HUNG), "the second one waits for no lock"
        return write(path, lock)

    monkeypatch.setattr(fcntl, "flock", lock_folder)
    monkeypatch.setattr(lock_update, "_LOCK_TIMEOUT", HUNG)
    monkeypatch.setattr(lock_update, "write_lock", write_first)
    with pool:
        keep_lock(first, theirs, (), NumberedAccounts(NOBODY, ()), LockMode.DEFAULT)
        began[0].result(HUNG)
    stands = read_lock(second.path)
    assert stands is not None and set(stands.sections) == {theirs, SECTION}


def test_a_file_system_without_locks_hinders_no_lock_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flock = fcntl.flock

    def refuse(handle: Any, how: int) -> None:
        if is_folder(handle):
            raise OSError(errno.EBADF, "refused")
        flock(handle, how)

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert kept(plan(tmp_path), SECTION) == SECTION


def test_who_keeps_the_folder_locked_hinders_no_lock_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that does not end, or this process itself."""
    monkeypatch.setattr(lock_update, "_LOCK_TIMEOUT", 0.05)
    handle = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        assert kept(plan(tmp_path), SECTION) == SECTION
    finally:
        os.close(handle)


def test_a_lock_that_says_the_same_is_left_alone(tmp_path: Path) -> None:
    same = plan(tmp_path, SECTION)
    before = same.path.stat().st_ino
    assert kept(same, SECTION) == SECTION
    assert same.path.stat().st_ino == before


def test_repositories_that_moved_on_and_offer_the_same_change_no_lock(tmp_path: Path) -> None:
    section = replace(SECTION, metadata=(("base", Digest.of(b"then")),))
    moved = replace(section, metadata=(("base", Digest.of(b"now")),))
    assert kept(plan(tmp_path, section, action=LockAction.RESOLVE), moved) == section


def test_a_parent_that_is_the_same_image_otherwise_compressed_changes_no_lock(tmp_path: Path) -> None:
    section = replace(SECTION, parent=LockedParent("base", Digest.of(b"gzip"), CONFIG))
    again = replace(SECTION, parent=LockedParent("base", Digest.of(b"zstd"), CONFIG))
    parent = SimpleNamespace(config=CONFIG)
    assert kept(plan(tmp_path, section, parent=parent), again) == section
    other = SimpleNamespace(config=Digest.of(b"another"))
    assert kept(plan(tmp_path, section, parent=other), again) == again


def test_a_section_that_was_changed_is_written_again_even_if_it_comes_out_the_same(tmp_path: Path) -> None:
    changed = replace(SECTION, written_as=Digest.of(b"another"))
    found = plan(tmp_path, changed, action=LockAction.RESOLVE)
    assert kept(found, SECTION) == SECTION
    with pytest.raises(ResolutionError):
        keep_lock(found, SECTION, (), NumberedAccounts(NOBODY, ()), LockMode.LOCKED)


def test_another_section_that_was_changed_stays_so(tmp_path: Path) -> None:
    changed = replace(OTHER, written_as=Digest.of(b"another"))
    found = plan(tmp_path, SECTION, action=LockAction.RESOLVE)
    write_lock(found.path, Lock("r", (changed, SECTION)))
    kept(found, replace(SECTION, build_time=8))
    stands = read_lock(found.path)
    assert stands is not None and stands.section("el9", "aarch64") == changed


def test_a_section_from_before_there_was_a_digest_is_not_written_for_it(tmp_path: Path) -> None:
    found = plan(tmp_path, SECTION)
    older = re.sub(r"\ndigest = .*", "", found.path.read_text())
    found.path.write_text(older)
    assert kept(replace(found, lock=read_lock(found.path)), SECTION, LockMode.LOCKED) == SECTION
    assert found.path.read_text() == older


def test_a_locked_build_writes_nothing(tmp_path: Path) -> None:
    lacking = plan(tmp_path, SECTION)
    before = lacking.path.read_bytes()
    with pytest.raises(ResolutionError, match="numeric IDs") as refused:
        keep_lock(
            lacking, replace(SECTION, accounts=(("user", "a", 900),)), (), NumberedAccounts(NOBODY, ()), LockMode.LOCKED
        )
    assert refused.value.code == "lock-stale"
    assert lacking.path.read_bytes() == before


def test_layers_that_group_themselves_are_grouped_only_when_packages_are_resolved(tmp_path: Path) -> None:
    recipe = SimpleNamespace(name="r", users=(), groups=(), layers=(LayerPlan("base", (), at_most=2),))
    order = BuildOptions(tmp_path / "r.yaml", tmp_path / "repositories.yaml")
    assert group_layers(plan(tmp_path, SECTION, recipe=recipe), SECTION, order) is SECTION
    resolved = plan(tmp_path, SECTION, action=LockAction.RESOLVE, recipe=recipe)
    assert group_layers(resolved, SECTION, order) == SECTION
